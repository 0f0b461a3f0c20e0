//! Several machines on one network, simulated on one: each has its own network namespace on one
//! switch, its own empty `/opt`, and a name that the others resolve. Each has one shell that stays
//! open. Everything that runs there is killed at the end. Needs root and iproute2. The network is
//! neither slow nor lossy, and process ids are shared.

use crate::netns_link::Namespace;
use crate::proc::{program, signal_pid, within, write_program};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long one block may take.
const BLOCK_MAX: Duration = Duration::from_secs(120);

/// A replacement for `scp` on these machines: files wait in the target's box until its next
/// command.
const SCP: &str = "#!/bin/bash
# scp FILE... HOST:PATH
to=\"${@: -1}\"; box=\"$ISECT_BOXES/${to%%[.:]*}${to#*:}\"
case $box in */) mkdir -p \"$box\";; *) mkdir -p \"$(dirname \"$box\")\";; esac
cp -p \"${@:1:$#-1}\" \"$box\"
";

/// A simulated machine: a network namespace and a shell in it.
#[derive(Debug)]
pub struct Machine {
    /// Host name, which the other machines resolve.
    pub name: String,
    /// IPv4 address on the common network.
    pub address: String,
    namespace: Namespace,
    shell: Child,
    /// Its network namespace, as the kernel names it.
    net: PathBuf,
}

/// All machines.
#[derive(Debug)]
pub struct Lan {
    /// The machines, in the order of the names given to [`build`](Self::build).
    pub machines: Vec<Machine>,
    /// The thread in the namespace of the switch; the switch ends with it.
    _switch: Namespace,
    folder: TempDir,
    blocks: u32,
}

impl Lan {
    /// Machines of these names, `NAME.example` for each other, at 192.0.2.1 and so on; `None` if
    /// that can't be done here, which is said on stderr.
    #[expect(clippy::print_stderr, reason = "a test that was not tried says so")]
    pub fn build(names: &[&str]) -> Option<Self> {
        if !Uid::effective().is_root() {
            eprintln!("not tried: only root can make networks of its own");
            return None;
        }
        Self::try_build(names).map_err(|why| eprintln!("not tried: {why}")).ok()
    }

    fn try_build(names: &[&str]) -> Result<Self, String> {
        let folder = TempDir::with_prefix("isect-lan-").map_err(|e| e.to_string())?;
        let mut known = "127.0.0.1 localhost\n".to_owned();
        for (at, name) in names.iter().enumerate() {
            let _ = writeln!(known, "{} {name}.example {name}", address(at));
        }
        write(&folder.path().join("hosts"), &known)?;
        let scp = folder.path().join("bin/scp");
        fs::create_dir(folder.path().join("bin")).map_err(|e| e.to_string())?;
        write_program(&scp, SCP.as_bytes());
        let switch = Namespace::open()?;
        switch.ip("link add both type bridge".into())?;
        switch.ip("link set both up".into())?;
        let mut machines = Vec::new();
        for (at, name) in names.iter().enumerate() {
            machines.push(Machine::build(name, address(at), &switch, folder.path())?);
        }
        Ok(Self { machines, _switch: switch, folder, blocks: 0 })
    }

    /// The machine of that name.
    ///
    /// # Panics
    /// If there is none.
    pub fn machine(&mut self, name: &str) -> &mut Machine {
        let found = self.machines.iter_mut().find(|machine| machine.name == name);
        found.unwrap_or_else(|| panic!("no machine is called '{name}'"))
    }

    /// Runs lines in the shell of a machine, as if typed. Returns their output, and whether each of
    /// them succeeded.
    ///
    /// # Panics
    /// If they take too long.
    pub fn run(&mut self, name: &str, lines: &str) -> (String, bool) {
        self.blocks += 1;
        let at = |what: &str| self.folder.path().join(format!("{what}-{}", self.blocks));
        let (script, said, status) = (at("block"), at("said"), at("status"));
        write(&script, lines).expect("a file");
        let (folder, said_at) = (self.folder.path().display(), said.display());
        // Files that others sent are unpacked first. Each line that fails is recorded.
        let typed = format!(
            "cp -a {folder}/boxes/{name}/. / 2>/dev/null; failed=0\n\
             . {} >{said_at} 2>&1 </dev/null\n\
             echo $failed >{status}.new; mv {status}.new {status}\n",
            script.display(),
            status = status.display(),
        );
        let machine = self.machine(name);
        let stdin = machine.shell.stdin.as_mut().expect("a pipe");
        stdin.write_all(typed.as_bytes()).expect("a shell that listens");
        let done = within(BLOCK_MAX, || fs::read_to_string(&status).ok());
        let text = fs::read_to_string(&said).unwrap_or_default();
        let done = done.unwrap_or_else(|| panic!("on {name}, without end:\n{lines}\n{text}"));
        (text, done.trim() == "0")
    }

    /// Reads a file of a machine.
    pub fn file(&mut self, name: &str, path: &str) -> String {
        self.run(name, &format!("cat {path}")).0
    }
}

impl Machine {
    fn build(
        name: &str,
        address: String,
        switch: &Namespace,
        folder: &Path,
    ) -> Result<Self, String> {
        let namespace = Namespace::open()?;
        let wire = format!("to-{name}");
        let tid = namespace.tid();
        switch.ip(format!("link add {wire} type veth peer name eth0 netns {tid}"))?;
        switch.ip(format!("link set {wire} master both"))?;
        switch.ip(format!("link set {wire} up"))?;
        for line in [
            "link set lo up".to_owned(),
            format!("addr add {address}/24 dev eth0"),
            "link set eth0 up".to_owned(),
        ] {
            namespace.ip(line)?;
        }
        let home = folder.join("home").join(name);
        fs::create_dir_all(&home).map_err(|e| e.to_string())?;
        let (owned, at) = (folder.to_path_buf(), home);
        let (shell, net) = namespace.run(move || furnish(&owned, &at))?;
        Ok(Self { name: name.to_owned(), address, namespace, shell, net })
    }

    /// Runs a function in the machine's network namespace.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.namespace.run(work)
    }

    /// Kills all that runs there.
    fn clear(&mut self) {
        let is_here = |pid: &u32| {
            let net = fs::read_link(format!("/proc/{pid}/ns/net"));
            *pid != std::process::id() && net.is_ok_and(|net| net == self.net)
        };
        let entries = fs::read_dir("/proc").into_iter().flatten();
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let pids: Vec<u32> = pids.filter(is_here).collect();
        for pid in pids {
            signal_pid(pid, Signal::SIGKILL);
        }
        let _ = self.shell.wait();
    }
}

impl Drop for Lan {
    #[expect(clippy::print_stderr, reason = "a failed test shows what its programs said")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (folder, blocks) = (self.folder.path().to_path_buf(), self.blocks);
            for at in 1..=blocks {
                let read = |what| fs::read_to_string(folder.join(format!("{what}-{at}")));
                eprintln!("== {at}\n{}", read("block").unwrap_or_default());
                eprintln!("-- said\n{}", read("said").unwrap_or_default());
            }
            for machine in &self.machines {
                let show = || show_logs(Path::new("/opt"));
                eprintln!("== on {}\n{}", machine.name, machine.namespace.run(show));
            }
        }
        self.machines.iter_mut().for_each(Machine::clear);
    }
}

/// The logs that programs wrote below this folder.
fn show_logs(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            text += &show_logs(&path);
        } else if path.extension().is_some_and(|end| end == "log") {
            let log = fs::read_to_string(&path).unwrap_or_default();
            let _ = writeln!(text, "-- {}\n{log}", path.display());
        }
    }
    text
}

/// Runs on the machine's own thread: mounts its `/opt` and host names, and starts its shell.
#[expect(clippy::disallowed_methods, reason = "a person's shell on the machine")]
fn furnish(folder: &Path, home: &Path) -> Result<(Child, PathBuf), String> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| format!("unshare: {e}"))?;
    let hosts = folder.join("hosts");
    let hosts = hosts.to_string_lossy();
    for words in [
        vec!["--make-rprivate", "/"],
        vec!["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/opt"],
        vec!["--bind", &hosts, "/etc/hosts"],
    ] {
        let done = Command::new("mount").args(&words).stdin(Stdio::null()).output();
        let done = done.map_err(|e| format!("can't run mount: {e}"))?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            return Err(format!("mount {}: {said}", words.join(" ")));
        }
    }
    let isectd = program("isectd");
    let bins = isectd.parent().unwrap_or_else(|| Path::new("/"));
    let path = format!(
        "{}:{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        folder.join("bin").display(),
        bins.display()
    );
    let log = File::create(home.join("shell")).map_err(|e| e.to_string())?;
    let mut shell = Command::new("bash");
    shell.args(["--norc", "--noprofile"]).env_clear();
    shell.env("PATH", path).env("HOME", home).env("ISECT_BOXES", folder.join("boxes"));
    shell.env("LC_ALL", "C").current_dir(home).stdin(Stdio::piped());
    shell.stdout(log.try_clone().map_err(|e| e.to_string())?).stderr(log);
    let mut shell = shell.spawn().map_err(|e| format!("can't run bash: {e}"))?;
    let stdin = shell.stdin.as_mut().ok_or("no pipe to bash")?;
    let rules = "set -E -o pipefail\ntrap 'failed=1; echo \"failed: $BASH_COMMAND\" >&2' ERR\n";
    stdin.write_all(rules.as_bytes()).map_err(|e| e.to_string())?;
    let net = fs::read_link("/proc/thread-self/ns/net").map_err(|e| e.to_string())?;
    Ok((shell, net))
}

fn address(at: usize) -> String {
    format!("192.0.2.{}", at + 1)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
