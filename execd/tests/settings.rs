//! Tests of the settings of a process on a real isdexecd: what they give it, and that they give
//! nothing that the host's owner did not permit. Those of other users need root.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]
#![allow(clippy::disallowed_methods, reason = "somebody must swap files meanwhile")]

mod common;

use common::{Execd, Wire, beginning, hold, is_root, run_to_end, script, start_frame, until};
use nix::sys::stat::Mode;
use protocol::bodies::ExitCause;
use protocol::frame::Frame;
use protocol::process::ProcessSettings;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A user that is neither root nor anybody else on this machine.
const NOBODY: u32 = 65_534;

fn mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A file of variables in execd's directory, for everybody to read.
fn file(execd: &Execd, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = execd.path(name);
    fs::write(&path, text).unwrap();
    mode(&path, 0o644);
    path
}

fn env(pairs: &[(&str, &str)]) -> ProcessSettings {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    ProcessSettings { env: pairs.collect(), ..ProcessSettings::default() }
}

fn limit(name: &str, value: &str) -> ProcessSettings {
    ProcessSettings { limits: env(&[(name, value)]).env, ..ProcessSettings::default() }
}

fn env_file(path: &str) -> ProcessSettings {
    ProcessSettings { env_file: Some(path.into()), ..ProcessSettings::default() }
}

fn cwd(path: &str) -> ProcessSettings {
    ProcessSettings { cwd: Some(path.into()), ..ProcessSettings::default() }
}

fn user(user: &str, group: &str) -> ProcessSettings {
    let word = |word: &str| (!word.is_empty()).then(|| word.to_owned());
    ProcessSettings { user: word(user), group: word(group), ..ProcessSettings::default() }
}

fn send(broker: &mut Wire, worker: u32, path: &str, settings: ProcessSettings) {
    let Frame::ExecStart(mut start) = start_frame(worker, path, &[]) else { unreachable!() };
    start.process = Some(Box::new(settings));
    broker.send(Frame::ExecStart(start));
}

/// Runs a script with settings to its end; returns what it wrote.
fn run(execd: &Execd, settings: ProcessSettings, body: &str) -> Vec<String> {
    mode(execd.directory.path(), 0o755);
    let program = execd.script("look", body);
    run_program(execd, settings, &program)
}

fn run_program(execd: &Execd, settings: ProcessSettings, program: &str) -> Vec<String> {
    let mut broker = execd.broker("b");
    send(&mut broker, 1, program, settings);
    match broker.next() {
        Frame::ExecStarted(_) => {}
        other => panic!("{other:?}"),
    }
    let (exited, lines) = broker.exited();
    assert_eq!(exited.exit_cause, ExitCause::Exit(0), "{lines:?}");
    lines.iter().filter_map(|line| line.strip_prefix("stdout 0 ")).map(str::to_owned).collect()
}

/// Starts a program that is refused for its settings; returns the text.
fn refused(broker: &mut Wire, settings: ProcessSettings) -> String {
    let shown = format!("{settings:?}");
    send(broker, 1, "/bin/true", settings);
    match broker.next() {
        Frame::ExecFailed(failed) => {
            assert!(failed.permanent, "{shown}: {}", failed.text);
            assert!(failed.text.contains("/bin/true is not started: "), "{}", failed.text);
            failed.text
        }
        other => panic!("{shown}: {other:?}"),
    }
}

fn status_of(lines: &[String], name: &str) -> Vec<String> {
    let line = lines.iter().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name}: {lines:?}"));
    line.split_ascii_whitespace().skip(1).map(str::to_owned).collect()
}

#[test]
fn a_process_gets_what_is_set_in_the_order_host_file_own() {
    let args =
        ["--env", "HOST=host", "--env", "BOTH=host", "--env", "ALL=host", "--allow-env", "*"];
    let execd = Execd::unix(&[&args[..], &["--limit", "nofile=100:200"]].concat());
    let text = "# of the file\nBOTH=file\nALL=\"file\"\nFILE=a b # c\n";
    let settings = ProcessSettings {
        env_file: Some(file(&execd, "variables", text)),
        cwd: Some("/usr".into()),
        umask: Some(0o77),
        nice: Some(7),
        limits: env(&[("nofile", "150"), ("core", "0")]).env,
        ..env(&[("ALL", "own"), ("OWN", "two\nlines"), ("TMPDIR", "/x")])
    };
    let lines = run(
        &execd,
        settings,
        "env; umask; pwd; cat /proc/self/stat; echo limits $(ulimit -Sn) $(ulimit -Hn) $(ulimit -c)",
    );
    let variables = ["HOST=host", "BOTH=file", "ALL=own", "FILE=a b # c", "OWN=two", "TMPDIR=/x"];
    for line in variables.into_iter().chain(["0077", "/usr", "limits 150 150 0"]) {
        assert_eq!(lines.iter().filter(|l| *l == line).count(), 1, "{line}: {lines:?}");
    }
    let of_all = lines.iter().filter(|line| line.starts_with("ALL=")).count();
    assert_eq!(of_all, 1, "a variable is there once: {lines:?}");
    let stat = lines.iter().find(|line| line.contains("(cat)")).unwrap();
    assert_eq!(stat.split_ascii_whitespace().nth(18), Some("7"), "{stat}");
}

#[test]
fn without_options_no_variable_and_no_user_can_be_named() {
    let execd = Execd::unix(&[]);
    let mut broker = execd.broker("b");
    let text = refused(&mut broker, env(&[("A", "secret-value")]));
    assert!(text.contains("env A is not permitted on this host"), "{text}");
    assert!(text.contains("--allow-env A") && !text.contains("secret-value"), "{text}");
    let path = file(&execd, "variables", "\nA=secret-value\n");
    let text = refused(&mut broker, env_file(&path));
    assert!(text.contains("line 2 is not permitted") && !text.contains("secret-value"), "{text}");
    for name in ["daemon", "1", "4294967295", "-1", "daemon:daemon", " ", "\n"] {
        let text = refused(&mut broker, user(name, ""));
        assert!(text.contains("--allow-user") || text.contains("colon"), "{name:?}: {text}");
    }
    // What is not a matter of permission needs none.
    let settings = ProcessSettings { umask: Some(0), ..cwd("/usr") };
    assert_eq!(run(&execd, settings, "umask; pwd"), ["0000", "/usr"]);
}

#[test]
fn what_makes_a_program_run_other_code_must_be_named_for_itself() {
    let execd = Execd::unix(&["--allow-env", "*", "--allow-env", "PATH", "--allow-env", "LD_*"]);
    let mut broker = execd.broker("b");
    for name in ["PYTHONPATH", "BASH_ENV", "ENV", "GCONV_PATH", "NODE_OPTIONS", "HOME", "IFS"] {
        let text = refused(&mut broker, env(&[(name, "/x")]));
        let part = format!("env {name} can make a program run other code");
        assert!(text.contains(&part) && text.contains(&format!("--allow-env {name}")), "{text}");
        let path = file(&execd, "variables", format!("{name}=/x\n"));
        let text = refused(&mut broker, env_file(&path));
        assert!(text.contains("line 1 can make a program run other code"), "{text}");
    }
    for name in ["ISECT_RUN", "ISECT_WORKER_SECRET"] {
        let text = refused(&mut broker, env(&[(name, "1.execd-1")]));
        assert!(text.contains("execd's own"), "{text}");
    }
    let settings = env(&[("PATH", "/bin:/x"), ("LD_BIND_NOW", "1"), ("PLAIN", "1")]);
    let lines = run(&execd, settings, "echo $PATH $LD_BIND_NOW $PLAIN");
    assert_eq!(lines, ["/bin:/x 1 1"]);
}

#[test]
fn values_and_names_that_could_hide_something_are_refused() {
    let execd = Execd::unix(&["--allow-env", "*"]);
    let mut broker = execd.broker("b");
    let huge = "x".repeat(8000);
    let many: Vec<String> = (0..9).map(|n| format!("A{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), huge.as_str())).collect();
    for (settings, part) in [
        (env(&[("A", "a\0LD_PRELOAD=/x")]), "the value of env A contains a NUL byte"),
        (env(&[("", "x")]), "is no name of a variable"),
        (env(&[("A\nLD_PRELOAD", "x")]), "env A\\nLD_PRELOAD is no name"),
        (env(&[("A\0", "x")]), "is no name of a variable"),
        (env(&[("BASH_FUNC_ls%%", "() { :; }")]), "is no name of a variable"),
        (env(&[(huge.as_str(), "x")]), "is no name of a variable"),
        (env(&many), "bytes; at most 65536 are allowed; set less with env and env_file"),
        (env_file("variables"), "env_file 'variables' is not an absolute path"),
        (env_file("/etc/../etc/passwd"), "contains '..'"),
        (env_file("/etc/\0passwd"), "NUL byte"),
        (cwd("usr"), "cwd 'usr' is not an absolute path"),
        (cwd("/usr/.."), "contains '..'"),
        (cwd("/usr\0"), "NUL byte"),
        (ProcessSettings { stop_signal: Some(19), ..ProcessSettings::default() }, "stop_signal 19"),
        (limit("nofile", "unlimited"), "nofile=unlimited"),
        (limit("nofile", "1:99999999999"), "nofile=1:99999999999"),
        (limit("nofile", "2:1"), "the soft limit is above the hard one"),
        (limit("no\nfile", "1"), "there is no limit"),
    ] {
        let text = refused(&mut broker, settings);
        assert!(text.contains(part) && text.len() < 1000, "{part}: {text}");
    }
}

#[test]
fn no_limit_is_raised_above_what_the_host_says() {
    let execd = Execd::unix(&["--limit", "nofile=100:200", "--limit", "cpu=60:60"]);
    let mut broker = execd.broker("b");
    for (name, value, most) in [("nofile", "201", 200), ("nofile", "5:201", 200), ("cpu", "61", 60)]
    {
        let text = refused(&mut broker, limit(name, value));
        let part = format!("limit {name}={value} is more than this host permits, which is {most}");
        assert!(
            text.contains(&part) && text.contains(&format!("--limit {name}={value}")),
            "{text}"
        );
    }
    let lines = run(&execd, limit("cpu", "60"), "echo $(ulimit -St) $(ulimit -Ht)");
    assert_eq!(lines, ["60 60"], "no second more than the host gives");
}

#[test]
fn only_a_plain_file_that_others_can_not_change_is_read() {
    let execd = Execd::unix(&["--allow-env", "*"]);
    let mut broker = execd.broker("b");
    let open = file(&execd, "open", "A=1\n");
    mode(&open, 0o666);
    let fifo = execd.path("fifo");
    nix::unistd::mkfifo(fifo.as_str(), Mode::from_bits_truncate(0o600)).unwrap();
    let directory = execd.path("directory");
    fs::create_dir(&directory).unwrap();
    let below_open = file(&execd, "directory/variables", "A=1\n");
    mode(&directory, 0o777);
    let looped = execd.path("looped");
    symlink(&looped, &looped).unwrap();
    let binary = file(&execd, "binary", b"A=\xff\n");
    let zero = file(&execd, "zero", b"A=1\0LD_PRELOAD=/x\n");
    let elf = file(&execd, "elf", fs::read("/bin/true").unwrap());
    let large = file(&execd, "large", format!("# {}\n", "x".repeat(65 << 10)));
    let environ = format!("/proc/{}/environ", execd.pid());
    for (path, part) in [
        (open.as_str(), "can be written by everybody (mode 0666)"),
        (&fifo, "is not an ordinary file"),
        (&directory, "is not an ordinary file"),
        (&below_open, "which everybody can write to (mode 0777)"),
        (&looped, "too many symbolic links"),
        (&binary, "is no text (UTF-8)"),
        (&zero, "line 1 contains a NUL byte"),
        (&elf, "env_file"),
        (&large, "has more than 65536 bytes"),
        (&environ, "is in /proc"),
        ("/proc/self/environ", "is in /proc"),
        ("/proc/self/task", "is in /proc"),
        ("/dev/zero", "is not an ordinary file"),
        ("/no/such/file", "does not exist on this host"),
        ("/bin/true/x", "not below one"),
    ] {
        let text = refused(&mut broker, env_file(path));
        assert!(text.contains(part), "{path}: {text}");
    }
    // What execd itself has open while it forks is not reached through /proc either.
    for number in 0..12 {
        let text = refused(&mut broker, env_file(&format!("/proc/self/fd/{number}")));
        assert!(text.contains("env_file"), "{number}: {text}");
    }
}

#[test]
fn only_a_directory_that_others_can_not_change_is_entered() {
    let execd = Execd::unix(&[]);
    let mut broker = execd.broker("b");
    let plain = file(&execd, "plain", "");
    let open = execd.path("open");
    fs::create_dir_all(format!("{open}/deep")).unwrap();
    mode(&open, 0o777);
    let sticky = execd.path("sticky");
    fs::create_dir(&sticky).unwrap();
    mode(&sticky, 0o1777);
    let dangling = execd.path("dangling");
    symlink("/no/such/thing", &dangling).unwrap();
    for (path, part) in [
        (plain.as_str(), "is not a directory"),
        (&open, "can be written by everybody (mode 0777)"),
        (&format!("{open}/deep"), "which everybody can write to (mode 0777)"),
        (&sticky, "can be written by everybody (mode 1777)"),
        (&dangling, "does not exist on this host"),
        ("/proc/self", "is in /proc"),
        (&format!("/proc/{}/fd", execd.pid()), "is in /proc"),
    ] {
        let text = refused(&mut broker, cwd(path));
        assert!(text.contains(part) && text.contains("cwd "), "{path}: {text}");
    }
    // It is where it really is, and a link to it is followed.
    let link = execd.path("link");
    symlink("/usr", &link).unwrap();
    assert_eq!(run(&execd, cwd(&link), "pwd -P"), ["/usr"]);
    assert_eq!(run(&execd, cwd("/proc/self/root/usr"), "pwd -P"), ["/usr"]);
}

#[test]
fn files_and_directories_outside_of_allow_are_not_reached() {
    let home = tempfile::tempdir().unwrap();
    let (inside, outside) = (home.path().join("in"), home.path().join("out"));
    fs::create_dir(&inside).unwrap();
    fs::create_dir(&outside).unwrap();
    let program = script(&inside, "program", "echo $A; pwd -P");
    for folder in [&inside, &outside] {
        fs::write(folder.join("variables"), "A=read\n").unwrap();
    }
    symlink(outside.join("variables"), inside.join("link")).unwrap();
    symlink(&outside, inside.join("way")).unwrap();
    let execd = Execd::unix(&["--allow", inside.to_str().unwrap(), "--allow-env", "A"]);
    let mut broker = execd.broker("b");
    let mut ask = |settings: ProcessSettings| {
        send(&mut broker, 1, &program, settings);
        match broker.next() {
            Frame::ExecFailed(failed) => failed.text,
            other => panic!("{other:?}"),
        }
    };
    let inside = inside.to_str().unwrap();
    let leads = format!("(it leads to {})", outside.join("variables").display());
    for path in ["/etc/passwd".into(), format!("{inside}/link"), format!("{inside}/way/variables")]
    {
        let text = ask(env_file(&path));
        assert!(text.contains("is not below an allowed directory"), "{path}: {text}");
        assert!(path.starts_with("/etc") || text.contains(&leads), "{path}: {text}");
    }
    for path in ["/usr".into(), format!("{inside}/way"), format!("{inside}-not")] {
        let text = ask(cwd(&path));
        let part =
            if path.ends_with("-not") { "does not exist" } else { "is not below an allowed" };
        assert!(text.contains(part), "{path}: {text}");
    }
    let settings =
        ProcessSettings { cwd: Some(inside.into()), ..env_file(&format!("{inside}/variables")) };
    assert_eq!(run_program(&execd, settings, &program), ["read", inside]);
}

/// Swaps a name as fast as possible between what is allowed and what is not. Whatever is used must
/// be what was checked.
#[test]
fn a_swap_of_a_file_or_directory_does_not_win() {
    let home = tempfile::tempdir().unwrap();
    let (inside, outside) = (home.path().join("in"), home.path().join("out"));
    for folder in [&inside, &outside, &inside.join("good")] {
        fs::create_dir(folder).unwrap();
    }
    fs::write(inside.join("good/variables"), "A=good\n").unwrap();
    fs::write(outside.join("variables"), "A=bad\n").unwrap();
    let program = script(&inside, "program", "echo $A $(pwd -P)");
    let (swapped, beside) = (inside.join("swapped"), inside.join("beside"));
    symlink(inside.join("good"), &swapped).unwrap();
    let args = ["--allow", inside.to_str().unwrap(), "--allow-env", "A", "--start-burst", "5000"];
    let execd = Execd::unix(&args);
    let mut broker = execd.broker("b");
    let is_over = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (is_over, good) = (Arc::clone(&is_over), inside.join("good"));
        let swapped = swapped.clone();
        std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                for target in [&outside, &good] {
                    symlink(target, &beside).unwrap();
                    fs::rename(&beside, &swapped).unwrap();
                }
            }
        })
    };
    let (mut started, mut turned_away) = (0, 0);
    for _ in 0..300 {
        let at = swapped.to_str().unwrap();
        let settings =
            ProcessSettings { cwd: Some(at.into()), ..env_file(&format!("{at}/variables")) };
        send(&mut broker, 1, &program, settings);
        match broker.next() {
            Frame::ExecStarted(_) => {
                let (_, lines) = broker.exited();
                let good = format!("stdout 0 good {}", inside.join("good").display());
                assert_eq!(lines, [good]);
                started += 1;
            }
            Frame::ExecFailed(failed) => {
                let is_ours =
                    failed.text.contains("not below") || failed.text.contains("was moved");
                assert!(is_ours, "{}", failed.text);
                turned_away += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    is_over.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert!(started > 0 && turned_away > 0, "{started} started, {turned_away} refused: no race");
}

#[test]
fn a_file_that_does_not_answer_makes_nobody_wait_but_its_own_start() {
    let execd = Execd::unix(&["--allow-env", "*"]);
    let mut broker = execd.broker("b");
    let path = file(&execd, "variables", "A=1\n");
    let Some(lease) = hold(&path) else { return };
    send(&mut broker, 1, "/bin/true", env_file(&path));
    until("its process is there", || (!beginning(&execd).is_empty()).then_some(()));
    broker.started(2, "/bin/true", &[]);
    assert_eq!(broker.exited().0.exit_cause, ExitCause::Exit(0));
    assert_eq!(beginning(&execd).len(), 1, "it still waits");
    assert_eq!(broker.list().len(), 1);
    broker.stop(1, 60_000);
    match broker.next() {
        Frame::ExecFailed(failed) => assert!(failed.text.contains("was ended"), "{}", failed.text),
        other => panic!("{other:?}"),
    }
    drop(lease);
    assert_eq!(run(&execd, env_file(&path), "echo $A"), ["1"]);
}

#[test]
fn the_interpreter_of_a_script_is_looked_for_from_its_directory() {
    let execd = Execd::unix(&[]);
    let home = execd.directory.path().display().to_string();
    let interpreter = common::copy("/bin/cat", execd.directory.path(), "interpreter");
    let program = common::program(execd.directory.path(), "program", b"#!interpreter\nread\n");
    let lines = run_program(&execd, cwd(&home), &program);
    assert_eq!(lines, ["#!interpreter", "read"]);
    mode(&interpreter, 0o777);
    let mut broker = execd.broker("b");
    send(&mut broker, 1, &program, cwd(&home));
    match broker.next() {
        Frame::ExecFailed(failed) => {
            let part = format!("{interpreter} can be written by everybody");
            assert!(failed.permanent && failed.text.contains(&part), "{}", failed.text);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_signal_that_asks_to_end_is_the_one_that_is_set_and_kill_follows() {
    let execd = Execd::unix(&[]);
    let body = "trap 'exit 3' USR1; trap 'exit 4' TERM; echo up; while :; do sleep 0.02; done";
    let program = execd.script("waits", body);
    let mut broker = execd.broker("b");
    let own = |signal| ProcessSettings { stop_signal: Some(signal), ..ProcessSettings::default() };
    for (signal, grace_ms, end) in [
        (10, 20_000, ExitCause::Exit(3)),
        (15, 20_000, ExitCause::Exit(4)),
        (9, 20_000, ExitCause::Signal(9)),
        (64, 20_000, ExitCause::Signal(64)),
        // One asks for nothing, one has it stand still.
        (18, 100, ExitCause::Signal(9)),
        (20, 100, ExitCause::Signal(9)),
    ] {
        send(&mut broker, 1, &program, own(signal));
        assert!(matches!(broker.next(), Frame::ExecStarted(_)));
        assert_eq!(broker.line(), "up");
        broker.stop(1, grace_ms);
        assert_eq!(broker.exited().0.exit_cause, end, "signal {signal}");
    }
}

#[test]
fn a_higher_priority_needs_a_right_of_the_workers_user() {
    if !is_root() {
        return;
    }
    let execd = Execd::unix(&["--user", "65534:65534"]);
    let mut broker = execd.broker("b");
    let nice = |nice| ProcessSettings { nice: Some(nice), ..ProcessSettings::default() };
    for wanted in [-1, -20] {
        let text = refused(&mut broker, nice(wanted));
        assert!(text.contains(&format!("nice {wanted} is a higher priority")), "{text}");
        assert!(text.contains("LimitNICE") && !text.contains("  "), "{text}");
    }
    let _said = [0, 19].map(|wanted| run(&execd, nice(wanted), "exit 0"));
}

#[test]
fn a_worker_runs_as_a_user_that_is_permitted_with_its_home_and_no_other() {
    if !is_root() {
        return;
    }
    let args = ["--user", "65534:65533", "--allow-user", "daemon", "--allow-user", "4711:4712"];
    // The rights of execd's unit are enough.
    let execd = Execd::unix(&[&args[..], &["--allow-user", "daemon:4713", "--bounded"]].concat());
    let look = "cat /proc/self/status; env; echo to-stderr >/dev/stderr; \
                setpriv --reuid 0 true 2>/dev/null && echo became-root; exit 0";
    for (word, group, uid, gid) in [
        ("daemon", "", 1, 1),
        ("1", "", 1, 1),
        ("1", "4713", 1, 4713),
        ("4711", "", 4711, 4712),
        ("65534", "65533", NOBODY, 65_533),
        ("65534", "", NOBODY, 65_533),
        ("", "65533", NOBODY, 65_533),
    ] {
        let lines = run(&execd, user(word, group), look);
        let of = |number: u32| vec![number.to_string(); 4];
        assert_eq!(status_of(&lines, "Uid:"), of(uid), "{word}:{group}");
        assert_eq!(status_of(&lines, "Gid:"), of(gid), "{word}:{group}");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(status_of(&lines, set), ["0000000000000000"], "{set}");
        }
        let home = lines.iter().find(|line| line.starts_with("HOME="));
        assert_ne!(home.map(String::as_str), Some("HOME=/root"), "{lines:?}");
        assert_eq!(lines.contains(&"USER=daemon".to_owned()), uid == 1, "{lines:?}");
        assert_eq!(lines.contains(&"LOGNAME=daemon".to_owned()), uid == 1, "{lines:?}");
        assert!(!lines.contains(&"became-root".to_owned()));
    }
    let mut broker = execd.broker("b");
    for (word, group) in [
        ("root", ""),
        ("0", ""),
        ("bin", ""),
        ("daemon", "0"),
        ("daemon", "root"),
        ("daemon", "4712"),
        ("4711", "1"),
        ("", "0"),
        ("", "4713"),
        ("65534", "65534"),
        ("4294967295", ""),
        ("-1", ""),
    ] {
        let text = refused(&mut broker, user(word, group));
        assert!(text.contains("--allow-user"), "{word}:{group}: {text}");
    }
}

#[test]
fn root_is_no_user_to_permit_unless_that_is_said() {
    for args in [&["--allow-user", "root"][..], &["--allow-user", "0:12"]] {
        let (status, text) =
            run_to_end(&[&["--no-root", "--user", "65534:65534"][..], args].concat());
        assert_eq!(status, 2, "{args:?}: {text}");
        let part = if is_root() { "--allow-root-workers" } else { "only root" };
        assert!(text.contains(part), "{args:?}: {text}");
    }
    for args in [
        &["--allow-user", "no-such-user"][..],
        &["--allow-user", "daemon:no-such-group"],
        &["--allow-user", ""],
        &["--allow-user", "4294967295:1"],
        &["--allow-env", ""],
        &["--allow-env", "A B"],
        &["--allow-env", "A=1"],
        &["--allow-env", "*A"],
        &["--allow-env", "ISECT_RUN"],
        &["--allow-env", "ISECT_WORKER_SECRET"],
    ] {
        let (status, text) = run_to_end(args);
        assert!(status == 2 && text.contains(args[0]), "{args:?}: {status} {text}");
    }
}

/// As root, with everything that root may read: the worker's user gets to see nothing of it.
#[test]
fn no_file_and_no_directory_is_opened_that_the_workers_user_could_not_open() {
    if !is_root() {
        return;
    }
    let args = ["--user", "65534:65534", "--allow-user", "daemon", "--allow-env", "*"];
    for bounds in [&[][..], &["--bounded"]] {
        let execd = Execd::unix(&[&args[..], bounds].concat());
        mode(execd.directory.path(), 0o755);
        let mut broker = execd.broker("b");
        let secret = file(&execd, "secret", "A=hunter2\n");
        mode(&secret, 0o600);
        let closed = execd.path("closed");
        fs::create_dir_all(format!("{closed}/deep")).unwrap();
        let hidden = file(&execd, "closed/hidden", "A=hunter2\n");
        mode(&closed, 0o700);
        let link = execd.path("link");
        symlink(&hidden, &link).unwrap();
        for path in [secret.as_str(), &hidden, &link, "/etc/shadow"] {
            let text = refused(&mut broker, env_file(path));
            assert!(text.contains("can't be used by the user that the worker runs as"), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        // Not even whether it is there.
        let text = refused(&mut broker, env_file(&format!("{closed}/nothing")));
        assert!(text.contains("can't be used by the user"), "{text}");
        for path in [format!("{closed}/deep"), format!("{closed}/nothing")] {
            let text = refused(&mut broker, cwd(&path));
            assert!(text.contains("can't be used by the user"), "{text}");
        }
        // Of the directory itself the kernel says so when it is entered.
        let text = refused(&mut broker, cwd(&closed));
        assert!(text.contains(&format!("(cwd) {closed}: Permission denied")), "{text}");
        // Who may read it is the one who runs, not the one of other workers.
        chown(&secret, Some(1), None).unwrap();
        let text = refused(&mut broker, env_file(&secret));
        assert!(text.contains("can't be used by the user"), "{text}");
        let settings = ProcessSettings { env_file: Some(secret), ..user("daemon", "") };
        assert_eq!(run(&execd, settings, "echo $A; id -u"), ["hunter2", "1"]);
    }
}

/// An execd that is not root, but may read every file: its workers may not, and so it does not read
/// for them.
#[test]
fn what_execd_may_read_by_a_capability_is_not_read_for_a_worker() {
    if !is_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    mode(home.path(), 0o755);
    let secret = home.path().join("secret").display().to_string();
    fs::write(&secret, "A=hunter2\n").unwrap();
    mode(&secret, 0o600);
    let closed = home.path().join("closed");
    fs::create_dir_all(closed.join("deep")).unwrap();
    mode(&closed, 0o700);
    let deep = closed.join("deep").display().to_string();
    for args in [&["--ambient"][..], &["--ambient", "--user", "65534:65534"]] {
        let execd = Execd::unix(&[args, &["--allow-env", "A", "--allow-user", "daemon"]].concat());
        let mut broker = execd.broker("b");
        for settings in [env_file(&secret), cwd(&deep)] {
            let text = refused(&mut broker, settings);
            assert!(text.contains("can't be used by the user that the worker runs as"), "{text}");
        }
        for word in ["", "daemon"] {
            let settings = ProcessSettings { cwd: Some("/usr".into()), ..user(word, "") };
            let lines = run(&execd, settings, "cat /proc/self/status; pwd");
            assert_eq!(status_of(&lines, "CapEff:"), ["0000000000000000"]);
            let uid = if args.len() > 1 { NOBODY } else { common::AMBIENT_USER };
            let uid = if word.is_empty() { uid } else { 1 };
            assert_eq!(status_of(&lines, "Uid:"), vec![uid.to_string(); 4]);
            assert!(lines.contains(&"/usr".to_owned()), "{lines:?}");
        }
    }
}

#[test]
fn what_another_workers_user_put_there_is_not_run_as_a_permitted_user() {
    if !is_root() {
        return;
    }
    let execd = Execd::unix(&["--user", "65534:65534", "--allow-user", "daemon"]);
    mode(execd.directory.path(), 0o755);
    let open = execd.directory.path().join("open");
    fs::create_dir(&open).unwrap();
    mode(&open, 0o1777);
    let program = script(&open, "planted", "exit 0");
    chown(&program, Some(NOBODY), None).unwrap();
    let mut broker = execd.broker("b");
    send(&mut broker, 1, &program, user("daemon", ""));
    match broker.next() {
        Frame::ExecFailed(failed) => {
            let part = "another user could choose what runs";
            assert!(failed.permanent && failed.text.contains(part), "{}", failed.text);
        }
        other => panic!("{other:?}"),
    }
}
