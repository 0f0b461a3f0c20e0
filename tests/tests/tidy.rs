//! The house rules that neither the compiler nor clippy checks, as tests; each message names the
//! cure. docs/style.md has the rules for people.

use isect_tests::docs;
use std::path::{Path, PathBuf};

/// Longest line of a source file.
const LINE_MAX: usize = 100;
/// Most lines of code in a file: no blank lines, comments or unit tests.
const FILE_MAX: usize = 400;
/// The same for a file that is a table.
const TABLE_MAX: usize = 600;
/// Most lines of a function that is no exhaustive match.
const FUNCTION_MAX: usize = 70;

/// Files that are tables or plain lists of types.
const TABLES: &[&str] = &[
    "protocol/src/op/shape.rs",
    "table.rs",
    "errors.rs",
    "kinds.rs",
    "settings.rs",
    "fact.rs",
    "bodies.rs",
    "spec.rs",
];

/// What a `use` of a pure module may begin with.
const PURE: &[&str] = &[
    "super",
    "crate",
    "self",
    "protocol",
    "bytes",
    "slab",
    // Addresses are values; sockets are in std::net.
    "core::net",
    "std::collections",
    "std::fmt",
    "std::mem",
    "std::ops",
    "std::sync::Arc",
    // Numbers that a program and its library share; no lock, no clock.
    "std::sync::atomic",
    "std::cmp",
    "std::str",
    "std::iter",
    "std::marker",
    "std::num",
    "std::error",
    "std::time::Duration",
    "std::borrow",
    // Only values: nothing there can open a socket.
    "core::net::",
];

/// What the JSON view may use besides: it writes into memory by the traits of these.
const JSON: &[&str] = &["serde", "std::io"];

/// Names, or ends of names, of variables that are keys of the engine's tables.
const KEYS: &[&str] = &["key", "client", "worker", "service", "transaction", "host"];
/// Types that keys must not have, because they would fit every table.
const BARE_KEYS: &[&str] = &[
    "(usize)",
    "(usize, &",
    "(usize, TransactionId)",
    "Item = usize",
    "Index<usize>",
    "IndexMut<usize>",
    "Vec<usize>",
    "VecDeque<usize>",
    "BTreeSet<usize>",
    "BTreeMap<usize,",
    "slab::",
];

fn sources() -> Vec<(String, String)> {
    let root = docs::root();
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = [
        "protocol",
        "auth",
        "sys",
        "transport",
        "broker",
        "execd",
        "client",
        "admin-cli",
        "benches",
        "tests",
    ]
    .iter()
    .map(|module| root.join(module))
    .collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the project") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("fuzz") {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let name = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().into_owned();
                files.push((name, std::fs::read_to_string(&path).expect("a source file")));
            }
        }
    }
    files.sort();
    assert!(files.len() > 50, "only {} source files found", files.len());
    files
}

/// The text of a file up to its unit tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

fn code_lines(text: &str) -> usize {
    without_tests(text)
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .count()
}

/// Name and length of each function of a formatted file, and whether it has a `match`.
fn functions(text: &str) -> Vec<(String, usize, bool)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some(name) = code.split("fn ").nth(1).filter(|_| !code.starts_with("//")) else {
            continue;
        };
        if !(code.starts_with("fn ")
            || code.starts_with("pub")
            || code.starts_with("const fn")
            || code.starts_with("unsafe"))
        {
            continue;
        }
        let indent = line.len() - code.len();
        let closing = format!("{}}}", " ".repeat(indent));
        let Some(length) = lines[at..].iter().position(|line| **line == closing) else { continue };
        let is_match = lines[at..at + length]
            .iter()
            .any(|line| line.trim_start().starts_with("match ") || line.contains("(match "));
        let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        found.push((name, length + 1, is_match));
    }
    found
}

/// Whether a `use` names a module of the same file, or a variant.
fn is_own(text: &str, path: &str) -> bool {
    let first = path.split("::").next().unwrap_or(path);
    let is_variant = first.starts_with(|c: char| c.is_ascii_uppercase());
    is_variant || text.contains(&format!("mod {first};"))
}

/// Whether a line is long because of a text that can't be broken without harm.
fn has_long_text(line: &str) -> bool {
    line.split('"').skip(1).step_by(2).any(|text| text.chars().count() > 40)
}

fn complain(what: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{what}:\n  {}", faults.join("\n  "));
}

#[test]
fn every_file_says_what_it_is() {
    let faults: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(name, _)| name)
        .collect();
    complain(
        "these files do not open with `//!`: say what the file is, and what it is not",
        &faults,
    );
}

#[test]
fn lines_files_and_functions_are_short() {
    let mut faults = Vec::new();
    for (name, text) in sources() {
        let is_table = TABLES.iter().any(|table| name.ends_with(table));
        let mut is_text = false;
        for (at, line) in text.lines().enumerate() {
            // A text over several lines goes on while lines end with a backslash, and ends with the
            // line after them.
            let goes_on = std::mem::replace(&mut is_text, line.ends_with('\\'));
            let columns = line.chars().count();
            if columns > LINE_MAX && !(is_table || is_text || goes_on || has_long_text(line)) {
                let cure = format!("at most {LINE_MAX}: run cargo fmt");
                faults.push(format!("{name}:{}: {columns} columns; {cure}", at + 1));
            }
        }
        // A file of tests is a list of cases, like a table.
        let max = if is_table || name.contains("tests/") { TABLE_MAX } else { FILE_MAX };
        let lines = code_lines(&text);
        if lines > max {
            faults.push(format!("{name}: {lines} lines, at most {max}: is it two modules?"));
        }
        for (function, length, is_match) in functions(without_tests(&text)) {
            if length > FUNCTION_MAX && !is_match && !name.starts_with("tests/tests/") {
                faults.push(format!(
                    "{name}: fn {function} has {length} lines; at most {FUNCTION_MAX}"
                ));
            }
        }
    }
    complain("too long", &faults);
}

#[test]
fn pure_modules_name_nothing_that_could_do_io() {
    let mut faults = Vec::new();
    for (name, text) in sources() {
        let is_pure =
            ["broker/src/engine/", "broker/src/translate/", "execd/src/engine/", "protocol/src/"]
                .iter()
                .any(|module| name.starts_with(module))
                || [
                    "client/src/session.rs",
                    "client/src/topics.rs",
                    "client/src/instances.rs",
                    "client/src/bus/session.rs",
                ]
                .contains(&name.as_str());
        if !is_pure {
            continue;
        }
        let extra = if name == "broker/src/translate/json.rs" { JSON } else { &[] };
        for (at, line) in without_tests(&text).lines().enumerate() {
            let code = line.trim_start();
            let code = code.strip_prefix("pub ").unwrap_or(code);
            if let Some(path) = code.strip_prefix("use ")
                && !is_own(&text, path)
                && !PURE.iter().chain(extra).any(|allowed| path.starts_with(allowed))
            {
                faults.push(format!("{name}:{}: {path} is not for a pure module", at + 1));
            }
            for banned in [
                "Instant",
                "SystemTime",
                "HashMap",
                "std::thread",
                "std::net",
                "std::fs",
                "std::env",
                "println!",
            ] {
                if code.contains(banned) && !code.starts_with("//") {
                    faults.push(format!(
                        "{name}:{}: {banned} is not for a pure module; take it as an input",
                        at + 1
                    ));
                }
            }
        }
    }
    complain("the wall", &faults);
}

/// Whether a line gives a key the type of an index: `worker: usize`, `op_service: Option<usize>`.
fn has_bare_key(code: &str) -> bool {
    let is_key = |name: &str| {
        let from = name.rfind(|c: char| !c.is_alphanumeric()).map_or(0, |at| at + 1);
        KEYS.contains(&&name[from..])
    };
    [": usize", ": &usize", ": Option<usize>"]
        .iter()
        .any(|bare| code.match_indices(bare).any(|(at, _)| is_key(&code[..at])))
}

#[test]
fn keys_of_the_engines_tables_have_types_of_their_own() {
    assert!(has_bare_key("fn bind(&mut self, key: TransactionKey, worker: usize) {"));
    assert!(has_bare_key("op_service: Option<usize>,") && !has_bare_key("workers: usize,"));
    let mut faults = Vec::new();
    for (name, text) in sources() {
        if !name.starts_with("broker/src/engine/") || name.ends_with("/keys.rs") {
            continue;
        }
        for (at, line) in without_tests(&text).lines().enumerate() {
            let code = line.trim_start();
            let is_bare = has_bare_key(code) || BARE_KEYS.iter().any(|bare| code.contains(bare));
            if is_bare && !code.starts_with("//") {
                faults.push(format!("{name}:{}: {code}", at + 1));
            }
        }
    }
    complain("a bare usize is no key: take one of engine/keys.rs, and its Table", &faults);
}

#[test]
fn nothing_is_left_open() {
    let own = Path::new(file!()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut faults = Vec::new();
    for (name, text) in sources().into_iter().filter(|(name, _)| !name.ends_with(&own)) {
        for (at, line) in text.lines().enumerate() {
            for banned in ["todo!(", "unimplemented!(", "#[ignore", "FIXME", "XXX", "dbg!("] {
                if line.contains(banned) {
                    faults.push(format!("{name}:{}: {banned} is left", at + 1));
                }
            }
        }
    }
    complain("finish it or take it out", &faults);
}

#[test]
fn unsafe_stands_in_sys_and_in_the_fork() {
    let faults: Vec<String> = sources()
        .into_iter()
        .filter(|(name, text)| {
            let is_allowed = name.starts_with("sys/src/")
                || ["spawn", "launch", "child_setup"]
                    .iter()
                    .any(|fork| name == &format!("execd/src/os/{fork}.rs"))
                // It uses file leases, which no crate offers.
                || name == "execd/tests/common/lease.rs"
                || name.starts_with("tests/tests/tidy")
                || name.starts_with("benches/");
            !is_allowed
                && text
                    .lines()
                    .any(|line| line.contains("unsafe ") && !line.trim_start().starts_with("//"))
        })
        .map(|(name, _)| name)
        .collect();
    complain("unsafe outside sys and the fork of execd", &faults);
}

#[test]
fn every_unsafe_says_why_it_is_sound() {
    let mut faults = Vec::new();
    for (name, text) in sources() {
        if name.starts_with("tests/tests/tidy") {
            continue;
        }
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let is_unsafe = ["unsafe {", "unsafe impl "].iter().any(|word| code.contains(word));
            if code.starts_with("//") || !is_unsafe {
                continue;
            }
            // The comment is right above it, above an attribute, or at the beginning of the
            // statement.
            let above = lines[at.saturating_sub(6)..at].iter();
            if !above.clone().any(|line| line.trim_start().starts_with("// SAFETY:")) {
                faults.push(format!("{name}:{}: {code}", at + 1));
            }
        }
    }
    complain("unsafe without a SAFETY line", &faults);
}

/// How many words of a page's line could be on different lines. Text in backticks is one word, and
/// so is the address of a link.
fn breakable_words(line: &str) -> usize {
    let text = line.trim_start_matches([' ', '-', '*']);
    let outside: Vec<&str> = text.split('`').step_by(2).collect();
    outside.join("x").split_whitespace().count()
}

#[test]
fn pages_have_lines_that_people_can_read() {
    let mut faults = Vec::new();
    for (name, text) in docs::texts().iter().filter(|(name, _)| name.ends_with(".md")) {
        let mut is_block = false;
        for (at, line) in text.lines().enumerate() {
            is_block ^= line.trim_start().starts_with("```");
            let is_table = line.trim_start().starts_with('|');
            let columns = line.chars().count();
            if columns > LINE_MAX && !is_block && !is_table && breakable_words(line) > 1 {
                faults.push(format!("{name}:{}: {columns} columns; break it", at + 1));
            }
        }
    }
    complain("at most 100 columns, but for tables, blocks and what can't be broken", &faults);
}

#[test]
fn decisions_are_numbered_without_holes_and_say_what_became_of_them() {
    let pages = docs::decisions();
    let mut faults = Vec::new();
    for (number, (name, text)) in (1..).zip(&pages) {
        if !name.starts_with(&format!("{number:04}-")) {
            faults.push(format!("{name}: the next number is {number}; call it {number:04}-…"));
        }
        if !text.starts_with(&format!("# {number}. ")) {
            faults.push(format!("{name}: begin its heading with '# {number}. '"));
        }
        for (earlier, later) in docs::DECISION_LINKS {
            for (word, answer) in [(earlier, later), (later, earlier)] {
                for other in docs::linked(text, word) {
                    let there = pages.iter().find(|(name, _)| *name == other);
                    if !there.is_some_and(|(_, text)| docs::linked(text, answer).contains(name)) {
                        faults.push(format!("{name}: {word} {other}, which does not say {answer}"));
                    }
                }
            }
        }
    }
    complain("decisions are cited by number", &faults);
}
