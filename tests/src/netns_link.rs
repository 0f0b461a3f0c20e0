//! A simulated far machine: a network namespace behind a switch, whose link can be set down so that
//! nobody sends FIN or RST. The namespaces have no name; the kernel removes them with the threads
//! and processes that use them, however those end. Needs root and iproute2. The network is neither
//! slow nor lossy.

use crate::proc::await_that;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Uid, gettid};
use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// The address of this side.
pub const NEAR: &str = "10.77.0.1";
/// The address of the far machine.
pub const FAR: &str = "10.77.0.2";

type Job = Box<dyn FnOnce() + Send>;

/// A thread in its own network namespace; the processes it starts are in it, too.
#[derive(Debug)]
pub struct Namespace {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// The thread's id, by which its namespace can be named.
    tid: i32,
}

/// This thread on one side, a far machine on the other, a switch between them.
#[derive(Debug)]
pub struct NetnsLink {
    /// The far machine.
    pub far: Namespace,
    switch: Namespace,
    /// The namespace of this thread before, to return to.
    home: File,
}

impl Namespace {
    /// Starts a thread in a new network namespace.
    ///
    /// # Errors
    /// The kernel gives none.
    pub fn open() -> Result<Self, String> {
        let (jobs, to_do): (Sender<Job>, Receiver<Job>) = channel();
        let (told, is_open) = channel();
        let work = move || {
            let opened = unshare(CloneFlags::CLONE_NEWNET).map_err(|e| format!("unshare: {e}"));
            let _ = told.send(opened.map(|()| gettid().as_raw()));
            for job in to_do {
                job();
            }
        };
        let thread = std::thread::Builder::new().spawn(work).map_err(|e| e.to_string())?;
        let tid = is_open.recv().map_err(|e| e.to_string())??;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), tid })
    }

    /// Runs a function on that thread.
    ///
    /// # Panics
    /// If that panics.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (told, done) = channel();
        let job: Job = Box::new(move || {
            let _ = told.send(work());
        });
        self.jobs.as_ref().expect("an open namespace").send(job).expect("a thread that works");
        done.recv().expect("the work panicked")
    }

    /// The thread's id, by which its namespace can be named.
    pub const fn tid(&self) -> i32 {
        self.tid
    }

    /// Runs a command of iproute2 in that namespace.
    ///
    /// # Errors
    /// What it says.
    pub fn ip(&self, line: String) -> Result<(), String> {
        self.run(move || ip(&line))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl NetnsLink {
    /// Takes this thread, and all that it starts from now on, to one side of a switch and makes a
    /// far machine on the other; `None` if that can't be done here, which is said on stderr.
    #[expect(clippy::print_stderr, reason = "a test that was not tried says so")]
    pub fn create() -> Option<Self> {
        if !Uid::effective().is_root() {
            eprintln!("not tried: only root can make a network of its own");
            return None;
        }
        Self::try_create().map_err(|why| eprintln!("not tried: {why}")).ok()
    }

    fn try_create() -> Result<Self, String> {
        let home = File::open("/proc/thread-self/ns/net").map_err(|e| e.to_string())?;
        let (far, switch) = (Namespace::open()?, Namespace::open()?);
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| format!("unshare: {e}"))?;
        let netns = Self { far, switch, home };
        let (near, far) = (gettid(), netns.far.tid);
        netns.switch.ip("link add both type bridge".into())?;
        for (port, side) in [("near", near.as_raw()), ("far", far)] {
            netns.switch.ip(format!("link add {port} type veth peer name wire netns {side}"))?;
            netns.switch.ip(format!("link set {port} master both"))?;
            netns.switch.ip(format!("link set {port} up"))?;
        }
        netns.switch.ip("link set both up".into())?;
        for line in ["link set lo up".into(), format!("addr add {NEAR}/24 dev wire")] {
            ip(&line)?;
        }
        for line in ["link set lo up".into(), format!("addr add {FAR}/24 dev wire")] {
            netns.far.ip(line)?;
        }
        ip("link set wire up")?;
        netns.far.ip("link set wire up".into())?;
        let listener = std::net::TcpListener::bind((NEAR, 0)).map_err(|e| e.to_string())?;
        let address = listener.local_addr().map_err(|e| e.to_string())?;
        netns.far.run(move || {
            await_that("the link to carry", || {
                std::net::TcpStream::connect_timeout(&address, crate::proc::TIMEOUT).ok()
            });
        });
        Ok(netns)
    }

    /// Sets the far machine's link down at the switch: from now on no packet passes, and this side
    /// gets no notice.
    pub fn set_down(&self) {
        self.switch.ip("link set far down".into()).expect("the link set down");
    }

    /// Sets the link up again.
    pub fn set_up(&self) {
        self.switch.ip("link set far up".into()).expect("the link set up");
    }
}

impl Drop for NetnsLink {
    fn drop(&mut self) {
        // The harness may give this thread to the next test.
        let _ = setns(&self.home, CloneFlags::CLONE_NEWNET);
    }
}

#[expect(clippy::disallowed_methods, reason = "the kernel's own tool makes the links")]
fn ip(line: &str) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(line.split(' ')).stdin(Stdio::null());
    let done = command.output().map_err(|e| format!("can't run ip (iproute2): {e}"))?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    if done.status.success() { Ok(()) } else { Err(format!("ip {line}: {said}")) }
}
