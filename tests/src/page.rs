//! Types a page of `docs` into the shells of simulated machines, as its reader would, and compares
//! what they say with the page. What the blocks mean is told by the words behind their fences.

use crate::docs::root;
use crate::lan::Lan;
use crate::walkthrough::{Block, Numbers, blocks};

/// What to do with a block.
enum Part<'a> {
    /// `sh`, or `sh MACHINE…`: type it.
    Typed(Vec<&'a str>),
    /// `text`: the block before it says this.
    Printed,
    /// `LANGUAGE FILE`: save it as this file.
    Saved(&'a str),
    /// Only shown: a file that a command made, or a part of a program that another test compiles.
    Shown,
}

/// Types all blocks of a page, those that name no machine at the first one. Returns how many were
/// typed or saved.
///
/// # Panics
/// If a line fails, or does not say what the page shows.
pub fn type_page(lan: &mut Lan, name: &str) -> usize {
    let page = std::fs::read_to_string(root().join(name)).expect("the page");
    let machines: Vec<String> = lan.machines.iter().map(|machine| machine.name.clone()).collect();
    let (mut numbers, mut said, mut count) = (Numbers::default(), String::new(), 0);
    for block in blocks(&page) {
        match part(&block, &machines) {
            Part::Typed(on) => {
                for machine in on {
                    let lines = numbers.now(&block.text);
                    let (out, is_well) = lan.run(machine, &lines);
                    let line = block.line;
                    assert!(is_well, "{name}, line {line} on {machine}:\n{lines}\n{out}");
                    said = out;
                    count += 1;
                }
            }
            Part::Saved(file) => {
                save(lan, &machines[0], file, &block.text);
                count += 1;
            }
            Part::Printed => numbers
                .compare(&block.text, &said)
                .unwrap_or_else(|why| panic!("{name}, line {}: {why}; was\n{said}", block.line)),
            Part::Shown => {}
        }
    }
    count
}

/// Saves a block as a file in the folder where the shell of a machine is.
///
/// # Panics
/// If that fails.
pub fn save(lan: &mut Lan, machine: &str, file: &str, text: &str) {
    let lines = format!("cat > {file} <<'end of the file'\n{text}end of the file\n");
    let (out, is_well) = lan.run(machine, &lines);
    assert!(is_well, "{file}: {out}");
}

fn part<'a>(block: &'a Block, machines: &'a [String]) -> Part<'a> {
    let words: Vec<&str> = block.info.split_whitespace().collect();
    match words[..] {
        ["sh"] => Part::Typed(vec![&machines[0]]),
        ["text"] => Part::Printed,
        ["ini" | "rust,no_run"] => Part::Shown,
        ["sh", ref on @ ..] if on.iter().all(|word| machines.iter().any(|name| name == word)) => {
            Part::Typed(on.to_vec())
        }
        [_, file] if file.contains('.') => Part::Saved(file),
        _ => panic!("line {}: a block of kind '{}'", block.line, block.info),
    }
}
