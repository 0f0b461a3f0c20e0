//! Checks that documents made from tables equal what the tables make (`UPDATE=1` rewrites them),
//! that the lines which CONTRIBUTING.md shows stand in the files it names, and that pages for
//! developers and comments name only what exists.

use isect_tests::docs;
use isect_tests::source_text::pieces;
use isect_tests::walkthrough::{Block, blocks};
use std::collections::{BTreeMap, BTreeSet};

/// The page whose blocks show lines of the code.
const CONTRIBUTING: &str = "CONTRIBUTING.md";
/// Pages whose names of files and identifiers are looked up.
const PAGES: &[&str] = &[CONTRIBUTING, "docs/architecture.md", "docs/style.md", "docs/testing.md"];
/// The pure parts, whose comments name nothing but what is in them, in `protocol`, or a file.
const PURE: &[&str] = &["broker/src/engine/", "execd/src/engine/"];
/// Names in comments that no code has: those of the kernel, of the C library, of RFCs.
const FOREIGN: &[&str] = &[
    "BINPRM_BUF_SIZE",
    "ClientProof",
    "NETLINK_SOCK_DIAG",
    "NLM_F_DUMP",
    "PATH_MAX",
    "PF_FORKNOEXEC",
    "ServerKey",
    "StoredKey",
    "TCP_NODELAY",
    "close_notify",
    "decode_error",
    "inet_diag_msg",
    "rx_queue",
    "sun_path",
    "synchronize_rcu",
];
/// Where a block or a line leaves something out.
const GAP: &str = "…";

#[test]
fn documents_are_fresh() {
    #[expect(clippy::disallowed_methods, reason = "the one switch of this test")]
    let is_update = std::env::var("UPDATE").is_ok();
    let mut files: Vec<(String, String)> =
        docs::pages().into_iter().map(|(path, text)| (path.to_owned(), text)).collect();
    for (path, name, text) in docs::parts() {
        let at = docs::root().join(path);
        let page = match files.iter().position(|(known, _)| known == path) {
            Some(index) => files.remove(index).1,
            None => std::fs::read_to_string(&at).unwrap_or_else(|e| panic!("{path}: {e}")),
        };
        let made = docs::replace_part(&page, name, &text)
            .unwrap_or_else(|| panic!("{path} has no part '<!-- made: {name} -->'"));
        files.push((path.to_owned(), made));
    }
    let mut stale = Vec::new();
    for (path, text) in files {
        let at = docs::root().join(&path);
        if std::fs::read_to_string(&at).unwrap_or_default() != text {
            if is_update {
                std::fs::write(&at, text).unwrap_or_else(|e| panic!("{path}: {e}"));
            } else {
                stale.push(path);
            }
        }
    }
    assert!(stale.is_empty(), "stale: {stale:?}; run: UPDATE=1 cargo fresh");
}

/// The first line of a block that does not stand in a text, after the ones before it. Lines
/// without a gap between them must follow each other there, too.
fn missing_line<'a>(block: &'a str, text: &str) -> Option<&'a str> {
    let lines: Vec<&str> = text.lines().collect();
    let is_same = |shown: &str, line: &str| match shown.strip_suffix(GAP) {
        Some(begin) => line.starts_with(begin.trim_end()),
        None => line == shown,
    };
    let mut rest = lines.as_slice();
    // The first character says that the line is new, or that it was there.
    let shown: Vec<&str> = block.lines().collect();
    for run in shown.split(|line| *line == GAP) {
        let run: Vec<&str> = run.iter().map(|line| line.get(1..).unwrap_or_default()).collect();
        let length_at = |at: usize| {
            run.iter().zip(&rest[at..]).take_while(|(shown, line)| is_same(shown, line)).count()
        };
        let best = (0..rest.len()).map(|at| (length_at(at), at)).max_by_key(|(n, at)| (*n, !at));
        match best {
            Some((length, at)) if length == run.len() => rest = &rest[at + length..],
            best => return run.get(best.map_or(0, |(length, _)| length)).copied(),
        }
    }
    None
}

#[test]
fn a_block_is_looked_for_line_by_line() {
    let text = "fn a() {\n    one();\n    two();\n}\nlast\n";
    assert_eq!(missing_line("+fn a() {\n     o…\n     two();\n…\n+la…\n", text), None);
    assert_eq!(missing_line("+fn a() {\n+    two();\n", text), Some("    two();"), "a gap is said");
    assert_eq!(missing_line("+last\n…\n+fn a() {\n", text), Some("fn a() {"), "in this order");
    assert_eq!(missing_line("+    three();\n", text), Some("    three();"));
}

#[test]
fn the_lines_that_contributing_shows_stand_in_the_files_that_it_names() {
    let page = std::fs::read_to_string(docs::root().join(CONTRIBUTING)).expect(CONTRIBUTING);
    let mut faults = Vec::new();
    let mut count = 0;
    for Block { line, info, text } in blocks(&page) {
        if info != "diff" {
            continue;
        }
        count += 1;
        let named = text.strip_prefix("+++ ").and_then(|text| text.split_once('\n'));
        let Some((path, text)) = named else {
            faults.push(format!("{CONTRIBUTING}:{line}: begin it with '+++ FILE'"));
            continue;
        };
        match std::fs::read_to_string(docs::root().join(path)) {
            Ok(file) => faults.extend(
                missing_line(text, &file)
                    .map(|missing| format!("{CONTRIBUTING}:{line}: not in {path}: {missing}")),
            ),
            Err(error) => faults.push(format!("{CONTRIBUTING}:{line}: {path}: {error}")),
        }
    }
    assert!(count > 20, "only {count} blocks with lines of the code");
    assert!(faults.is_empty(), "show what stands there now:\n  {}", faults.join("\n  "));
}

/// The chapters of a page: the heading of each, and its text.
fn chapters(page: &str) -> Vec<(&str, &str)> {
    page.split("\n## ").skip(1).filter_map(|part| part.split_once('\n')).collect()
}

#[test]
fn a_chapter_says_how_many_files_it_shows() {
    let page = std::fs::read_to_string(docs::root().join(CONTRIBUTING)).expect(CONTRIBUTING);
    let chapters = chapters(&page);
    assert!(chapters.len() > 6, "only {} chapters", chapters.len());
    for (name, text) in chapters {
        let shown = blocks(text).into_iter().filter_map(|Block { text, .. }| {
            let (path, _) = text.strip_prefix("+++ ")?.split_once('\n')?;
            Some(path.to_owned())
        });
        let shown: BTreeSet<String> = shown.collect();
        let said = text.split_once("\nBy hand ").map(|(_, rest)| rest);
        let said = said.and_then(|rest| rest.split(' ').next()?.parse().ok());
        assert_eq!(said, Some(shown.len()), "{name}: 'By hand N files', as its blocks: {shown:#?}");
    }
}

/// What stands in backticks in a page, outside its blocks: number of the line, and text.
fn quoted(page: &str) -> Vec<(usize, &str)> {
    let mut is_block = false;
    let mut found = Vec::new();
    for (at, line) in page.lines().enumerate() {
        is_block ^= line.trim_start().starts_with("```");
        if !is_block && !line.trim_start().starts_with("```") {
            found.extend(line.split('`').skip(1).step_by(2).map(|text| (at + 1, text)));
        }
    }
    found
}

/// The words of a text of which an identifier may consist.
fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Whether a text in backticks is a path of this project: no placeholder, no pattern, no command.
fn is_path(text: &str, folders: &BTreeSet<&str>) -> bool {
    let first = text.split('/').next().unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let is_placeholder =
        |part: &str| part.len() > 1 && part.chars().all(|c| c.is_ascii_uppercase());
    text.contains('/')
        && folders.contains(first)
        && text.chars().all(is_plain)
        && !text.split(['/', '.']).any(is_placeholder)
}

/// Whether there is such a file, folder or module (`broker/engine` is in `broker/src`).
fn is_there(path: &str) -> bool {
    let module = path.split_once('/').map(|(first, rest)| format!("{first}/src/{rest}"));
    docs::root().join(path).exists() || module.is_some_and(|path| docs::root().join(path).exists())
}

/// Whether a text in backticks is an identifier: `Engine::step`, `on_proven`, `BTreeSet`.
fn is_identifier(text: &str) -> bool {
    let has_case = |word: &str| {
        let is_joined = word.contains('_') && word.contains(char::is_alphabetic);
        is_joined || (word.starts_with(char::is_uppercase) && word.contains(char::is_lowercase))
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.chars().all(is_plain) && identifiers(text).any(has_case)
}

#[test]
fn pages_for_developers_name_only_what_exists() {
    let texts = docs::texts();
    let folders: BTreeSet<&str> =
        texts.iter().filter_map(|(path, _)| Some(path.split_once('/')?.0)).collect();
    let code = texts.iter().filter(|(path, _)| !path.ends_with(".md"));
    let mut known: BTreeSet<&str> = code.flat_map(|(_, text)| identifiers(text)).collect();
    known.extend(texts.iter().flat_map(|(path, _)| identifiers(path)));
    let mut faults = Vec::new();
    for (path, page) in texts.iter().filter(|(path, _)| PAGES.contains(&path.as_str())) {
        for (line, text) in quoted(page) {
            let missing = if is_path(text, &folders) {
                (!is_there(text)).then_some(text)
            } else if is_identifier(text) {
                // `is_` is the beginning of a name.
                identifiers(text).find(|word| !known.contains(word.trim_end_matches('_')))
            } else {
                None
            };
            faults.extend(missing.map(|missing| format!("{path}:{line}: there is no {missing}")));
        }
    }
    assert!(faults.is_empty(), "named and not there:\n  {}", faults.join("\n  "));
}

/// A source file, taken apart.
struct Source {
    path: String,
    /// The identifiers of its code and literals.
    words: BTreeSet<String>,
    /// The types that it declares or implements something of.
    types: BTreeSet<String>,
    /// What stands in backticks in its comments: number of the line, and text.
    quoted: Vec<(usize, String)>,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        // The comments keep their lines, so that they can be read like a page.
        let (mut code, mut comments) = (String::new(), String::new());
        for (is_code, piece) in pieces(text) {
            if !is_code && piece.starts_with('/') {
                comments += piece.trim_start_matches(['/', '!']);
            } else {
                code += piece;
                comments.extend(piece.chars().filter(|c| *c == '\n'));
            }
        }
        let quoted = quoted(&comments).into_iter().map(|(line, text)| (line, text.to_owned()));
        let quoted = quoted.collect();
        let mut types = BTreeSet::new();
        let words: Vec<&str> = identifiers(&code).collect();
        for pair in words.windows(2) {
            if ["struct", "enum", "trait", "type", "union"].contains(&pair[0]) {
                types.insert(pair[1].to_owned());
            }
        }
        for line in code.lines().filter(|line| line.trim_start().starts_with("impl")) {
            types.extend(identifiers(line).map(str::to_owned));
        }
        let words = words.into_iter().map(str::to_owned).collect();
        Self { path: path.to_owned(), words, types, quoted }
    }

    /// Whether it is in one of the pure parts, and in which.
    fn pure(&self) -> Option<&'static str> {
        PURE.iter().find(|part| self.path.starts_with(**part)).copied()
    }
}

/// The names in comments that do not exist, with where they stand; and the foreign ones that no
/// comment has.
fn faults_of_comments(sources: &[Source], foreign: &[&str]) -> Vec<String> {
    let mut known: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in sources {
        let words = || source.words.iter().map(String::as_str);
        known.entry("").or_default().extend(words());
        for part in PURE {
            if source.path.starts_with("protocol/") || source.path.starts_with(part) {
                known.entry(part).or_default().extend(words());
            }
        }
    }
    let files: BTreeSet<&str> = sources.iter().flat_map(|s| identifiers(&s.path)).collect();
    let mut unused: BTreeSet<&str> = foreign.iter().copied().collect();
    let mut faults = Vec::new();
    for source in sources {
        let part = source.pure();
        let known = &known[part.unwrap_or_default()];
        for (line, text) in &source.quoted {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
            if !(is_identifier(text) || part.is_some() && text.chars().all(is_plain)) {
                continue;
            }
            let mut missing = identifiers(text)
                .find(|word| !known.contains(word.trim_end_matches('_')) && !files.contains(word));
            if missing.is_some_and(|word| foreign.contains(&word)) {
                unused.remove(missing.take().unwrap_or_default());
            }
            if let Some((owner, member)) = text.split_once("::") {
                let mut owners = sources.iter().filter(|s| s.types.contains(owner)).peekable();
                if owners.peek().is_some() && !owners.any(|s| s.words.contains(member)) {
                    missing = Some(text);
                }
            }
            let path = &source.path;
            faults.extend(missing.map(|missing| format!("{path}:{line}: there is no {missing}")));
        }
    }
    faults.extend(unused.iter().map(|name| format!("FOREIGN: no comment names {name}")));
    faults
}

#[test]
fn comments_name_only_what_exists() {
    let texts = docs::texts();
    let own = "tests/tests/fresh.rs";
    let is_source = |path: &str| path.ends_with(".rs") && path != own;
    let sources: Vec<Source> = texts
        .iter()
        .filter(|(path, _)| is_source(path))
        .map(|(path, text)| Source::new(path, text))
        .collect();
    let faults = faults_of_comments(&sources, FOREIGN);
    assert!(faults.is_empty(), "comments name what is not there:\n  {}", faults.join("\n  "));
}

#[test]
fn a_name_that_is_gone_is_found_in_a_comment() {
    let faults = |path: &str, comment: &str| {
        let sources = [
            Source::new(path, &format!("//! Of `Otter`.\n\n/// {comment}\nfn swim() {{}}\n")),
            Source::new("broker/src/engine/other.rs", "struct Otter { sleek_fur: u8 }"),
            Source::new("broker/src/engine/newt.rs", "enum Newt { Tail }\nfn tail() {}"),
            Source::new("broker/src/reactor/pond.rs", "fn dive_deep() { let reed = \"`\"; }"),
        ];
        faults_of_comments(&sources, &[]).len()
    };
    let (pure, impure) = ("broker/src/engine/a.rs", "broker/src/reactor/a.rs");
    for (count, path, comment) in [
        (0, pure, "The `tail` of `Newt`, `Otter::sleek_fur`, `swim`; `other` decides."),
        (1, pure, "The `paw`."),
        (1, pure, "The `Newt::paw`."),
        (1, impure, "`Otter::tail` is none of it; `Newt::tail` is."),
        (1, impure, "`Toad`"),
        (0, impure, "The `paw`, `dive_deep`."),
        (1, pure, "`dive_deep` is not in this part, `pond` is a file."),
        (0, pure, "`a b`, `x/y`, `Newt<A>`, a `"),
    ] {
        assert_eq!(faults(path, comment), count, "{path}: {comment}");
    }
}
