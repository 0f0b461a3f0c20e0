//! Copies corpora between the repository and a fuzzer's folders. `unpack TARGET DIR` writes one
//! file for each input, seeds included; `pack TARGET DIR` makes the repository's file from such a
//! folder, with inputs of all sizes as far as they fit; `targets` lists the targets.
//! `tests/fuzz/run.sh` calls it.

#![expect(clippy::print_stdout, reason = "this is a program")]

use isect_tests::fuzz::{TARGETS, Target, corpus, seeds};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Most bytes of one input that is kept.
const INPUT_BYTES_MAX: usize = 2048;
/// Most bytes of all inputs of a target that are kept.
const CORPUS_BYTES_MAX: usize = 64 * 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["targets"] => TARGETS.iter().for_each(|target| println!("{}", target.name)),
        ["unpack", name, dir] => unpack(find(name)?, Path::new(dir))?,
        ["pack", name, dir] => pack(find(name)?, Path::new(dir))?,
        _ => return Err("usage: corpus targets | unpack TARGET DIR | pack TARGET DIR".into()),
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static Target, String> {
    TARGETS.iter().find(|target| target.name == name).ok_or_else(|| format!("no target {name}"))
}

fn unpack(target: &Target, dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    fs::create_dir_all(dir)?;
    let mut inputs = seeds::seeds(target)?;
    if corpus::file(target.name).exists() {
        inputs.extend(corpus::read(target.name)?);
    }
    for (index, input) in inputs.iter().enumerate() {
        fs::write(dir.join(format!("kept-{index:04}")), input)?;
    }
    println!("{} inputs for {}", inputs.len(), target.name);
    Ok(())
}

fn pack(target: &Target, dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut inputs = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let input = fs::read(entry?.path())?;
        if input.len() <= INPUT_BYTES_MAX {
            inputs.insert((input.len(), input));
        }
    }
    let mut text = corpus::marked(target.name)?;
    let (mut count, mut size) = (0, 0);
    // Evenly over all sizes, not only the small ones.
    let step = inputs.iter().map(|(size, _)| size).sum::<usize>().div_ceil(CORPUS_BYTES_MAX).max(1);
    for (_, input) in inputs.iter().step_by(step) {
        let line = hex::encode(input);
        if size + input.len() <= CORPUS_BYTES_MAX && !text.lines().any(|kept| kept == line) {
            text.push_str(&line);
            text.push('\n');
            (count, size) = (count + 1, size + input.len());
        }
    }
    let path = corpus::file(target.name);
    fs::create_dir_all(path.with_file_name(""))?;
    fs::write(&path, text)?;
    println!("{count} inputs of {size} bytes in {}", path.display());
    Ok(())
}
