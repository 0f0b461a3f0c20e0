//! The state directory: the saved configuration, the ports of the last run, the note about tokens,
//! the lock, and the Unix sockets. [`key`] keeps the key of the worker secrets in it, [`runs`] the
//! highest run number; [`journal`] has the form of the configuration.

pub(super) mod journal;
mod key;
mod runs;

use self::journal::Kept;
use super::worker_secret::WorkerSecretKey;
use crate::config::tokens;
use crate::exit::Fatal;
use auth::lock::{Fault, Lock};
use auth::own;
use nix::errno::Errno;
use protocol::address;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The paths of the files and sockets of the directory.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    /// The directory, as an absolute path.
    pub(super) dir: PathBuf,
}

impl Paths {
    /// The saved configuration, a script of commands.
    pub(super) fn config(&self) -> PathBuf {
        self.dir.join("config.isect")
    }

    /// The changes of the configuration since.
    pub(super) fn journal(&self) -> PathBuf {
        self.dir.join("config.journal")
    }

    /// The configuration that is kept.
    ///
    /// # Errors
    /// A file can't be read, or is not as it was written.
    pub(super) fn kept(&self) -> Result<Kept, Fatal> {
        let read = |path: PathBuf| own::read(&path).map_err(|error| wrong(&path, &error));
        let (snapshot, journal) = (read(self.config())?, read(self.journal())?);
        journal::read(snapshot.as_deref(), journal.as_deref())
            .map_err(|why| Fatal::State(format!("state directory {}: {why}", self.dir.display())))
    }

    /// The Unix socket of clients.
    pub(super) fn client(&self) -> PathBuf {
        self.dir.join("client.sock")
    }

    /// The Unix socket of workers.
    pub(super) fn worker(&self) -> PathBuf {
        self.dir.join("worker.sock")
    }

    /// The Unix socket of the built-in execd.
    pub(super) fn execd(&self) -> PathBuf {
        self.dir.join("execd.sock")
    }
}

/// The directory, which this broker holds alone as long as this value exists.
#[derive(Debug)]
pub(super) struct StateDir {
    pub(super) paths: Paths,
    /// The key that signs worker secrets; [`key`] keeps it over restarts.
    pub(super) key: WorkerSecretKey,
    /// The directory is temporary (`--state none`): nothing is kept in it, and it is removed at the
    /// end.
    pub(super) is_private: bool,
    /// Also held by the thread that stores the configuration.
    pub(super) lock: Arc<Lock>,
}

/// The fatal error for a file or directory that can't be used.
fn wrong(path: &Path, error: &io::Error) -> Fatal {
    Fatal::State(format!(
        "state directory: {}: {error}; mend it, or name another with --state",
        path.display()
    ))
}

impl StateDir {
    /// Opens the directory, making it if need be, and takes its lock.
    ///
    /// # Errors
    /// It can't be made, read or written, its paths are too long, or another broker has it.
    pub(super) fn open(dir: Option<&Path>) -> Result<Self, Fatal> {
        let is_private = dir.is_none();
        let (dir, lock) = match dir {
            Some(dir) => (make(dir)?, None),
            None => make_private().map(|(dir, lock)| (dir, Some(lock)))?,
        };
        let paths = Paths { dir };
        for socket in [paths.client(), paths.worker(), paths.execd()] {
            check_socket_path(&socket).map_err(|why| {
                Fatal::State(format!("{why}; name a shorter directory with --state"))
            })?;
        }
        let lock = lock.map_or_else(|| self::lock(&paths.dir), Ok)?;
        // A temporary directory keeps no key, since no later broker uses it.
        let key = if is_private { key::make()? } else { key::of(&paths.dir)? };
        Ok(Self { paths, key, is_private, lock: Arc::new(lock) })
    }

    /// Keeps a copy of a configuration with lines that failed, and returns its path.
    ///
    /// # Errors
    /// The text has the file and the error of the system.
    pub(super) fn keep_bad(&self, text: &str) -> Result<PathBuf, String> {
        let bad = self.paths.dir.join("config.isect.bad");
        // A link or a pipe of that name is not opened.
        replace(&bad, text.as_bytes()).map_err(|e| format!("{}: {e}", bad.display()))?;
        Ok(bad)
    }

    /// The port that a listener had the last time, by its name and address.
    pub(super) fn port(&self, name: &str) -> Option<u16> {
        let text = own::read(&self.paths.dir.join("ports")).ok()??;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Saves the ports, unless they are unchanged. If the disk is full, the broker logs that and
    /// serves all the same.
    pub(super) fn remember_ports(&self, ports: &[(String, u16)]) {
        if self.is_private {
            return;
        }
        let path = self.paths.dir.join("ports");
        let mut text = String::new();
        for (name, port) in ports {
            // Writing to a String can't fail.
            let _ = writeln!(text, "{name} {port}");
        }
        if own::read(&path).is_ok_and(|kept| kept.as_ref() == Some(&text)) {
            return;
        }
        if let Err(error) = replace(&path, text.as_bytes()) {
            tracing::warn!(
                "the ports are not remembered: {}: {error}; after a restart of the broker workers \
                 may not find it again over TCP",
                path.display()
            );
        }
    }

    /// Records the path of the token file in force, or that there is none. The next broker on this
    /// directory then refuses to run without tokens only because the file is missing.
    pub(super) fn note_tokens(&self, file: Option<&Path>) {
        if self.is_private {
            return;
        }
        let note = self.paths.dir.join(tokens::NOTE);
        let noted = match file {
            None => match fs::remove_file(&note) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            },
            Some(file) => {
                let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
                replace(&note, format!("{}\n", file.display()).as_bytes())
            }
        };
        if let Err(error) = noted {
            tracing::warn!(
                "it is not noted whether tokens are in force: {}: {error}; mend it, or a later start \
                 does not notice that they are missing",
                note.display()
            );
        }
    }

    /// Removes the sockets, and a private directory as a whole.
    pub(super) fn clean(&self) {
        for socket in [self.paths.client(), self.paths.worker()] {
            let _ = fs::remove_file(socket);
        }
        if self.is_private {
            let _ = fs::remove_dir_all(&self.paths.dir);
        }
    }
}

/// Writes a file whole or not at all: writes a temporary file, then renames it.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_after(path, bytes, |_| Ok(()))
}

/// The same; what it replaces is there until the new file is on the disk.
pub(super) fn replace_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_after(path, bytes, File::sync_all)
}

fn replace_after(
    path: &Path,
    bytes: &[u8],
    and_then: impl Fn(&File) -> io::Result<()>,
) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    let written = own::create(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| and_then(&file)))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Brings the names in a directory to the disk.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, Unsupported};
    match File::open(dir).and_then(|dir| dir.sync_all()) {
        // Some file systems can't sync a directory; there the names follow later.
        Err(error) if matches!(error.kind(), InvalidInput | Unsupported) => Ok(()),
        done => done,
    }
}

/// Refuses a path that can't be that of a Unix socket, because it is not UTF-8 or too long.
pub(super) fn check_socket_path(path: &Path) -> Result<(), String> {
    // A path that is not UTF-8 passes only if its replacement text is as long; the check below
    // needs nothing but the length.
    let text = String::from_utf8_lossy(path.as_os_str().as_bytes());
    if text.len() != path.as_os_str().len() {
        return Err(format!("{} is no text, and a socket's path is", path.display()));
    }
    address::check_socket_path(&text).map_err(|why| format!("{} {why}", path.display()))
}

/// Makes the directory if need be, and returns its canonical path. Its owner must be this user; no
/// other user may read it.
fn make(dir: &Path) -> Result<PathBuf, Fatal> {
    let is_new = !dir.exists();
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| wrong(dir, &e))?;
    let dir = dir.canonicalize().map_err(|e| wrong(dir, &e))?;
    if let Some(parent) = dir.parent().filter(|_| is_new) {
        // Its name is to outlive a power cut with what is in it; where that can't be, it may not.
        let _ = sync_dir(parent);
    }
    let meta = fs::metadata(&dir).map_err(|e| wrong(&dir, &e))?;
    if !meta.is_dir() {
        return Err(wrong(&dir, &Errno::ENOTDIR.into()));
    }
    // The key and the operator's socket are in it, so no other user may look into it. The owner
    // matters more than the permission bits.
    let own = nix::unistd::geteuid();
    if meta.uid() != own.as_raw() {
        return Err(Fatal::State(format!(
            "state directory {} belongs to user {}, this is user {own}; name another with --state",
            dir.display(),
            meta.uid()
        )));
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).map_err(|e| wrong(&dir, &e))?;
    }
    Ok(dir)
}

/// Makes a private directory below the user's runtime directory, or `/tmp`, and locks it.
#[allow(clippy::disallowed_methods, reason = "the place of the runtime directory is the machine's")]
fn make_private() -> Result<(PathBuf, Lock), Fatal> {
    let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let base = base.filter(|base| base.is_dir()).unwrap_or_else(|| PathBuf::from("/tmp"));
    sweep(&base);
    let mut name = [0; 8];
    getrandom::fill(&mut name).map_err(|e| Fatal::State(format!("no random bytes: {e}")))?;
    let dir = base.join(format!("{PRIVATE}{}", hex::encode(name)));
    // Not recursive, because it must not exist yet. It gets its final name when it is locked, so
    // that no other broker takes it for that of a dead one.
    let new = dir.with_extension("new");
    DirBuilder::new().mode(0o700).create(&new).map_err(|e| wrong(&new, &e))?;
    let named = lock(&new).and_then(|lock| {
        fs::rename(&new, &dir).map_err(|e| wrong(&dir, &e))?;
        Ok((dir, lock))
    });
    if named.is_err() {
        let _ = fs::remove_dir_all(&new);
    }
    named
}

/// First part of the name of a private directory; 16 hex digits follow.
const PRIVATE: &str = "isectd-";

/// Removes the private directories of brokers that were killed.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    let own = nix::unistd::geteuid().as_raw();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix(PRIVATE));
        let is_one = digits.is_some_and(|digits| {
            digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit())
        });
        let is_own =
            || fs::symlink_metadata(entry.path()).is_ok_and(|m| m.is_dir() && m.uid() == own);
        // A broker's directory gets this name only once it is locked.
        let lock = entry.path().join("lock");
        if is_one && is_own() && lock.is_file() && Lock::take(&lock).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Takes the lock of a directory.
///
/// # Errors
/// Another broker holds it, or it can't be used.
fn lock(dir: &Path) -> Result<Lock, Fatal> {
    Lock::take(&dir.join("lock")).map_err(|fault| match fault {
        Fault::Held(pid) => Fatal::Locked(format!(
            "a broker (process {pid}) runs on the state directory {} already; end it, or name \
             another directory with --state",
            dir.display()
        )),
        Fault::Unusable(why) => {
            Fatal::State(format!("state directory: {why}; mend it, or name another with --state"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::input::Start;
    use crate::reactor::worker_secret::KEY_BYTES;
    use protocol::ids::{RunId, WorkerId};

    const START: Start = Start { run: RunId(2), digest: 3 };

    #[test]
    fn what_is_kept_is_there_again_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("a/b");
        let secret = {
            let state = StateDir::open(Some(&dir)).unwrap();
            assert_eq!(state.paths.kept().unwrap(), Kept::default());
            assert_eq!(state.port("worker 127.0.0.1"), None);
            replace(&state.paths.config(), b"config service echo\n").unwrap();
            state.remember_ports(&[("worker 127.0.0.1".to_owned(), 4711)]);
            state.key.sign(WorkerId(1), START)
        };
        let state = StateDir::open(Some(&dir)).unwrap();
        assert_eq!(state.paths.kept().unwrap().text, "config service echo\n");
        assert_eq!(state.port("worker 127.0.0.1"), Some(4711));
        assert_eq!(state.port("client 127.0.0.1"), None);
        assert_eq!(state.key.verify(WorkerId(1), &secret), Some(START));
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        for name in ["key", "config.isect", "ports", "lock"] {
            let mode = fs::metadata(state.paths.dir.join(name)).unwrap().mode() & 0o777;
            assert_eq!(mode, 0o600, "{name}");
        }
    }

    #[test]
    fn a_second_broker_is_told_who_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(Some(dir.path())).unwrap();
        let Err(Fatal::Locked(text)) = StateDir::open(Some(dir.path())) else {
            panic!("two brokers on one directory");
        };
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        drop(first);
        assert!(StateDir::open(Some(dir.path())).is_ok());
    }

    #[test]
    fn what_is_wrong_with_the_directory_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let text = |path: &Path| match StateDir::open(Some(path)) {
            Err(Fatal::State(text)) => text,
            other => panic!("{other:?}"),
        };
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(text(&file.join("x")).contains("--state"));
        let long = dir.path().join("d".repeat(100));
        assert!(text(&long).contains("at most 107"), "{}", text(&long));
        fs::write(dir.path().join("key"), "zz").unwrap();
        assert!(text(dir.path()).contains("64 hex digits"));
        // Files that others could have put there, while the directory was open to them, are not
        // trusted.
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("key"), "ab".repeat(KEY_BYTES)).unwrap();
        fs::remove_file(dir.path().join("key")).unwrap();
        std::os::unix::fs::symlink(other.path().join("key"), dir.path().join("key")).unwrap();
        assert!(text(dir.path()).contains("symbolic"), "{}", text(dir.path()));
        fs::remove_file(dir.path().join("key")).unwrap();
        fs::write(dir.path().join("key"), "ab".repeat(KEY_BYTES)).unwrap();
        fs::set_permissions(dir.path().join("key"), PermissionsExt::from_mode(0o666)).unwrap();
        assert!(text(dir.path()).contains("others can write to it"));
    }

    #[test]
    fn a_private_directory_keeps_nothing_and_is_removed_at_the_end_or_by_the_next_one() {
        let state = StateDir::open(None).unwrap();
        let dir = state.paths.dir.clone();
        assert!(dir.is_dir() && state.is_private);
        state.remember_ports(&[("worker 127.0.0.1".to_owned(), 4711)]);
        state.note_tokens(Some(Path::new("/t")));
        let names: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["lock"]);
        state.clean();
        assert!(!dir.exists());
        // The next broker removes the directory of one that was killed.
        let killed = StateDir::open(None).unwrap().paths.dir;
        let next = StateDir::open(None).unwrap();
        assert!(!killed.exists() && next.paths.dir.is_dir());
        let third = StateDir::open(None).unwrap();
        assert!(next.paths.dir.is_dir(), "a living one's stays");
        next.clean();
        third.clean();
    }

    #[test]
    fn that_tokens_were_in_force_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(dir.path())).unwrap();
        state.note_tokens(None);
        assert_eq!(tokens::check_had_none(&state.paths.dir), Ok(()));
        state.note_tokens(Some(Path::new("/etc/tokens")));
        let why = tokens::check_had_none(&state.paths.dir).unwrap_err();
        assert!(why.contains("/etc/tokens"), "{why}");
        state.note_tokens(None);
        assert_eq!(tokens::check_had_none(&state.paths.dir), Ok(()));
    }

    #[test]
    fn a_configuration_that_is_there_and_empty_is_no_first_start() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(dir.path())).unwrap();
        for text in ["", "\0\0"] {
            fs::write(state.paths.config(), text).unwrap();
            let text = state.paths.kept().unwrap_err().to_string();
            assert!(text.contains("config.isect is empty"), "{text}");
        }
        fs::remove_file(state.paths.config()).unwrap();
        for kind in ["link", "directory"] {
            match kind {
                "link" => std::os::unix::fs::symlink("/no/such", state.paths.config()).unwrap(),
                _ => fs::create_dir(state.paths.config()).unwrap(),
            }
            let text = state.paths.kept().unwrap_err().to_string();
            assert!(text.contains("config.isect: "), "{kind}: {text}");
            let _ = fs::remove_file(state.paths.config());
        }
    }
}
