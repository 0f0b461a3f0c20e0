//! Tests of the files in which the output of workers is kept, with real processes: what is slow,
//! full or gone keeps nobody waiting, and no line is lost without being counted.

#![allow(clippy::disallowed_methods, reason = "a test measures how long an answer takes")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::{Execd, Wire, await_recorded, is_root, until};
use nix::sys::signal::Signal;
use protocol::bodies::{ExecRead, ExecStart, ExecStop};
use protocol::process::KeptLine;
use protocol::{Frame, RunId, WorkerId};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::tempdir;

/// Starts a program of which the output is kept in so many files of so many bytes.
fn start(wire: &mut Wire, (worker, run): (u32, u64), path: &str, (bytes, files): (u64, u32)) {
    let Frame::ExecStart(start) = common::start_frame(worker, path, &[]) else { unreachable!() };
    let run = RunId(run);
    wire.send(Frame::ExecStart(ExecStart {
        run,
        output_bytes: bytes,
        output_files: files,
        ..start
    }));
}

/// The last lines that are kept of a worker, and how many are lost; why there are none.
fn read(wire: &mut Wire, worker: u32, lines: u32) -> (Vec<KeptLine>, u64, String) {
    wire.send(Frame::ExecRead(ExecRead { request: 7, worker: WorkerId(worker), lines }));
    let (mut all, mut lost, mut text) = (Vec::new(), 0, String::new());
    loop {
        match wire.next() {
            Frame::ExecLines(answer) => {
                assert_eq!((answer.request, answer.worker.0), (7, worker));
                all.extend(answer.lines);
                lost += answer.lost;
                text += &answer.text;
                if !answer.more {
                    return (all, lost, text);
                }
            }
            Frame::ExecOutput(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn texts(lines: &[KeptLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

/// The files of a worker below a directory of output, the newest first.
fn files(output: &Path, worker: u32) -> Vec<PathBuf> {
    let name = |age: u32| match age {
        0 => format!("worker-{worker}.log"),
        age => format!("worker-{worker}.log.{age}"),
    };
    (0..1000).map(|age| output.join("b").join(name(age))).take_while(|file| file.exists()).collect()
}

fn run(words: &[&str]) -> bool {
    #[expect(clippy::disallowed_methods, reason = "the test makes a file system")]
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A file system, unmounted on drop.
struct Mounted(PathBuf);

impl Mounted {
    /// Mounts one as the words before the directory say; `None` where the system can't.
    #[allow(clippy::print_stderr, reason = "a test that tries less than it could says so")]
    fn make(at: &Path, words: &[&str]) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let shown = at.display().to_string();
        if !is_root() || !run(&[&["mount"], words, &[shown.as_str()]].concat()) {
            eprintln!("not tried: no file system can be mounted here");
            return None;
        }
        Some(Self(at.to_owned()))
    }

    fn freeze(&self, is_on: bool) -> bool {
        run(&["fsfreeze", if is_on { "-f" } else { "-u" }, &self.0.display().to_string()])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.freeze(false);
        run(&["umount", "-l", &self.0.display().to_string()]);
    }
}

#[test]
fn what_a_worker_writes_is_kept_and_read_back_and_rotation_loses_no_line() {
    let home = tempdir().unwrap();
    let state = home.path().join("state").display().to_string();
    let execd = Execd::unix(&["--state", &state]);
    let program = execd.script("program", "seq 1 20000; echo oops >&2; printf half");
    let mut broker = execd.broker("b");
    broker.list();
    start(&mut broker, (3, 1), &program, (32_768, 100));
    broker.exited_after_start();
    let (lines, lost, _) = read(&mut broker, 3, 10_000);
    assert_eq!((lines.len(), lost), (10_000, 0));
    assert!(lines.windows(2).all(|pair| pair[1].number == pair[0].number + 1));
    assert!(lines.iter().any(|line| line.text == "oops" && line.stream.to_string() == "stderr"));
    assert!(lines.iter().any(|line| line.text == "half"), "a last line without an end");
    // All lines, in the order of the files.
    let output = Path::new(&state).join("output");
    let files = files(&output, 3);
    assert!(files.len() > 20, "{}", files.len());
    let whole: Vec<String> =
        files.iter().rev().map(|file| fs::read_to_string(file).unwrap()).collect();
    assert!(whole.iter().all(|text| text.len() <= 32_768 && text.ends_with('\n')));
    let whole = whole.concat();
    let numbers = whole.lines().map(|line| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap());
    assert!(numbers.eq(1..=20_002));
    let written =
        whole.lines().filter_map(|line| line.split_once(" stdout ")?.1.parse::<u64>().ok());
    assert!(written.eq(1..=20_000_u64));
    let (lines, ..) = read(&mut broker, 3, 2);
    assert_eq!(lines.len(), 2);
    let (lines, _, text) = read(&mut broker, 4, 2);
    assert!(lines.is_empty() && text == "no output of it is kept", "{text}");
}

#[test]
fn a_worker_that_never_ends_its_line_is_one_line() {
    let home = tempdir().unwrap();
    let state = home.path().join("state").display().to_string();
    let execd = Execd::unix(&["--state", &state]);
    let program =
        execd.script("program", "head -c 100000000 /dev/zero | tr '\\0' x; echo; echo after");
    let mut broker = execd.broker("b");
    start(&mut broker, (3, 1), &program, (1 << 20, 2));
    broker.exited_after_start();
    let (lines, lost, _) = read(&mut broker, 3, 10);
    assert_eq!((lines.len(), lost), (2, 0));
    assert!(lines[0].text.starts_with("xxx") && lines[0].text.ends_with('…'));
    assert_eq!(lines[1].text, "after");
    let peak = sys::proc::status(execd.pid()).unwrap().vmhwm.unwrap();
    assert!(peak < 100_000, "{peak} KiB");
}

#[test]
fn an_execd_that_is_killed_leaves_whole_lines_and_the_next_one_goes_on_with_the_numbers() {
    let home = tempdir().unwrap();
    let state = home.path().join("state").display().to_string();
    let mut execd = Execd::unix(&["--state", &state]);
    let program = execd.script(
        "program",
        "echo first; n=0; while [ $n -lt 100 ]; do n=$((n+1)); echo line $n; sleep 0.02; done; \
         exec sleep 1000",
    );
    let mut broker = execd.broker("b");
    start(&mut broker, (3, 1), &program, (1 << 20, 2));
    let Frame::ExecStarted(started) = broker.next() else { panic!() };
    until("some lines are kept", || (read(&mut broker, 3, 99).0.len() > 5).then_some(()));
    await_recorded(&state, &[started.pid]);
    execd.signal(Signal::SIGKILL);
    execd.wait();
    let directory = std::mem::replace(&mut execd.directory, tempdir().unwrap());
    let execd = Execd::unix_in(directory, &["--state", &state]);
    let mut broker = execd.broker("b");
    broker.send(Frame::ExecList);
    // The adopted process is still one of which the output is kept.
    let lines = until("the last line is kept", || {
        let (lines, ..) = read_among(&mut broker, 3, 999);
        lines.iter().any(|line| line.text == "line 100").then_some(lines)
    });
    assert!(lines.windows(2).all(|pair| pair[1].number > pair[0].number), "{lines:?}");
    assert_eq!(lines[0].text, "first");
    broker.stop_run(3, 1, 0);
}

/// As [`read`], when other frames may come before.
fn read_among(wire: &mut Wire, worker: u32, lines: u32) -> (Vec<KeptLine>, u64, String) {
    wire.send(Frame::ExecRead(ExecRead { request: 7, worker: WorkerId(worker), lines }));
    let (mut all, begun) = (Vec::new(), Instant::now());
    loop {
        assert!(begun.elapsed() < Duration::from_secs(20), "no answer, but other frames");
        match wire.next() {
            Frame::ExecLines(answer) => {
                all.extend(answer.lines);
                if !answer.more {
                    return (all, answer.lost, answer.text);
                }
            }
            Frame::ExecOutput(_) | Frame::ExecListed(_) | Frame::ExecStarted(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_full_disk_keeps_nobody_waiting_and_every_line_is_kept_or_counted() {
    let home = tempdir().unwrap();
    let at = home.path().join("output");
    let Some(_disk) = Mounted::make(&at, &["-t", "tmpfs", "-o", "size=64k", "none"]) else {
        return;
    };
    let execd = Execd::unix(&["--state", "none", "--output-dir", at.to_str().unwrap()]);
    let program = execd.script("program", "seq 1 30000");
    let mut broker = execd.broker("b");
    start(&mut broker, (1, 1), &program, (8192, 100));
    broker.exited_after_start();
    start(&mut broker, (2, 2), &program, (8192, 100));
    broker.exited_after_start();
    for worker in [1, 2] {
        let (lines, lost, text) = read(&mut broker, worker, 10_000);
        assert_eq!(lines.len() as u64 + lost, 30_000, "worker {worker}: {text}");
        assert!(lost > 20_000);
    }
    // Each file is whole lines, also where the disk had no room for more.
    for file in files(&at, 1) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{}", file.display());
    }
    // Room again: how many are missing is told in the file, then lines are kept.
    for file in files(&at, 1).iter().skip(1) {
        fs::remove_file(file).unwrap();
    }
    let program = execd.script("again", "echo again");
    start(&mut broker, (1, 3), &program, (8192, 100));
    broker.exited_after_start();
    let (lines, lost, _) = read(&mut broker, 1, 10_000);
    assert_eq!(texts(&lines).last(), Some(&"again"));
    assert!(lost > 20_000);
    let text = fs::read_to_string(&files(&at, 1)[0]).unwrap();
    assert!(text.contains(" lost ") && text.contains("the disk was full or too slow"), "{text}");
}

#[test]
fn a_disk_that_does_not_answer_keeps_nobody_waiting_and_what_had_no_room_is_counted() {
    let home = tempdir().unwrap();
    let image = home.path().join("image").display().to_string();
    if !run(&["truncate", "-s", "64M", &image]) || !run(&["mkfs.ext4", "-q", &image]) {
        return;
    }
    let at = home.path().join("disk");
    let Some(disk) = Mounted::make(&at, &["-o", "loop", &image]) else { return };
    let execd = Execd::unix(&["--state", "none", "--output-dir", at.join("o").to_str().unwrap()]);
    let much = execd.script("much", "seq 1 600000");
    let little = execd.script("little", "echo one; echo two");
    let mut broker = execd.broker("b");
    start(&mut broker, (1, 1), &little, (32 << 20, 2));
    broker.exited_after_start();
    assert_eq!(read(&mut broker, 1, 9).0.len(), 2);
    assert!(disk.freeze(true));
    // More than the queue has room for; then another worker, whose few lines have room.
    start(&mut broker, (1, 2), &much, (32 << 20, 2));
    broker.exited_after_start();
    start(&mut broker, (2, 3), &little, (32 << 20, 2));
    broker.exited_after_start();
    assert!(broker.list().is_empty());
    assert!(disk.freeze(false));
    let (lines, lost, _) = read(&mut broker, 2, 9);
    assert_eq!((texts(&lines), lost), (vec!["one", "two"], 0));
    let (lines, lost, _) = read(&mut broker, 1, 1);
    assert_eq!(lines.len(), 1);
    let text = fs::read_to_string(&files(&at.join("o"), 1)[0]).unwrap();
    let mut counts = (0, 0);
    for line in text.lines() {
        let mut words = line.splitn(4, ' ').skip(2);
        match words.next() {
            Some("lost") => {
                counts.1 +=
                    words.next().unwrap().split(' ').next().unwrap().parse::<u64>().unwrap();
            }
            _ => counts.0 += 1,
        }
    }
    assert!(counts.1 > 100_000, "{counts:?}");
    assert_eq!(counts.0 + counts.1, 600_002, "{counts:?}, {lost} lost");
    drop((broker, execd));
}

#[test]
fn a_worker_that_floods_keeps_no_read_waiting() {
    let home = tempdir().unwrap();
    let state = home.path().join("state").display().to_string();
    let execd = Execd::unix(&["--state", &state]);
    let little = execd.script("little", "echo one; echo two; exec sleep 1000");
    let mut broker = execd.broker("b");
    let output = Path::new(&state).join("output");
    for worker in [2, 3] {
        let flood = execd.script("flood", "exec yes");
        start(&mut broker, (worker, worker.into()), &flood, (1 << 20, 3));
        until("it floods", || (files(&output, worker).len() == 3).then_some(()));
    }
    start(&mut broker, (1, 1), &little, (1 << 20, 3));
    until("the lines are kept", || (read_among(&mut broker, 1, 9).0.len() == 2).then_some(()));
    for turn in 0..20 {
        // The last one of a worker that floods, too.
        let worker = if turn < 10 { 1 } else { 2 };
        let begun = Instant::now();
        let (lines, ..) = read_among(&mut broker, worker, 2);
        let took = begun.elapsed();
        assert_eq!(lines.len(), 2);
        assert!(took < Duration::from_millis(900), "worker {worker}: {took:?}");
    }
    for worker in 1..=3 {
        broker.send(Frame::ExecStop(ExecStop {
            worker: WorkerId(worker),
            run: RunId(worker.into()),
            grace_ms: 0,
        }));
    }
}

#[test]
fn without_a_directory_it_says_why_and_one_is_used_by_one_execd() {
    let execd = Execd::tcp(&["--state", "none"]);
    let mut broker = execd.broker("b");
    let (_, _, text) = read(&mut broker, 1, 9);
    assert!(text.contains("--output-dir"), "{text}");
    let home = tempdir().unwrap();
    let at = home.path().join("o").display().to_string();
    let _first = Execd::tcp(&["--state", "none", "--output-dir", &at]);
    let words = ["--listen", "127.0.0.1:0", "--state", "none", "--output-dir", &at];
    let (status, text) = common::run_to_end(&words);
    assert_eq!(status, 4, "{text}");
    assert!(text.contains("another execd") && text.contains("--output-dir"), "{text}");
}

#[test]
fn memory_of_a_process_and_its_children_is_watched() {
    let execd = Execd::unix(&[]);
    // The child of the shell has the memory.
    let program =
        execd.script("program", "head -c 60000000 /dev/zero | tail -c 50000000 | sleep 1000");
    let mut broker = execd.broker("b");
    broker.list();
    let Frame::ExecStart(start) = common::start_frame(3, &program, &[]) else { unreachable!() };
    broker.send(Frame::ExecStart(ExecStart { memory_max: 30_000_000, ..start }));
    assert!(matches!(broker.next(), Frame::ExecStarted(_)));
    match broker.next() {
        Frame::ExecMemory(memory) => {
            assert_eq!((memory.worker.0, memory.run.0), (3, 3));
            assert!(memory.rss_bytes > 30_000_000, "{memory:?}");
        }
        other => panic!("{other:?}"),
    }
    broker.stop(3, 0);
    broker.exited();
}
