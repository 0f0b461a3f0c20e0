//! Sample workers as functions, so that one binary can be each of them under another name (the
//! demonstration needs only isectd). Applications don't need this module.

pub mod echo;
pub mod pipe;

mod child;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

/// Runs the sample worker that `argv[0]` names; `None` = it names none.
pub fn run_as_named(argv0: &OsStr) -> Option<ExitCode> {
    match Path::new(argv0).file_name()?.to_str()? {
        "isdecho" => Some(echo::main()),
        "isdpipe" => Some(pipe::main()),
        _ => None,
    }
}
