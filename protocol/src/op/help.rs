//! The table of commands → words for people: `help` as the manual prints it, `help COMMAND`, and
//! the page docs/op.md. Not the texts themselves: `table` has them.

use super::reply::{Block, OpReply};
use super::spec::Spec;
use super::table::COMMANDS;
use super::words;

/// Where the right column of `help` begins (manual chapter).
const LEFT_WIDTH: usize = 25;
/// Widest text of the right column (manual chapter).
const RIGHT_WIDTH: usize = 50;

/// The answer to `help` and `help COMMAND`; the topic is one that the parser passed.
pub fn answer(topic: Option<&str>) -> OpReply {
    let text = topic.map_or_else(short, |topic| long(topic).unwrap_or_else(|| unknown(topic)));
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

/// The part of [`short`] that is the manual's.
pub fn manual() -> String {
    let mut out = String::new();
    let mut last = "";
    for row in COMMANDS.iter().filter(|row| row.manual) {
        // Two commands may share a line of the manual: `delete {worker|client} id`.
        if row.syntax != last {
            entry(row, &mut out);
        }
        last = row.syntax;
    }
    out
}

/// `help COMMAND`: everything about it; of a first word that several share (`config`), about each.
pub fn long(topic: &str) -> Option<String> {
    let rows = rows(topic);
    if rows.is_empty() {
        return None;
    }
    let pages: Vec<String> = rows.iter().map(|row| page(row)).collect();
    Some(pages.join("\n\n"))
}

/// The rows that a topic names: the one of that name, else all that begin with that word.
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

/// The text of the error for a command that does not exist: what was meant, if it can be guessed,
/// and the help.
pub fn unknown(word: &str) -> String {
    let hint = words::nearest(word, COMMANDS.iter().map(|row| row.first()));
    format!("'{}' is no command{}\n\n{}", words::shown(word), words::meant(hint), short())
}

/// The page docs/op.md.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Operator commands\n\n\
         Made from the table of commands (`protocol/src/op/table.rs`); a test keeps it fresh. \
         Send them to\n\
         the service `op`: `isdclient -c \"services\"`, or interactively with `isdclient`.\n\
         What a command may do: *read* shows something, *change* can be changed back, *danger* \
         ends work\n\
         or the broker.\n\n\
         Words are split at white space; `'…'`, `\"…\"` and `\\` quote as in a shell. \
         One message is one\n\
         command. In scripts blank lines and lines that begin with `#` are skipped.\n\n\
         | command | may | text |\n| --- | --- | --- |\n",
    );
    for row in COMMANDS {
        let usage = row.usage.replace('|', "\\|");
        let short = row.short.replace('|', "\\|");
        out.push_str(&format!("| `{usage}` | {} | {short} |\n", row.effect.word()));
    }
    for row in COMMANDS {
        out.push_str(&format!("\n## {}\n\n```\n{}\n```\n\n{}\n", row.name, row.usage, row.long));
        if !row.args.is_empty() {
            out.push_str("\n| argument | meaning |\n| --- | --- |\n");
        }
        for arg in row.args {
            let name = arg.name.replace('|', "\\|");
            out.push_str(&format!("| `{name}` | {} |\n", arg.text.replace('|', "\\|")));
        }
        out.push_str(&format!("\nExample: `isdclient -c \"{}\"`\n", row.example));
    }
    out
}

/// One command in two columns.
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
    out.push_str(&format!("\n  effect: {}\n\n", row.effect.word()));
    for line in wrap(row.long, RIGHT_WIDTH + LEFT_WIDTH - 2) {
        out.push_str(&format!("  {line}\n"));
    }
    if !row.args.is_empty() {
        out.push('\n');
    }
    for arg in row.args {
        let mut left = arg.name;
        for line in wrap(arg.text, RIGHT_WIDTH + 6) {
            out.push_str(&format!("  {left:15}  {line}\n"));
            left = "";
        }
    }
    out.push_str(&format!("\n  example: isdclient -c \"{}\"", row.example));
    out
}

/// The text in lines of at most `width` characters, broken at blanks.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
