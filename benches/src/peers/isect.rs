//! isectd as a peer: a real broker, configured through `op`. Its workers are in one process of the
//! bench, or are real `isdecho` processes under its execd.

use super::{Running, SERVICE, START_LIMIT, Setup, temp_dir, workers};
use crate::clock;
use crate::json::rows;
use crate::proc::{Process, Scheduling, Start};
use crate::protocols::{ClientProtocol, Protocol, isect};
use crate::shape::Shape;
use crate::sock::{BufferedStream, Endpoint, connect, register};
use client::address::Address;
use client::caller::{Caller, Options};
use mio::{Poll, Token};
use protocol::bodies::Format;
use protocol::names::ServiceName;
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// The file of the certificate that is made for one round.
const CERTIFICATE: &str = "broker.pem";

/// Longest deadline of the wire; requests that are to wait have it.
const LONG_MS: u32 = 3_600_000;

/// Which isectd, and how it is reached.
#[derive(Clone, Debug)]
pub struct IsectOptions {
    /// Path of the isectd to measure.
    pub program: PathBuf,
    /// Workers connect to its Unix socket.
    pub workers_unix: bool,
    /// Clients connect to its Unix socket.
    pub clients_unix: bool,
    /// Clients connect over TLS.
    pub clients_tls: bool,
    /// What a worker may hold.
    pub prefetch: u32,
    /// How many requests at a time a worker takes.
    pub concurrency: u32,
}

/// A broker that runs and knows nothing yet.
pub struct Isect {
    /// The process of isectd; it is killed when this is dropped.
    pub process: Process,
    /// What its ports file says.
    pub endpoints: Value,
    pub(super) dir: TempDir,
}

/// An operator at that broker.
pub struct Op {
    caller: Caller,
}

impl Op {
    /// Runs a command; its output.
    ///
    /// # Errors
    /// The broker answered with an error or is gone.
    pub fn run(&mut self, command: &str) -> Result<String, String> {
        let answer = self
            .caller
            .call(command.to_owned(), Some(Duration::from_secs(10)))
            .map_err(|e| format!("'{command}': {e}"))?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Runs a command whose output is JSON.
    ///
    /// # Errors
    /// As [`run`](Self::run), or it is no JSON.
    pub fn json(&mut self, command: &str) -> Result<Value, String> {
        let text = self.run(command)?;
        serde_json::from_str(&text).map_err(|e| format!("'{command}': {e}: {text}"))
    }

    /// The connection, for what is no plain question.
    pub fn caller(&mut self) -> &mut Caller {
        &mut self.caller
    }
}

impl Isect {
    /// Starts a broker on ports that the kernel chooses.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(setup: &Setup, options: &IsectOptions) -> Result<Self, String> {
        let dir = temp_dir()?;
        let at = |name: &str| dir.path().join(name);
        let ports = at("ports.json");
        // Without a state directory its execd and workers end with it even if it is killed.
        let words = "--web none --state none --ports-file";
        let mut args: Vec<String> = words.split(' ').map(str::to_owned).collect();
        args.push(ports.display().to_string());
        let listen = if options.clients_tls { "tls://127.0.0.1:0" } else { "127.0.0.1:0" };
        args.extend(["--listen".to_owned(), listen.to_owned()]);
        if options.clients_tls {
            args.extend(certificate(dir.path())?);
        }
        for setting in &setup.set {
            args.extend(["--set".to_owned(), setting.clone()]);
        }
        let mut process = Start {
            program: &options.program,
            args,
            core: setup.broker_core(),
            log: &at("isectd.log"),
            talks: false,
            in_order: true,
            scheduling: Scheduling::Plain,
        }
        .spawn()?;
        let text = clock::until("its ports file", START_LIMIT, || {
            process.check()?;
            Ok(std::fs::read_to_string(&ports).ok())
        })?;
        let endpoints = serde_json::from_str(&text).map_err(|e| format!("ports file: {e}"))?;
        Ok(Self { process, endpoints, dir })
    }

    /// One of its addresses.
    ///
    /// # Errors
    /// The ports file does not say.
    pub fn endpoint(&self, name: &str) -> Result<Endpoint, String> {
        let text = self.endpoints[name].as_str().ok_or_else(|| format!("no address '{name}'"))?;
        match text.strip_prefix("tls://") {
            None => text.parse(),
            Some(address) => {
                let address = address.parse().map_err(|e| format!("'{text}': {e}"))?;
                Ok(Endpoint::Tls(address, self.dir.path().join(CERTIFICATE)))
            }
        }
    }

    /// An operator.
    ///
    /// # Errors
    /// It does not let one in.
    pub fn op(&self, format: Format) -> Result<Op, String> {
        let endpoint = self.endpoint("client_unix")?.to_string();
        let address = Address::parse(&endpoint).map_err(|e| e.to_string())?;
        let mut options = Options::new(ServiceName::op());
        options.format = format;
        let caller = Caller::login(&[address], options).map_err(|e| format!("op: {e}"))?;
        Ok(Op { caller })
    }

    /// With its service, its workers and whatever the shape wants beside.
    ///
    /// # Errors
    /// A command fails, or the workers are not ready in time.
    pub fn into_running(
        self,
        setup: &Setup,
        shape: &Shape,
        options: &IsectOptions,
    ) -> Result<Running, String> {
        let mut op = self.op(Format::Text)?;
        op.run(&format!(
            "config service {SERVICE} selfstart=1 queue_max=1000000 prefetch={}",
            options.prefetch
        ))?;
        for index in 0..shape.services {
            op.run(&format!("config service beside{index}"))?;
        }
        let mut processes = Vec::new();
        if setup.is_real {
            self.real_workers(setup, shape.workers, &mut op)?;
        } else {
            let name = if options.workers_unix { "worker_unix" } else { "worker" };
            let endpoint = self.endpoint(name)?;
            let protocol = format!("isect:{SERVICE}:{}", options.concurrency);
            let speak = (protocol.as_str(), &endpoint);
            processes.push(workers(setup, self.dir.path(), speak, shape.workers)?);
        }
        let held = self.queue(shape.queued, &mut op)?;
        let endpoint =
            self.endpoint(if options.clients_unix { "client_unix" } else { "client" })?;
        let service = ServiceName::new(SERVICE).map_err(|e| e.to_string())?;
        processes.insert(0, self.process);
        Ok(Running {
            endpoint,
            new_client: Box::new(move || -> Box<dyn ClientProtocol> {
                Box::new(isect::Client::new(service.clone(), 0))
            }),
            broker: processes.first().map(Process::pid),
            held,
            processes,
            _dir: self.dir,
        })
    }

    /// Configures and starts real `isdecho` processes under the broker's own execd.
    ///
    /// # Errors
    /// A command fails, or they are not ready in time.
    pub fn real_workers(&self, setup: &Setup, count: usize, op: &mut Op) -> Result<(), String> {
        let program = setup.bin_dir.join("isdecho");
        if !program.is_file() {
            return Err(format!(
                "{} is not there: cargo build --release --bin isdecho, or --bin-dir",
                program.display()
            ));
        }
        for _ in 0..count {
            op.run(&format!("config worker {SERVICE} localhost \"{}\"", program.display()))?;
        }
        op.run(&format!("start {SERVICE}"))?;
        let mut look = self.op(Format::Json)?;
        clock::until("all workers idle", START_LIMIT, || {
            let idle = rows(&look.json("workers idle")?).len();
            Ok((idle >= count).then_some(()))
        })
    }

    /// Requests that wait in a service without workers, on a connection that stays open.
    fn queue(&self, count: usize, op: &mut Op) -> Result<Option<Box<dyn std::any::Any>>, String> {
        if count == 0 {
            return Ok(None);
        }
        op.run("config service waiting queue_max=1000000")?;
        // Requests wait for a service that is paused; without a worker they would be refused.
        op.run("pause waiting")?;
        let service = ServiceName::new("waiting").map_err(|e| e.to_string())?;
        let mut streams = Vec::new();
        let poll = Poll::new().map_err(|e| e.to_string())?;
        // At most requests_max (1024) requests may be under way on one connection.
        for first in (0..count).step_by(1000) {
            let stream = connect(&self.endpoint("client")?).map_err(|e| e.to_string())?;
            let token = Token(streams.len());
            register(&stream, poll.registry(), token).map_err(|e| e.to_string())?;
            let mut stream = BufferedStream::new(stream);
            let mut client = isect::Client::new(service.clone(), LONG_MS);
            client.hello(&mut stream.out);
            for number in first..count.min(first + 1000) {
                let payload = crate::payload::Payload { conn: 0, number: number as u32, size: 64 };
                client.ask(payload, &mut stream.out);
            }
            streams.push(stream);
        }
        let mut look = self.op(Format::Json)?;
        clock::until("the queue", START_LIMIT, || {
            for (index, stream) in streams.iter_mut().enumerate() {
                stream.writable(poll.registry(), Token(index))?;
            }
            let text = look.json("queue waiting")?.to_string();
            Ok(text.contains(&format!("{count}")).then_some(()))
        })?;
        Ok(Some(Box::new((poll, streams))))
    }
}

/// Makes a certificate that signs itself; the words that make isectd show it.
fn certificate(dir: &Path) -> Result<[String; 4], String> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])
        .map_err(|e| format!("certificate: {e}"))?;
    let (cert, key) = (dir.join(CERTIFICATE), dir.join("broker.key"));
    let write = |path: &Path, text: String| {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    };
    write(&cert, made.cert.pem())
        .and_then(|()| write(&key, made.signing_key.serialize_pem()))
        .map_err(|e| format!("certificate: {e}"))?;
    let [cert, key] = [cert, key].map(|path| path.display().to_string());
    Ok(["--tls-cert".to_owned(), cert, "--tls-key".to_owned(), key])
}
