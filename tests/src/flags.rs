//! The flags beside the states: the fields of type `bool` of what has a state, from the sources.
//! The doc comment of each says why it is none of the state: from "Independent" on.

use crate::docs::root;
use std::fmt::Write as _;

/// What has a state, or is part of it: the file, below the root, and the name of the struct.
const OWNERS: &[(&str, &str)] = &[
    ("broker/src/engine/supervision/workers.rs", "Worker"),
    ("broker/src/engine/supervision/workers.rs", "WorkerConnection"),
    ("broker/src/engine/supervision/run.rs", "Run"),
    ("broker/src/engine/supervision/restart.rs", "Restart"),
    ("broker/src/engine/supervision/host.rs", "Host"),
    ("broker/src/engine/supervision/host.rs", "HostConnection"),
    ("broker/src/engine/sessions/connection.rs", "Connection"),
    ("broker/src/engine/sessions/clients.rs", "Client"),
    ("broker/src/engine/dispatch/seat.rs", "Seat"),
    ("broker/src/engine/dispatch/caller.rs", "Caller"),
    ("broker/src/engine/dispatch/transaction.rs", "Transaction"),
    ("execd/src/engine/child.rs", "Child"),
];

/// Most flags that one struct may have.
const FLAGS_MAX: usize = 3;

/// The flags of a struct: the name of each, and why it is independent.
fn flags_of(code: &str, owner: &str) -> Vec<(String, String)> {
    let (_, rest) =
        code.split_once(&format!("struct {owner} {{\n")).unwrap_or_else(|| panic!("no {owner}"));
    let (fields, _) = rest.split_once("\n}").expect("the end of a struct");
    let (mut flags, mut doc) = (Vec::new(), String::new());
    for line in fields.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc += text;
            continue;
        }
        let doc = std::mem::take(&mut doc);
        let Some(name) = line.strip_suffix(": bool,") else { continue };
        let name = name.rsplit(' ').next().unwrap_or(name);
        let why = doc.find("Independent").map(|at| doc[at..].trim_end_matches('.'));
        let why = why.unwrap_or_else(|| {
            panic!(
                "{owner}::{name}: say in its doc comment what it is 'Independent of', and why; or \
                 make it part of a state"
            )
        });
        flags.push((name.to_owned(), why.to_owned()));
    }
    flags
}

/// The table of `docs/architecture.md`.
pub fn page() -> String {
    let mut out = String::from("| owner | flag | why it is no state |\n| --- | --- | --- |\n");
    for (path, owner) in OWNERS {
        let code = std::fs::read_to_string(root().join(path)).expect("a source");
        let flags = flags_of(&code, owner);
        assert!(flags.len() <= FLAGS_MAX, "{owner} has more than {FLAGS_MAX} flags: {flags:?}");
        for (name, why) in flags {
            let _ = writeln!(out, "| `{owner}` | `{name}` | {why} |");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "pub(crate) struct Worker {\n    /// Its id.\n    pub(crate) id: u32,\n    \
        /// After `pause`. Independent of the state: a\n    /// paused one runs.\n    \
        pub(crate) is_paused: bool,\n}\n\nstruct Other {\n    /// It is.\n    is_bare: bool,\n}\n";

    #[test]
    fn a_flag_is_listed_with_its_reason() {
        let flags = flags_of(CODE, "Worker");
        let why = "Independent of the state: a paused one runs";
        assert_eq!(flags, [("is_paused".to_owned(), why.to_owned())]);
    }

    #[test]
    #[should_panic(expected = "Other::is_bare: say in its doc comment")]
    fn a_flag_without_a_reason_is_refused() {
        flags_of(CODE, "Other");
    }
}
