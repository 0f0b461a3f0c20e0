//! Tests with a disk that does not answer: a frozen file system, on which every write waits. Only
//! root can make one.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::{Execd, is_root, is_running, until, wait_gone};
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A file system in a file, removed on drop.
struct Disk {
    dir: TempDir,
}

fn run(words: &[&str]) -> bool {
    #[expect(clippy::disallowed_methods, reason = "the test makes a file system")]
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Disk {
    /// Makes one; `None` where the system can't.
    #[allow(clippy::print_stderr, reason = "a test that tries less than it could says so")]
    fn make() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image").display().to_string();
        let disk = Self { dir };
        std::fs::create_dir(disk.root()).unwrap();
        let is_made = run(&["truncate", "-s", "8M", &image])
            && run(&["mkfs.ext4", "-q", &image])
            && run(&["mount", "-o", "loop", &image, &disk.shown()])
            && disk.freeze(true)
            && disk.freeze(false);
        if !is_made {
            eprintln!("not tried: no file system can be mounted and frozen here");
        }
        is_made.then_some(disk)
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("root")
    }

    fn shown(&self) -> String {
        self.root().display().to_string()
    }

    fn freeze(&self, is_on: bool) -> bool {
        run(&["fsfreeze", if is_on { "-f" } else { "-u" }, &self.shown()])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let is_mounted = run(&["mountpoint", "-q", &self.shown()]);
        if is_mounted {
            self.freeze(false);
            run(&["umount", &self.shown()]);
        }
    }
}

fn lines(file: &Path) -> usize {
    std::fs::read_to_string(file).unwrap_or_default().lines().count()
}

#[test]
fn a_state_directory_whose_disk_does_not_answer_keeps_nobody_waiting() {
    if !is_root() {
        return;
    }
    let Some(disk) = Disk::make() else { return };
    let state = disk.root().join("state");
    {
        let execd = Execd::unix(&["--state", state.to_str().unwrap()]);
        let program = execd.script("program", "sleep 1000");
        let mut broker = execd.broker("b");
        broker.started(1, &program, &[]);
        assert!(disk.freeze(true));
        let pids = [2, 3].map(|worker| broker.started(worker, &program, &[]));
        broker.stop(2, 5000);
        broker.exited();
        assert_eq!(broker.list().len(), 2);
        assert!(disk.freeze(false));
        // After the thaw everything is written: first the text that the thread had in its hand when
        // the disk stood still, which may tell of worker 2, then what holds now.
        let file = state.join("execd.children");
        until("the file tells of workers 1 and 3", || {
            let text = std::fs::read_to_string(&file).ok()?;
            let of = |pid: u32| text.contains(&format!(" {pid} "));
            (text.lines().count() == 3 && of(pids[1]) && !of(pids[0])).then_some(())
        });
        assert!(is_running(pids[1]));
    }
}

#[test]
fn a_start_that_was_not_written_down_is_ended_by_the_next_execd() {
    if !is_root() {
        return;
    }
    let Some(disk) = Disk::make() else { return };
    let state = disk.root().join("state").display().to_string();
    let home = tempfile::tempdir().unwrap();
    let mute = common::script(home.path(), "mute", "sleep 1000");
    let mut execd = Execd::unix(&["--state", &state]);
    let mut broker = execd.broker("b");
    let Some(lease) = common::hold(&mute) else { return };
    assert!(disk.freeze(true));
    broker.start(1, &mute, &[]);
    let pid = until("it is forked", || common::beginning(&execd).first().copied());
    execd.signal(Signal::SIGKILL);
    // Its thread waits for the disk.
    assert!(disk.freeze(false));
    execd.wait();
    assert_eq!(lines(Path::new(&state).join("execd.children").as_path()), 1, "nothing was written");
    let _next = Execd::unix(&["--state", &state]);
    wait_gone(pid);
    drop(lease);
}
