//! Decides whether a program may be started. It opens the file first and checks what it opened:
//! where it is, what it is, and who could have put it there. The forked child does this before its
//! exec; here are also the words for the kernel's errors. `spawn` has the fork.

use super::child_setup::Step;
use super::script::{self, Head, SCRIPTS_MAX};
use crate::engine::limits::ARGUMENT_BYTES_MAX;
use auth::acl::{self, Writer};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, access};
use protocol::bodies::ExecStart;
use protocol::limits::{BUILTIN_ROLE, PATH_BYTES_MAX, WORDS_MAX};
use std::ffi::CString;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use sys::attributes;

/// Why a program is not started: whether the same start fails again, and the text: what failed, for
/// which path, and the cure.
pub(super) type StartFailure = (bool, String);

/// The rules for programs that may be started.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    /// Directories below which programs must be; symbolic links are resolved.
    pub(super) allow: Vec<PathBuf>,
    /// Users that may put a program into a directory that everybody can write to.
    pub(super) trusted: Vec<u32>,
    /// Whether execd's own user executes the program, so that its permission can be checked before.
    pub(super) runs_as_self: bool,
    /// The working directory of the child, where the relative path of an interpreter begins.
    pub(super) directory: PathBuf,
    /// The program file of execd itself, by device and inode, if it is built into a broker: that
    /// broker's built-in services are roles of the same program, wherever it is.
    pub(super) own: Option<(u64, u64)>,
}

impl Policy {
    /// The program file of this process.
    pub(super) fn own_file() -> Option<(u64, u64)> {
        fs::metadata("/proc/self/exe").ok().map(|meta| (meta.dev(), meta.ino()))
    }

    /// Whether it is a built-in service of the broker: an id that no operator can give, this very
    /// program, and no other role of it.
    fn is_builtin(&self, start: &ExecStart, meta: &Metadata) -> bool {
        start.worker.is_builtin()
            && start.args.first().is_some_and(|role| role == BUILTIN_ROLE)
            && self.own == Some((meta.dev(), meta.ino()))
    }
}

/// A program that may be started: the file that was checked.
#[derive(Debug)]
pub(super) struct Program {
    /// The file, opened with `O_PATH`, that is without reading it.
    pub(super) fd: OwnedFd,
    /// The resolved path of the file when it was opened.
    pub(super) real: CString,
    /// Whether its first line names an interpreter.
    pub(super) is_script: bool,
}

fn permanent(text: String) -> StartFailure {
    (true, text)
}

/// Opens the program of a request and checks it.
pub(super) fn check(start: &ExecStart, policy: &Policy) -> Result<Program, StartFailure> {
    spelling(start)?;
    let path = Path::new(&start.path);
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let fd = open(path, flags, Mode::empty())
        .map_err(|errno| not_reached(path, &io::Error::from(errno)))?;
    let magic = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let unseen = |error: io::Error| (false, format!("{} can't be looked at: {error}", start.path));
    let real = fs::read_link(&magic).map_err(unseen)?;
    let meta = fs::metadata(&magic).map_err(unseen)?;
    if !policy.is_builtin(start, &meta) {
        below(path, &real, &policy.allow)?;
    }
    check_file(path, &real, &meta, policy)?;
    // For a removed file that has another name the kernel gives the removed path.
    if !fs::symlink_metadata(&real).is_ok_and(|now| is_same(&now, &meta)) {
        return Err((false, format!("{} was moved while it was looked at", path.display())));
    }
    executable(path, Path::new(&magic), &meta, policy)?;
    let is_script = interpreters(path, Path::new(&magic), policy)?;
    let real = CString::new(real.into_os_string().into_vec())
        .map_err(|_| permanent(format!("{} contains a NUL byte", path.display())))?;
    Ok(Program { fd, real, is_script })
}

pub(super) fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Follows a script to its interpreter, and that to its own, as the kernel does, and checks each
/// like a program. Returns whether the file is a script.
fn interpreters(path: &Path, at: &Path, policy: &Policy) -> Result<bool, StartFailure> {
    let (mut shown, mut at) = (path.to_owned(), at.to_owned());
    for scripts in 0.. {
        let name = match script::head(&at) {
            Head::Other => return Ok(scripts > 0),
            Head::Wrong(why) => {
                return Err(permanent(format!(
                    "{} is no program that this machine can execute: its first line begins with #! \
                     and {why}; mend that line",
                    shown.display()
                )));
            }
            Head::Script(_) if scripts == SCRIPTS_MAX => {
                return Err(permanent(format!(
                    "{} is a script for a script for … too deep: the kernel follows {SCRIPTS_MAX} \
                     of them; name the last interpreter in its first line",
                    path.display()
                )));
            }
            Head::Script(name) => name,
        };
        let interpreter = policy.directory.join(&name);
        let quoted = name.to_string_lossy().escape_debug().to_string();
        let real = fs::canonicalize(&interpreter).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => permanent(format!(
                "{} is a script for '{quoted}', which does not exist on this host; mend its first \
                 line or install that",
                shown.display()
            )),
            _ => of_script(&shown, not_reached(&interpreter, &error)),
        })?;
        let unseen = |error| (false, format!("{} can't be looked at: {error}", real.display()));
        let meta = fs::metadata(&real).map_err(unseen)?;
        check_file(&interpreter, &real, &meta, policy)
            .and_then(|()| executable(&interpreter, &real, &meta, policy))
            .map_err(|failure| of_script(&shown, failure))?;
        (shown, at) = (interpreter, real);
    }
    Ok(true)
}

/// Adds to a start failure which script's interpreter it is about.
fn of_script(script: &Path, (is_permanent, text): StartFailure) -> StartFailure {
    (is_permanent, format!("{} is a script: {text}", script.display()))
}

/// Whether the kernel would execute the file here, without giving it more rights.
fn executable(
    path: &Path,
    at: &Path,
    meta: &Metadata,
    policy: &Policy,
) -> Result<(), StartFailure> {
    let shown = path.display();
    if attributes::has_capabilities(&c_path(at)) {
        return Err(permanent(format!(
            "{shown} has capabilities of its own (getcap shows them), which a worker does not get; \
             remove them with setcap -r"
        )));
    }
    if statvfs(at).is_ok_and(|found| found.flags().contains(FsFlags::ST_NOEXEC)) {
        return Err(permanent(format!(
            "{shown} is on a file system that is mounted noexec, from which nothing is executed; \
             move it, or mount that with exec"
        )));
    }
    if policy.runs_as_self {
        access(at, AccessFlags::X_OK).map_err(|_| may_not(path, meta))?;
    }
    Ok(())
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

pub(super) fn below(path: &Path, real: &Path, allow: &[PathBuf]) -> Result<(), StartFailure> {
    if allow.iter().any(|directory| real.starts_with(directory)) {
        return Ok(());
    }
    let shown = path.display();
    let link =
        if real == path { String::new() } else { format!(" (it leads to {})", real.display()) };
    let list: Vec<String> = allow.iter().map(|dir| dir.display().to_string()).collect();
    Err(permanent(format!(
        "{shown}{link} is not below an allowed directory ({}); move it, or start execd with \
         --allow of its directory",
        list.join(", ")
    )))
}

/// Checks what kind of file it is, and whether others could have made or changed it.
fn check_file(
    path: &Path,
    real: &Path,
    meta: &Metadata,
    policy: &Policy,
) -> Result<(), StartFailure> {
    let shown = path.display();
    if meta.is_dir() {
        return Err(permanent(format!("{shown} is a directory; name the program in it")));
    }
    if !meta.is_file() {
        return Err(permanent(format!("{shown} is not an ordinary file; name a program")));
    }
    let mode = meta.mode() & 0o7777;
    if meta.nlink() == 0 {
        return Err((false, format!("{shown} was removed while it was looked at")));
    }
    if mode & 0o6000 != 0 {
        return Err(permanent(format!(
            "{shown} has the setuid or setgid bit (mode {mode:04o}); a worker gets no other rights \
             than its user's, remove the bit with chmod ug-s"
        )));
    }
    if mode & 0o111 == 0 {
        return Err(permanent(format!(
            "{shown} is not executable (mode {mode:04o}); make it so with chmod +x"
        )));
    }
    writers(path, real, meta, policy)
}

/// Checks whether others could have made or changed a file or directory.
pub(super) fn writers(
    path: &Path,
    real: &Path,
    meta: &Metadata,
    policy: &Policy,
) -> Result<(), StartFailure> {
    let (shown, mode) = (path.display(), meta.mode() & 0o7777);
    if mode & 0o002 != 0 {
        return Err(permanent(format!(
            "{shown} can be written by everybody (mode {mode:04o}), so anybody could choose what \
             runs; chmod o-w"
        )));
    }
    if let Some(writer) = other_writer(real, policy) {
        return Err(permanent(format!(
            "{shown} can be written by {writer}, as its access list says (getfacl), who could choose \
             what runs; setfacl -b"
        )));
    }
    let mut entry = meta.uid();
    for directory in real.ancestors().skip(1) {
        let at = directory.display();
        let meta = fs::symlink_metadata(directory)
            .map_err(|error| (false, format!("{at} can't be looked at: {error}")))?;
        let mode = meta.mode() & 0o7777;
        let writer = other_writer(directory, policy);
        if let Some(writer) = writer.as_ref().filter(|_| mode & 0o1000 == 0) {
            return Err(permanent(format!(
                "{shown} is below {at}, which can be written by {writer}, as its access list says \
                 (getfacl), who could choose what runs; setfacl -b"
            )));
        }
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            return Err(permanent(format!(
                "{shown} is below {at}, which everybody can write to (mode {mode:04o}), so anybody \
                 could choose what runs; chmod o-w"
            )));
        }
        let is_open = mode & 0o002 != 0 || writer.is_some();
        if is_open && !policy.trusted.contains(&entry) {
            return Err(permanent(format!(
                "{shown} is below {at}, which others can write to, and what is there belongs to \
                 user {entry}, so another user could choose what runs; move the program"
            )));
        }
        entry = meta.uid();
    }
    Ok(())
}

/// Describes somebody whom the access list lets write and who is not trusted; `None` = nobody.
fn other_writer(path: &Path, policy: &Policy) -> Option<String> {
    let writers = acl::writers(&attributes::access_list(&c_path(path)));
    writers.into_iter().find_map(|writer| match writer {
        Writer::User(uid) if policy.trusted.contains(&uid) => None,
        Writer::User(uid) => Some(format!("user {uid}")),
        Writer::Group(gid) => Some(format!("group {gid}")),
    })
}

fn may_not(path: &Path, meta: &Metadata) -> StartFailure {
    permanent(format!(
        "{} may not be executed by execd's user (mode {:04o}); change its owner, group or mode, or \
         run execd as another user",
        path.display(),
        meta.mode() & 0o7777
    ))
}

/// Checks the request without looking at the disk.
fn spelling(start: &ExecStart) -> Result<(), StartFailure> {
    let path = Path::new(&start.path);
    let shown = start.path.escape_debug();
    if start.path.len() > PATH_BYTES_MAX {
        return Err(permanent(format!(
            "the path has {} bytes; at most {PATH_BYTES_MAX} are allowed",
            start.path.len()
        )));
    }
    if !path.is_absolute() {
        return Err(permanent(format!("'{shown}' is not an absolute path; begin it with /")));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(permanent(format!("'{shown}' contains '..'; write the path without it")));
    }
    let bytes = start.args.iter().map(|arg| arg.len() + 1).sum::<usize>();
    if bytes > ARGUMENT_BYTES_MAX {
        return Err(permanent(format!(
            "the arguments have {bytes} bytes; at most {ARGUMENT_BYTES_MAX} are allowed"
        )));
    }
    if start.args.len() > WORDS_MAX {
        return Err(permanent(format!(
            "{} arguments are given; at most {WORDS_MAX} are allowed",
            start.args.len()
        )));
    }
    let mut texts = start.args.iter().chain([&start.path, &start.secret]);
    if texts.any(|text| text.contains('\0')) {
        return Err(permanent(format!("'{shown}' or an argument contains a NUL byte; remove it")));
    }
    Ok(())
}

fn not_reached(path: &Path, error: &io::Error) -> StartFailure {
    let shown = path.display();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => {
            let is_dangling = fs::symlink_metadata(path).is_ok();
            permanent(if is_dangling {
                format!("{shown} is a symbolic link to nothing; mend the link")
            } else {
                format!("{shown} does not exist on this host; install it or mend the path")
            })
        }
        Some(Errno::ENOTDIR) => {
            permanent(format!("{shown} does not exist: a part of the path is not a directory"))
        }
        Some(Errno::EACCES) => permanent(format!(
            "{shown} can't be reached by execd's user: a directory on the way may not be entered"
        )),
        Some(Errno::ELOOP) => permanent(format!("{shown} leads through too many symbolic links")),
        Some(Errno::ENAMETOOLONG) => {
            permanent(format!("{shown}: a name in the path is longer than this host allows"))
        }
        _ => (false, format!("{shown} can't be looked at: {error}")),
    }
}

/// Explains an error of fork or exec for a program, which is a script if it has an interpreter.
pub(super) fn explain(path: &Path, interpreter: Option<&str>, error: &io::Error) -> StartFailure {
    let shown = path.display();
    let (step, error) = Step::of(error);
    let before = match step {
        None | Some(Step::Exec) => None,
        Some(Step::Session) => Some("a session of its own can't be had"),
        Some(Step::Limits) => Some("the limits (--limit) can't be set"),
        Some(Step::User) => Some("the worker's user can't be taken on"),
        Some(Step::Rights) => Some("no_new_privs can't be set"),
        Some(Step::Nice) => Some("its nice value can't be set"),
        Some(Step::Directory) => Some("the working directory can't be entered"),
    };
    if let Some(before) = before {
        return (false, format!("{shown} is not started: {before}: {error}"));
    }
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => permanent(match interpreter {
            Some(interpreter) => format!(
                "{shown} is a script for {interpreter}, which does not exist on this host; mend its \
                 first line or install that"
            ),
            None => format!(
                "{shown} can't be executed: the loader it was built for does not exist on this host"
            ),
        }),
        Some(Errno::ENOEXEC) => permanent(format!(
            "{shown} is no program that this machine can execute: it is neither a binary for it nor \
             a script that begins with #!"
        )),
        Some(Errno::E2BIG) => permanent(format!(
            "the arguments and the environment for {shown} are larger than the kernel takes: a \
                 quarter of the stack limit (--limit stack), at least 128 KiB"
        )),
        Some(Errno::EACCES) => permanent(match interpreter {
            Some(interpreter) => {
                format!("{shown} is a script for {interpreter}, which may not be executed")
            }
            None => format!("{shown} may not be executed, perhaps its file system is noexec"),
        }),
        Some(Errno::EPERM) => permanent(format!("{shown} may not be executed: {error}")),
        Some(Errno::ELOOP) => permanent(format!("{shown} is a script for a script for … too deep")),
        Some(Errno::ETXTBSY) => {
            (false, format!("{shown} is open for writing, perhaps it is being installed"))
        }
        Some(Errno::EAGAIN) => (
            false,
            format!(
                "no further process for {shown}: the user's limit (ulimit -u, --limit nproc) is reached"
            ),
        ),
        Some(Errno::ENOMEM) => (false, format!("no memory to start {shown}")),
        Some(Errno::EMFILE | Errno::ENFILE) => {
            (false, format!("no descriptors left for the pipes of {shown} (ulimit -n)"))
        }
        _ => (false, format!("{shown} can't be started: {error}")),
    }
}

/// The interpreter that a script names in its first line, for an error text.
pub(super) fn interpreter(path: &Path) -> Option<String> {
    match script::head(path) {
        // A script with CR LF line ends asks for an interpreter with a CR in its name.
        Head::Script(name) => Some(format!("'{}'", name.to_string_lossy().escape_debug())),
        Head::Other | Head::Wrong(_) => None,
    }
}

/// Resolves the allowed directories, without looking at their rights.
///
/// # Errors
/// One does not exist, or is no directory.
pub(super) fn resolve_allowed(given: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::bodies::ExecStart;
    use protocol::ids::{BUILTIN_IDS, RunId, WorkerId};
    use protocol::names::ServiceName;

    fn start(worker: u32, args: &[&str]) -> ExecStart {
        ExecStart {
            worker: WorkerId(worker),
            run: RunId(1),
            service: ServiceName::new("health").unwrap(),
            path: "/proc/self/exe".into(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            secret: String::new(),
            digest: 9,
            process: None,
            memory_max: 0,
            output_bytes: 0,
            output_files: 1,
        }
    }

    #[test]
    fn its_own_program_is_permitted_for_built_in_services_alone() {
        let own = fs::metadata("/proc/self/exe").unwrap();
        let other = fs::metadata("/bin/sh").unwrap();
        let policy = |own| Policy {
            allow: vec![PathBuf::from("/nowhere")],
            trusted: vec![0],
            runs_as_self: true,
            directory: PathBuf::from("/"),
            own,
        };
        let built_in = policy(Policy::own_file());
        let (id, role) = (BUILTIN_IDS, ["service", "health"]);
        assert!(built_in.is_builtin(&start(id, &role), &own));
        assert!(built_in.is_builtin(&start(u32::MAX, &role), &own));
        for (what, start, meta) in [
            ("the id of a worker that operators configure", start(id - 1, &role), &own),
            ("another role", start(id, &["--source", "/x"]), &own),
            ("none", start(id, &[]), &own),
            ("another program", start(id, &role), &other),
        ] {
            assert!(!built_in.is_builtin(&start, meta), "{what}");
        }
        assert!(!policy(None).is_builtin(&start(id, &role), &own), "an execd of its own");
        assert!(check(&start(id - 1, &role), &built_in).unwrap_err().1.contains("not below"));
    }
}
