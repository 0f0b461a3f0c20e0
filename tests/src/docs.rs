//! Makes documents from tables: whole pages (`docs/op.md`, `config.md`, `facts.md`, `errors.md`,
//! `op.schema.json`) and the marked parts of `docs/protocol.md`. The rest of the documents is
//! written by hand.

use broker::engine::fact::{FACTS, FactField, FactRow};
use protocol::bodies;
use protocol::errors::ERRORS;
use protocol::header::FIELDS;
use protocol::kinds::{BodyKind, KINDS};
use protocol::op::help;
use protocol::op::worker_settings::WORKER_SETTINGS;
use protocol::settings::{SERVICE_SETTINGS, SETTINGS, SettingRow};
use std::fmt::Write as _;

/// The folder of the whole project.
pub fn root() -> std::path::PathBuf {
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

/// Every text file of the project, as path below the root and text; without lock files, generated
/// files and corpora.
pub fn texts() -> Vec<(String, String)> {
    let root = root();
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the project") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", ".git", "corpora", "artifacts"].iter().any(|n| path.ends_with(n)) {
                    folders.push(path);
                }
            } else if !name.ends_with(".lock")
                && !name.starts_with(".git")
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                files.push((name, text));
            }
        }
    }
    files.sort();
    files
}

/// Pages that are made from top to bottom: path below the root, and text.
pub fn pages() -> Vec<(&'static str, String)> {
    vec![
        ("docs/op.md", help::markdown()),
        ("docs/config.md", config()),
        ("docs/facts.md", facts()),
        ("docs/errors.md", errors()),
        ("docs/op.schema.json", format!("{:#}\n", crate::schema::schema())),
        ("client/python/src/isect/_tables.py", crate::python_tables::module()),
    ]
}

/// Marked parts of other pages: path, marker, text.
pub fn parts() -> Vec<(&'static str, &'static str, String)> {
    vec![
        ("docs/protocol.md", "header", header()),
        ("docs/protocol.md", "kinds", kinds()),
        ("docs/protocol.md", "keys", keys()),
        ("docs/protocol.md", "errors", error_rows()),
        ("docs/protocol.md", "proof", crate::proof::page()),
        ("docs/protocol.md", "end-point", crate::proof::end_point_page()),
        ("docs/protocol.md", "conversation", conversation()),
        ("docs/builtin.md", "builtin", crate::builtin::page()),
        ("docs/decisions/README.md", "decisions", decision_rows()),
        ("docs/architecture.md", "transaction", drawing("transaction")),
        ("docs/architecture.md", "connection", drawing("connection")),
        ("docs/architecture.md", "process", drawing("process")),
        ("docs/architecture.md", "host", drawing("host")),
        ("docs/architecture.md", "child", child()),
        ("docs/architecture.md", "flags", crate::flags::page()),
    ]
}

/// A state machine of the broker's engine, drawn.
fn drawing(name: &str) -> String {
    let machines = broker::engine::drawings::machines();
    let machine = machines.into_iter().find(|known| known.name == name).expect("a known name");
    drawn(&machine.start, machine.edges)
}

/// The states of a child of execd, drawn.
fn child() -> String {
    drawn(&execd::engine::child::start(), execd::engine::child::transitions())
}

/// Transitions as a mermaid diagram: one arrow for all events from one state to another.
fn drawn(start: &str, transitions: Vec<(String, String, String)>) -> String {
    let mut arrows: Vec<(String, String, Vec<String>)> = Vec::new();
    for (from, event, to) in transitions {
        match arrows.iter_mut().find(|(a, b, _)| (a, b) == (&from, &to)) {
            Some((_, _, events)) if events.contains(&event) => {}
            Some((_, _, events)) => events.push(event),
            None => arrows.push((from, to, vec![event])),
        }
    }
    let mut out = format!("```mermaid\nstateDiagram-v2\n    [*] --> {start}\n");
    for (from, to, events) in arrows {
        let _ = writeln!(out, "    {from} --> {to}: {}", events.join(", "));
    }
    out + "```\n"
}

/// Replaces the part between `<!-- made: NAME -->` and `<!-- end -->`; `None` if there is no such
/// part.
pub fn replace_part(page: &str, name: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(&format!("<!-- made: {name} -->\n"))?;
    let (_, after) = rest.split_once("<!-- end -->")?;
    Some(format!("{before}<!-- made: {name} -->\n{text}<!-- end -->{after}"))
}

fn header() -> String {
    let mut out = String::from(
        "| offset | width | type | field | meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    for field in FIELDS {
        let _ = writeln!(
            out,
            "| {} | {} | {} | `{}` | {} |",
            field.offset, field.width, field.kind, field.name, field.text
        );
    }
    out
}

fn kinds() -> String {
    let mut out = String::from(
        "| number | kind | sent by | body | what it is |\n| --- | --- | --- | --- | --- |\n",
    );
    for row in KINDS {
        let senders: Vec<String> = row.senders.iter().map(ToString::to_string).collect();
        let body = match row.body {
            BodyKind::Opaque => "the application's",
            BodyKind::Lines => "lines",
            BodyKind::Text => "text",
            BodyKind::Empty => "none",
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {body} | {} |",
            row.number,
            row.name,
            senders.join(", "),
            row.text
        );
    }
    out
}

fn keys() -> String {
    let mut out = String::from(
        "| kind | key | value | absent | example | what it is for |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for kind in KINDS {
        for (at, row) in bodies::keys(kind.kind).iter().enumerate() {
            let [key, form, absent] = &row.about;
            let name = if at == 0 { kind.name } else { "" };
            let example: Vec<String> = row.example.iter().map(|value| code(value)).collect();
            let example = example.join(", ");
            let _ =
                writeln!(out, "| {name} | {key} | {form} | {absent} | {example} | {} |", row.text);
        }
    }
    out
}

/// A value as code, short enough for a cell.
fn code(value: &str) -> String {
    let line = value.escape_debug().to_string();
    match line.char_indices().nth(32) {
        None => format!("`{line}`"),
        Some((end, _)) => format!("`{}…`", &line[..end]),
    }
}

fn error_rows() -> String {
    let mut out = String::from(
        "| number | name | whose fault | did the work run? | closes? | what happened | what to do |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in ERRORS {
        let closes = if row.closes { "yes" } else { "no" };
        let _ = writeln!(
            out,
            "| {} | `{}` | {} | {} | {closes} | {} | {} |",
            row.number,
            row.name,
            row.whose,
            row.ran,
            row.text,
            if row.advice.is_empty() { "as its text says" } else { row.advice }
        );
    }
    out
}

/// The file that a test replays against a real broker, as it is.
fn conversation() -> String {
    let path = root().join("tests/wire/conversation.hex");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    format!("```text\n{text}```\n")
}

/// The pages below docs/decisions, in the order of their numbers: name of the file, and text.
pub fn decisions() -> Vec<(String, String)> {
    let folder = root().join("docs/decisions");
    let mut pages: Vec<(String, String)> = std::fs::read_dir(&folder)
        .expect("docs/decisions")
        .map(|entry| entry.expect("an entry of docs/decisions"))
        .map(|entry| (entry.file_name().into_string().expect("a name in ASCII"), entry.path()))
        .filter(|(name, _)| name != "README.md")
        .map(|(name, path)| (name, std::fs::read_to_string(path).expect("a page")))
        .collect();
    pages.sort();
    pages
}

/// The two phrases by which a page refers to another one and is referred to by it.
pub const DECISION_LINKS: [(&str, &str); 2] =
    [("Replaces", "Replaced by"), ("Amends", "Amended by")];

/// Which pages a page names behind a word at its top: the names of their files.
pub fn linked(page: &str, word: &str) -> Vec<String> {
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let begin = format!("**{word} [page ");
    let file = |link: &str| Some(link.split_once("](")?.1.split_once(')')?.0.to_owned());
    page.split(&begin).skip(1).filter_map(file).collect()
}

fn decision_rows() -> String {
    let mut out = String::from("| page | what was decided | state |\n| --- | --- | --- |\n");
    for (name, text) in decisions() {
        let heading = text.lines().next().unwrap_or_default();
        let (number, title) = heading.trim_start_matches("# ").split_once(". ").unwrap_or_default();
        let mut state = Vec::new();
        for (_, word) in DECISION_LINKS {
            for name in linked(&text, word) {
                let number = name.split('-').next().unwrap_or(&name).trim_start_matches('0');
                state.push(format!("{} {number}", word.to_lowercase()));
            }
        }
        let state = if state.is_empty() { "holds".to_owned() } else { state.join(", ") };
        let _ = writeln!(out, "| [{number}]({name}) | {title} | {state} |");
    }
    out
}

fn errors() -> String {
    format!(
        "# Errors\n\nMade from the table of errors (`protocol/src/errors.rs`); a test keeps it fresh.\n\n\
         Every accepted request has exactly one outcome: the worker's final reply, or one of these.\n\
         `ran` decides whether asking again is safe: `no` – it never reached a worker; `maybe` – it\n\
         did, and nobody knows whether it took effect; `yes` – the worker itself answered. An error's\n\
         own `ran` line may be more exact than this table (`deadline` is `no` for a request that was\n\
         still waiting). Positive numbers are not here: they belong to the workers and are passed\n\
         through.\n\n{}",
        error_rows()
    )
}

fn setting_rows(rows: &[SettingRow]) -> String {
    let mut out = String::from(
        "| setting | unit | default | range | live? | what it does |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for row in rows {
        let live = if row.live { "yes" } else { "no" };
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | {live} | {} |",
            row.name,
            row.unit.word().replace('|', " or "),
            row.written(row.default),
            row.range(" – "),
            row.text
        );
    }
    out
}

fn worker_setting_rows() -> String {
    let mut out = String::from("| setting | value | what it does |\n| --- | --- | --- |\n");
    for row in WORKER_SETTINGS {
        let _ = writeln!(out, "| `{}` | `{}` | {} |", row.name, row.form, row.text);
    }
    out
}

fn config() -> String {
    format!(
        "# Settings\n\nMade from the tables of settings (`protocol/src/settings.rs`); a test keeps it fresh.\n\n\
         ## The broker\n\nGiven at the start with `isectd --set NAME=VALUE`, shown by `settings`, changed while it\n\
         runs by `set NAME VALUE` (those that are live) and then kept in the state directory. What the\n\
         command line says wins over what is kept, and is not kept itself.\n\n{}\n\
         ## A service\n\nGiven with `config service NAME SETTING=VALUE …`, also later, for a service that exists.\n\n{}\n\
         One more is a pattern and no number: with `topic=orders.>` each message of a topic that\n\
         matches is a one-way request of the service ([topics](topics.md)); `topic=` ends that.\n\n\
         ## The processes of workers\n\n{}\n{}\n{}",
        setting_rows(SETTINGS),
        setting_rows(SERVICE_SETTINGS),
        include_str!("config_workers.md"),
        worker_setting_rows(),
        include_str!("config_files.md")
    )
}

fn facts() -> String {
    let mut out = String::from(
        "# Facts\n\nMade from the table of facts (`broker/src/engine/fact.rs`); a test keeps it fresh.\n\n\
         What the broker finds worth remembering. Facts go to the log at their level, to\n\
         `listevents`, which shows the last 1000 of them (`config events N`), and to whoever says\n\
         `watch`. A request that goes well leaves no fact, only counters.\n\n\
         Each has a number in order (`seq`), the time of day at which it was recorded (`at`), its\n\
         kind and a text. A fact of a kind has no other fields than those of its row, and of those\n\
         only what is known.\n\n\
         | number | kind | level | recorded when | fields |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    for FactRow { kind: _, number, name, level, text, fields } in FACTS {
        let level = format!("{level:?}").to_lowercase();
        let fields: Vec<String> = fields.iter().map(|field| format!("`{}`", field.key())).collect();
        let _ = writeln!(out, "| {number} | `{name}` | {level} | {text} | {} |", fields.join(", "));
    }
    out.push_str("\nThe fields:\n\n| field | what it is |\n| --- | --- |\n");
    for field in FactField::ALL {
        let _ = writeln!(out, "| `{}` | {} |", field.key(), field.text());
    }
    out
}
