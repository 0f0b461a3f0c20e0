//! `limit`: the least that can relay between clients and workers. It has two listeners, a 16-byte
//! header, a stack of idle workers and a queue of waiting requests; it reads once per readiness,
//! joins writes at the end of the turn, and registers each socket once for both directions. It
//! keeps no records, so it is no broker: it shows the highest rate this machine could reach.

use crate::protocols::limit::{HEAD_BYTES, frame, greeting};
use crate::sock::{BufferedStream, Endpoint, Listener, SCRATCH_BYTES, joined, parse, register};
use mio::{Events, Poll, Token};
use std::collections::VecDeque;
use std::io::Write;

const CLIENTS: Token = Token(0);
const WORKERS: Token = Token(1);
const FIRST: usize = 2;

struct Relay {
    poll: Poll,
    streams: Vec<Option<BufferedStream>>,
    is_worker: Vec<bool>,
    free: Vec<usize>,
    /// Idle workers; the one that was busy last is taken first, its data is in the cache.
    idle: Vec<usize>,
    waiting: VecDeque<Vec<u8>>,
    dirty: Vec<usize>,
    is_dirty: Vec<bool>,
}

/// Runs the relay until it is killed; prints where it listens as one JSON line.
///
/// # Errors
/// The system refuses something.
pub fn run(clients: &Endpoint, workers: &Endpoint) -> Result<(), String> {
    let io = |e: std::io::Error| e.to_string();
    let poll = Poll::new().map_err(io)?;
    let mut client_listener = Listener::bind(clients).map_err(io)?;
    let mut worker_listener = Listener::bind(workers).map_err(io)?;
    client_listener.register(poll.registry(), CLIENTS).map_err(io)?;
    worker_listener.register(poll.registry(), WORKERS).map_err(io)?;
    let endpoints = serde_json::json!({
        "client": client_listener.endpoint().map_err(io)?.to_string(),
        "worker": worker_listener.endpoint().map_err(io)?.to_string(),
    });
    writeln!(std::io::stdout(), "{endpoints}").map_err(io)?;
    let mut relay = Relay {
        poll,
        streams: Vec::new(),
        is_worker: Vec::new(),
        free: Vec::new(),
        idle: Vec::new(),
        waiting: VecDeque::new(),
        dirty: Vec::new(),
        is_dirty: Vec::new(),
    };
    let mut events = Events::with_capacity(1024);
    let mut scratch = vec![0; SCRATCH_BYTES];
    loop {
        match relay.poll.poll(&mut events, None) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.to_string()),
        }
        for event in &events {
            match event.token() {
                CLIENTS => relay.accept(&client_listener, false)?,
                WORKERS => relay.accept(&worker_listener, true)?,
                Token(token) => {
                    let index = token - FIRST;
                    if event.is_writable() {
                        relay.writable(index);
                    }
                    if event.is_readable() {
                        relay.receive(index, &mut scratch);
                    }
                }
            }
        }
        relay.flush();
    }
}

impl Relay {
    fn accept(&mut self, listener: &Listener, is_worker: bool) -> Result<(), String> {
        while let Some(stream) = listener.accept().map_err(|e| e.to_string())? {
            let index = self.free.pop().unwrap_or(self.streams.len());
            register(&stream, self.poll.registry(), Token(FIRST + index))
                .map_err(|e| e.to_string())?;
            if index == self.streams.len() {
                self.streams.push(None);
                self.is_worker.push(false);
                self.is_dirty.push(false);
            }
            self.streams[index] = Some(BufferedStream::new(stream));
            self.is_worker[index] = is_worker;
            self.push(index, [&greeting(), &[]]);
            if is_worker {
                self.release(index);
            }
        }
        Ok(())
    }

    /// A worker has nothing to do: the request that waits longest, or the stack.
    fn release(&mut self, worker: usize) {
        match self.waiting.pop_front() {
            Some(bytes) => self.push(worker, [&bytes, &[]]),
            None => self.idle.push(worker),
        }
    }

    fn push(&mut self, index: usize, pieces: [&[u8]; 2]) {
        let Some(stream) = self.streams.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        stream.out.extend_from_slice(pieces[0]);
        stream.out.extend_from_slice(pieces[1]);
        if !self.is_dirty[index] {
            self.is_dirty[index] = true;
            self.dirty.push(index);
        }
    }

    /// One read, and all frames that are whole now.
    fn receive(&mut self, index: usize, scratch: &mut [u8]) {
        loop {
            let Some(stream) = self.streams.get_mut(index).and_then(Option::as_mut) else {
                return;
            };
            let Ok(Some(count)) = stream.read(scratch) else {
                self.drop_line(index);
                return;
            };
            let mut kept = stream.take_kept();
            let fresh = &scratch[..count];
            let Ok(used) = parse(joined(&mut kept, fresh), |bytes| self.pass(index, bytes)) else {
                self.drop_line(index);
                return;
            };
            if let Some(stream) = &mut self.streams[index] {
                stream.keep(kept, fresh, used);
            }
            if count < scratch.len() {
                return;
            }
        }
    }

    /// Passes one frame on: from a worker to its client, from a client to the worker on top.
    fn pass(&mut self, index: usize, bytes: &[u8]) -> Result<usize, String> {
        let Some(size) = frame(bytes)? else {
            return Ok(0);
        };
        let frame = &bytes[..size];
        if self.is_worker[index] {
            let client = u32::from_le_bytes([frame[8], frame[9], frame[10], frame[11]]);
            self.push(client as usize, [frame, &[]]);
            self.release(index);
            return Ok(size);
        }
        let client = (index as u32).to_le_bytes();
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(&frame[..8]);
        head[8..12].copy_from_slice(&client);
        match self.idle.pop() {
            Some(worker) => self.push(worker, [&head, &frame[HEAD_BYTES..]]),
            None => self.waiting.push_back([&head, &frame[HEAD_BYTES..]].concat()),
        }
        Ok(size)
    }

    fn writable(&mut self, index: usize) {
        let Some(stream) = self.streams.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        if stream.writable(self.poll.registry(), Token(FIRST + index)).is_err() {
            self.drop_line(index);
        }
    }

    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            self.is_dirty[index] = false;
            let Some(stream) = &mut self.streams[index] else {
                continue;
            };
            if stream.flush(self.poll.registry(), Token(FIRST + index)).is_err() {
                self.drop_line(index);
            }
        }
        self.dirty = dirty;
    }

    fn drop_line(&mut self, index: usize) {
        if self.streams[index].take().is_some() {
            self.idle.retain(|other| *other != index);
            self.free.push(index);
        }
    }
}
