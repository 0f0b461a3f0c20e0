//! Who else can write to a file: the users and groups that an access list (`getfacl`) names beside
//! those of the mode. Not what follows from it: `check` decides that.

/// The kind of an entry that names a user, one that names a group, the mask of both.
const USER: u16 = 0x02;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
/// The right to write.
const WRITE: u16 = 0x02;
/// The first number of the attribute `system.posix_acl_access`.
const VERSION: u32 = 2;

/// One who can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// A user.
    User(u32),
    /// A group.
    Group(u32),
}

/// Those who can write by an access list, as the attribute's bytes have it; none if it is no list.
pub(super) fn writers(list: &[u8]) -> Vec<Writer> {
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

    /// The bytes of a list.
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
