//! Reads a file of conversations: cases, their steps, and the words of each step.

use crate::script::words::{self, Token};
use protocol::errors::{ERRORS, ErrorCode};
use std::path::{Path, PathBuf};

/// One line of a case.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Its line in the file, from 1.
    pub(super) line: usize,
    /// The line as it is written.
    pub(super) text: String,
    pub(super) words: Vec<Token>,
}

/// A step, or steps that are played several times.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Step(Step),
    Repeat {
        turns: Vec<Turn>,
        nodes: Vec<Self>,
    },
    /// Frames that are expected in any order.
    AnyOrder(Vec<Self>),
}

/// What is open until its `end`.
enum Open {
    Case,
    Repeat(Vec<Turn>),
    AnyOrder,
}

/// The variables of one turn of steps that are repeated.
pub(super) type Turn = Vec<(String, String)>;

/// One conversation, with a driver of its own.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) line: usize,
    pub(super) title: String,
    pub(super) nodes: Vec<Node>,
}

/// The files of a folder, sorted.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|ext| ext == "conv")).collect();
    paths.sort();
    paths
}

/// The cases of a file.
///
/// # Errors
/// A line is wrong: its number, a colon, and why.
pub(super) fn cases(text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    // The steps of the case, and of each repetition that is open.
    let mut open: Vec<(Open, Vec<Node>)> = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| format!("{line}: {why}: {text}");
        if let Some(title) = text.strip_prefix("== ") {
            end_case(&mut cases, &mut open).map_err(|why| wrong(&why))?;
            cases.push(Case { line, title: title.to_owned(), nodes: Vec::new() });
            open.push((Open::Case, Vec::new()));
            continue;
        }
        if open.is_empty() {
            return Err(wrong("a step before the first '== TITLE'"));
        }
        let words = words::tokens(text).map_err(|why| wrong(&why))?;
        if let Some(turns) = turns(&words).map_err(|why| wrong(&why))? {
            open.push((Open::Repeat(turns), Vec::new()));
        } else if text == "any-order" {
            open.push((Open::AnyOrder, Vec::new()));
        } else {
            let node = match text {
                "end" => match open.pop() {
                    Some((Open::Repeat(turns), nodes)) => Node::Repeat { turns, nodes },
                    Some((Open::AnyOrder, nodes)) => Node::AnyOrder(nodes),
                    Some((Open::Case, _)) | None => return Err(wrong("nothing is open here")),
                },
                text => Node::Step(Step { line, text: text.to_owned(), words }),
            };
            open.last_mut().ok_or_else(|| wrong("no case"))?.1.push(node);
        }
    }
    let last = text.lines().count();
    end_case(&mut cases, &mut open).map_err(|why| format!("{last}: {why}"))?;
    Ok(cases)
}

fn end_case(cases: &mut [Case], open: &mut Vec<(Open, Vec<Node>)>) -> Result<(), String> {
    let Some(case) = cases.last_mut() else { return Ok(()) };
    if open.len() != 1 {
        return Err("'repeat' or 'any-order' without 'end' above".to_owned());
    }
    let nodes = open.pop().map(|(_, nodes)| nodes).unwrap_or_default();
    if nodes.is_empty() {
        return Err(format!("the case '{}' has no steps", case.title));
    }
    case.nodes = nodes;
    Ok(())
}

/// The turns of `repeat NAME=1..70`, `repeat NAME=a,b,c`, `repeat errors` (the rows of the table)
/// and `repeat open-errors` (those after which the connection goes on).
fn turns(words: &[Token]) -> Result<Option<Vec<Turn>>, String> {
    let [Token::Word(first), rest @ ..] = words else { return Ok(None) };
    if first != "repeat" {
        return Ok(None);
    }
    let one = |name: &str, value: String| vec![(name.to_owned(), value)];
    match rest {
        [Token::Word(what)] if what == "errors" || what == "open-errors" => {
            // The first has no lines in its body.
            let rows = ERRORS.iter().filter(|row| row.code != ErrorCode::Intervention);
            let rows = rows.filter(|row| what == "errors" || !row.closes);
            Ok(Some(rows.map(error).collect()))
        }
        [Token::Pair(name, values)] => {
            let values = String::from_utf8_lossy(values);
            let range = values.split_once("..");
            let range = range.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            Ok(Some(match range {
                Some::<(u64, u64)>((first, last)) => {
                    (first..=last).map(|n| one(name, n.to_string())).collect()
                }
                None => values.split(',').map(|value| one(name, value.to_owned())).collect(),
            }))
        }
        _ => Err("what is repeated? NAME=1..70, NAME=a,b,c, errors or open-errors".to_owned()),
    }
}

/// The variables of a row of the table of errors.
fn error(row: &protocol::errors::ErrorRow) -> Turn {
    let values = [
        ("name", row.name.to_owned()),
        ("number", row.number.to_string()),
        ("whose", row.whose.to_string()),
        ("ran", row.ran.to_string()),
        ("advice", row.advice.to_owned()),
    ];
    values.map(|(name, value)| (name.to_owned(), value)).into()
}
