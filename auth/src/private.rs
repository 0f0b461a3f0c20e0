//! Files that hold secrets or say who is let in: read only if nobody else can read or change them.

use nix::fcntl::OFlag;
use nix::unistd::Uid;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Rights that such a file must not give: any to others, and writing to its group.
const FORBIDDEN: u32 = 0o027;

/// Reads a private file whole.
///
/// # Errors
/// It can't be read, is no file, is too large, no text, belongs to another user, or others may read
/// or its group may write it. Says how to mend it.
pub fn read(path: &Path, bytes_max: u64) -> Result<String, String> {
    let wrong = |why: String| format!("{}: {why}", path.display());
    // A pipe in the place of a file must not hold us.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(|e| wrong(e.to_string()))?;
    let meta = file.metadata().map_err(|e| wrong(e.to_string()))?;
    if !meta.is_file() {
        return Err(wrong("not a regular file".into()));
    }
    let (own, owner, mode) = (Uid::effective().as_raw(), meta.uid(), meta.mode() & 0o7777);
    if owner != own && owner != 0 {
        return Err(wrong(format!(
            "belongs to user {owner}, and must belong to this user ({own}) or root; chown {own} it"
        )));
    }
    if mode & FORBIDDEN != 0 {
        return Err(wrong(format!(
            "has mode {mode:04o}, so that others could read or change it; chmod 600 it"
        )));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|e| wrong(e.to_string()))?;
    if bytes.len() as u64 > bytes_max {
        return Err(wrong(format!("is larger than {bytes_max} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| wrong("is no UTF-8 text".into()))
}

/// Writes a private file whole or not at all: beside it first, then in its place.
///
/// # Errors
/// Names the file and what the system said.
pub fn replace(path: &Path, text: &str) -> Result<(), String> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = create(&beside, text)
        .and_then(|()| fs::rename(&beside, path).map_err(|e| format!("{}: {e}", path.display())));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Makes a private file; one that is there already is left as it is.
///
/// # Errors
/// Names the file and what the system said.
pub fn create(path: &Path, text: &str) -> Result<(), String> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_a_private_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        create(&path, "secret").unwrap();
        assert_eq!(read(&path, 6).unwrap(), "secret");
        assert!(create(&path, "x").unwrap_err().contains("exists"));
        assert!(read(&path, 5).unwrap_err().contains("larger than 5 bytes"));
        for mode in [0o600, 0o400, 0o640, 0o440] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(read(&path, 99).is_ok(), "{mode:o}");
        }
        for mode in [0o644, 0o604, 0o660, 0o602, 0o601, 0o620] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = read(&path, 99).unwrap_err();
            assert!(error.contains("chmod 600") && !error.contains("secret"), "{error}");
        }
        replace(&path, "other").unwrap();
        assert_eq!(read(&path, 99).unwrap(), "other");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(read(dir.path(), 99).unwrap_err().contains("regular file"));
        assert!(read(&dir.path().join("none"), 99).unwrap_err().contains("none: "));
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        if !Uid::effective().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        create(&path, "secret").unwrap();
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        assert!(read(&path, 99).unwrap_err().contains("belongs to user 65534"));
    }
}
