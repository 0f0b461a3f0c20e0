//! The user that workers run as: looks up a name or number of the command line, with its group and
//! all groups. `child_setup` changes to it between fork and exec.

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use std::ffi::CString;
use sys::processes::{CapabilitySet, has_capability};

/// A user with its groups, looked up once at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user id, which also owns new files.
    pub uid: Uid,
    /// The group of new files.
    pub gid: Gid,
    /// All groups, `gid` included.
    pub groups: Vec<Gid>,
    /// Whether the command line named the group, which then replaces all groups of the user.
    pub is_with_group: bool,
    /// `USER`, `LOGNAME`, `HOME` and `SHELL`; empty if the system does not know the user.
    pub variables: Vec<(&'static str, String)>,
}

impl Account {
    /// Looks up `NAME`, `UID`, `NAME:GROUP` or `UID:GROUP`; the group is a name or a number.
    ///
    /// # Errors
    /// There is no such user or group, or the user is a number that the system does not know and no
    /// group is given.
    pub fn find(text: &str) -> Result<Self, String> {
        let shown = text.escape_debug();
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let known = match user.parse() {
            Ok(number) => User::from_uid(Uid::from_raw(number)),
            Err(_) => User::from_name(user),
        };
        let known = known.map_err(|error| format!("user '{shown}' can't be looked up: {error}"))?;
        let uid = match (&known, user.parse()) {
            (Some(known), _) => known.uid,
            (None, Ok(number)) => Uid::from_raw(number),
            (None, Err(_)) => return Err(format!("there is no user '{shown}' on this host")),
        };
        let gid = match (group, &known) {
            (Some(group), _) => find_group(group)?,
            (None, Some(known)) => known.gid,
            (None, None) => {
                return Err(format!(
                    "user {uid} is not known to this host, so its group must be named: {uid}:GROUP"
                ));
            }
        };
        // The kernel reads -1 as "leave it unchanged".
        if uid.as_raw() == u32::MAX || gid.as_raw() == u32::MAX {
            return Err(format!("'{shown}' is no user: {} is not a number of one", u32::MAX));
        }
        let groups = match &known {
            // A group that was named replaces all others.
            Some(known) if group.is_none() => CString::new(known.name.as_str())
                .ok()
                .and_then(|name| getgrouplist(&name, gid).ok())
                .unwrap_or_else(|| vec![gid]),
            Some(_) | None => vec![gid],
        };
        let variables = known.map(variables).unwrap_or_default();
        Ok(Self { uid, gid, groups, is_with_group: group.is_some(), variables })
    }
}

fn variables(user: User) -> Vec<(&'static str, String)> {
    let home = user.dir.to_string_lossy().into_owned();
    let shell = user.shell.to_string_lossy().into_owned();
    vec![("USER", user.name.clone()), ("LOGNAME", user.name), ("HOME", home), ("SHELL", shell)]
}

fn find_group(text: &str) -> Result<Gid, String> {
    if let Ok(number) = text.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(format!("there is no group '{}' on this host", text.escape_debug())),
        Err(error) => Err(format!("group '{}': {error}", text.escape_debug())),
    }
}

/// Whether this process may change its user: it is root or has the two capabilities.
pub(super) fn may_change() -> bool {
    has_capability(CapabilitySet::SETUID | CapabilitySet::SETGID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number_and_groups_replace_theirs() {
        let root = Account::find("root").unwrap();
        assert_eq!((root.uid, root.gid), (Uid::from_raw(0), Gid::from_raw(0)));
        assert!(root.variables.contains(&("USER", "root".to_owned())), "{root:?}");
        assert_eq!(Account::find("0").unwrap(), root);
        let other = Account::find("root:4711").unwrap();
        assert_eq!((other.gid, other.groups), (Gid::from_raw(4711), vec![Gid::from_raw(4711)]));
        let number = Account::find("4000000:4000001").unwrap();
        assert_eq!((number.uid.as_raw(), number.gid.as_raw()), (4_000_000, 4_000_001));
        assert!(number.variables.is_empty());
    }

    #[test]
    fn what_is_no_user_is_refused_with_the_cure() {
        for (text, part) in [
            ("no-such-user", "there is no user"),
            ("4000000", "4000000:GROUP"),
            ("root:no-such-group", "there is no group"),
            ("", "there is no user"),
            ("-1", "there is no user"),
            ("4294967295:1", "is no user"),
            ("1:4294967295", "is no user"),
        ] {
            let error = Account::find(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
