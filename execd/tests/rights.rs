//! Tests of what a program that a real isdexecd starts may do: its user, rights, limits and
//! directory; and of programs that are refused because of who could have put them there. Most need
//! root, because only root can play other users.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::{Execd, copy, is_root, run_to_end, script, until};
use protocol::bodies::ExitCause;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

/// A user that is neither root nor anybody else on this machine.
const NOBODY: u32 = 65_534;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Runs a script to its end; returns what it wrote.
fn run(execd: &Execd, body: &str) -> Vec<String> {
    // A directory that other users can enter.
    mode(execd.directory.path(), 0o755);
    let program = execd.script("look", body);
    let mut broker = execd.broker("b");
    broker.started(1, &program, &[]);
    let (exited, lines) = broker.exited();
    assert_eq!(exited.exit_cause, ExitCause::Exit(0), "{lines:?}");
    lines.iter().filter_map(|line| line.strip_prefix("stdout 0 ")).map(str::to_owned).collect()
}

fn status_of(lines: &[String], name: &str) -> Vec<String> {
    let line = lines.iter().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name}: {lines:?}"));
    line.split_ascii_whitespace().skip(1).map(str::to_owned).collect()
}

#[test]
fn no_program_gets_new_rights_and_limits_and_umask_are_as_told() {
    let execd = Execd::unix(&[
        "--limit",
        "nofile=100:200",
        "--limit",
        "core=0",
        "--limit",
        "cpu=7",
        "--limit",
        "fsize=1M",
        "--umask",
        "027",
        "--chdir",
        "/usr",
        "--env",
        "TEST_PASS",
        "--env",
        "TEST_SET=a=b",
        "--env",
        "TEST_ABSENT",
    ]);
    let lines = run(
        &execd,
        "cat /proc/self/status; echo limits $(ulimit -Sn) $(ulimit -Hn) $(ulimit -c) $(ulimit -t) \
         $(ulimit -f); umask; pwd; env",
    );
    assert_eq!(status_of(&lines, "NoNewPrivs:"), ["1"]);
    assert_eq!(status_of(&lines, "CapAmb:"), ["0000000000000000"]);
    // The shell counts the size of a file in blocks of 512 bytes.
    assert_eq!(status_of(&lines, "limits "), ["100", "200", "0", "7", "2048"]);
    for line in ["0027", "/usr", "TEST_PASS=passed", "TEST_SET=a=b"] {
        assert!(lines.iter().any(|l| l == line), "{line}: {lines:?}");
    }
    for name in ["TEST_LEAK", "TEST_ABSENT"] {
        assert!(!lines.iter().any(|line| line.starts_with(name)), "{name}: {lines:?}");
    }
}

#[test]
fn workers_run_as_the_user_that_was_named_and_find_no_way_back() {
    if !is_root() {
        return;
    }
    let execd = Execd::unix(&["--user", "65534:65533"]);
    let lines = run(
        &execd,
        "cat /proc/self/status; env; echo to-stderr >/dev/stderr; \
         cat /etc/shadow 2>/dev/null && echo read-shadow; \
         setpriv --reuid 0 true 2>/dev/null && echo became-root; exit 0",
    );
    assert_eq!(status_of(&lines, "Uid:"), ["65534"; 4]);
    assert_eq!(status_of(&lines, "Gid:"), ["65533"; 4]);
    assert_eq!(status_of(&lines, "Groups:"), ["65533"], "none of root's groups");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(status_of(&lines, set), ["0000000000000000"], "{set}");
    }
    for bad in ["read-shadow", "became-root", "HOME=/root", "USER=root", "LOGNAME=root"] {
        assert!(!lines.iter().any(|line| line == bad), "{bad}: {lines:?}");
    }
    // A user name brings its groups and its home directory.
    let lines = run(&Execd::unix(&["--user", "daemon"]), "cat /proc/self/status; env");
    assert_eq!(status_of(&lines, "Uid:")[0], "1");
    assert!(lines.iter().any(|line| line == "USER=daemon"), "{lines:?}");
}

#[test]
fn a_setuid_program_that_a_worker_finds_gives_it_nothing() {
    if !is_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    mode(home.path(), 0o755);
    let id = copy("/usr/bin/id", home.path(), "id");
    mode(Path::new(&id), 0o4755);
    let execd = Execd::unix(&["--user", "65534:65534"]);
    let lines = run(&execd, &format!("{id} -u"));
    assert_eq!(lines, [NOBODY.to_string()]);
}

#[test]
fn root_says_whom_the_workers_run_as() {
    if !is_root() {
        return;
    }
    for args in [&["--no-root"][..], &["--user", "root"], &["--user", "0:12"]] {
        let (status, text) = run_to_end(args);
        assert_eq!(status, 2, "{args:?}: {text}");
        assert!(text.contains("--user NAME") && text.contains("--allow-root-workers"), "{text}");
    }
}

#[test]
fn a_file_with_capabilities_is_refused() {
    if !is_root() {
        return;
    }
    let execd = Execd::unix(&[]);
    let copy = copy("/bin/true", execd.directory.path(), "true");
    #[expect(clippy::disallowed_methods, reason = "only setcap can make such a file")]
    let made = std::process::Command::new("setcap").args(["cap_net_raw+ep", &copy]).status();
    if !made.is_ok_and(|status| status.success()) {
        return;
    }
    let mut broker = execd.broker("b");
    let (permanent, text) = broker.failed(1, &copy, &[]);
    assert!(permanent && text.contains("capabilities") && text.contains("setcap -r"), "{text}");
}

#[test]
fn what_everybody_could_have_written_is_refused() {
    let execd = Execd::unix(&[]);
    let mut broker = execd.broker("b");
    let home = execd.directory.path();
    let open_file = script(home, "open-file", "exit 0");
    mode(Path::new(&open_file), 0o757);
    let (permanent, text) = broker.failed(1, &open_file, &[]);
    assert!(permanent && text.contains("can be written by everybody (mode 0757)"), "{text}");

    let open = home.join("open");
    fs::create_dir_all(open.join("deep")).unwrap();
    let program = script(&open.join("deep"), "program", "exit 0");
    broker.started(1, &program, &[]);
    broker.exited();
    mode(&open, 0o777);
    let (permanent, text) = broker.failed(1, &program, &[]);
    let part = format!("is below {}, which everybody can write to (mode 0777)", open.display());
    assert!(permanent && text.contains(&part), "{text}");
    // As in /tmp: others can add files, but can't remove or rename ours.
    mode(&open, 0o1777);
    broker.started(1, &program, &[]);
    broker.exited();

    // An interpreter is checked like a program, but need not be below an allowed directory.
    let interpreter = copy("/bin/cat", home, "interpreter");
    let program =
        common::program(home, "by-interpreter", format!("#!{interpreter} -u\n").as_bytes());
    broker.started(1, &program, &[]);
    broker.exited();
    mode(Path::new(&interpreter), 0o777);
    let (permanent, text) = broker.failed(1, &program, &[]);
    assert!(permanent && text.contains("interpreter can be written by everybody"), "{text}");
}

#[test]
fn another_users_program_in_a_directory_for_all_is_refused() {
    if !is_root() {
        return;
    }
    let execd = Execd::unix(&[]);
    let mut broker = execd.broker("b");
    let open = execd.directory.path().join("open");
    fs::create_dir(&open).unwrap();
    mode(&open, 0o1777);
    let program = script(&open, "planted", "exit 0");
    chown(&program, Some(NOBODY), None).unwrap();
    let (permanent, text) = broker.failed(1, &program, &[]);
    assert!(permanent && text.contains("another user could choose what runs"), "{text}");
    // The user of the workers may provide its programs.
    let execd = Execd::unix(&["--user", "65534:65534"]);
    mode(execd.directory.path(), 0o755);
    let open = execd.directory.path().join("open");
    fs::create_dir(&open).unwrap();
    mode(&open, 0o1777);
    let program = script(&open, "own", "exit 0");
    chown(&program, Some(NOBODY), None).unwrap();
    let mut broker = execd.broker("b");
    broker.started(1, &program, &[]);
    assert_eq!(broker.exited().0.exit_cause, ExitCause::Exit(0));
}

/// Swaps a name in the path as fast as possible between an allowed program and a link to another.
/// Whatever is started must be the file that was checked.
fn race_a_swap(is_directory: bool) -> String {
    let home = tempfile::tempdir().unwrap();
    let (inside, outside) = (home.path().join("in"), home.path().join("out"));
    fs::create_dir(&inside).unwrap();
    fs::create_dir(&outside).unwrap();
    // `true` is allowed, `false` is not: the exit status tells which one ran.
    let (good, bad) = (inside.join("good"), outside.join("bad"));
    for (folder, program) in [(&good, "/bin/true"), (&bad, "/bin/false")] {
        fs::create_dir(folder).unwrap();
        copy(program, folder, "program");
    }
    let end = |folder: PathBuf| if is_directory { folder } else { folder.join("program") };
    let (good, bad, swapped) = (end(good), end(bad), inside.join("swapped"));
    symlink(&good, &swapped).unwrap();
    let path = if is_directory { swapped.join("program") } else { swapped.clone() };
    let execd = Execd::unix(&["--allow", inside.to_str().unwrap(), "--start-burst", "5000"]);
    let mut broker = execd.broker("b");
    let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let swapper = {
        let is_over = std::sync::Arc::clone(&is_over);
        let beside = inside.join("beside");
        #[expect(clippy::disallowed_methods, reason = "somebody must swap meanwhile")]
        std::thread::spawn(move || {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                for target in [&bad, &good] {
                    symlink(target, &beside).unwrap();
                    fs::rename(&beside, &swapped).unwrap();
                }
            }
        })
    };
    let (mut started, mut refused) = (0, 0);
    for _ in 0..400 {
        broker.start(1, path.to_str().unwrap(), &[]);
        match broker.next() {
            protocol::frame::Frame::ExecStarted(_) => {
                assert_eq!(
                    broker.exited().0.exit_cause,
                    ExitCause::Exit(0),
                    "the wrong one was started"
                );
                started += 1;
            }
            protocol::frame::Frame::ExecFailed(failed) => {
                assert!(failed.text.contains("not below"), "{}", failed.text);
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    swapper.join().unwrap();
    assert!(started > 0 && refused > 0, "{started} started, {refused} refused: nothing was raced");
    format!("{started} started, {refused} refused, 0 wrong")
}

#[test]
fn a_swap_between_check_and_exec_does_not_win() {
    println!("{}", race_a_swap(false));
}

#[test]
fn a_swap_of_a_directory_on_the_way_does_not_win_either() {
    println!("{}", race_a_swap(true));
}

/// Links, tokens, the state directory, the pipes of other children: a worker gets none of them.
#[test]
fn of_all_that_execd_has_open_a_worker_gets_nothing() {
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state").display().to_string();
    let execd = Execd::tcp(&["--state", &state, "--start-burst", "5000"]);
    let mut broker = execd.broker("b");
    let _others: Vec<_> = (0..4).map(|n| execd.broker(&format!("other{n}"))).collect();
    for worker in 1..=20 {
        broker.started(worker, "/bin/sleep", &["1000"]);
    }
    let open = fs::read_dir(format!("/proc/{}/fd", execd.pid())).unwrap().count();
    assert!(open > 25, "{open} descriptors: there is nothing to leak");
    // A binary needs no descriptor for a script. Its loader has one for each library that it maps,
    // for a moment; one that execd left open would stay.
    let pid = broker.started(21, "/bin/sleep", &["1000"]);
    until("it has its streams alone", || {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        let mut fds: Vec<String> = names.collect();
        fds.sort();
        (fds == ["0", "1", "2"]).then_some(())
    });
}
