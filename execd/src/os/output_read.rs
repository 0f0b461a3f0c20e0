//! Reads the last lines of files of kept output, from the end: what is read is bounded, whatever
//! the size of the files.

use super::output_line::{FILE_LINE_BYTES_MAX, FileLine};
use protocol::process::KeptLine;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of one read from the end of a file.
const READ_BYTES: u64 = 64 << 10;
/// Most bytes of files that are looked at for one `exec-read`.
const LOOKED_BYTES_MAX: u64 = 16 << 20;
/// Most bytes of lines in the answer to one.
const ANSWER_BYTES_MAX: usize = 2 << 20;

/// The last lines of a worker.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LastLines {
    /// Oldest first.
    pub(super) lines: Vec<KeptLine>,
    /// How many lines are missing between them and after them.
    pub(super) lost: u64,
}

/// The last lines in these files, the newest of which comes first; at most `count`. So many lines
/// are missing after them.
pub(super) fn last_lines(
    paths: impl Iterator<Item = PathBuf>,
    untold: u64,
    count: usize,
) -> io::Result<LastLines> {
    let mut last = LastLines { lines: Vec::new(), lost: untold };
    let (mut looked, mut bytes) = (0, 0);
    'files: for path in paths {
        let file = match read_only(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file.map_err(|error| of_file(&path, &error))?,
        };
        let mut lines = BackwardLines::new(file).map_err(|error| of_file(&path, &error))?;
        while let Some(line) = lines.next().map_err(|error| of_file(&path, &error))? {
            if last.lines.len() >= count || looked + lines.read > LOOKED_BYTES_MAX {
                break 'files;
            }
            match FileLine::parse(&line) {
                Some(FileLine::Kept(line)) => {
                    bytes += line.text.len();
                    if bytes > ANSWER_BYTES_MAX {
                        break 'files;
                    }
                    last.lines.push(line);
                }
                Some(FileLine::Lost { count, .. }) => last.lost += count,
                None => {}
            }
        }
        looked += lines.read;
    }
    last.lines.reverse();
    Ok(last)
}

/// The number of the last line in a file.
pub(super) fn last_number(path: &Path) -> Option<u64> {
    let mut lines = BackwardLines::new(read_only(path).ok()?).ok()?;
    while let Some(line) = lines.next().ok()? {
        if let Some(line) = FileLine::parse(&line) {
            return Some(line.number());
        }
        if lines.read > READ_BYTES {
            break;
        }
    }
    None
}

/// An error that names the file.
pub(super) fn of_file(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Opens a file to read it, without following a link or waiting for anything.
fn read_only(path: &Path) -> io::Result<File> {
    use nix::libc;
    use std::os::unix::fs::OpenOptionsExt;
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(no_file())
}

/// The error of what is in the way of a file.
pub(super) fn no_file() -> io::Error {
    io::Error::other("it is no plain file; remove it or move it away")
}

/// The lines of a file, the last one first.
struct BackwardLines {
    file: File,
    /// Where what was not read yet ends.
    left: u64,
    /// How many bytes were read.
    read: u64,
    /// What was read and not given.
    text: Vec<u8>,
}

impl BackwardLines {
    fn new(file: File) -> io::Result<Self> {
        let left = file.metadata()?.len();
        Ok(Self { file, left, read: 0, text: Vec::new() })
    }

    /// The line before, without its end. One without an end, at the end of the file, is left out.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.read == 0 {
            self.more()?;
            let whole = self.text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.text.truncate(whole);
        }
        loop {
            let body = self.text.len().saturating_sub(1);
            if let Some(at) = self.text[..body].iter().rposition(|byte| *byte == b'\n') {
                let mut line = self.text.split_off(at + 1);
                line.pop();
                return Ok(Some(line));
            }
            if self.left == 0 {
                let mut line = std::mem::take(&mut self.text);
                return Ok((!line.is_empty()).then(|| {
                    line.pop();
                    line
                }));
            }
            // What is longer is no line of ours, and need not be known as a whole.
            self.text.truncate(FILE_LINE_BYTES_MAX);
            self.more()?;
        }
    }

    fn more(&mut self) -> io::Result<()> {
        let from = self.left.saturating_sub(READ_BYTES);
        let mut text = vec![0; (self.left - from) as usize];
        self.file.read_exact_at(&mut text, from)?;
        self.read += text.len() as u64;
        self.left = from;
        text.append(&mut self.text);
        self.text = text;
        Ok(())
    }
}
