//! Tests of programs that a real isdexecd can't start: each answer names the path, the reason and
//! the cure, and execd goes on.
#![allow(clippy::disallowed_methods, reason = "tests start programs")]

mod common;

use common::{Execd, program, script, start_frame};
use protocol::bodies::ExitCause;
use protocol::frame::Frame;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

#[test]
fn what_can_not_be_executed_says_why() {
    let execd = Execd::unix(&[]);
    let plain = |name: &str, text: &[u8], mode: u32| {
        let path = program(execd.directory.path(), name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let not_executable = plain("data", b"#!/bin/sh\n", 0o644);
    let setuid = plain("setuid", b"#!/bin/sh\n", 0o4755);
    let setgid = plain("setgid", b"#!/bin/sh\n", 0o2755);
    let no_interpreter = plain("script", b"#!/no/such/interpreter -x\n", 0o755);
    let windows = plain("windows", b"#!/bin/sh\r\necho hi\r\n", 0o755);
    let nonsense = plain("nonsense", b"echo this must not reach a shell\n", 0o755);
    let empty = plain("empty", b"", 0o755);
    let dangling = execd.path("dangling");
    symlink("/no/such/thing", &dangling).unwrap();
    let looped = execd.path("looped");
    symlink(&looped, &looped).unwrap();
    let directory = execd.directory.path().display().to_string();
    let below_a_file = format!("{not_executable}/x");
    let long = format!("/{}", "x/".repeat(2048));
    let cases: &[(&str, &str)] = &[
        ("/no/such/program", "does not exist on this host"),
        (&directory, "is a directory"),
        ("/dev/null", "not an ordinary file"),
        (&not_executable, "not executable (mode 0644); make it so with chmod +x"),
        (&setuid, "setuid or setgid bit (mode 4755)"),
        (&setgid, "setuid or setgid bit (mode 2755)"),
        (&no_interpreter, "is a script for '/no/such/interpreter', which does not exist"),
        (&windows, "is a script for '/bin/sh\\r', which does not exist"),
        (&nonsense, "no program that this machine can execute"),
        (&empty, "no program that this machine can execute"),
        (&dangling, "a symbolic link to nothing"),
        (&looped, "too many symbolic links"),
        (&below_a_file, "not a directory"),
        ("bin/true", "not an absolute path"),
        ("", "not an absolute path"),
        ("/bin/../bin/true", "contains '..'"),
        ("/bin/tr\0ue", "NUL byte"),
        (&long, "has 4097 bytes; at most 4095"),
    ];
    let mut broker = execd.broker("b");
    for (path, part) in cases {
        let (permanent, text) = broker.failed(1, path, &[]);
        assert!(permanent && text.contains(part), "{path}: {text}");
    }
    let (permanent, text) = broker.failed(1, "/bin/true", &["a\0b"]);
    assert!(permanent && text.contains("NUL byte"), "{text}");
    let long = "x".repeat(8191);
    let (permanent, text) = broker.failed(1, "/bin/true", &[long.as_str(); 17]);
    assert!(permanent && text.contains("139264 bytes; at most 131072"), "{text}");
    let (permanent, text) = broker.failed(1, "/bin/true", &["x"; 257]);
    assert!(permanent && text.contains("257 arguments"), "{text}");
    broker.started(1, "/bin/true", &["x"; 256]);
    assert_eq!(broker.exited().0.exit_cause, ExitCause::Exit(0));
}

#[test]
fn only_programs_below_the_allowed_directories_are_started() {
    let home = tempfile::tempdir().unwrap();
    let (inside, outside) = (home.path().join("inside"), home.path().join("inside-not"));
    fs::create_dir_all(inside.join("deep")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    let allowed = script(&inside.join("deep"), "allowed", "exit 0");
    let refused = script(&outside, "refused", "exit 0");
    let escape = inside.join("escape").display().to_string();
    symlink(&refused, &escape).unwrap();
    let into = outside.join("into").display().to_string();
    symlink(&allowed, &into).unwrap();
    let execd = Execd::unix(&["--allow", inside.to_str().unwrap(), "--allow", "/usr/lib"]);
    let mut broker = execd.broker("b");
    for path in [&allowed, &into] {
        broker.started(1, path, &[]);
        assert_eq!(broker.exited().0.exit_cause, ExitCause::Exit(0), "{path}");
    }
    for path in [refused.as_str(), escape.as_str(), "/bin/sh"] {
        let (permanent, text) = broker.failed(1, path, &[]);
        assert!(permanent && text.contains("is not below an allowed directory"), "{path}: {text}");
        assert!(text.contains("--allow") && text.contains("/usr/lib"), "{text}");
    }
    let (_, text) = broker.failed(1, &escape, &[]);
    assert!(text.contains(&format!("it leads to {refused}")), "{text}");
}

#[test]
fn the_same_start_twice_is_refused_and_the_first_goes_on() {
    let execd = Execd::unix(&[]);
    let mut broker = execd.broker("b");
    let pid = broker.started(1, "/bin/sleep", &["1000"]);
    let (permanent, text) = broker.failed(1, "/bin/sleep", &["1000"]);
    assert!(!permanent && text.contains(&pid.to_string()), "{text}");
    assert_eq!(broker.list(), [(1, pid)]);
}

#[test]
fn a_working_directory_that_went_away_is_named() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("cwd");
    fs::create_dir(&directory).unwrap();
    let execd = Execd::unix(&["--directory", directory.to_str().unwrap()]);
    fs::remove_dir(&directory).unwrap();
    let mut broker = execd.broker("b");
    let (permanent, text) = broker.failed(1, "/bin/true", &[]);
    assert!(!permanent && text.contains("working directory") && text.contains("cwd"), "{text}");
    fs::create_dir(&directory).unwrap();
    broker.started(1, "/bin/true", &[]);
}

#[test]
fn what_fails_under_the_limits_of_the_program_is_named_as_well() {
    // With so little memory the child can't build a text.
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("cwd");
    fs::create_dir(&directory).unwrap();
    let limits = ["--limit", "as=4096", "--limit", "nofile=4"];
    let words = [&["--directory", directory.to_str().unwrap()], &limits[..]].concat();
    let execd = Execd::unix(&words);
    let program = execd.script("script", "");
    fs::remove_dir(&directory).unwrap();
    let mut broker = execd.broker("b");
    let (permanent, text) = broker.failed(1, &program, &[]);
    assert!(!permanent && text.contains("working directory") && text.contains("cwd"), "{text}");
}

#[test]
fn arguments_too_large_for_the_kernel_are_refused() {
    // One argument may have 128 KiB. A frame holds less than that, so the test uses a small stack.
    let execd = Execd::unix(&[]);
    let pid = execd.pid().to_string();
    let limited = std::process::Command::new("prlimit")
        .args(["--pid", &pid, "--stack=131072:131072"])
        .status();
    if !limited.is_ok_and(|status| status.success()) {
        return;
    }
    let mut broker = execd.broker("b");
    let long = "x".repeat(8191);
    let args = vec![long.as_str(); 16];
    broker.send(start_frame(1, "/bin/true", &args));
    match broker.next() {
        Frame::ExecFailed(failed) => {
            assert!(failed.permanent && failed.text.contains("larger than"), "{}", failed.text);
        }
        other => panic!("{other:?}"),
    }
}
