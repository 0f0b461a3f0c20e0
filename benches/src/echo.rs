//! The workers of a round: one process that holds all of them, each on its own connection, and
//! answers at once. Without a broker (`direct`) it listens itself. With `--workers real`, execd
//! starts `isdecho` processes instead.

use crate::protocols::{Parsed, Protocol, limit};
use crate::sock::{BufferedStream, Endpoint, Listener, SCRATCH_BYTES, connect, register};
use mio::{Events, Poll, Token};
use std::io::{ErrorKind, Write};
use std::time::Duration;
use transport::stream::Stream;

/// Workers that connect at the same time; more would overflow a listener's backlog.
const CONNECTING_MAX: usize = 64;
const LISTENER: Token = Token(usize::MAX - 1);
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

struct Worker {
    stream: BufferedStream,
    protocol: Box<dyn Protocol>,
    is_ready: bool,
}

struct Echo {
    poll: Poll,
    workers: Vec<Option<Worker>>,
    ready: usize,
}

/// Connects `count` workers to a broker, says `ready` on stdout, and answers until it is killed or
/// the broker is gone.
///
/// # Errors
/// The broker or the system refuses something.
pub fn serve(
    endpoint: &Endpoint,
    count: usize,
    protocol: impl Fn() -> Box<dyn Protocol>,
) -> Result<(), String> {
    let poll = Poll::new().map_err(|e| e.to_string())?;
    let mut echo = Echo { poll, workers: Vec::new(), ready: 0 };
    let end = crate::clock::now() + CONNECT_LIMIT;
    let (mut events, mut scratch) = (Events::with_capacity(1024), vec![0; SCRATCH_BYTES]);
    while echo.ready < count {
        while echo.workers.len() < count && echo.workers.len() - echo.ready < CONNECTING_MAX {
            let stream = connect(endpoint).map_err(|e| format!("{endpoint}: {e}"))?;
            echo.add(stream, protocol())?;
        }
        if crate::clock::now() > end {
            return Err(format!("{} of {count} workers are ready after 30 s", echo.ready));
        }
        echo.turn(&mut events, &mut scratch, Some(Duration::from_secs(1)))?;
        if echo.workers.iter().any(Option::is_none) {
            return Err(format!("{endpoint} closed the connection of a worker that was not ready"));
        }
    }
    say("ready")?;
    while echo.workers.iter().any(Option::is_some) {
        echo.turn(&mut events, &mut scratch, None)?;
    }
    Ok(())
}

/// Listens without a broker and answers until it is killed; prints where.
///
/// # Errors
/// The system refuses something.
pub fn listen(endpoint: &Endpoint) -> Result<(), String> {
    let io = |e: std::io::Error| e.to_string();
    let poll = Poll::new().map_err(io)?;
    let mut listener = Listener::bind(endpoint).map_err(io)?;
    listener.register(poll.registry(), LISTENER).map_err(io)?;
    let endpoint = listener.endpoint().map_err(io)?.to_string();
    say(&serde_json::json!({ "client": endpoint }).to_string())?;
    let mut echo = Echo { poll, workers: Vec::new(), ready: 0 };
    let (mut events, mut scratch) = (Events::with_capacity(1024), vec![0; SCRATCH_BYTES]);
    loop {
        if echo.turn(&mut events, &mut scratch, None)? {
            while let Some(stream) = listener.accept().map_err(io)? {
                echo.add(stream, Box::new(limit::Worker { listens: true }))?;
            }
        }
    }
}

fn say(line: &str) -> Result<(), String> {
    writeln!(std::io::stdout(), "{line}").map_err(|e| e.to_string())
}

impl Echo {
    fn add(&mut self, stream: Stream, mut protocol: Box<dyn Protocol>) -> Result<(), String> {
        let token = Token(self.workers.len());
        let registry = self.poll.registry();
        register(&stream, registry, token).map_err(|e| e.to_string())?;
        let mut stream = BufferedStream::new(stream);
        let is_ready = protocol.hello(&mut stream.out);
        stream.flush(registry, token)?;
        self.ready += usize::from(is_ready);
        self.workers.push(Some(Worker { stream, protocol, is_ready }));
        Ok(())
    }

    /// One turn; whether somebody knocks.
    fn turn(
        &mut self,
        events: &mut Events,
        scratch: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<bool, String> {
        match self.poll.poll(events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(false),
            Err(error) => return Err(error.to_string()),
        }
        let mut knocks = false;
        for event in &*events {
            if event.token() == LISTENER {
                knocks = true;
            } else if !self.serve(event, scratch)? {
                self.workers[event.token().0] = None;
            }
        }
        Ok(knocks)
    }

    /// One worker's turn: it answers at once, as a process of its own would. `false` = it is over.
    fn serve(&mut self, event: &mio::event::Event, scratch: &mut [u8]) -> Result<bool, String> {
        let Some(worker) = &mut self.workers[event.token().0] else {
            return Ok(true);
        };
        let registry = self.poll.registry();
        if event.is_writable() && worker.stream.writable(registry, event.token()).is_err() {
            return Ok(false);
        }
        if !event.is_readable() {
            return Ok(true);
        }
        let (protocol, is_ready, ready) =
            (&mut worker.protocol, &mut worker.is_ready, &mut self.ready);
        let mut failed = None;
        let ended = worker.stream.receive(scratch, |bytes, out| match protocol.parse(bytes, out) {
            Ok(Parsed::Part) => Ok(0),
            Ok(Parsed::Ready { used }) => {
                *ready += usize::from(!std::mem::replace(is_ready, true));
                Ok(used)
            }
            Ok(Parsed::Passed { used } | Parsed::Reply { used, .. }) => Ok(used),
            Err(why) => {
                failed = Some(why.clone());
                Err(why)
            }
        });
        match (failed, ended) {
            (Some(why), _) => Err(why),
            (None, Ok(false)) => Ok(worker.stream.flush(registry, event.token()).is_ok()),
            (None, Ok(true) | Err(_)) => Ok(false),
        }
    }
}
