//! Counts the instructions of the worst steps with callgrind, and holds each below a limit. The
//! steps that are counted are found in a first run without callgrind: the slowest of each case.

use super::crowd::{Chosen, STEP_NAME};
use super::{Row, run};
use crate::proc::callgrind;
use crate::round::say;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// Most instructions of one step: 5 ms of a core that executes 1.6 in a nanosecond. The steps with
/// the most executed 1.8 to 2 (benches/results/2026-11-29-worst-steps.md).
const INSTRUCTIONS_MAX: u64 = 8_000_000;
/// Cases at the start, when nobody is served, which are shown and not held to the limit.
const START: &[&str] = &["Script:", "Started:", "Listening:"];
/// How long the run under callgrind may take.
const LIMIT: Duration = Duration::from_secs(1500);

/// Runs all cases, counts their worst steps, and returns the table, the worst first. Without
/// `counts` it shows times only.
///
/// # Errors
/// A step takes more instructions than may be, or something can't be run.
pub fn check(counts: bool) -> Result<String, String> {
    let (mut rows, _) = run(None, tell)?;
    let counted = if counts { count(&rows)? } else { BTreeMap::new() };
    let key = |row: &Row| (counted.get(&row.name).copied().unwrap_or(0), row.nanos);
    rows.sort_by_key(|row| std::cmp::Reverse(key(row)));
    let table = table(&rows, &counted);
    let is_over = |row: &&Row| {
        !START.iter().any(|begin| row.name.starts_with(begin))
            && counted.get(&row.name).is_some_and(|count| *count > INSTRUCTIONS_MAX)
    };
    let over: Vec<&str> = rows.iter().filter(is_over).map(|row| row.name.as_str()).collect();
    if over.is_empty() {
        return Ok(table);
    }
    Err(format!("{table}\nmore than {INSTRUCTIONS_MAX} in one step: {}", over.join("; ")))
}

fn tell(row: &Row) {
    say(&format!("{}: {} steps", row.name, row.steps));
}

fn table(rows: &[Row], counts: &BTreeMap<String, u64>) -> String {
    let mut out = String::from(
        "| case | steps | worst step, ms | instructions |\n| --- | --: | --: | --: |\n",
    );
    for row in rows {
        let count = counts.get(&row.name).map_or_else(String::new, u64::to_string);
        let ms = row.nanos as f64 / 1e6;
        let _ = writeln!(out, "| {} | {} | {ms:.3} | {count} |", row.name, row.steps);
    }
    out
}

/// The run under callgrind: reads which steps are counted, and writes to the same file the case of
/// each that was.
///
/// # Errors
/// As of `run`, or of the file.
pub fn child(file: &Path) -> Result<(), String> {
    let text = fs::read_to_string(file).map_err(|e| e.to_string())?;
    let mut chosen = Chosen::new();
    for (steps, case) in text.lines().filter_map(|line| line.split_once(' ')) {
        let steps = steps.split(',').filter_map(|step| step.parse().ok()).collect();
        chosen.insert(case.to_owned(), steps);
    }
    let (_, done) = run(Some(&chosen), |_| {})?;
    fs::write(file, done.join("\n")).map_err(|e| e.to_string())
}

/// The instructions of the worst of the counted steps of each case.
fn count(rows: &[Row]) -> Result<BTreeMap<String, u64>, String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (log, file) = (dir.path().join("log"), dir.path().join("steps"));
    let mut steps = fs::File::create(&file).map_err(|e| e.to_string())?;
    for Row { name, slowest, .. } in rows {
        let words: Vec<String> = slowest.iter().map(ToString::to_string).collect();
        writeln!(steps, "{} {name}", words.join(",")).map_err(|e| e.to_string())?;
    }
    drop(steps);
    let at = |name: &str| dir.path().join(name).display().to_string();
    let flags = [
        &format!("--toggle-collect={STEP_NAME}"),
        &format!("--dump-after={STEP_NAME}"),
        &*format!("--callgrind-out-file={}", at("out")),
    ];
    say("callgrind: the worst steps");
    let command = ["worst-steps", &file.display().to_string()];
    let ended = callgrind(&flags, &command, &log, LIMIT)?;
    let cases = fs::read_to_string(&file).map_err(|e| e.to_string())?;
    let mut counts = BTreeMap::new();
    for (index, case) in cases.lines().enumerate() {
        let dump = fs::read_to_string(at(&format!("out.{}", index + 1))).map_err(|e| {
            let log = fs::read_to_string(&log).unwrap_or_default();
            format!("callgrind counted nothing for '{case}': {e}: {log}{ended}")
        })?;
        let total = dump.lines().rev().find_map(|line| {
            line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: "))
        });
        let total = total.and_then(|total| total.trim().parse().ok());
        let most: &mut u64 = counts.entry(case.to_owned()).or_default();
        *most = (*most).max(total.ok_or_else(|| format!("no totals for '{case}'"))?);
    }
    match rows.iter().find(|row| !counts.contains_key(&row.name)) {
        Some(row) => Err(format!("callgrind did not come to '{}': {ended}", row.name)),
        None => Ok(counts),
    }
}
