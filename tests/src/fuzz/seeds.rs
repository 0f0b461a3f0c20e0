//! The first inputs of each fuzzer: the hex files of `tests/wire` and the commands of
//! `tests/scripts`. Inputs that a fuzzer found are in the corpora.

use super::Target;
use crate::script;
use protocol::kinds::{KINDS, Kind};
use protocol::limits::HEADER_BYTES;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The seeds of a target.
///
/// # Errors
/// The files of the tests can't be read.
pub fn seeds(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    Ok(match target.name {
        "decoder" => {
            let mut seeds: Vec<Vec<u8>> =
                frames()?.into_iter().map(|frame| [vec![255, 0], frame].concat()).collect();
            seeds.push(seeds.iter().flat_map(|seed| &seed[2..]).copied().collect());
            seeds
        }
        "bodies" => frames()?.iter().filter_map(|frame| body(frame)).collect(),
        "streams" => {
            let frames = frames()?.into_iter();
            frames.map(|frame| [vec![255, 0, 0, 0], frame].concat()).collect()
        }
        "command" => commands()?.into_iter().map(String::into_bytes).collect(),
        "files" => files(&commands()?),
        _ => Vec::new(),
    })
}

/// The inputs of `files`: a good one of each kind.
fn files(commands: &[String]) -> Vec<Vec<u8>> {
    let key = "ab".repeat(32);
    let mut seeds = vec![
        b"\0isect-execd-1 boot\n1 2 300 400 5 6 a broker\n".to_vec(),
        format!("\x01# isect tokens\ndecoy {key}\nanonymous client:*\n").into_bytes(),
        b"\x02ops.0123456789abcdefghijklmnopqrstuvwxyz".to_vec(),
        b"\x03[::1]:5501".to_vec(),
        b"\x03unix:/run/x".to_vec(),
    ];
    for commands in commands.chunks(5) {
        seeds.push(format!("\x04{}\n", commands.join("\n")).into_bytes());
    }
    seeds
}

/// The frames of the hex files, one each.
fn frames() -> io::Result<Vec<Vec<u8>>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder("wire"))?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.sort();
    let mut frames = Vec::new();
    for path in paths.iter().filter(|path| !path.ends_with("conversation.hex")) {
        let text = fs::read_to_string(path)?;
        let words = text.lines().flat_map(|line| {
            let bytes = line.split_once('#').map_or(line, |(bytes, _)| bytes);
            bytes.split_whitespace()
        });
        frames.push(words.filter_map(|word| u8::from_str_radix(word, 16).ok()).collect());
    }
    Ok(frames)
}

/// The input of `bodies` that gives this frame's body.
fn body(frame: &[u8]) -> Option<Vec<u8>> {
    let number = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
    let kind = Kind::of(number).filter(|kind| *kind != Kind::Data)?;
    let controls = KINDS.iter().filter(|row| row.kind != Kind::Data);
    let index = controls.map(|row| row.kind).position(|other| other == kind)?;
    let mut seed = vec![u8::try_from(index).ok()?];
    if kind == Kind::Error {
        seed.push(frame[11].wrapping_neg());
    }
    seed.extend_from_slice(&frame[HEADER_BYTES..]);
    Some(seed)
}

/// Every operator command of every script, once.
fn commands() -> io::Result<Vec<String>> {
    let mut commands = Vec::new();
    for path in script::files(&folder("scripts"))? {
        let text = fs::read_to_string(path)?;
        for line in text.lines() {
            let words = line.split('|').next().unwrap_or_default().trim();
            if let Some(command) = words.strip_prefix("op ") {
                commands.push(command.to_owned());
            }
        }
    }
    commands.sort();
    commands.dedup();
    Ok(commands)
}
