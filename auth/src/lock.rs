//! Locks that let one program at a time change a file. The lock is taken on a separate file beside
//! it (`.lock`), which is never renamed or removed, so that everybody locks the same file. The
//! kernel releases the lock when its holder ends, however it ends. `private` changes the file
//! itself.

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::{Gid, Uid, fchown};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest wait for a lock; a change of a small file takes milliseconds.
const WAIT: Duration = Duration::from_secs(10);
/// Time between two tries.
const EVERY: Duration = Duration::from_millis(20);

/// A held lock; dropping it releases the lock.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Why a lock could not be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Another process holds it. The text is its process id, or empty if it could not write it
    /// down.
    Held(String),
    /// The lock file can't be used; the text names it and says why.
    Unusable(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(pid) => write!(f, "process {pid} has the lock"),
            Self::Unusable(why) => f.write_str(why),
        }
    }
}

impl Lock {
    /// Takes the lock for changing `file`, and waits up to 10 s for another holder.
    ///
    /// # Errors
    /// Names the file and the process that held the lock all the time.
    pub fn to_change(file: &Path) -> Result<Self, String> {
        let lock = beside(file);
        Self::take_within(&lock, WAIT).map_err(|fault| match fault {
            Fault::Held(pid) => format!(
                "{}: process {pid} has been changing it for {} s (it holds {}); try again when it \
                 is through, or end it",
                file.display(),
                WAIT.as_secs(),
                lock.display()
            ),
            Fault::Unusable(why) => why,
        })
    }

    /// Takes the lock file at `path` without waiting; creates it if it is missing.
    ///
    /// # Errors
    /// Another process holds it, or it can't be used.
    pub fn take(path: &Path) -> Result<Self, Fault> {
        Self::take_within(path, Duration::ZERO)
    }

    /// Takes the lock file at `path`; creates it if it is missing. Waits this long for another
    /// holder.
    ///
    /// # Errors
    /// Another process still holds it, or it can't be used.
    pub fn take_within(path: &Path, wait: Duration) -> Result<Self, Fault> {
        let wrong = |why: String| Fault::Unusable(format!("{}: {why}", path.display()));
        let mut left = wait;
        let mut file = open(path).map_err(wrong)?;
        loop {
            let mut locked = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(locked) => locked,
                Err((same, Errno::EWOULDBLOCK)) if !left.is_zero() => {
                    pause();
                    left = left.saturating_sub(EVERY);
                    file = same;
                    continue;
                }
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    let mut pid = String::new();
                    let _ = (&mut file).take(32).read_to_string(&mut pid);
                    return Err(Fault::Held(pid.trim().escape_debug().to_string()));
                }
                Err((_, errno)) => return Err(wrong(errno.to_string())),
            };
            // Another program may have removed the file after we opened it and before we locked it.
            // The next program would then lock another file of the same name.
            if is_still(&locked, path) {
                let mut write = || {
                    locked.set_len(0)?;
                    locked.rewind()?;
                    writeln!(locked, "{}", std::process::id())
                };
                // The lock is what counts. On a full disk others are not told who holds it.
                let _: std::io::Result<()> = write();
                return Ok(Self { _file: locked });
            }
            file = open(path).map_err(wrong)?;
        }
    }
}

fn is_still(file: &File, path: &Path) -> bool {
    let (Ok(own), Ok(named)) = (file.metadata(), fs::symlink_metadata(path)) else { return false };
    (own.dev(), own.ino()) == (named.dev(), named.ino())
}

/// The path of the lock file: the file's path and `.lock`.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

fn open(path: &Path) -> Result<File, String> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(flags);
    let opened = match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            match options.clone().create_new(true).open(path) {
                // Another process created it first.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    options.open(path)
                }
                Ok(file) => {
                    give_to_owner(&file, path).map_err(|errno| errno.to_string())?;
                    Ok(file)
                }
                made => made,
            }
        }
        opened => opened,
    };
    let file = opened.map_err(|error| error.to_string())?;
    let meta = file.metadata().map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("not a regular file; remove it".into());
    }
    let (own, owner) = (Uid::effective().as_raw(), meta.uid());
    if owner != own && own != 0 {
        return Err(format!("belongs to user {owner}, this is {own}"));
    }
    if meta.mode() & 0o022 != 0 {
        let mode = meta.mode() & 0o7777;
        return Err(format!("others can write to it (mode {mode:04o}); chmod 600 it"));
    }
    Ok(file)
}

/// Gives a new file to the owner of its directory, if root creates it there: that user must be able
/// to use it.
pub(crate) fn give_to_owner(file: &File, path: &Path) -> nix::Result<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let Ok(meta) = fs::metadata(parent.unwrap_or_else(|| Path::new("."))) else { return Ok(()) };
    if meta.uid() == 0 {
        return Ok(());
    }
    fchown(file, Some(Uid::from_raw(meta.uid())), Some(Gid::from_raw(meta.gid())))
}

#[expect(clippy::disallowed_methods, reason = "the kernel has no lock that is waited for so long")]
fn pause() {
    std::thread::sleep(EVERY);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn one_has_the_lock_and_the_next_one_is_told_who() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::take(&path).unwrap();
        let own = std::process::id().to_string();
        assert_eq!(Lock::take(&path).unwrap_err(), Fault::Held(own.clone()));
        drop(held);
        let held = Lock::take(&path).unwrap();
        // A file of that name that was put in its place is another one.
        fs::remove_file(&path).unwrap();
        let other = Lock::take(&path).unwrap();
        assert_eq!(Lock::take(&path).unwrap_err(), Fault::Held(own));
        drop((held, other));
        assert!(Lock::to_change(&dir.path().join("file")).is_ok());
        assert!(dir.path().join("file.lock").is_file(), "it stays");
    }

    #[test]
    fn a_lock_file_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let why = |name: &str| match Lock::take(&at(name)) {
            Err(Fault::Unusable(why)) => why,
            other => panic!("{other:?}"),
        };
        std::os::unix::fs::symlink(at("none"), at("link")).unwrap();
        assert!(why("link").contains("symbolic"), "{}", why("link"));
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(why("pipe").contains("regular"), "{}", why("pipe"));
        fs::create_dir(at("dir")).unwrap();
        assert!(!why("dir").is_empty());
        fs::write(at("open"), "").unwrap();
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o666)).unwrap();
        assert!(why("open").contains("chmod 600"), "{}", why("open"));
        assert!(why("none/lock").contains("none/lock: "), "{}", why("none/lock"));
    }
}
