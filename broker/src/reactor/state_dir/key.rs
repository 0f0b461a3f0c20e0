//! The key that signs worker secrets, and what tells a directory from its copies.

use super::{replace_synced, wrong};
use crate::exit::Fatal;
use crate::reactor::worker_secret::{KEY_BYTES, WorkerSecretKey, from_hex};
use auth::own;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// The key of the directory. It is a new one if there is none, or if the directory is a copy: the
/// workers of the original are not this broker's, and execds must not take one broker for the
/// other.
pub(super) fn of(dir: &Path) -> Result<WorkerSecretKey, Fatal> {
    let (path, beside) = (dir.join("key"), dir.join("dir-id"));
    let dir_id = dir_id(dir).map_err(|error| wrong(dir, &error))?;
    let kept = own::read(&beside).map_err(|error| wrong(&beside, &error))?;
    let is_copy = kept.as_ref().is_some_and(|kept| !kept.is_empty() && *kept != dir_id);
    let text = own::read(&path).map_err(|error| wrong(&path, &error))?;
    if is_copy {
        tracing::warn!(
            "state directory {} is a copy of another: this broker takes over its configuration, \
             not the workers that the broker of the original started",
            dir.display()
        );
    } else if let Some(text) = text {
        if kept.as_ref() != Some(&dir_id)
            && let Err(error) = replace_synced(&beside, dir_id.as_bytes())
        {
            tracing::warn!("{}: {error}; a copy will not be known as one", beside.display());
        }
        return from_hex(text.trim()).map(|bytes| WorkerSecretKey::new(&bytes)).ok_or_else(|| {
            Fatal::State(format!(
                "{} is not a key of {} hex digits; remove it, and running workers are \
                 started anew",
                path.display(),
                KEY_BYTES * 2
            ))
        });
    }
    let bytes = random_key()?;
    // A power cut that leaves the configuration leaves the key, too: an empty one ends the start.
    let text = format!("{}\n", hex::encode(bytes));
    replace_synced(&path, text.as_bytes()).map_err(|e| wrong(&path, &e))?;
    replace_synced(&beside, dir_id.as_bytes()).map_err(|e| wrong(&beside, &e))?;
    Ok(WorkerSecretKey::new(&bytes))
}

/// A new key.
pub(super) fn make() -> Result<WorkerSecretKey, Fatal> {
    random_key().map(|bytes| WorkerSecretKey::new(&bytes))
}

/// The bytes of a new key.
fn random_key() -> Result<[u8; KEY_BYTES], Fatal> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(|e| Fatal::State(format!("no random bytes: {e}")))?;
    Ok(bytes)
}

/// What tells a directory from its copies and stays the same over a restart of the machine: inode
/// and time of birth, where the file system has it.
fn dir_id(dir: &Path) -> io::Result<String> {
    let meta = fs::metadata(dir)?;
    let birth = meta.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Ok(format!("{} {}\n", meta.ino(), birth.unwrap_or_default().as_nanos()))
}

#[cfg(test)]
mod tests {
    use crate::engine::input::Start;
    use crate::reactor::state_dir::StateDir;
    use protocol::ids::{RunId, WorkerId};
    use std::fs;

    const START: Start = Start { run: RunId(2), digest: 3 };

    #[test]
    fn a_copy_is_another_broker_and_the_original_stays_what_it_was() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let original = StateDir::open(Some(one.path())).unwrap();
        let secret = original.key.sign(WorkerId(1), START);
        let names = (original.key.directory_id(), original.key.directory_id());
        assert_eq!(names.0, names.1);
        for name in ["key", "dir-id"] {
            fs::copy(one.path().join(name), other.path().join(name)).unwrap();
        }
        let copy = StateDir::open(Some(other.path())).unwrap();
        assert_ne!(copy.key.directory_id(), names.0);
        assert_eq!(copy.key.verify(WorkerId(1), &secret), None);
        let directory_id = copy.key.directory_id();
        drop((copy, original));
        let again = StateDir::open(Some(other.path())).unwrap();
        assert_eq!(again.key.directory_id(), directory_id, "it is told once");
        let original = StateDir::open(Some(one.path())).unwrap();
        assert_eq!(original.key.verify(WorkerId(1), &secret), Some(START));
        // A directory without this file is accepted as it is.
        drop(original);
        fs::remove_file(one.path().join("dir-id")).unwrap();
        let original = StateDir::open(Some(one.path())).unwrap();
        assert_eq!(original.key.directory_id(), names.0);
    }
}
