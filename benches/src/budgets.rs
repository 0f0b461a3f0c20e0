//! Counts the instructions of a step with callgrind and compares them with `budgets.toml`. The
//! count does not depend on the load of the machine, so it shows a slower commit. It is the
//! difference of two runs of different length, which removes the cost of the setup.

use crate::proc::callgrind;
use crate::round::say;
use crate::steps::STEPS;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Past the first turn of each of 10,000 clients, which makes room.
const SHORT: u64 = 12_000;
const LONG: u64 = 22_000;
/// So much more than the budget is a failure, in per cent: compilers differ a little.
const SLACK: u64 = 3;
/// So much less than the budget should be written down, in per cent.
const GAIN: u64 = 10;
const LIMIT: Duration = Duration::from_secs(300);

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Budget {
    name: String,
    instructions: u64,
}

/// Counts every step and compares; with `update` writes what was counted.
///
/// # Errors
/// A step costs more than its budget, or callgrind can't be run.
pub fn check(file: &Path, update: bool) -> Result<String, String> {
    let mut out = String::new();
    let (mut over, mut fresh) = (Vec::new(), Vec::new());
    let text = fs::read_to_string(file).unwrap_or_default();
    let budgets = parse(&text).map_err(|e| format!("{}: {e}", file.display()))?;
    for row in STEPS {
        let counted = count(row.name)?;
        fresh.push(Budget { name: row.name.to_owned(), instructions: counted });
        let budget = budgets.iter().find(|budget| budget.name == row.name);
        let word = match budget {
            _ if update => "written down",
            None => "has no budget",
            Some(Budget { instructions, .. }) if counted * 100 > instructions * (100 + SLACK) => {
                "OVER the budget"
            }
            Some(Budget { instructions, .. }) if counted * 100 < instructions * (100 - GAIN) => {
                "under it: lower the budget"
            }
            Some(_) => "within the budget",
        };
        if !update && (budget.is_none() || word.starts_with("OVER")) {
            over.push(row.name);
        }
        let budget = budget.map_or(0, |budget| budget.instructions);
        let _ =
            writeln!(out, "{:<24}{counted:>8} instructions, budget {budget:>6}: {word}", row.name);
    }
    if update {
        fs::write(file, render(&fresh)).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    if over.is_empty() {
        Ok(out)
    } else {
        Err(format!(
            "{out}{}: more than {}; if that is right: --update",
            over.join(", "),
            file.display()
        ))
    }
}

/// Instructions for one repetition.
fn count(name: &str) -> Result<u64, String> {
    say(&format!("callgrind: {name}"));
    let (short, long) = (collect(name, SHORT)?, collect(name, LONG)?);
    Ok(long.saturating_sub(short) / (LONG - SHORT))
}

fn collect(name: &str, count: u64) -> Result<u64, String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let log = dir.path().join("log");
    let command = ["steps", name, &count.to_string()];
    let ended = callgrind(&["--callgrind-out-file=/dev/null"], &command, &log, LIMIT)?;
    let text = fs::read_to_string(&log).unwrap_or_default();
    let collected = |line: &str| line.split_once("Collected :")?.1.trim().parse().ok();
    text.lines()
        .find_map(collected)
        .ok_or_else(|| format!("callgrind counted nothing: {text}{ended}"))
}

fn parse(text: &str) -> Result<Vec<Budget>, String> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty() && !line.starts_with('['))
        .map(|line| {
            let (name, value) =
                line.split_once('=').ok_or_else(|| format!("'{line}' is no 'name = number'"))?;
            let instructions = value
                .trim()
                .replace('_', "")
                .parse()
                .map_err(|_| format!("'{line}': the value is no number"))?;
            Ok(Budget { name: name.trim().to_owned(), instructions })
        })
        .collect()
}

fn render(budgets: &[Budget]) -> String {
    let mut out = String::from(
        "# Instructions for one step, counted by callgrind in a release build. Checked, and written anew\n\
         # with --update, by: cargo run --release -p isect-benches --bin isdbench -- budgets\n\n\
         [instructions]\n",
    );
    for budget in budgets {
        if let Some(row) = STEPS.iter().find(|row| row.name == budget.name) {
            let _ = writeln!(out, "# {}\n{} = {}", row.text, budget.name, budget.instructions);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let budgets: Vec<Budget> = STEPS
            .iter()
            .map(|row| Budget { name: row.name.to_owned(), instructions: 1234 })
            .collect();
        assert_eq!(parse(&render(&budgets)).unwrap(), budgets);
        assert!(parse("engine 12").unwrap_err().contains("no 'name = number'"));
        assert!(parse("engine = many").unwrap_err().contains("no number"));
    }

    #[test]
    fn every_step_has_a_budget() {
        let text = include_str!("../budgets.toml");
        let names: Vec<String> = parse(text).unwrap().into_iter().map(|b| b.name).collect();
        let wanted: Vec<String> = STEPS.iter().map(|row| row.name.to_owned()).collect();
        assert_eq!(names, wanted);
    }
}
