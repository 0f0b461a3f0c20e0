//! Files, directories and sockets that belong to this user only and that nobody else can have put
//! there, such as a state directory. The program trusts what it reads from them.

use nix::libc;
use nix::unistd::geteuid;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Error, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

fn wrong(text: impl Into<String>) -> Error {
    Error::other(text.into())
}

/// Creates a directory that only its owner may enter, or accepts one that is this user's already.
///
/// # Errors
/// It can't be created, or it belongs to somebody else.
pub fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let meta = fs::metadata(path)?;
    if !meta.is_dir() {
        return Err(Error::from_raw_os_error(libc::ENOTDIR));
    }
    if meta.uid() != geteuid().as_raw() {
        return Err(wrong(format!("it belongs to user {}, this is {}", meta.uid(), geteuid())));
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(path, PermissionsExt::from_mode(0o700))?;
    }
    Ok(())
}

/// Opens a file for appending; creates it if it is missing. Does not follow a symbolic link.
///
/// # Errors
/// It can't be opened, or is not a regular file of this user that others can't write to.
pub fn open(path: &Path) -> io::Result<File> {
    let file = options().create(true).open(path)?;
    check(&file)?;
    Ok(file)
}

/// Creates a new file in place of whatever has that name.
///
/// # Errors
/// It can't be created.
pub fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    options().create_new(true).open(path)
}

/// Reads a file as a whole; `None` = there is no such file.
///
/// # Errors
/// It can't be read, or is not a regular file of this user that others can't write to.
pub fn read(path: &Path) -> io::Result<Option<String>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut file = match File::options().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    check(&file)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Checks that a socket may be created at this path: nobody else can rename or replace it there,
/// and a socket that a dead process left there belongs to this user.
///
/// # Errors
/// Says who else could replace it, and the cure.
pub fn check_socket_path(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    // With links resolved: whoever can rename any directory above it can put another one there.
    let directory = fs::canonicalize(directory.unwrap_or_else(|| Path::new(".")))?;
    for above in directory.ancestors() {
        let mode = fs::metadata(above)?.mode() & 0o7777;
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            return Err(wrong(format!(
                "everybody can write to {} (mode {mode:04o}) and put another socket there; chmod \
                 o-w, or name a directory of your own",
                above.display()
            )));
        }
    }
    let owner = fs::metadata(&directory)?.uid();
    if owner != 0 && owner != geteuid().as_raw() && !is_unmapped(owner) {
        return Err(wrong(format!(
            "{} belongs to user {owner}, who can put another socket there; name a directory of your \
             own",
            directory.display()
        )));
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.uid() != geteuid().as_raw() => Err(wrong(format!(
            "what is there belongs to user {}, this is {}; name another path",
            meta.uid(),
            geteuid()
        ))),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// In a container with a user namespace, all users that are not mapped look like this one.
fn is_unmapped(uid: u32) -> bool {
    let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    let is_own = fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().nth(2) != Some("4294967295"));
    is_own && overflow.trim().parse() == Ok(uid)
}

fn options() -> OpenOptions {
    let mut options = File::options();
    options.read(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options
}

fn check(file: &File) -> io::Result<()> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(wrong("it is not an ordinary file"));
    }
    if meta.uid() != geteuid().as_raw() {
        return Err(wrong(format!("it belongs to user {}, this is {}", meta.uid(), geteuid())));
    }
    if meta.mode() & 0o022 != 0 {
        let mode = meta.mode() & 0o7777;
        return Err(wrong(format!("others can write to it (mode {mode:04o})")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, symlink};

    #[test]
    fn what_others_could_have_put_there_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::write(at("real"), "text").unwrap();
        symlink(at("real"), at("link")).unwrap();
        fs::write(at("open"), "text").unwrap();
        fs::set_permissions(at("open"), PermissionsExt::from_mode(0o622)).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (name, part) in [("link", "symbolic"), ("open", "mode 0622"), ("pipe", "ordinary")] {
            let text = read(&at(name)).unwrap_err().to_string();
            assert!(text.contains(part), "{name}: {text}");
        }
        for name in ["link", "open"] {
            assert!(open(&at(name)).is_err(), "{name}");
        }
        assert_eq!(read(&at("real")).unwrap().unwrap(), "text");
        assert!(read(&at("none")).unwrap().is_none());
        // A symbolic link is replaced, not followed.
        let _ = create(&at("link")).unwrap();
        assert_eq!(fs::read_to_string(at("real")).unwrap(), "text");
        assert!(fs::symlink_metadata(at("link")).unwrap().is_file());
        if geteuid().is_root() {
            chown(at("real"), Some(65_534), None).unwrap();
            for error in [read(&at("real")).unwrap_err(), open(&at("real")).unwrap_err()] {
                assert!(error.to_string().contains("belongs to user 65534"), "{error}");
            }
        }
    }

    #[test]
    fn a_socket_is_not_made_where_others_could_replace_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        let mode =
            |mode| fs::set_permissions(home.path(), PermissionsExt::from_mode(mode)).unwrap();
        for (open, is_right) in [(0o700, true), (0o777, false), (0o1777, true), (0o755, true)] {
            mode(open);
            assert_eq!(check_socket_path(&path).is_ok(), is_right, "{open:o}");
        }
        // Nor below a directory that others can rename.
        let inner = home.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(&inner, PermissionsExt::from_mode(0o700)).unwrap();
        for (open, is_right) in [(0o777, false), (0o1777, true), (0o755, true)] {
            mode(open);
            assert_eq!(check_socket_path(&inner.join("s")).is_ok(), is_right, "{open:o}");
        }
        symlink(&inner, home.path().join("link")).unwrap();
        assert!(check_socket_path(&home.path().join("link/s")).is_ok());
        fs::write(&path, "").unwrap();
        assert!(check_socket_path(&path).is_ok(), "one's own remains");
        if geteuid().is_root() {
            chown(&inner, Some(65_534), None).unwrap();
            let text = check_socket_path(&inner.join("s")).unwrap_err().to_string();
            assert!(text.contains("belongs to user 65534"), "{text}");
            mode(0o1777);
            chown(&path, Some(65_534), None).unwrap();
            let text = check_socket_path(&path).unwrap_err().to_string();
            assert!(text.contains("belongs to user 65534"), "{text}");
        }
    }

    #[test]
    fn directories_are_made_private() {
        let home = tempfile::tempdir().unwrap();
        let (new, old) = (home.path().join("a/new"), home.path().join("old"));
        directory(&new).unwrap();
        fs::create_dir(&old).unwrap();
        fs::set_permissions(&old, PermissionsExt::from_mode(0o777)).unwrap();
        directory(&old).unwrap();
        for path in [&new, &old] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700, "{path:?}");
        }
        if geteuid().is_root() {
            chown(&old, Some(65_534), None).unwrap();
            let text = directory(&old).unwrap_err().to_string();
            assert!(text.contains("belongs to user 65534"), "{text}");
        }
    }
}
