//! Reads the arguments of the commands about instances and groups.

use super::args::Args;
use super::parse::OpError;
use super::spec::{GROUP_MIN_MAX, GroupMembers, InstanceWanted, InstancesOf};
use super::words;
use crate::names::ServiceName;

/// Longest name of a machine: that of an address.
const MACHINE_BYTES_MAX: usize = 64;

impl Args<'_> {
    /// A name by the rules of names of services; `what` says what it names.
    fn name_of(&mut self, name: &str, what: &str) -> Result<ServiceName, OpError> {
        let word = self.next(name)?;
        ServiceName::new(word).map_err(|e| {
            self.error(e.to_string().replacen("service name", &format!("{what} name"), 1))
        })
    }

    pub(super) fn group(&mut self, name: &str) -> Result<ServiceName, OpError> {
        self.name_of(name, "group")
    }

    /// Takes `group GROUP`, `name NAME`, `history`, `all`, or a name alone.
    pub(super) fn instances_of(&mut self) -> Result<InstancesOf, OpError> {
        let is_last = self.is_last();
        match self.peek() {
            Some("all") => self.skip(InstancesOf::All),
            Some("history") => self.skip(InstancesOf::History),
            Some("group") if is_last => {
                Err(self.error("the name of the group is missing; 'groups' lists them"))
            }
            Some("group") => {
                self.skip(())?;
                self.group("name").map(InstancesOf::Group)
            }
            Some("name") if !is_last => {
                self.skip(())?;
                self.name_of("name", "instance").map(InstancesOf::Name)
            }
            Some(_) | None => self.name_of("name", "instance").map(InstancesOf::Name),
        }
    }

    /// Takes `NAME [ID [MACHINE]]`.
    pub(super) fn instance_wanted(&mut self) -> Result<InstanceWanted, OpError> {
        let name = self.name_of("name", "instance")?;
        let id = self.maybe(|args| args.number("id", "id of an instance", 0, u64::MAX))?;
        let machine = self.maybe(|args| args.next("machine").map(str::to_owned))?;
        if let Some(machine) = machine.as_ref().filter(|name| name.len() > MACHINE_BYTES_MAX) {
            return Err(self.error(format_args!(
                "machine '{}' has {} bytes; at most {MACHINE_BYTES_MAX} are allowed",
                words::shown(machine),
                machine.len()
            )));
        }
        Ok(InstanceWanted { name, id, machine })
    }

    /// Takes `[min=N] [MEMBER]…`, in any order.
    pub(super) fn group_members(&mut self) -> Result<GroupMembers, OpError> {
        let mut group = GroupMembers::default();
        while let Some(word) = self.peek() {
            if let Some(min) = word.strip_prefix("min=") {
                self.skip(())?;
                if group.min.is_some() {
                    return Err(self.error("min is given twice"));
                }
                group.min = Some(self.number_in(min, "min", 1, GROUP_MIN_MAX)?);
                continue;
            }
            if word.contains('=') {
                return Err(self.error(format_args!(
                    "'{}' is no setting of a group; there is min",
                    words::shown(word)
                )));
            }
            let member = self.name_of("member", "instance")?;
            if group.members.contains(&member) {
                return Err(self.error(format_args!(
                    "member '{member}' is named twice; min says how many have to run"
                )));
            }
            group.members.push(member);
        }
        Ok(group)
    }
}
