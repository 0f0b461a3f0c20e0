//! Makes texts for people out of the table of commands: `help` as the manual prints it, `help
//! COMMAND`, and the page docs/op.md. The texts of each command are in `table`.

use super::layout::wrap;
use super::reply::{Block, OpReply};
use super::spec::{Effect, Spec, Takes};
use super::table::COMMANDS;
use super::worker_settings::{WORKER_SETTINGS, WorkerSettingRow};
use super::{foreign, words};
use crate::settings::{SERVICE_SETTINGS, SettingRow, Unit};

/// Column at which the right half of `help` begins (manual chapter).
const LEFT_WIDTH: usize = 25;
/// Most characters of the right half of `help` (manual chapter).
const RIGHT_WIDTH: usize = 50;

/// The answer to `help` and `help COMMAND`. The parser has checked that the topic exists.
pub fn answer(topic: Option<&str>) -> OpReply {
    let text = topic.map_or_else(short, |topic| long(topic).unwrap_or_else(|| no_topic(topic)));
    OpReply::block(Block::Text { name: "help", text })
}

/// `help`: the manual's lines word for word, a blank line, the commands beyond them.
pub fn short() -> String {
    let mut out = manual();
    out.push('\n');
    for row in COMMANDS.iter().filter(|row| !row.manual) {
        entry(row, &mut out);
    }
    out.push_str("\n'help COMMAND' explains one of them, as in 'help config worker'.");
    out
}

/// The part of [`short`] that the manual prints.
pub fn manual() -> String {
    let mut out = String::new();
    let mut last = "";
    for row in COMMANDS.iter().filter(|row| row.manual) {
        // Two commands may share a line in the manual: `delete {worker|client} id`.
        if row.syntax != last {
            entry(row, &mut out);
        }
        last = row.syntax;
    }
    out
}

/// `help COMMAND`: everything about a command. A first word that several commands share (`config`)
/// gives all of them.
pub fn long(topic: &str) -> Option<String> {
    let rows = rows(topic);
    if rows.is_empty() {
        return None;
    }
    let pages: Vec<String> = rows.iter().map(|row| page(row)).collect();
    Some(pages.join("\n\n"))
}

/// The rows of a topic: the command of that name, else all commands that begin with that word.
pub fn rows(topic: &str) -> Vec<&'static Spec> {
    let topic = match topic {
        "?" => "help",
        "<nil>" => "status",
        topic => topic,
    };
    match COMMANDS.iter().find(|row| row.name == topic) {
        Some(row) => vec![row],
        None => COMMANDS.iter().filter(|row| row.first() == topic).collect(),
    }
}

/// The error text for an unknown command: the command that was probably meant, else the whole help,
/// as the manual wants it, between two lines that say why.
pub fn unknown(word: &str) -> String {
    let why = "; if it is meant for a service, name that, too: isdclient -c TEXT SERVICE";
    missing(word, why)
}

/// The error text for an unknown topic of `help`.
pub fn no_topic(word: &str) -> String {
    missing(word, "")
}

fn missing(word: &str, why: &str) -> String {
    let said = format!("'{}' is no command", words::shown(word));
    if let Some(answer) = foreign::answer(word) {
        return format!("{said}; {answer}; 'help' lists all");
    }
    if let Some(near) = near(word) {
        return format!("{said}; did you mean '{near}'? 'help' lists all");
    }
    format!("{said}\n\n{}\n\n{said}{why}", short())
}

/// The command that was probably meant. A dangerous command is suggested only if nothing else fits.
fn near(word: &str) -> Option<&'static str> {
    let is_danger = |first: &str| {
        COMMANDS.iter().any(|row| row.first() == first && row.effect == Effect::Danger)
    };
    let firsts = COMMANDS.iter().map(Spec::first);
    words::nearest(word, firsts.filter(|first| !is_danger(first) || words::is_slip(word, first)))
}

/// Paragraphs at the beginning of docs/op.md.
const PAGE_INTRO: &[&str] = &[
    "# Operator commands",
    "Made from the table of commands (`protocol/src/op/table.rs`); a test keeps it fresh. Send them \
     to the service `op`: `isdclient -c \"services\"`, or interactively with `isdclient`. What a \
     command may do: *read* shows something, *change* can be changed back, *danger* ends work or \
     the broker. A role has the rights of one of these and of those before it; *deploy* marks the \
     commands that the role operator:deploy may give, besides all that only show something.",
    "Words are split at white space; `'…'`, `\"…\"` and `\\` quote as in a shell. One message is one \
     command. In scripts blank lines and lines that begin with `#` are skipped.",
    "## Where to look",
    "What runs now, for whom, at which worker and since when: `requests`. What waits, and why: \
     `queue`. Which workers are lazy, idle or busy, and in which state: `workers`. Whether there are \
     enough of them: `load`; how long requests take: `latency`. Which machines are linked: `hosts`; \
     who is connected: `clients`; the broker as a whole: `status`. What happened: `listevents`; \
     what happens: `watch`; whose process died, and of which request: `deaths`. All of one thing: `worker ID`, \
     `client ID`, `service NAME`, `host NAME`.",
    "## In JSON and on terminals",
    "With `isdclient --json` (`format json` at the login) an answer is one JSON object, as \
     [op.schema.json](op.schema.json) says, which is made from the same tables: a definition for \
     each command. Switches are `true` and `false`; lists are arrays, also empty ones; what there \
     is not is `null`; spans of time are whole microseconds and end with `_us`; moments are RFC \
     3339. A thing has one name everywhere: `pid`, `worker`, `since`. Numbers are whole and may \
     have 64 bits; all of them count from 0 or 1, so a reader that has only doubles stays exact up \
     to 2^53. Of `watch` each line is an object. Where there is no answer, `isdclient` prints an \
     object `error` in its place on standard output (and the same in words on standard error), \
     also for a command line that makes no sense, or without a broker: number, name, whose, ran, \
     text, advice, the command, and file and line of a script.",
    "On a terminal tables fit its width (`columns` at the login): names are truncated with `…`, further \
     columns stand in a line of their own, texts flow. The whole is in a pipe, in JSON, and on the \
     page of the thing (`worker ID`).",
    "## All commands",
];

/// Widest line of docs/op.md outside of its tables.
const PAGE_WIDTH: usize = 100;

/// The page docs/op.md.
pub fn markdown() -> String {
    let flow = |text: &str| wrap(text, PAGE_WIDTH).join("\n");
    let mut out = String::new();
    PAGE_INTRO.iter().for_each(|text| out.push_str(&format!("{}\n\n", flow(text))));
    out.push_str("| command | may | text |\n| --- | --- | --- |\n");
    for row in COMMANDS {
        let usage = row.usage.replace('|', "\\|").replace('\n', "`<br>`");
        let short = row.short.replace('|', "\\|");
        let deploy = if row.deploy { ", deploy" } else { "" };
        out.push_str(&format!("| `{usage}` | {}{deploy} | {short} |\n", row.effect.word()));
    }
    for row in COMMANDS {
        let long = flow(row.long);
        out.push_str(&format!("\n## {}\n\n```\n{}\n```\n\n{long}\n", row.name, row.usage));
        if !row.params.is_empty() {
            out.push_str("\n| argument | meaning |\n| --- | --- |\n");
        }
        for arg in row.args() {
            let name = arg.name.replace('|', "\\|");
            out.push_str(&format!("| `{name}` | {} |\n", arg.text.replace('|', "\\|")));
        }
        out.push_str(&format!("\nExample: `isdclient -c \"{}\"`\n", row.example));
    }
    out
}

/// Prints one command as two columns.
fn entry(row: &Spec, out: &mut String) {
    let mut left = row.syntax;
    if left.len() >= LEFT_WIDTH {
        out.push_str(left);
        out.push('\n');
        left = "";
    }
    for line in wrap(row.short, RIGHT_WIDTH) {
        out.push_str(&format!("{left:LEFT_WIDTH$}{line}\n"));
        left = "";
    }
}

fn page(row: &Spec) -> String {
    let mut out = format!("{}\n\n  {}", row.usage, row.short);
    if row.syntax != row.usage {
        out.push_str(&format!("\n  (in the list of commands: {})", row.syntax));
    }
    let deploy = if row.deploy { "; also for the role operator:deploy" } else { "" };
    out.push_str(&format!("\n  effect: {}{deploy}\n\n", row.effect.word()));
    for line in wrap(row.long, RIGHT_WIDTH + LEFT_WIDTH - 2) {
        out.push_str(&format!("  {line}\n"));
    }
    if !row.params.is_empty() {
        out.push('\n');
    }
    for arg in row.args() {
        let mut left = arg.name;
        for line in wrap(arg.text, RIGHT_WIDTH + 6) {
            out.push_str(&format!("  {left:15}  {line}\n"));
            left = "";
        }
    }
    if row.args().iter().any(|arg| arg.takes == Takes::ServiceSetting) {
        out.push_str("\n  settings of a service, 'settings SERVICE' shows those in force:\n");
        SERVICE_SETTINGS.iter().for_each(|row| setting(row, &mut out));
        out.push_str("\n  settings of all its workers:\n");
    }
    if row.args().iter().any(|arg| arg.takes == Takes::WorkerSetting) {
        out.push_str("\n  settings of a worker:\n");
    }
    if row
        .args()
        .iter()
        .any(|arg| matches!(arg.takes, Takes::ServiceSetting | Takes::WorkerSetting))
    {
        WORKER_SETTINGS.iter().for_each(|row| worker_setting(row, &mut out));
    }
    out.push_str(&format!("\n  example: isdclient -c \"{}\"", row.example));
    out
}

/// Prints a setting of workers with its form and meaning.
fn worker_setting(row: &WorkerSettingRow, out: &mut String) {
    out.push_str(&format!("  {:17}{}\n", row.name, row.form));
    for line in wrap(row.text, RIGHT_WIDTH + LEFT_WIDTH - 6) {
        out.push_str(&format!("      {line}\n"));
    }
}

/// Prints a setting with its range and meaning.
fn setting(row: &SettingRow, out: &mut String) {
    let unit = match row.unit {
        Unit::Choice(_) => String::new(),
        unit => format!(" {}", unit.word()),
    };
    let (name, range, default) = (row.name, row.range(" to "), row.written(row.default));
    out.push_str(&format!("  {name:17}{range}{unit}, default {default}\n"));
    for line in wrap(row.text, RIGHT_WIDTH + LEFT_WIDTH - 6) {
        out.push_str(&format!("      {line}\n"));
    }
}
