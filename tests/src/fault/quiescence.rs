//! What must hold for all processes after the faults: everyone is connected and idle, nothing
//! waits, no process is left over, nothing leaks. It only waits and checks.

use super::load::SERVICES;
use super::world::{World, number};
use crate::proc::{is_alive, processes_of, within};
use std::collections::BTreeSet;
use std::time::Duration;
use sys::proc;

/// Time limit for quiescence after the faults.
pub const QUIESCENCE_MAX: Duration = Duration::from_secs(20);
/// Memory that may stay in use after faults, KiB: buffers, lists and the allocator's leftovers.
const BROKER_MORE_KIB: u64 = 96 * 1024;
/// The same for an execd.
const EXECD_MORE_KIB: u64 = 16 * 1024;

/// Names of the processes in [`World::pids`], in its order.
const NAMES: [&str; 3] = ["the broker", "its execd", "the far execd"];

/// Memory and descriptors of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Open descriptors.
    pub descriptors: u64,
    /// Memory, KiB.
    pub rss_kib: u64,
}

impl Usage {
    /// Of this process.
    pub fn of(pid: u32) -> Self {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .map_or(0, |entries| entries.count() as u64);
        let rss_kib = proc::status(pid).and_then(|status| status.vmrss).unwrap_or(0);
        Self { descriptors, rss_kib }
    }
}

impl World {
    /// Waits until all is as before the faults; returns what is not, in words.
    pub fn await_quiescence(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        let settled = within(QUIESCENCE_MAX, || {
            complaints = self.unsettled();
            complaints.is_empty().then_some(())
        });
        if settled.is_none() {
            for page in ["", "workers", "queue", "hosts"] {
                complaints.push(self.op(page).unwrap_or_else(|e| format!("'{page}': {e}")));
            }
            for (name, pid) in NAMES.iter().zip(self.pids()) {
                complaints.push(format!("{name}, process {pid}:\n{}", picture(pid)));
            }
        }
        complaints
    }

    /// The differences that remain, in words.
    fn unsettled(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        let expected: usize = SERVICES.iter().map(|service| service.workers).sum();
        let pages = self.json("workers");
        let count = |list: &str| pages[list].as_array().map_or(0, Vec::len);
        if (count("lazy"), count("idle"), count("busy")) != (0, expected, 0) {
            wrong.push(format!("of {expected} workers {} are idle", count("idle")));
        }
        let queue = self.json("queue");
        if queue["queue"].as_array().is_none_or(|waiting| !waiting.is_empty()) {
            wrong.push(format!("something waits for ever: {queue}"));
        }
        let status = &self.json("")["status"];
        if status["waiting"] != 0 || status["waiting_bytes"] != 0 {
            let bytes = &status["waiting_bytes"];
            wrong.push(format!("{} wait with {bytes} bytes", status["waiting"]));
        }
        let pids: BTreeSet<u32> = ["lazy", "idle", "busy"]
            .iter()
            .filter_map(|list| pages[list].as_array())
            .flatten()
            .map(|worker| number(&worker["pid"]))
            .collect();
        for pid in self.worker_processes() {
            if !pids.contains(&pid) && !pids.contains(&group_of(pid)) && is_alive(pid) {
                let (group, line) = (group_of(pid), command_line(pid));
                wrong.push(format!("process {pid} of group {group} belongs to nobody: {line}"));
            }
        }
        let execds = processes_of(&format!("unix:{}", self.disk.path().display()));
        let execds = execds
            .iter()
            .filter(|pid| command_line(**pid).contains("--role-execd") && !is_beginning(**pid))
            .count();
        if execds != 1 {
            wrong.push(format!("{execds} built-in execds"));
        }
        let saved = self.op("save").unwrap_or_default();
        if !self.disk.keeps(&saved) {
            wrong.push("what is kept is not the configuration".to_owned());
        }
        self.check_usage(&mut wrong);
        for pid in self.pids() {
            wrong.extend(
                other_clocks(pid).map(|clock| format!("process {pid} has a timer on {clock}")),
            );
        }
        wrong
    }

    fn check_usage(&self, wrong: &mut Vec<String>) {
        if self.baseline[0].descriptors == 0 {
            return;
        }
        let more = [BROKER_MORE_KIB, EXECD_MORE_KIB, EXECD_MORE_KIB];
        let on = |is_far| -> u64 {
            let there = SERVICES.iter().filter(|service| service.is_far == is_far);
            there.map(|service| service.workers as u64).sum()
        };
        // An execd watches each worker that an earlier execd started by one more descriptor.
        let watched = [0, on(false), on(true)];
        for (at, pid) in self.pids().into_iter().enumerate() {
            let now = Usage::of(pid);
            let (before, name) = (self.baseline[at], NAMES[at]);
            if now.descriptors > before.descriptors + watched[at] {
                let open = descriptors(pid).join(" ");
                wrong.push(format!("{name} has {now:?}, before the faults {before:?}: {open}"));
            }
            if now.rss_kib > before.rss_kib + more[at] {
                wrong.push(format!("{name} has {now:?}, before the faults {before:?}"));
            }
        }
    }
}

/// What a process is doing, as the kernel shows it: running or stopped, what it sleeps in, its
/// times, and its TCP sockets; how many connections wait for a listener is its `rx_queue`.
fn picture(pid: u32) -> String {
    let of =
        |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = of("status");
    let told = ["State:", "SigQ:", "SigPnd:", "ShdPnd:", "voluntary_ctxt", "nonvoluntary_ctxt"];
    let is_told = |line: &&str| told.iter().any(|name| line.starts_with(name));
    let mut lines: Vec<String> = status.lines().filter(is_told).map(str::to_owned).collect();
    lines.push(format!("sleeps in: {}, system call: {}", of("wchan"), of("syscall").trim()));
    lines.push(format!("run, wait, turns: {}", of("schedstat").trim()));
    let sockets: BTreeSet<String> = descriptors(pid).into_iter().collect();
    let table = of("net/tcp");
    let is_own = |row: &&str| {
        let inode = row.split_whitespace().nth(9).unwrap_or_default();
        sockets.contains(&format!("socket:[{inode}]"))
    };
    lines.extend(table.lines().take(1).chain(table.lines().filter(is_own)).map(str::to_owned));
    lines.join("\n")
}

/// What the descriptors of a process are.
fn descriptors(pid: u32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.map(|link| link.to_string_lossy().into_owned()).collect()
}

/// Timers of a process that are not on the monotonic clock, as the kernel shows them.
fn other_clocks(pid: u32) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten();
    entries.filter_map(|entry| {
        let text = std::fs::read_to_string(entry.ok()?.path()).ok()?;
        let line = text.lines().find(|line| line.starts_with("clockid:"))?;
        (line.split_whitespace().nth(1) != Some("1")).then(|| line.to_owned())
    })
}

/// The process group of a process; 0 if it is gone.
fn group_of(pid: u32) -> u32 {
    proc::stat(pid).map_or(0, |stat| stat.pgrp.cast_unsigned())
}

/// Whether a process was forked by an execd and does not run its program yet.
fn is_beginning(pid: u32) -> bool {
    proc::stat(pid).is_some_and(|stat| stat.comm == "isdexecd-start")
}

/// The command line of a process.
pub fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}
