//! Files with secrets or access rules. They are read only if nobody else can read or change them.
//! They count as missing only if there is really no such name.

use crate::lock::give_to_owner;
use nix::fcntl::OFlag;
use nix::unistd::{Gid, Uid, fchown};
use protocol::show::digits;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Permission bits that such a file must not have: any for others, and writing for the group.
const FORBIDDEN: u32 = 0o027;

/// Whether a file of this name exists. It returns no only if there is no such name: a file that
/// can't be reached, or a link to nothing, may be one that was meant to keep somebody out.
///
/// # Errors
/// Names what is in the way: a link to nothing, a directory that may not be entered, a parent that
/// is no directory, a name that is too long.
pub fn is_there(path: &Path) -> Result<bool, String> {
    for at in path.ancestors().filter(|at| !at.as_os_str().is_empty()) {
        match fs::symlink_metadata(at) {
            Ok(_) if at == path => {
                return match fs::metadata(at) {
                    Ok(_) => Ok(true),
                    Err(error) => Err(not_reached(path, at, &error)),
                };
            }
            // The name is not in this directory, provided that the directory can be entered.
            Ok(_) => {
                return match fs::metadata(at) {
                    Ok(_) => Ok(false),
                    Err(error) => Err(not_reached(path, at, &error)),
                };
            }
            // A directory above may be missing, too; the loop goes on until one is found.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(not_reached(path, at, &error)),
        }
    }
    Ok(false)
}

fn not_reached(path: &Path, at: &Path, error: &io::Error) -> String {
    let shown = path.display();
    let is_link = fs::symlink_metadata(at).is_ok_and(|meta| meta.is_symlink());
    match error.kind() {
        ErrorKind::NotFound if is_link => {
            let way = if at == path { "it".to_owned() } else { at.display().to_string() };
            format!("{shown}: {way} is a symbolic link to nothing; mend or remove the link")
        }
        ErrorKind::PermissionDenied => format!(
            "{shown}: {error}: a directory on the way may not be entered by user {}",
            Uid::effective()
        ),
        _ => format!("{shown}: {error}"),
    }
}

/// Reads a private file as a whole, at most `bytes_max` bytes.
///
/// # Errors
/// It can't be read, is not a regular file, is too large, is not UTF-8, belongs to another user, or
/// its mode lets others read it or its group write it. The text says how to mend it.
pub fn read(path: &Path, bytes_max: u64) -> Result<String, String> {
    read_of(path, bytes_max, None)
}

/// As [`read`], for a program that changes the file next: root may also read a file of the user who
/// owns its directory. The file stays that user's.
///
/// # Errors
/// As [`read`].
pub fn read_to_change(path: &Path, bytes_max: u64) -> Result<String, String> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let owner = fs::metadata(parent.unwrap_or_else(|| Path::new("."))).map(|meta| meta.uid()).ok();
    read_of(path, bytes_max, owner.filter(|_| Uid::effective().is_root()))
}

/// Reads the file if it belongs to this user, to root, or to `another`.
fn read_of(path: &Path, bytes_max: u64, another: Option<u32>) -> Result<String, String> {
    let wrong = |why: String| format!("{}: {why}", path.display());
    // A pipe in place of the file must not block us, and a link of another user must not lead
    // elsewhere.
    let mut flags = OFlag::O_NONBLOCK;
    flags.set(OFlag::O_NOFOLLOW, another.is_some_and(|user| user != 0));
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file = file.map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => {
            let own = Uid::effective();
            wrong(format!("{error}: user {own} must be able to read it; chown {own} it"))
        }
        _ => wrong(error.to_string()),
    })?;
    let meta = file.metadata().map_err(|e| wrong(e.to_string()))?;
    if !meta.is_file() {
        return Err(wrong("not a regular file".into()));
    }
    let (own, owner, mode) = (Uid::effective().as_raw(), meta.uid(), meta.mode() & 0o7777);
    if owner != own && owner != 0 && Some(owner) != another {
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

/// Resolves symbolic links, because the file itself is locked and replaced, not the link.
///
/// # Errors
/// As for [`is_there`].
pub fn real(path: &Path) -> Result<PathBuf, String> {
    if is_there(path)? {
        return fs::canonicalize(path).map_err(|error| not_reached(path, path, &error));
    }
    Ok(path.to_owned())
}

/// The path that [`replace`] would write, with symbolic links resolved: an existing regular file,
/// or a free name in an existing directory.
///
/// # Errors
/// The path is a device, a pipe, a socket or a directory; or its directory does not exist.
pub fn replace_target(path: &Path) -> Result<PathBuf, String> {
    let real = real(path)?;
    let parent = real.parent().filter(|parent| !parent.as_os_str().is_empty());
    if !fs::metadata(parent.unwrap_or_else(|| Path::new("."))).is_ok_and(|meta| meta.is_dir()) {
        return Err(format!("{}: there is no such directory; make it first", path.display()));
    }
    old(&real)?;
    Ok(real)
}

/// The metadata of the file that is to be replaced. A device or a pipe must not be replaced:
/// everybody else who uses it would lose it.
fn old(path: &Path) -> Result<Option<fs::Metadata>, String> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => Ok(Some(meta)),
        Ok(meta) => {
            let what = match meta.file_type() {
                kind if kind.is_dir() => "a directory",
                kind if kind.is_symlink() => "a symbolic link",
                kind if kind.is_fifo() => "a pipe",
                kind if kind.is_socket() => "a socket",
                _ => "a device",
            };
            Err(format!("{} is {what}; name a regular file, or a new one", path.display()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Writes a private file as a whole or not at all: it writes a file beside it, syncs that to the
/// disk, and renames it. The new file keeps the owner and the permissions of the old one.
///
/// # Errors
/// Names the file and what the system said, or what kind of file is in the way; that file stays.
pub fn replace(path: &Path, text: &str) -> Result<(), String> {
    // The name is random, so that nobody else writes there, and short, so that it fits beside a
    // long name.
    let beside =
        path.with_file_name(format!(".isect-{}.tmp", digits(&crate::random_bytes::<8>()?)));
    let wrong = |error: io::Error| format!("{}: {error}", path.display());
    let like = old(path)?;
    let made = new(&beside).map_err(wrong)?;
    let fill = |mut file: File| {
        file.write_all(text.as_bytes())?;
        match &like {
            None => give_to_owner(&file, path)?,
            Some(old) => {
                let new = file.metadata()?;
                if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
                    let (uid, gid) = (Uid::from_raw(old.uid()), Gid::from_raw(old.gid()));
                    fchown(&file, Some(uid), Some(gid))?;
                }
                file.set_permissions(Permissions::from_mode(old.mode() & 0o7777 & !FORBIDDEN))?;
            }
        }
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    if let Err(error) = fill(made) {
        let _ = fs::remove_file(&beside);
        return Err(wrong(error));
    }
    sync_parent(path);
    Ok(())
}

/// Creates a private file with mode 600. It never overwrites a file.
///
/// # Errors
/// Names the file and what the system said; the file may exist already.
pub fn create(path: &Path, text: &str) -> Result<(), String> {
    let wrong = |error: io::Error| match error.kind() {
        ErrorKind::AlreadyExists => {
            format!("{} exists already, and is not written over; name a new file", path.display())
        }
        _ => format!("{}: {error}", path.display()),
    };
    let mut file = new(path).map_err(wrong)?;
    let filled = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = filled {
        // A file with part of the text is useless and would make the next try fail.
        let _ = fs::remove_file(path);
        return Err(wrong(error));
    }
    sync_parent(path);
    Ok(())
}

fn new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Syncs the directory, so that the new name is on the disk. Some file systems can't do that; there
/// it follows later.
fn sync_parent(path: &Path) {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let _ = File::open(parent.unwrap_or_else(|| Path::new("."))).and_then(|dir| dir.sync_all());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

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
        // Root changes it for the user whose directory it is in, and for nobody else.
        assert!(read_to_change(&path, 99).unwrap_err().contains("belongs to user 65534"));
        std::os::unix::fs::chown(dir.path(), Some(65_534), None).unwrap();
        assert_eq!(read_to_change(&path, 99).unwrap(), "secret");
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(read_to_change(&link, 99).is_err());
    }

    #[test]
    fn only_a_name_that_is_not_there_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "").unwrap();
        fs::create_dir(at("dir")).unwrap();
        symlink(at("none"), at("dangling")).unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink(at("loop"), at("loop")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (name, is_it) in [
            ("file", true),
            ("dir", true),
            ("link", true),
            ("pipe", true),
            ("none", false),
            ("dir/none", false),
            ("none/none/none", false),
        ] {
            assert_eq!(is_there(&at(name)), Ok(is_it), "{name}");
        }
        for (name, part) in [
            ("dangling", "symbolic link to nothing"),
            ("dangling/tokens", "dangling is a symbolic link to nothing"),
            ("dangling/a/tokens", "dangling is a symbolic link to nothing"),
            ("loop", "symbolic links"),
            ("loop/tokens", "symbolic links"),
            ("file/tokens", "ot a directory"),
        ] {
            let why = is_there(&at(name)).unwrap_err();
            assert!(why.contains(part), "{name}: {why}");
        }
        let long = is_there(&at(&"n".repeat(256))).unwrap_err();
        assert!(long.contains("too long"), "{long}");
        assert_eq!(is_there(Path::new("no-such-file-here")), Ok(false));
    }

    #[test]
    fn what_is_no_file_is_not_replaced_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("file"), "").unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        symlink(at("none"), at("dangling")).unwrap();
        symlink(at("loop"), at("loop")).unwrap();
        symlink("/dev/null", at("null")).unwrap();
        symlink(at("pipe"), at("to-pipe")).unwrap();
        for (name, part) in [
            ("dir", "a directory"),
            ("pipe", "a pipe"),
            ("to-pipe", "a pipe"),
            ("socket", "a socket"),
            ("null", "a device"),
            ("dangling", "symbolic link to nothing"),
            ("loop", "symbolic links"),
            ("none/x", "no such directory"),
            ("file/x", "ot a directory"),
        ] {
            let why = replace_target(&at(name)).unwrap_err();
            assert!(why.contains(part), "{name}: {why}");
            let before = fs::symlink_metadata(at(name)).map(|meta| meta.ino()).ok();
            replace(&at(name), "x").unwrap_err();
            assert_eq!(fs::symlink_metadata(at(name)).map(|meta| meta.ino()).ok(), before);
        }
        symlink(at("file"), at("link")).unwrap();
        assert_eq!(
            replace_target(&at("link")),
            fs::canonicalize(at("file")).map_err(|e| e.to_string())
        );
        assert_eq!(replace_target(&at("new")), Ok(at("new")));
        assert_eq!(replace_target(Path::new("new")), Ok("new".into()));
    }

    #[test]
    fn a_replaced_file_keeps_its_owner_its_rights_and_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        create(&at("tokens"), "old").unwrap();
        fs::set_permissions(at("tokens"), Permissions::from_mode(0o640)).unwrap();
        let is_root = Uid::effective().is_root();
        if is_root {
            std::os::unix::fs::chown(at("tokens"), Some(65_534), Some(65_533)).unwrap();
        }
        symlink(at("tokens"), at("link")).unwrap();
        replace(&real(&at("link")).unwrap(), "new").unwrap();
        assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
        let meta = fs::metadata(at("tokens")).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o640);
        if is_root {
            assert_eq!((meta.uid(), meta.gid()), (65_534, 65_533));
            // What root makes in a directory of another user's, that user can read.
            std::os::unix::fs::chown(dir.path(), Some(65_534), None).unwrap();
            replace(&at("more"), "text").unwrap();
            assert_eq!(fs::metadata(at("more")).unwrap().uid(), 65_534);
        }
        let long = "n".repeat(255);
        replace(&at(&long), "text").unwrap();
        assert_eq!(fs::read_to_string(at(&long)).unwrap(), "text");
        fs::create_dir(at("dir")).unwrap();
        assert!(replace(&at("dir"), "x").unwrap_err().contains("directory"));
        assert!(replace(&at("none/x"), "x").unwrap_err().contains("none/x: "));
        let left = fs::read_dir(dir.path()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().contains(".tmp")), "{left:?}");
    }
}
