//! Engine scripts: a text file says what happens and what the broker must do. The runner plays it
//! on the engine, checks the engine's laws after every step, and shows the differences.
//!
//! ```text
//! # comment
//! == a worker that dies while it is busy is started again
//! service echo has 1 worker
//! c1 sends "hi"      | > echo#1 gets "hi" ; busy echo#1
//! echo#1 breaks      | > c1 error worker_died ran=maybe ; lazy echo#1
//! op services        | > text
//!     |                          service          id
//!     |                             echo           2
//!     |                               op           1
//! ```
//!
//! - `== TITLE` begins a case: a fresh broker with `localhost` up and an operator logged in
//!   (client 0).
//! - A line without `| >` prepares; nobody checks what it does. With it, everything the broker does
//!   must be named, in order, unless the line ends with `...`. Further lines `    > item` go on.
//! - Facts (`fact KIND says="part"`), `saved` and `ping NAME` are checked only when named,
//!   wherever they happened.
//! - `broker oversleeps TIME` lets time pass, and what the next line says is read before the broker
//!   looks what is due.
//! - `key=value` is checked when named. `lazy`, `idle`, `busy`, `gone` WORKER stand last: where
//!   workers stand after the line, if that changed.
//! - An answer of `op` of one line stands in quotation marks, a longer one is `text` and the lines
//!   of it, each after four blanks and a bar; the line `...` stands for any number of them.
//! - `UPDATE=1` writes what happened into the file. Read it before you trust it.

mod clients;
mod file;
mod hosts;
mod item;
mod kept_lines;
mod show;
mod stimulus;
mod tokens;
mod topics;
pub(crate) mod words;
mod workers;
pub mod world;

pub use item::Item;

use file::{Case, Step};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use world::World;

/// The result of running a script file.
#[derive(Debug, Default)]
pub struct Report {
    /// Number of cases that ran.
    pub cases: usize,
    /// Failures, one text for each failed case.
    pub failures: Vec<String>,
    /// The file's text with corrected expectations, if any was wrong.
    pub updated: Option<String>,
}

/// Every `*.script` file below a folder, in order.
///
/// # Errors
/// The folder can't be read.
pub fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            out.extend(files(&path)?);
        } else if path.extension().is_some_and(|ext| ext == "script") {
            out.push(path);
        }
    }
    out.sort();
    Ok(out)
}

/// Runs every case of a file. `name` is how reports call it; `is_update` goes on after a
/// difference.
pub fn run(name: &str, source: &str, is_update: bool) -> Report {
    let mut report = Report::default();
    let mut edits: Vec<(usize, usize, Vec<String>)> = Vec::new();
    let stem =
        Path::new(name).file_stem().map_or_else(|| name.into(), |stem| stem.to_string_lossy());
    for case in file::cases(&stem, source) {
        report.cases += 1;
        if let Err(text) = run_case(name, &case, is_update, &mut edits) {
            report.failures.push(text);
        }
    }
    if !edits.is_empty() {
        let mut lines: Vec<String> = source.lines().map(str::to_owned).collect();
        for (at, count, new) in edits.into_iter().rev() {
            lines.splice(at - 1..at - 1 + count, new);
        }
        report.updated = Some(lines.join("\n") + "\n");
    }
    report
}

/// Returns a world after the steps of `source`, for tests that start from there.
///
/// # Errors
/// A line makes no sense, or the engine broke a law.
pub fn world_after(source: &str) -> Result<World, String> {
    let mut world = World::new()?;
    for step in file::cases("world", source).iter().flat_map(|case| &case.steps) {
        world.act(&step.stimulus).map_err(|e| format!("line {}: {e}", step.line))?;
    }
    world.forget();
    Ok(world)
}

/// Returns an operator command's answers as they are sent. `then` are steps after the command,
/// which may cause further answers.
///
/// # Errors
/// The engine broke a law.
pub fn ask(world: &mut World, name: &str, command: &str, then: &[&str]) -> Result<String, String> {
    world.forget();
    world.command(name, command.as_bytes().to_vec())?;
    for stimulus in then {
        world.act(stimulus)?;
    }
    let items = world.look();
    let answers = items.into_iter().filter_map(|item| item.answer);
    Ok(answers.filter(|(to, _)| to == name).map(|(_, answer)| answer).collect())
}

fn run_case(
    name: &str,
    case: &Case,
    is_update: bool,
    edits: &mut Vec<(usize, usize, Vec<String>)>,
) -> Result<(), String> {
    let at = |step: &Step, why: &str| {
        format!("{name}:{} ({})\n    {}\n{why}", step.line, case.title, step.stimulus)
    };
    let mut world = World::new().map_err(|e| format!("{name} ({}): {e}", case.title))?;
    for step in &case.steps {
        world.act(&step.stimulus).map_err(|e| at(step, &format!("  {e}\n")))?;
        let got = world.look();
        let Some(expected) = &step.expected else { continue };
        let (diff, better, text) = check(expected, step, &got);
        if diff.is_empty() {
            continue;
        }
        if !is_update {
            let mut why = String::new();
            for line in diff {
                let _ = writeln!(why, "  {line}");
            }
            return Err(at(step, &why));
        }
        edits.push((step.line, step.lines, file::rewritten(step, &better, &text)));
    }
    Ok(())
}

/// Returns the difference (none = as expected), and corrected expectation and answer lines.
fn check(
    expected: &[String],
    step: &Step,
    got: &[Item],
) -> (Vec<String>, Vec<String>, Vec<String>) {
    let verdict = item::compare(expected, step.is_open, got);
    let mut diff = verdict.diff;
    let answer: Vec<String> = got.iter().flat_map(|item| item.text.iter().cloned()).collect();
    // Where further actions are allowed (`...`), an answer need not be written down.
    let is_unread = step.text.is_empty()
        && step.is_open
        && !expected.iter().any(|item| item.ends_with("text") || item.ends_with("text more"));
    if is_unread || item::text_fits(&step.text, &answer) {
        return (diff, verdict.better, step.text.clone());
    }
    diff.extend(step.text.iter().map(|line| format!("- | {line}")));
    diff.extend(answer.iter().map(|line| format!("+ | {line}")));
    (diff, verdict.better, answer)
}
