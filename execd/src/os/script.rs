//! Reads the first line of a script exactly as the kernel does (fs/binfmt_script.c): the same
//! number of bytes, and the same rules for blanks, line ends and truncation. `check` decides
//! whether the interpreter may be started.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Bytes that the kernel reads of a file before it knows the format (`BINPRM_BUF_SIZE`).
const HEAD_BYTES: usize = 256;

/// Most scripts in a chain, each the interpreter of the one before.
pub(super) const SCRIPTS_MAX: usize = 5;

/// What the beginning of a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Not `#!`.
    Other,
    /// A line that names this interpreter.
    Script(PathBuf),
    /// A line that the kernel refuses, and why.
    Wrong(&'static str),
}

/// The beginning of a file; [`Head::Other`] if it can't be read (then its interpreter could not
/// read it either).
pub(super) fn head(path: impl AsRef<Path>) -> Head {
    let mut bytes = Vec::new();
    // Only a forked child asks: where the kernel would wait, it waits as well.
    match File::open(path).and_then(|file| file.take(HEAD_BYTES as u64).read_to_end(&mut bytes)) {
        Ok(_) => parse(&bytes),
        Err(_) => Head::Other,
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn parse(bytes: &[u8]) -> Head {
    // As in the kernel, a short file is followed by zeros, and any of them ends a name.
    let mut head = [0; HEAD_BYTES];
    let size = bytes.len().min(HEAD_BYTES);
    head[..size].copy_from_slice(&bytes[..size]);
    let Some(line) = head.strip_prefix(b"#!") else { return Head::Other };
    let end = line.iter().position(|byte| matches!(byte, b'\n' | 0));
    let start = line.iter().position(|byte| !is_blank(*byte));
    let (line, is_whole) = match end {
        Some(end) if line[end] == b'\n' => (&line[..end], true),
        // A zero ends a name like a blank; it does not end the line.
        Some(_) | None => (line, false),
    };
    let Some(start) = start.filter(|start| *start < line.len()) else {
        return Head::Wrong("names no interpreter");
    };
    let name = &line[start..];
    let name_end = name.iter().position(|byte| is_blank(*byte) || *byte == 0);
    match name_end {
        Some(0) => Head::Wrong("names no interpreter"),
        Some(end) => Head::Script(PathBuf::from(OsStr::from_bytes(&name[..end]))),
        None if is_whole => Head::Script(PathBuf::from(OsStr::from_bytes(name))),
        None => {
            Head::Wrong("names an interpreter whose path goes on past the 256 bytes that count")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(path: &str) -> Head {
        Head::Script(PathBuf::from(path))
    }

    #[test]
    fn a_first_line_is_read_by_the_kernels_rules() {
        for (bytes, head) in [
            (&b""[..], Head::Other),
            (b"#", Head::Other),
            (b"# !/bin/sh\n", Head::Other),
            (b"\xef\xbb\xbf#!/bin/sh\n", Head::Other),
            (b"#!/bin/sh\n", script("/bin/sh")),
            (b"#!/bin/sh", script("/bin/sh")),
            (b"#! \t /bin/sh\n", script("/bin/sh")),
            (b"#!/bin/sh -e  \n", script("/bin/sh")),
            (b"#!/bin/sh\t-e -x\nmore\n", script("/bin/sh")),
            (b"#!/bin/sh\r\n", script("/bin/sh\r")),
            (b"#!bin/sh\n", script("bin/sh")),
            (b"#!/bin/sh\0x\n", script("/bin/sh")),
            (b"#!\n/bin/sh\n", Head::Wrong("names no interpreter")),
            (b"#!", Head::Wrong("names no interpreter")),
            (b"#! \t \n", Head::Wrong("names no interpreter")),
            (b"#!  ", Head::Wrong("names no interpreter")),
            (b"#!\0/bin/sh\n", Head::Wrong("names no interpreter")),
        ] {
            assert_eq!(parse(bytes), head, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn only_256_bytes_count() {
        let line = |name: usize, rest: &str| format!("#!/{}{rest}", "p".repeat(name - 1));
        let whole = |name: usize| script(&format!("/{}", "p".repeat(name - 1)));
        // The end of the line, or a blank after the name, must be among the 256 bytes.
        assert_eq!(parse(line(253, "\n").as_bytes()), whole(253));
        assert_eq!(parse(line(253, " x\n").as_bytes()), whole(253));
        assert!(matches!(parse(line(254, "\n").as_bytes()), Head::Wrong(_)));
        assert!(matches!(parse(line(254, " \n").as_bytes()), Head::Wrong(_)));
        assert_eq!(parse(line(253, "").as_bytes()), whole(253), "a file that ends there");
        assert!(matches!(parse(line(254, "").as_bytes()), Head::Wrong(_)));
        let blanks = format!("#!{}/bin/sh\n", " ".repeat(254));
        assert_eq!(parse(blanks.as_bytes()), Head::Wrong("names no interpreter"));
        let late = format!("#!{}/bin/sh {}", " ".repeat(240), "x".repeat(100));
        assert_eq!(parse(late.as_bytes()), script("/bin/sh"));
    }
}
