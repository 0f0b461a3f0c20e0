//! The files that the settings of a start name: its working directory and its file of variables.
//! The forked child opens both with the rights of the worker's user alone, so that nobody gets to
//! see or to enter through execd what that user could not; then it judges what it opened, as a
//! program is checked. A file system that does not answer makes only the child wait.

use super::check::{self, Policy, StartFailure};
use super::permit::{PermittedNames, shown};
use super::process_settings::Settled;
use super::user::Account;
use crate::engine::limits::ENVIRONMENT_BYTES_MAX;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{getegid, geteuid, getgroups, setegid, seteuid, setgroups};
use protocol::process::ProcessSettings;
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use sys::processes::{CapabilitySet, set_effective};

/// A working directory that was opened and checked.
#[derive(Debug)]
pub(super) struct Directory {
    /// What is entered, wherever its path leads to by now.
    pub(super) fd: OwnedFd,
    /// Its resolved path.
    real: PathBuf,
    /// The path by which this process reaches what it opened.
    magic: PathBuf,
}

impl Directory {
    /// Opens the directory of a start.
    pub(super) fn open(path: &str, settled: &Settled) -> Result<Self, StartFailure> {
        let named = |text: String| format!("cwd {text}");
        let opened = Opened::new(path, OFlag::O_DIRECTORY, settled)
            .map_err(|(is_permanent, text)| (is_permanent, named(text)))?;
        opened.check(&settled.policy).map_err(|(permanent, text)| (permanent, named(text)))?;
        let Opened { fd, real, magic, .. } = opened;
        Ok(Self { fd, real, magic: PathBuf::from(magic) })
    }

    /// The rules for a program that is started there: the interpreter of a script is looked for
    /// from the directory that was opened.
    pub(super) fn policy(&self, policy: &Policy) -> Policy {
        Policy { directory: self.magic.clone(), ..policy.clone() }
    }

    /// Names the directory in a text as its owner knows it.
    pub(super) fn explain(&self, (is_permanent, text): StartFailure) -> StartFailure {
        let (magic, real) = (self.magic.to_string_lossy(), self.real.to_string_lossy());
        (is_permanent, text.replace(&format!("{magic}/"), &format!("{real}/")))
    }
}

/// The environment of a start, in the order host, file, settings; what comes later wins.
///
/// # Errors
/// The file can't be read, may not be, or sets what this host does not permit; or all is too much.
pub(super) fn environment(
    settings: &ProcessSettings,
    settled: &Settled,
    names: &PermittedNames,
) -> Result<Vec<CString>, StartFailure> {
    let mut variables: BTreeMap<OsString, OsString> = BTreeMap::new();
    for pair in &settled.environment {
        let pair = pair.as_bytes();
        let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let value = pair.get(at + 1..).unwrap_or_default();
        variables.insert(OsStr::from_bytes(&pair[..at]).into(), OsStr::from_bytes(value).into());
    }
    if let Some(path) = &settings.env_file {
        let text = read(path, settled)
            .map_err(|(is_permanent, text)| (is_permanent, format!("env_file {text}")))?;
        let of_file = parse(&text, names)
            .map_err(|why| (true, format!("env_file {}: {why}", shown(path))))?;
        variables.extend(of_file.into_iter().map(|(name, value)| (name.into(), value.into())));
    }
    let own = settings.env.iter();
    variables.extend(own.map(|(name, value)| (name.into(), value.into())));
    let pair = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        let nul = |_| (true, "a variable contains a NUL byte; remove it".to_owned());
        CString::new(name.into_vec()).map_err(nul)
    };
    let list = variables.into_iter().map(pair).collect::<Result<Vec<CString>, _>>()?;
    let bytes: usize = list.iter().map(|pair| pair.as_bytes_with_nul().len()).sum();
    if bytes > ENVIRONMENT_BYTES_MAX {
        return Err((
            true,
            format!(
                "its environment has {bytes} bytes; at most {ENVIRONMENT_BYTES_MAX} are allowed; \
                 set less with env and env_file"
            ),
        ));
    }
    Ok(list)
}

/// Reads a file of variables.
fn read(path: &str, settled: &Settled) -> Result<String, StartFailure> {
    let opened = Opened::new(path, OFlag::empty(), settled)?;
    let word = shown(path);
    if !opened.meta.is_file() {
        return Err((true, format!("{word} is not an ordinary file; name a file of variables")));
    }
    opened.check(&settled.policy)?;
    // Not by its path again, which may lead elsewhere by now.
    let file = as_worker(settled.attributes.account.as_ref(), || File::open(&opened.magic))
        .map_err(|error| unopened(path, &error))?;
    let mut bytes = Vec::new();
    file.take(ENVIRONMENT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| (false, format!("{word} can't be read: {error}")))?;
    if bytes.len() > ENVIRONMENT_BYTES_MAX {
        return Err((
            true,
            format!("{word} has more than {ENVIRONMENT_BYTES_MAX} bytes; shorten it"),
        ));
    }
    String::from_utf8(bytes).map_err(|_| (true, format!("{word} is no text (UTF-8)")))
}

/// The variables of a file, line by line. No text says what is in the file: who can name it need
/// not be allowed to read it.
fn parse(text: &str, names: &PermittedNames) -> Result<BTreeMap<String, String>, String> {
    let mut variables = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let at = index + 1;
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!("line {at} is not NAME=VALUE; begin a comment with #"));
        };
        let text = |why| format!("the name in line {at} {why}");
        names.check(name).map_err(|why| text(why.text("of it")))?;
        let value = value.trim_ascii_start();
        let value = match value.chars().next().filter(|first| matches!(first, '"' | '\'')) {
            None => value,
            Some(quote) => value[1..].strip_suffix(quote).ok_or_else(|| {
                format!("the quote that begins the value in line {at} does not end it")
            })?,
        };
        if value.contains('\0') {
            return Err(format!("line {at} contains a NUL byte; remove it"));
        }
        variables.insert(name.to_owned(), value.to_owned());
    }
    Ok(variables)
}

/// The names of the variables that a file with this text sets on a host where operators may set all
/// but those that make programs run other code; for the fuzzer, which has no file.
///
/// # Errors
/// The text is not a valid file.
pub fn names(text: &str) -> Result<Vec<String>, String> {
    let permitted = PermittedNames { patterns: Vec::new(), is_open: true };
    let found = parse(text, &permitted)?;
    for (name, value) in &found {
        assert_eq!(permitted.check(name), Ok(()), "what is set is permitted");
        assert!(!value.contains(['\0', '\n']), "a line has one value: {value:?}");
    }
    Ok(found.into_keys().collect())
}

/// What a path led to, opened without reading it.
struct Opened {
    path: PathBuf,
    fd: OwnedFd,
    real: PathBuf,
    magic: String,
    meta: Metadata,
}

impl Opened {
    /// Opens a path as the worker's user. What `/proc` shows is refused: it is of this process,
    /// which still has what execd has, or of others.
    fn new(path: &str, flags: OFlag, settled: &Settled) -> Result<Self, StartFailure> {
        let flags = flags | OFlag::O_PATH | OFlag::O_CLOEXEC;
        let fd = as_worker(settled.attributes.account.as_ref(), || {
            open(path, flags, Mode::empty()).map_err(io::Error::from)
        })
        .map_err(|error| unopened(path, &error))?;
        let word = shown(path);
        let unseen = |error: io::Error| (false, format!("{word} can't be looked at: {error}"));
        let kind = fstatfs(&fd).map_err(|errno| unseen(errno.into()))?.filesystem_type();
        if kind == PROC_SUPER_MAGIC {
            return Err((true, format!("{word} is in /proc, which shows processes; name another")));
        }
        let magic = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let real = fs::read_link(&magic).map_err(unseen)?;
        let meta = fs::metadata(&magic).map_err(unseen)?;
        Ok(Self { path: PathBuf::from(path), fd, real, magic, meta })
    }

    /// Whether it is where the host permits files of workers, and nobody else could have put it
    /// there or changed it.
    fn check(&self, policy: &Policy) -> Result<(), StartFailure> {
        check::below(&self.path, &self.real, &policy.allow)?;
        check::writers(&self.path, &self.real, &self.meta, policy)?;
        if !fs::symlink_metadata(&self.real).is_ok_and(|now| check::is_same(&now, &self.meta)) {
            let path = self.path.display();
            return Err((false, format!("{path} was moved while it was looked at")));
        }
        Ok(())
    }
}

/// Why a path can't be opened, in the words of the worker's user.
fn unopened(path: &str, error: &io::Error) -> StartFailure {
    let word = shown(path);
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => {
            (true, format!("{word} does not exist on this host; make it or mend the path"))
        }
        Some(Errno::ENOTDIR) => (true, format!("{word} is not a directory, or not below one")),
        Some(Errno::EACCES) => (
            true,
            format!(
                "{word} can't be used by the user that the worker runs as; change its owner, group \
                 or mode, or those of a directory on the way"
            ),
        ),
        Some(Errno::ELOOP) => (true, format!("{word} leads through too many symbolic links")),
        Some(Errno::ENAMETOOLONG) => {
            (true, format!("{word}: a name in the path is longer than this host allows"))
        }
        _ => (false, format!("{word} can't be opened: {error}")),
    }
}

/// Does something with the rights of the worker's user alone: its groups, and none of the
/// capabilities with which execd could read every file. Only a forked child may ask: the user is
/// one of the whole process. If there is no way back the start fails.
fn as_worker<T>(account: Option<&Account>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let (uid, gid, groups) = (geteuid(), getegid(), getgroups()?);
    let target = account.map_or(uid, |account| account.uid);
    if let Some(account) = account {
        setgroups(&account.groups)?;
        setegid(account.gid)?;
        seteuid(account.uid)?;
    }
    // A worker of root has root's, too.
    let own = if target.is_root() { None } else { Some(set_effective(CapabilitySet::empty())?) };
    let done = act();
    if let Some(own) = own {
        set_effective(own)?;
    }
    if account.is_some() {
        seteuid(uid)?;
        setegid(gid)?;
        setgroups(&groups)?;
    }
    done
}

#[cfg(test)]
mod tests {
    use super::super::permit::NamePattern;
    use super::*;

    fn names() -> PermittedNames {
        let patterns = vec![NamePattern::parse("A*").unwrap(), NamePattern::parse("B").unwrap()];
        PermittedNames { patterns, is_open: false }
    }

    #[test]
    fn a_file_is_read_line_by_line() {
        let text = "# comment\n\n  A=1\r\nB = x\nA2=a=b # no comment \nA3=\"  kept  \"\n\
                    A4='it\"s'\nA5=\nA=2\nA6=\"a\"b\"";
        let error = parse(text, &names()).unwrap_err();
        assert!(error.contains("line 4"), "a blank is no part of a name: {error}");
        let found = parse(&text.replace("B = x", "B= x"), &names()).unwrap();
        let found: Vec<(&str, &str)> =
            found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let want = [
            ("A", "2"),
            ("A2", "a=b # no comment"),
            ("A3", "  kept  "),
            ("A4", "it\"s"),
            ("A5", ""),
            ("A6", "a\"b"),
            ("B", "x"),
        ];
        assert_eq!(found, want);
        assert!(parse("", &names()).unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_without_what_is_in_it() {
        for (text, part) in [
            ("hunter2", "line 1 is not NAME=VALUE"),
            ("A=1\nhunter2=", "line 2 is not permitted on this host"),
            ("hunter2 x=1", "line 1 is no name"),
            ("\u{feff}A=hunter2", "line 1 is no name"),
            ("export A=hunter2", "line 1 is no name"),
            ("=hunter2", "line 1 is no name"),
            ("LD_PRELOAD=hunter2", "line 1 can make a program run other code"),
            ("ISECT_RUN=hunter2", "line 1 is execd's own"),
            ("A=hunter2\0", "line 1 contains a NUL byte"),
            ("A=\"hunter2", "line 1 does not end it"),
            ("A='hunter2\"", "line 1 does not end it"),
            ("A=\"", "line 1 does not end it"),
        ] {
            let error = parse(text, &names()).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
            assert!(!error.contains("hunter2"), "{text:?}: {error}");
        }
    }
}
