//! Programs of others to compare with, if installed: gearmand, nats-server, redis-server, and the
//! LRU queue of the ZeroMQ guide, compiled here against libzmq. All run with their defaults on
//! loopback and write nothing to disk.

use super::{Running, START_LIMIT, Setup, temp_dir, workers};
use crate::clock;
use crate::proc::{Process, Scheduling, Start, find_program};
use crate::protocols::{self, ClientProtocol};
use crate::shape::Shape;
use crate::sock::Endpoint;
use std::cell::Cell;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// The source of the LRU queue.
const LRU_QUEUE: &str = include_str!("../../peers/lruqueue.c");

/// What to install if a program is not there.
pub(super) fn missing(program: &str, package: &str) -> Option<String> {
    match find_program(program) {
        Some(_) => None,
        None => Some(format!("{program} is not installed: apt-get install {package}")),
    }
}

/// What the LRU queue needs.
pub(super) fn missing_zmq() -> Option<String> {
    if let Some(why) = missing("cc", "gcc libc6-dev") {
        return Some(why);
    }
    let is_there = ["/usr/include/zmq.h", "/usr/local/include/zmq.h"]
        .iter()
        .any(|file| Path::new(file).is_file());
    (!is_there).then(|| "libzmq is not installed: apt-get install libzmq3-dev".to_owned())
}

/// A port that was free a moment ago, for programs that can't be told to choose.
fn free_port() -> Result<SocketAddr, String> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|e| format!("no free port: {e}"))
}

/// An external broker that runs.
pub(super) struct External {
    pub(super) process: Process,
    pub(super) at: SocketAddr,
    pub(super) dir: TempDir,
}

impl External {
    /// Starts a program that listens at a port it is told.
    fn start(
        setup: &Setup,
        program: &str,
        args: impl Fn(&SocketAddr, &Path) -> Vec<String>,
    ) -> Result<Self, String> {
        let dir = temp_dir()?;
        let at = free_port()?;
        let program = find_program(program).ok_or_else(|| format!("no {program}"))?;
        let process = Start {
            program: &program,
            args: args(&at, dir.path()),
            core: setup.broker_core(),
            log: &dir.path().join("peer.log"),
            talks: false,
            in_order: false,
            scheduling: Scheduling::Plain,
        }
        .spawn()?;
        let mut external = Self { process, at, dir };
        external.await_listener(at)?;
        Ok(external)
    }

    fn await_listener(&mut self, at: SocketAddr) -> Result<(), String> {
        clock::until("its listener", START_LIMIT, || {
            self.process.check()?;
            Ok(TcpStream::connect_timeout(&at, Duration::from_secs(1)).ok())
        })?;
        Ok(())
    }

    /// With its workers.
    fn into_running(
        self,
        setup: &Setup,
        shape: &Shape,
        (protocol, workers_at): (&str, SocketAddr),
        new_client: Box<dyn Fn() -> Box<dyn ClientProtocol>>,
    ) -> Result<Running, String> {
        let endpoint = Endpoint::Tcp(workers_at);
        let echo = workers(setup, self.dir.path(), (protocol, &endpoint), shape.workers)?;
        Ok(Running {
            endpoint: Endpoint::Tcp(self.at),
            new_client,
            broker: Some(self.process.pid()),
            held: None,
            processes: vec![self.process, echo],
            _dir: self.dir,
        })
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// gearmand. `is_tuned` = one thread, which is faster here than its default of four.
pub(super) fn gearman(setup: &Setup, shape: &Shape, is_tuned: bool) -> Result<Running, String> {
    let threads = if is_tuned { "1" } else { "4" };
    let external = External::start(setup, "gearmand", |at, dir| {
        let log = dir.join("gearmand.log").display().to_string();
        let port = at.port().to_string();
        words(&["--listen", "127.0.0.1", "--port", &port, "--threads", threads, "--log-file", &log])
    })?;
    let at = external.at;
    let new_client: Box<dyn Fn() -> Box<dyn ClientProtocol>> =
        Box::new(|| Box::new(protocols::gearman::Client));
    external.into_running(setup, shape, ("gearman", at), new_client)
}

/// Counts clients, for those protocols in which each needs a name of its own.
fn counted(
    make: impl Fn(usize) -> Box<dyn ClientProtocol> + 'static,
) -> Box<dyn Fn() -> Box<dyn ClientProtocol>> {
    let next = Cell::new(0);
    Box::new(move || make(next.replace(next.get() + 1)))
}

/// nats-server without workers.
pub(super) fn nats_alone(setup: &Setup) -> Result<External, String> {
    External::start(setup, "nats-server", |at, _| {
        words(&["--addr", "127.0.0.1", "--port", &at.port().to_string()])
    })
}

/// nats-server.
pub(super) fn nats(setup: &Setup, shape: &Shape) -> Result<Running, String> {
    let external = nats_alone(setup)?;
    let at = external.at;
    let new_client = counted(|index| Box::new(protocols::nats::Client::new(index)));
    external.into_running(setup, shape, ("nats", at), new_client)
}

/// redis-server without workers and without persistence.
pub(super) fn redis_alone(setup: &Setup) -> Result<External, String> {
    External::start(setup, "redis-server", |at, dir| {
        let port = at.port().to_string();
        let dir = dir.display().to_string();
        let mut args = words(&["--bind", "127.0.0.1", "--port", &port, "--save", ""]);
        args.extend(words(&["--appendonly", "no", "--maxclients", "100000", "--dir", &dir]));
        args
    })
}

/// redis-server without persistence.
pub(super) fn redis(setup: &Setup, shape: &Shape) -> Result<Running, String> {
    let external = redis_alone(setup)?;
    let at = external.at;
    let new_client = counted(|index| Box::new(protocols::redis::Client::new(index)));
    external.into_running(setup, shape, ("redis", at), new_client)
}

/// The LRU queue, compiled first.
pub(super) fn zmq(setup: &Setup, shape: &Shape) -> Result<Running, String> {
    let dir = temp_dir()?;
    let (source, program) = (dir.path().join("lruqueue.c"), dir.path().join("lruqueue"));
    std::fs::write(&source, LRU_QUEUE).map_err(|e| format!("{}: {e}", source.display()))?;
    let compiler = find_program("cc").ok_or("no cc")?;
    let [source, output] = [&source, &program].map(|path| path.display().to_string());
    let mut compiling = Start {
        program: &compiler,
        args: words(&["-O2", "-o", &output, &source, "-lzmq"]),
        core: None,
        log: &dir.path().join("cc.log"),
        talks: true,
        in_order: false,
        scheduling: Scheduling::Plain,
    }
    .spawn()?;
    // It says nothing; its end is what is waited for.
    let ended = compiling.line(START_LIMIT);
    if !program.is_file() {
        return Err(format!("lruqueue.c: {}", ended.err().unwrap_or_default()));
    }
    let (front, back) = (free_port()?, free_port()?);
    let process = Start {
        program: &program,
        args: words(&[&format!("tcp://{front}"), &format!("tcp://{back}")]),
        core: setup.broker_core(),
        log: &dir.path().join("peer.log"),
        talks: false,
        in_order: false,
        scheduling: Scheduling::Plain,
    }
    .spawn()?;
    let mut external = External { process, at: front, dir };
    external.await_listener(front)?;
    external.await_listener(back)?;
    let new_client: Box<dyn Fn() -> Box<dyn ClientProtocol>> =
        Box::new(|| Box::<protocols::zmtp::Client>::default());
    external.into_running(setup, shape, ("zmq", back), new_client)
}
