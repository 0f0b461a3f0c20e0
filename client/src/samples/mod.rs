//! Sample workers as functions, so that a single binary can be one of them under another name (the
//! demonstration needs no other file than isectd). Not part of what an application links for its
//! work.

pub mod echo;
pub mod pipe;

mod child;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

/// Runs the sample worker that `argv[0]` names, if it names one.
pub fn run_as_named(argv0: &OsStr) -> Option<ExitCode> {
    match Path::new(argv0).file_name()?.to_str()? {
        "isdecho" => Some(echo::main()),
        "isdpipe" => Some(pipe::main()),
        _ => None,
    }
}
