//! May this program be started? Precise answers before the fork, and words for what the kernel says
//! after it. Not the fork: `spawn` does that.

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use protocol::bodies::ExecStart;
use protocol::limits::{PATH_BYTES_MAX, WORDS_MAX};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// Why a program is not started: whether that lasts, and what, which path, and the cure.
pub(super) type Refusal = (bool, String);

fn lasting(text: String) -> Refusal {
    (true, text)
}

/// Checks a request to start a program against the directories that are allowed.
pub(super) fn check(start: &ExecStart, allow: &[PathBuf]) -> Result<(), Refusal> {
    spelling(start)?;
    let path = Path::new(&start.path);
    let shown = path.display();
    let real = fs::canonicalize(path).map_err(|error| not_reached(path, &error))?;
    if !allow.is_empty() && !allow.iter().any(|directory| real.starts_with(directory)) {
        let link =
            if real == path { String::new() } else { format!(" (it leads to {})", real.display()) };
        let list: Vec<String> = allow.iter().map(|dir| dir.display().to_string()).collect();
        return Err(lasting(format!(
            "{shown}{link} is not below an allowed directory ({}); move it, or start execd with \
             --allow of its directory",
            list.join(", ")
        )));
    }
    let meta = fs::metadata(&real).map_err(|error| not_reached(path, &error))?;
    if meta.is_dir() {
        return Err(lasting(format!("{shown} is a directory; name the program in it")));
    }
    if !meta.is_file() {
        return Err(lasting(format!("{shown} is not an ordinary file; name a program")));
    }
    let mode = meta.permissions().mode();
    if mode & 0o6000 != 0 {
        return Err(lasting(format!(
            "{shown} has the setuid or setgid bit (mode {:04o}); a worker runs as execd's user, \
             remove the bit with chmod ug-s",
            mode & 0o7777
        )));
    }
    if mode & 0o111 == 0 {
        return Err(lasting(format!(
            "{shown} is not executable (mode {:04o}); make it so with chmod +x",
            mode & 0o7777
        )));
    }
    access(&real, AccessFlags::X_OK).map_err(|_| {
        lasting(format!(
            "{shown} may not be executed by execd's user (mode {:04o}); change its owner, group or \
             mode, or run execd as another user",
            mode & 0o7777
        ))
    })
}

/// What can be said without looking at the disk.
fn spelling(start: &ExecStart) -> Result<(), Refusal> {
    let path = Path::new(&start.path);
    let shown = start.path.escape_debug();
    if start.path.len() > PATH_BYTES_MAX {
        return Err(lasting(format!(
            "the path has {} bytes; at most {PATH_BYTES_MAX} are allowed",
            start.path.len()
        )));
    }
    if !path.is_absolute() {
        return Err(lasting(format!("'{shown}' is not an absolute path; begin it with /")));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(lasting(format!("'{shown}' contains '..'; write the path without it")));
    }
    if start.args.len() > WORDS_MAX {
        return Err(lasting(format!(
            "{} arguments are given; at most {WORDS_MAX} are allowed",
            start.args.len()
        )));
    }
    let mut texts = start.args.iter().chain([&start.path, &start.secret]);
    if texts.any(|text| text.contains('\0')) {
        return Err(lasting(format!("'{shown}' or an argument contains a NUL byte; remove it")));
    }
    Ok(())
}

fn not_reached(path: &Path, error: &io::Error) -> Refusal {
    let shown = path.display();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => {
            let is_dangling = fs::symlink_metadata(path).is_ok();
            lasting(if is_dangling {
                format!("{shown} is a symbolic link to nothing; mend the link")
            } else {
                format!("{shown} does not exist on this host; install it or mend the path")
            })
        }
        Some(Errno::ENOTDIR) => {
            lasting(format!("{shown} does not exist: a part of the path is not a directory"))
        }
        Some(Errno::EACCES) => lasting(format!(
            "{shown} can't be reached by execd's user: a directory on the way may not be entered"
        )),
        Some(Errno::ELOOP) => lasting(format!("{shown} leads through too many symbolic links")),
        Some(Errno::ENAMETOOLONG) => {
            lasting(format!("{shown}: a name in the path is longer than this host allows"))
        }
        _ => (false, format!("{shown} can't be looked at: {error}")),
    }
}

/// Words for what fork or exec answered.
pub(super) fn explain(path: &Path, error: &io::Error) -> Refusal {
    let shown = path.display();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => lasting(match interpreter(path) {
            Some(interpreter) => format!(
                "{shown} is a script for {interpreter}, which does not exist on this host; mend its \
                 first line or install that"
            ),
            None => format!(
                "{shown} can't be executed: the loader it was built for does not exist on this host"
            ),
        }),
        Some(Errno::ENOEXEC) => lasting(format!(
            "{shown} is no program that this machine can execute: it is neither a binary for it nor \
             a script that begins with #!"
        )),
        Some(Errno::E2BIG) => {
            lasting(format!("the arguments for {shown} are larger than the kernel takes"))
        }
        Some(Errno::EACCES) => lasting(match interpreter(path) {
            Some(interpreter) => {
                format!("{shown} is a script for {interpreter}, which may not be executed")
            }
            None => format!("{shown} may not be executed, perhaps its file system is noexec"),
        }),
        Some(Errno::EPERM) => lasting(format!("{shown} may not be executed: {error}")),
        Some(Errno::ELOOP) => lasting(format!("{shown} is a script for a script for … too deep")),
        Some(Errno::ETXTBSY) => {
            (false, format!("{shown} is open for writing, perhaps it is being installed"))
        }
        Some(Errno::EAGAIN) => (
            false,
            format!("no further process for {shown}: the user's limit (ulimit -u) is reached"),
        ),
        Some(Errno::ENOMEM) => (false, format!("no memory to start {shown}")),
        Some(Errno::EMFILE | Errno::ENFILE) => {
            (false, format!("no descriptors left for the pipes of {shown} (ulimit -n)"))
        }
        _ => (false, format!("{shown} can't be started: {error}")),
    }
}

/// The interpreter that a script names in its first line.
fn interpreter(path: &Path) -> Option<String> {
    let mut head = Vec::new();
    File::open(path).ok()?.take(256).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    // A script with the line ends of another system asks for an interpreter with a CR in its name.
    let word = line.trim_matches([' ', '\t']).split([' ', '\t']).next()?;
    Some(format!("'{}'", word.escape_debug()))
}

/// The allowed directories as they really are.
pub(super) fn allowed(given: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    given
        .iter()
        .map(|directory| {
            let shown = directory.display();
            let real = fs::canonicalize(directory).map_err(|error| {
                format!("--allow {shown}: {error}; name a directory that exists")
            })?;
            if real.is_dir() {
                Ok(real)
            } else {
                Err(format!("--allow {shown} is not a directory; name the one above it"))
            }
        })
        .collect()
}
