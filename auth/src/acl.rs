//! Finds out who else can write to a file: the users and groups that its access list (`getfacl`,
//! acl(5)) names beside those of the mode. Whether they may is decided by whoever asks.

/// Tags of an entry: a named user, a named group, the mask of both.
const USER: u16 = 0x02;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
/// The permission to write.
const WRITE: u16 = 0x02;
/// The version number at the beginning of the attribute `system.posix_acl_access`.
const VERSION: u32 = 2;

/// A user or group that can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The user with this id.
    User(u32),
    /// The group with this id.
    Group(u32),
}

/// The users and groups that an access list lets write; `list` is the attribute's bytes. Empty if
/// it is not a valid list.
pub fn writers(list: &[u8]) -> Vec<Writer> {
    let Some((version, entries)) = list.split_at_checked(4) else { return Vec::new() };
    if version != VERSION.to_le_bytes() {
        return Vec::new();
    }
    let entries = || {
        entries.chunks_exact(8).map(|entry| {
            let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            let [kind, rights] =
                [[entry[0], entry[1]], [entry[2], entry[3]]].map(u16::from_le_bytes);
            (kind, rights, id)
        })
    };
    let mask = entries().find(|(kind, ..)| *kind == MASK).map_or(WRITE, |(_, rights, _)| rights);
    entries()
        .filter(|(_, rights, _)| rights & mask & WRITE != 0)
        .filter_map(|(kind, _, id)| match kind {
            USER => Some(Writer::User(id)),
            GROUP => Some(Writer::Group(id)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of an access list with these entries.
    pub(crate) fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (kind, rights, id) in entries {
            bytes.extend(kind.to_le_bytes());
            bytes.extend(rights.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn named_users_and_groups_write_as_far_as_the_mask_lets_them() {
        let entries = |mask| {
            list(&[(1, 7, u32::MAX), (USER, 6, 7), (USER, 5, 8), (4, 7, u32::MAX), (GROUP, 3, 9)])
                .into_iter()
                .chain(list(&[(MASK, mask, u32::MAX), (0x20, 7, u32::MAX)]).split_off(4))
                .collect::<Vec<u8>>()
        };
        assert_eq!(writers(&entries(7)), [Writer::User(7), Writer::Group(9)]);
        assert_eq!(writers(&entries(5)), []);
        assert_eq!(writers(&[]), []);
        assert_eq!(writers(&[9, 0, 0, 0, 2, 0, 2, 0, 1, 0, 0, 0]), [], "another version");
    }
}
