//! TABLE of the built-in services. They are ordinary workers of the built-in execd: this program
//! again, as `isectd service NAME`. `builtin_services` has what the broker does with them.

use protocol::ServiceSetting;

/// A built-in service.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// The name of the service. Its number in the table is that of its ids, for good.
    pub name: &'static str,
    /// The roles that it has as a client of the broker: these, whatever tokens say.
    pub rights: &'static [&'static str],
    /// Settings of the service that are not the usual ones.
    pub settings: &'static [(ServiceSetting, u64)],
    /// What it is for.
    pub text: &'static str,
}

/// The value of `start` that means on demand.
const START_DEMAND: u64 = 1;

impl BuiltIn {
    /// When it begins to run, as the documents say it.
    pub fn begins(&self) -> &'static str {
        let start = self.settings.iter().find(|(setting, _)| *setting == ServiceSetting::Start);
        match start {
            Some((_, START_DEMAND)) => "on demand",
            Some(_) | None => "with the broker",
        }
    }
}

/// All of them. A row is never removed, and a new one comes last: a broker finds the processes that
/// an earlier one started by their ids.
pub const BUILT_IN: &[BuiltIn] = &[BuiltIn {
    name: "health",
    rights: &["operator:read"],
    settings: &[(ServiceSetting::Start, START_DEMAND), (ServiceSetting::DeadlineMs, 10_000)],
    text: "says whether this broker, or some of its services, can do its work, and if not, why \
           (`isdclient health`)",
}];

/// The row of a name.
pub fn row_of(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|row| row.name == name)
}

/// The program of the built-in services, and which of them are on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuiltInProgram {
    /// The path of this program.
    pub path: String,
    /// Where they log in as clients.
    pub client: String,
    /// Those that are on (`--with`).
    pub names: Vec<&'static str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{Rights, ServiceName};

    #[test]
    fn the_table_says_what_can_be() {
        for row in BUILT_IN {
            assert!(ServiceName::new(row.name).is_ok_and(|name| !name.is_op()), "{}", row.name);
            assert_ne!(row.name, protocol::limits::BUS_SERVICE);
            let mut rights = Rights::default();
            row.rights.iter().try_for_each(|role| rights.add(role)).unwrap();
            assert!(!rights.may(protocol::Effect::Danger), "{} may do anything", row.name);
            for (setting, value) in row.settings {
                let written = setting.row().written(*value).to_string();
                assert_eq!(setting.check(&written), Ok(*value), "{}: {setting:?}", row.name);
            }
            assert_eq!(BUILT_IN.iter().filter(|other| other.name == row.name).count(), 1);
        }
    }
}
