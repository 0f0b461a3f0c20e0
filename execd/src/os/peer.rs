//! Decides which users of this machine may use an execd without a token. Every user of the machine
//! can reach a loopback port, but only this user may start programs as this user.

use nix::unistd::{Uid, User};

/// Why the owner of a connection may not use this execd; `None` = it may.
pub(super) fn other_user(uid: Option<u32>) -> Option<String> {
    let me = Uid::effective();
    match uid.map(Uid::from_raw) {
        Some(uid) if uid == me || uid.is_root() => None,
        Some(uid) => Some(format!(
            "execd runs as user {} and starts programs for that user alone, not for {}; run the \
             broker as the same user",
            name(me),
            name(uid)
        )),
        None => Some(
            "the kernel does not tell whose connection this is; use unix:PATH, or --insecure with \
             --allow"
                .into(),
        ),
    }
}

fn name(uid: Uid) -> String {
    let known = User::from_uid(uid).ok().flatten();
    known.map_or_else(|| uid.to_string(), |user| format!("{} ({uid})", user.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_user_and_root_may_use_it() {
        assert_eq!(other_user(Some(Uid::effective().as_raw())), None);
        assert_eq!(other_user(Some(0)), None);
        assert!(other_user(Some(4_000_000)).unwrap().contains("4000000"));
        assert!(other_user(None).unwrap().contains("--insecure"));
    }
}
