//! Tests files that protect something, with real programs. Only a name that does not exist counts
//! as missing; any other fault keeps the broker from starting or leaves the rules in force.
//! Programs that change one file at the same time undo nothing of each other's.

use isect_tests::other_user::{OTHER_USER, can_be};
use isect_tests::proc::{Broker, Done, Process, await_that, copy_program, program, run};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use tempfile::TempDir;

fn folder() -> TempDir {
    TempDir::with_prefix("isect-files-").expect("temporary folder")
}

fn token(words: &[&str], file: &Path) -> Done {
    let file = file.to_string_lossy();
    run("isectd", &[&["token"], words, &["--file", &file]].concat(), b"")
}

fn add(name: &str, file: &Path) {
    let done = token(&["add", name, "--role", "client:*"], file);
    assert_eq!(done.status, 0, "{}", done.err);
}

fn names(file: &Path) -> BTreeSet<String> {
    let done = token(&["list"], file);
    assert_eq!(done.status, 0, "{}", done.err);
    done.out.lines().filter_map(|line| line.split_whitespace().next()).map(Into::into).collect()
}

/// Starts a broker on this state directory: `Ok` if it runs, else its exit status and its log.
fn start(state: &Path, words: &[&str], wrap: &[&str]) -> Result<(), (i32, String)> {
    let out = folder();
    if can_be() {
        chown(out.path(), fs::metadata(state).ok().map(|meta| owner(&meta)), None).expect("chown");
    }
    let (ports, state) = (out.path().join("ports"), state.to_string_lossy().into_owned());
    let own = [
        &["--listen", "127.0.0.1:0", "--state", &state, "--ports-file"][..],
        &[ports.to_str().expect("a path")],
        words,
    ]
    .concat();
    let isectd = program("isectd");
    let mut process = match wrap.split_first() {
        None => Process::start(&isectd, &own, out.path().join("log")),
        Some((first, rest)) => {
            Process::start(Path::new(first), &[rest, &own].concat(), out.path().join("log"))
        }
    };
    await_that("the broker's start or end", || match process.ended() {
        Some(status) => Some(Err((status, process.log()))),
        None => ports.exists().then_some(Ok(())),
    })?;
    process.signal(Signal::SIGTERM);
    assert_eq!(process.await_end(), 0);
    Ok(())
}

fn owner(meta: &fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::uid(meta)
}

/// Makes a file of this kind at `path`, with `text` if a file of this kind has any.
fn make(kind: &str, path: &Path, text: &str) {
    let mode = |mode| fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("chmod");
    match kind {
        "dangling" => symlink("/no/such/file", path).expect("a link"),
        "loop" => symlink(path, path).expect("a link"),
        "directory" => fs::create_dir(path).expect("a directory"),
        "pipe" => nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe"),
        "socket" => drop(std::os::unix::net::UnixListener::bind(path).expect("a socket")),
        "device" => symlink("/dev/null", path).expect("a link"),
        "empty" => {
            fs::write(path, "").expect("a file");
            mode(0o600);
        }
        "nonsense" => {
            fs::write(path, "what is this\n").expect("a file");
            mode(0o600);
        }
        "bytes" => {
            fs::write(path, b"\xff\xfe\n").expect("a file");
            mode(0o600);
        }
        "large" => {
            fs::write(path, vec![b'#'; (1 << 20) + 1]).expect("a file");
            mode(0o600);
        }
        "group" => {
            fs::write(path, text).expect("a file");
            mode(0o660);
        }
        "others" => {
            fs::write(path, text).expect("a file");
            mode(0o604);
        }
        "another user's" => {
            fs::write(path, text).expect("a file");
            mode(0o600);
            chown(path, Some(OTHER_USER), None).expect("chown");
        }
        kind => panic!("no kind {kind}"),
    }
}

fn remove(path: &Path) {
    let is_dir = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    let removed = if is_dir { fs::remove_dir(path) } else { fs::remove_file(path) };
    removed.expect("it was there");
}

/// Kinds of files that are refused as token files, and a part of the error text.
const WRONG: &[(&str, &str)] = &[
    ("dangling", "symbolic link to nothing"),
    ("loop", "symbolic links"),
    ("directory", "regular file"),
    ("pipe", "regular file"),
    ("socket", "No such device"),
    ("device", "regular file"),
    ("bytes", "UTF-8"),
    ("large", "larger than"),
    ("group", "chmod 600"),
    ("others", "chmod 600"),
];

#[test]
fn a_broker_starts_without_tokens_only_if_there_is_no_such_name() {
    let folder = folder();
    let state = folder.path().join("state");
    assert_eq!(start(&state, &[], &[]), Ok(()), "no directory, no file");
    let made = folder.path().join("made");
    add("one", &made);
    let text = fs::read_to_string(&made).expect("tokens");
    let other = [("another user's", "belongs to user 65534")];
    let more = [("empty", "is empty"), ("nonsense", "line 1")];
    let own = if can_be() { &other[..] } else { &[] };
    for (kind, part) in WRONG.iter().chain(&more).chain(own) {
        for name in ["tokens", "host-token"] {
            // A file of host tokens may be empty or without valid lines: then no host has a token.
            if name == "host-token" && ["empty", "nonsense", "large"].contains(kind) {
                continue;
            }
            let path = state.join(name);
            make(kind, &path, &text);
            let (status, said) = start(&state, &[], &[]).expect_err(kind);
            assert_eq!(status, 2, "{kind} {name}: {said}");
            assert!(said.contains(part) && said.contains(name), "{kind} {name}: {said}");
            remove(&path);
        }
    }
    assert_eq!(start(&state, &[], &[]), Ok(()), "there never were any");
    // A file that is named on the command line must exist.
    let none = folder.path().join("none");
    let said = start(&state, &["--tokens", none.to_str().expect("a path")], &[]).expect_err("none");
    assert_eq!(said.0, 2, "{said:?}");
}

#[test]
fn a_token_file_that_may_not_be_reached_is_not_missing() {
    if !can_be() || !Path::new("/usr/bin/setpriv").exists() {
        return;
    }
    // The state directory belongs to another user, and its token file is a link into a directory of
    // root.
    let folder = folder();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
    let isectd = folder.path().join("isectd");
    copy_program("isectd", &isectd);
    let (state, shut) = (folder.path().join("state"), folder.path().join("shut"));
    for dir in [&state, &shut] {
        fs::create_dir(dir).expect("a directory");
    }
    fs::set_permissions(&shut, PermissionsExt::from_mode(0o700)).expect("chmod");
    chown(&state, Some(OTHER_USER), Some(OTHER_USER)).expect("chown");
    symlink(shut.join("tokens"), state.join("tokens")).expect("a link");
    let wrap = ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let wrap = [&wrap[..], &[isectd.to_str().expect("a path")]].concat();
    let (status, said) = start(&state, &[], &wrap).expect_err("a file that can't be reached");
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("may not be entered by user 65534"), "{said}");
}

#[test]
fn tokens_in_force_stay_in_force_when_their_file_goes_and_the_next_start_notices() {
    let mut broker = Broker::start(&[]);
    let file = broker.folder.path().join("state/tokens");
    let ask = |broker: &Broker| broker.try_login("echo").map(|_| ()).map_err(|e| e.text.clone());
    let why = broker.try_op("reload").expect_err("there is nothing yet").text;
    assert!(why.starts_with("there is nothing to read again: there is no token file"), "{why}");
    assert!(why.contains("isectd token add NAME") && why.contains("--tls-cert"), "{why}");
    add("one", &file);
    broker.op("reload");
    let text = fs::read_to_string(&file).expect("tokens");
    let shut = ask(&broker).expect_err("there are tokens now");
    remove(&file);
    for kind in [""].iter().chain(WRONG.iter().map(|(kind, _)| kind)).chain(&["empty"]) {
        if !kind.is_empty() {
            make(kind, &file, &text);
        }
        let unix = broker.port("client_unix");
        let done = run("isdclient", &["-h", &unix, "-c", "reload"], b"");
        assert_ne!(done.status, 0, "{kind}: {}", done.out);
        assert!(done.err.contains("in force"), "{kind}: {}", done.err);
        assert_eq!(ask(&broker).expect_err(kind), shut, "{kind}");
        if !kind.is_empty() {
            remove(&file);
        }
    }
    // The token file is gone when the broker restarts: the next broker refuses to start without
    // tokens.
    broker.kill();
    assert_eq!(broker.try_restart(), Err(2));
    let said = broker.process.log();
    assert!(said.contains("were in force when this broker last ran"), "{said}");
    // With the file restored it starts; and with `--tokens none` it starts without.
    fs::write(&file, &text).expect("tokens");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("chmod");
    broker.restart();
    assert_eq!(ask(&broker).expect_err("tokens"), shut);
    broker.kill();
    remove(&file);
    let state = broker.folder.path().join("state");
    assert!(start(&state, &[], &[]).is_err());
    assert_eq!(start(&state, &["--tokens", "none"], &[]), Ok(()));
    assert_eq!(start(&state, &[], &[]), Ok(()), "that was meant, and is remembered");
}

#[test]
fn tokens_added_and_removed_at_the_same_time_all_take_effect() {
    let folder = folder();
    let (file, link) = (folder.path().join("tokens"), folder.path().join("link"));
    (0..20).for_each(|n| add(&format!("old{n}"), &file));
    // The file has the same lock under each of its names.
    symlink(&file, &link).expect("a link");
    std::thread::scope(|scope| {
        for n in 0..20 {
            let (file, link) = (&file, &link);
            scope.spawn(move || add(&format!("new{n}"), if n % 2 == 0 { file } else { link }));
            scope.spawn(move || {
                let done = token(&["remove", &format!("old{n}")], file);
                assert_eq!(done.status, 0, "{}", done.err);
            });
        }
    });
    let all: BTreeSet<String> = (0..20).map(|n| format!("new{n}")).collect();
    assert_eq!(names(&file), all);
    let left: Vec<_> =
        fs::read_dir(folder.path()).expect("folder").map(|e| e.expect("e").file_name()).collect();
    assert_eq!(left.len(), 3, "the file, its lock, the link: {left:?}");
}

#[test]
fn a_program_killed_while_it_changes_the_file_leaves_the_old_one_and_no_lock() {
    let folder = folder();
    let file = folder.path().join("tokens");
    add("one", &file);
    let before = fs::read_to_string(&file).expect("tokens");
    // While another program holds the lock, the next one waits and changes nothing.
    let lock = fs::File::options().write(true).open(folder.path().join("tokens.lock"));
    let lock = Flock::lock(lock.expect("the lock file"), FlockArg::LockExclusive).expect("lock");
    let args = ["token", "add", "two", "--role", "host", "--file", file.to_str().expect("a path")];
    let is_waiting = |process: &Process| {
        let tries = format!("/proc/{}/fd", process.pid());
        let fds = fs::read_dir(tries).into_iter().flatten().flatten();
        let mut names = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        names.any(|name| name.ends_with("tokens.lock")).then_some(())
    };
    let mut waits = Process::start(&program("isectd"), &args, folder.path().join("log"));
    await_that("the wait for the lock", || is_waiting(&waits));
    waits.signal(Signal::SIGKILL);
    waits.await_end();
    assert_eq!(fs::read_to_string(&file).expect("tokens"), before);
    let mut waits = Process::start(&program("isectd"), &args, folder.path().join("log"));
    await_that("the wait for the lock", || is_waiting(&waits));
    assert_eq!(fs::read_to_string(&file).expect("tokens"), before);
    drop(lock);
    assert_eq!(waits.await_end(), 0, "{}", waits.log());
    assert_eq!(names(&file), ["one", "two"].map(String::from).into());
}
