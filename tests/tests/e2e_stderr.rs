//! Tests that diagnostics nobody reads (a full pipe, a stopped terminal, a full disk) stop no
//! program: workers are started again, hosts stay, programs end with their status. Real processes.

use isect_tests::proc::{
    Broker, Process, TIMEOUT, await_that, is_alive, program, signal_number, signal_pid,
};
use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::sys::termios::{FlowArg, tcflow};
use nix::unistd::mkfifo;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The first real-time signal: execd logs that it means nothing.
const SIGRTMIN: i32 = 34;

/// A named pipe that is full: a program that writes to it waits at the first byte.
struct Full {
    path: PathBuf,
    reader: File,
}

impl Full {
    fn new(folder: &Path) -> Self {
        let path = folder.join("stderr");
        mkfifo(&path, Mode::S_IRWXU).expect("a pipe");
        let open = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK);
            options.open(&path).expect("the pipe")
        };
        // Flags belong to an opening, so those of the program's stderr are not touched.
        let (mut filler, reader) = (open(), open());
        while filler.write(&[b'.'; 4096]).is_ok() {}
        while filler.write(b".").is_ok() {}
        Self { path, reader }
    }

    /// A shell command that executes the program whose words follow, with this pipe as its stderr.
    fn wrap(&self) -> [String; 4] {
        let line = format!("exec \"$@\" 2> {}", self.path.display());
        ["/bin/sh".into(), "-c".into(), line, "sh".into()]
    }

    /// Starts a program with this pipe as its stderr.
    fn start(&self, folder: &Path, name: &str, args: &[&str]) -> Process {
        let words = self.wrap();
        let path = program(name).display().to_string();
        let mut all: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        all.push(&path);
        all.extend(args);
        Process::start(Path::new(&words[0]), &all, folder.join("stdout"))
    }

    /// Empties the pipe.
    fn read_all(&mut self) {
        let mut bytes = [0; 65536];
        while self.reader.read(&mut bytes).is_ok() {}
    }

    /// Reads until this text has come. Returns all that came.
    fn await_text(&mut self, part: &str) -> String {
        let mut text = String::new();
        await_that(&format!("'{part}' on stderr"), || {
            let mut bytes = [0; 65536];
            match self.reader.read(&mut bytes) {
                Ok(count) => text.push_str(&String::from_utf8_lossy(&bytes[..count])),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
            text.contains(part).then_some(())
        });
        text
    }
}

/// Checks that workers that die are started again, and that their host stays up.
fn watches_over_workers(broker: &Broker) {
    broker.with_workers("echo", "isdecho", 2);
    for _ in 0..2 {
        for id in 1..=2 {
            let old = broker.worker_pid(id);
            signal_pid(old, Signal::SIGKILL);
            broker.await_new_pid(id, old);
        }
        assert!(broker.op("host localhost").contains("host->state = up"));
    }
    let answer = broker.login("echo").call("x", Some(TIMEOUT)).expect("an answer");
    assert_eq!(&answer[..], b"x");
}

#[test]
fn isectd_and_its_execd_go_on_when_nobody_reads_their_stderr() {
    let folder = TempDir::with_prefix("isect-").expect("temporary folder");
    let full = Full::new(folder.path());
    let wrap = full.wrap();
    let wrap: Vec<&str> = wrap.iter().map(String::as_str).collect();
    let mut broker = Broker::start_wrapped(folder, &["--log", "trace"], &wrap);
    watches_over_workers(&broker);
    // The next execd has the same stderr.
    let execd = broker.kill_execd(&[broker.worker_pid(1)]);
    await_that("another execd", || {
        let page = broker.op("host localhost");
        let is_new = !page.contains(&format!("hostpid = {execd}\n"));
        (is_new && page.contains("host->state = up")).then_some(())
    });
    let old = broker.worker_pid(1);
    signal_pid(old, Signal::SIGKILL);
    broker.await_new_pid(1, old);
    broker.process.signal(Signal::SIGTERM);
    assert_eq!(broker.process.await_end(), 0);
    broker.await_nothing_left();
}

#[test]
fn isectd_goes_on_when_its_terminal_is_stopped() {
    let folder = TempDir::with_prefix("isect-").expect("temporary folder");
    let pty = openpty(None, None).expect("a terminal");
    // Stops the output, as Ctrl-S does.
    tcflow(&pty.slave, FlowArg::TCOOFF).expect("stopped");
    let number = pty.slave.as_raw_fd();
    let terminal = format!("/proc/{}/fd/{number}", std::process::id());
    let wrap = ["/bin/sh", "-c", &format!("exec \"$@\" 2> {terminal}"), "sh"];
    let broker = Broker::start_wrapped(folder, &["--log", "trace"], &wrap);
    watches_over_workers(&broker);
    assert_eq!(broker.end(), 0);
}

#[test]
fn isdexecd_goes_on_and_tells_how_much_was_dropped() {
    let folder = TempDir::with_prefix("isect-").expect("temporary folder");
    let mut full = Full::new(folder.path());
    let at = |name: &str| folder.path().join(name).display().to_string();
    let listen = format!("unix:{}", at("execd"));
    let ports = at("ports");
    let args = ["--listen", &listen, "--allow", "/", "--allow-root-workers", "--log", "trace"];
    let args = [&args[..], &["--ports-file", &ports]].concat();
    let mut execd = full.start(folder.path(), "isdexecd", &args);
    await_that("the ports file", || Path::new(&ports).exists().then_some(()));
    let broker = Broker::start(&[]);
    broker.op(&format!("config host far {listen}"));
    broker.op("config service echo");
    broker.op(&format!("config worker echo far {}", program("isdecho").display()));
    broker.op("start echo");
    broker.await_idle(1);
    // Each signal is one line. Lines that peers cause before a login would be limited before they
    // come to stderr.
    signal_number(execd.pid(), SIGRTMIN, sys::stderr::LINES_MAX + 100);
    let old = broker.worker_pid(1);
    signal_pid(old, Signal::SIGKILL);
    broker.await_new_pid(1, old);
    assert!(broker.op("host far").contains("host->state = up"));
    let text = full.await_text("log lines dropped");
    assert!(text.contains("listening"), "what was said first is there");
    assert_eq!(broker.end(), 0);
    execd.signal(Signal::SIGTERM);
    assert_eq!(execd.await_end(), 0);
}

#[test]
fn programs_end_with_their_status_when_their_last_words_are_not_read() {
    let folder = TempDir::with_prefix("isect-").expect("temporary folder");
    let full = Full::new(folder.path());
    let nobody = format!("unix:{}", folder.path().join("nobody").display());
    let cases: [(&str, &[&str], i32); 8] = [
        ("isdclient", &["--no-such-option"], 2),
        ("isdclient", &["-h", &nobody, "-c", "status"], 3),
        ("isectd", &["--no-such-option"], 2),
        ("isectd", &["--worker-user", "no-such-user"], 2),
        ("isdexecd", &["--no-such-option"], 2),
        ("isdexecd", &["--listen", "nonsense"], 2),
        ("isdecho", &["too-few"], 2),
        ("isdpipe", &["x", "0", "1", "s", "/no/such/program"], 2),
    ];
    for (name, args, status) in cases {
        let mut process = full.start(folder.path(), name, args);
        assert_eq!(process.await_end(), status, "{name} {args:?}");
    }
}

#[test]
fn isdclient_does_all_it_was_told_when_nobody_reads_its_errors() {
    let broker = Broker::start(&[]);
    let folder = TempDir::with_prefix("isect-").expect("temporary folder");
    let mut full = Full::new(folder.path());
    let place = broker.address().to_string();
    let args = ["-h", &place, "-c", "bogus", "-c", "bogus", "-c", "config service made"];
    let mut client = full.start(folder.path(), "isdclient", &args);
    assert_eq!(client.await_end(), 1, "the first failure is its status");
    assert!(broker.op("services").contains("made"));
    // If somebody reads in time, every line comes, in its place.
    full.read_all();
    let mut client = full.start(folder.path(), "isdclient", &args);
    let text = full.await_text("bogus");
    assert!(!text.contains("lines dropped"), "{text}");
    assert_eq!(client.await_end(), 1);
    assert_eq!(broker.end(), 0);
}

#[test]
fn isdpipe_answers_although_nobody_reads_what_its_programs_complain_of() {
    let broker = Broker::start(&["--set", "silence_ms=60000"]);
    let noise = "head -c 300000 /dev/zero >&2; cat";
    broker.with_workers("noise", &format!("isdpipe /bin/sh -c '{noise}'"), 1);
    let execd = broker.execd_pid();
    signal_pid(execd, Signal::SIGSTOP);
    for _ in 0..3 {
        let answer = broker.login("noise").call("x", Some(TIMEOUT)).expect("an answer");
        assert_eq!(&answer[..], b"x");
    }
    signal_pid(execd, Signal::SIGCONT);
    assert!(is_alive(execd));
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_full_disk_a_limit_of_file_sizes_or_no_stderr_at_all_stops_nobody() {
    let ways = [
        ("", "2>> /dev/full"),
        ("cd \"$DIR\"; ulimit -f 8; ", "2>> log"),
        ("", "2>&-"),
        ("", "0<&- 1>&- 2>&-"),
    ];
    for (limit, to) in ways {
        let folder = TempDir::with_prefix("isect-").expect("temporary folder");
        let limit = limit.replace("$DIR", &folder.path().display().to_string());
        let line = format!("{limit}exec \"$@\" {to}");
        let wrap = ["/bin/sh", "-c", &line, "sh"];
        let broker = Broker::start_wrapped(folder, &["--log", "trace"], &wrap);
        watches_over_workers(&broker);
        assert_eq!(broker.end(), 0);
    }
}
