//! The flags beside the states: the fields of what has a state that are there, or hold, only now
//! and then, from the sources. The doc comment of each says why it is none of the state, from
//! "Independent" on, or in which states it is there, from "Valid" on.

use crate::docs::root;
use std::fmt::Write as _;

/// What has a state, or is part of it: the file, below the root, and the name of the struct.
const OWNERS: &[(&str, &str)] = &[
    ("broker/src/engine/catalog.rs", "Service"),
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

/// Most fields of type `bool` that one struct may have.
const BOOLS_MAX: usize = 3;

/// Types of which one value says that there is nothing.
const OPTIONAL: &[&str] = &["bool", "Option<", "OptionKey<"];
/// What a doc comment says of a value that stands for nothing.
const NOTHING: &[&str] = &["`None` = ", " 0 = ", "empty = "];
/// What the reason begins with.
const REASONS: &[&str] = &["Independent of ", "Valid "];

/// A field that is there, or holds, only now and then.
#[derive(Debug, PartialEq, Eq)]
struct Flag {
    name: String,
    is_bool: bool,
    /// Why it is none of the state, or in which states it is valid.
    why: String,
}

/// The flags of a struct.
fn flags_of(code: &str, owner: &str) -> Vec<Flag> {
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
        let Some((name, kind)) = line.split_once(": ") else { continue };
        let name = name.rsplit(' ').next().unwrap_or(name);
        let is_flag = OPTIONAL.iter().any(|begin| kind.starts_with(begin))
            || NOTHING.iter().any(|words| doc.contains(words));
        let at = REASONS.iter().filter_map(|word| doc.find(&format!(" {word}"))).min();
        let why = at.map(|at| doc[at + 1..].trim_end_matches('.').to_owned());
        assert!(
            why.is_some() || !is_flag,
            "{owner}::{name}: say in its doc comment what it is 'Independent of', and why, or in \
             which states it is 'Valid'; or make it part of a state"
        );
        let is_bool = kind == "bool,";
        flags.extend(why.map(|why| Flag { name: name.to_owned(), is_bool, why }));
    }
    flags
}

/// The table of `docs/architecture.md`.
pub fn page() -> String {
    let mut out = String::from(
        "| owner | field | why it is no state, or when it is valid |\n| --- | --- | --- |\n",
    );
    for (path, owner) in OWNERS {
        let code = std::fs::read_to_string(root().join(path)).expect("a source");
        let flags = flags_of(&code, owner);
        let bools = flags.iter().filter(|flag| flag.is_bool).count();
        assert!(bools <= BOOLS_MAX, "{owner} has more than {BOOLS_MAX} of type bool: {flags:?}");
        for Flag { name, why, .. } in flags {
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
        pub(crate) is_paused: bool,\n    /// Why; `None` = unknown. Valid in `Down`.\n    \
        why: Option<String>,\n    /// When it is killed. Valid in `Exiting`.\n    due: Tick,\n}\n\n\
        struct Other {\n    /// It is.\n    is_bare: bool,\n}\n\n\
        struct Third {\n    /// Its pid; 0 = it has none.\n    pid: u32,\n}\n\n\
        struct Fourth {\n    /// Its link.\n    link: Option<u32>,\n}\n";

    #[test]
    fn a_flag_is_listed_with_its_reason() {
        let flags = flags_of(CODE, "Worker");
        let flag = |name: &str, is_bool, why: &str| Flag {
            name: name.to_owned(),
            is_bool,
            why: why.to_owned(),
        };
        let want = [
            flag("is_paused", true, "Independent of the state: a paused one runs"),
            flag("why", false, "Valid in `Down`"),
            flag("due", false, "Valid in `Exiting`"),
        ];
        assert_eq!(flags, want);
    }

    #[test]
    #[should_panic(expected = "Other::is_bare: say in its doc comment")]
    fn a_flag_without_a_reason_is_refused() {
        flags_of(CODE, "Other");
    }

    #[test]
    #[should_panic(expected = "Third::pid: say in its doc comment")]
    fn a_number_that_stands_for_nothing_is_a_flag() {
        flags_of(CODE, "Third");
    }

    #[test]
    #[should_panic(expected = "Fourth::link: say in its doc comment")]
    fn an_option_is_a_flag() {
        flags_of(CODE, "Fourth");
    }
}
