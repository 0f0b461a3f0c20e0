//! The event loop around the engine: sockets, signals, helper threads and files, one turn at a
//! time. Only this module uses mio, and only it calls the engine.

mod alarm;
mod apply;
mod authenticator;
mod buffer_pool;
pub mod built_in_execd;
mod clock;
mod conn;
mod dial;
mod due;
mod helpers;
mod io;
mod keeper;
mod links;
mod listen;
mod liveness;
mod log;
mod memory_trim;
mod outbox;
mod partial_frames;
mod pre_login;
mod read;
mod setup;
mod signals;
mod small_bodies;
mod socket_reader;
mod state_dir;
mod store;
mod tls_config;
mod worker_secret;

pub use keeper::kept_script;
pub use log::Log;

use crate::config::load::Config;
use crate::engine::Engine;
use crate::engine::action::{Action, BrokerExit};
use crate::engine::input::Input;
use crate::exit::{self, Fatal};
use alarm::Alarm;
use buffer_pool::BufferPool;
use built_in_execd::ExecdProgram;
use clock::Clock;
use helpers::HelperResult;
use io::{Io, Limits};
use links::Ready;
use listen::Listener;
use memory_trim::MemoryTrim;
use mio::event::Event;
use mio::{Events, Poll};
use nix::sys::stat::{Mode, umask};
use protocol::frame_reader::ReadBuffer;
use protocol::{LinkId, Tick};
use setup::PortsFile;
use signals::{SignalRequest, Signals};
use std::io::ErrorKind;
use std::mem;
use std::time::Duration;

/// Most rounds of inputs and writes in one turn; the rest waits for the next turn.
const ROUNDS_MAX: usize = 8;
/// Time limit for sending the last frames when the broker ends.
const END_MS: u64 = 1000;
/// Time limit for peers to close once all is sent.
const END_LINGER_MS: u64 = 100;

/// The loop and everything it owns.
struct Reactor {
    poll: Poll,
    events: Events,
    clock: Clock,
    alarm: Alarm,
    signals: Signals,
    listeners: Vec<Listener>,
    engine: Engine,
    actions: Vec<Action>,
    io: Io,
    /// The buffer that all connections read into.
    buffer: ReadBuffer,
    /// Buffers for large bodies.
    buffer_pool: BufferPool,
    memory_trim: MemoryTrim,
    ports_file: Option<PortsFile>,
    /// The first signal arrived; the next one ends the broker at once.
    is_asked: bool,
    is_hurried: bool,
}

/// Runs the broker until it ends, with this built-in execd; the exit status.
///
/// # Errors
/// It can't start, or the system refuses to wait for events.
pub fn run(config: Config, execd: ExecdProgram) -> Result<u8, Fatal> {
    // Files of this process are private to its user; workers get their own umask.
    umask(Mode::from_bits_truncate(0o077));
    // Before any thread starts, the log's included, because threads inherit the signal mask.
    let signals = Signals::open().map_err(|e| Fatal::System(format!("signals: {e}")))?;
    let log = Log::start(config.log, config.log_format);
    let how = Reactor::open(&config, signals, execd).and_then(|mut reactor| {
        reactor.start(config)?;
        let how = reactor.serve()?;
        if how == BrokerExit::Abort {
            // The core file must show the broker as it was, so nothing is cleaned up.
            log.flush();
            std::process::abort();
        }
        reactor.finish()?;
        reactor.io.state.clean();
        Ok(if reactor.is_hurried { BrokerExit::Exit(exit::HURRIED) } else { how })
    });
    log.flush();
    match how? {
        BrokerExit::Exit(status) => Ok(status),
        BrokerExit::Abort => Ok(exit::SYSTEM),
    }
}

impl Reactor {
    /// Runs turns until the engine ends the broker.
    fn serve(&mut self) -> Result<BrokerExit, Fatal> {
        loop {
            self.turn()?;
            if let Some(how) = self.io.exit {
                return Ok(how);
            }
            if self.is_hurried {
                return Ok(BrokerExit::Exit(exit::HURRIED));
            }
        }
    }

    /// One turn of the loop.
    fn turn(&mut self) -> Result<(), Fatal> {
        let due = self.due();
        self.wait(due)?;
        self.io.now = self.clock.now();
        if let Some(wall) = self.clock.change(self.io.now) {
            self.step(Input::Clock { wall });
        }
        self.io.limits = Limits::of(self.engine.settings());
        if let Some(due) = due.filter(|due| *due != Tick::default()) {
            self.io.excuse_standstill(due);
        }
        self.take_events();
        self.take_again();
        self.accept_all();
        self.serve_pre_login();
        self.check_partial_frames();
        self.io.due();
        if self.engine.next_deadline().is_some_and(|due| due <= self.io.now) {
            self.step(Input::Deadline);
        }
        for _ in 0..ROUNDS_MAX {
            self.settle();
            self.io.flush_all();
            if self.io.inputs.is_empty() {
                break;
            }
        }
        self.write_ports_file()?;
        self.io.end_turn();
        self.trim_memory();
        Ok(())
    }

    /// Tick at which the loop must run without an event; tick 0 = at once, `None` = never.
    fn due(&self) -> Option<Tick> {
        let is_busy = !self.io.again.is_empty()
            || !self.io.inputs.is_empty()
            || self.io.pre_login.has_reads()
            || self.has_waiting();
        if is_busy {
            return Some(Tick::default());
        }
        [self.engine.next_deadline(), self.io.next_due()].into_iter().flatten().min()
    }

    /// Waits for events, at most until `due`.
    fn wait(&mut self, due: Option<Tick>) -> Result<(), Fatal> {
        let mut timeout = None;
        if let Some(due) = due {
            if due <= self.io.now {
                timeout = Some(Duration::ZERO);
            } else {
                // The time counts from the beginning of this turn, so the alarm rings late by the
                // length of the turn.
                let set = self.alarm.set(self.io.now, due);
                set.map_err(|e| Fatal::System(format!("can't set the alarm: {e}")))?;
            }
        }
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            Err(error) => Err(Fatal::System(format!("can't wait for events: {error}"))),
        }
    }

    /// Handles the events that the system reported.
    fn take_events(&mut self) {
        let events = mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match Ready::of(event.token()) {
                Ready::Link(link) => self.link_ready(link, event),
                Ready::Listener(index) => self.mark_ready(index),
                Ready::Signal => self.take_signals(),
                Ready::Alarm => self.alarm.rang(),
                Ready::Wake => self.take_helper_results(),
            }
        }
        self.events = events;
    }

    fn link_ready(&mut self, link: LinkId, event: &Event) {
        if event.is_writable() || event.is_error() {
            if let Some(opened) = self.io.dial_ready(link) {
                self.step(opened);
            }
            self.io.writable(link);
        }
        let Some(conn) = self.io.links.get(link) else { return };
        conn.is_shut_both |= event.is_write_closed();
        if event.is_read_closed() || event.is_error() {
            conn.reader.is_hung_up = true;
            conn.reader.is_readable = true;
        }
        if event.is_readable() {
            conn.reader.is_readable = true;
        }
        if conn.reader.is_readable {
            self.receive(link);
        }
    }

    /// Reads connections that used up their share of the last turn, or were resumed.
    fn take_again(&mut self) {
        for link in mem::take(&mut self.io.again) {
            if let Some(conn) = self.io.links.get(link) {
                conn.is_listed = false;
                self.receive(link);
            }
        }
    }

    fn take_signals(&mut self) {
        while let Some(request) = self.signals.next() {
            match request {
                SignalRequest::Reload => self.io.reload(None),
                SignalRequest::Shutdown { may_hurry: false, .. } if self.is_asked => {}
                SignalRequest::Shutdown { name, may_hurry: _ } => {
                    self.is_hurried = mem::replace(&mut self.is_asked, true);
                    self.io.tell(None, Input::Terminate { signal: name });
                }
            }
        }
    }

    fn take_helper_results(&mut self) {
        for result in self.io.helpers.results() {
            match result {
                HelperResult::Address { host, text, address: Ok(address) } => {
                    self.io.dial_tcp(host, address, &text);
                }
                HelperResult::Address { host, text: _, address: Err(why) } => {
                    self.io.refused(host, why);
                }
                HelperResult::Script { link, head, path, script } => {
                    self.io.tell(Some(link), Input::Sourced { link, head, path, script });
                }
                HelperResult::HostToken { link, prover } => self.io.host_token_found(link, prover),
                HelperResult::Proof { link, prover, proof } => self.io.proved(link, prover, proof),
                HelperResult::Certificates { requester, loaded } => {
                    self.io.certificates_read(requester, *loaded);
                }
                HelperResult::Tokens { requester, list } => self.io.tokens_read(requester, list),
                HelperResult::Answer { link, frames } => {
                    frames.into_iter().for_each(|frame| self.io.send(link, frame));
                }
                HelperResult::Handshake { link, session } => {
                    self.handshake_advanced(link, *session);
                }
                HelperResult::Stored { number, result } => self.io.stored(number, result),
            }
        }
    }

    /// Gives the engine its waiting inputs.
    fn settle(&mut self) {
        // Inputs added by these steps belong to the same turn, up to a limit.
        let mut most = self.io.inputs.len() + 1024;
        while most > 0 {
            let Some(input) = self.io.next_input() else { break };
            self.step(input);
            most -= 1;
        }
    }

    /// Gives the engine one input and carries out its actions.
    #[inline]
    fn step(&mut self, input: Input) {
        self.engine.step(self.io.now, input, &mut self.actions);
        for action in self.actions.drain(..) {
            self.io.apply(action);
        }
    }

    /// Ends all connections, then removes the files of the sockets: a disk that stalls must not
    /// keep peers from noticing that the broker is gone.
    fn finish(&mut self) -> Result<(), Fatal> {
        // Nobody is accepted any more, at those that are kept either.
        let files: Vec<_> = self.listeners.drain(..).filter(Listener::has_file).collect();
        let done = self.let_peers_go();
        for link in self.io.links.ids() {
            self.io.links.remove(link);
        }
        drop(files);
        if let Some(execd) = &mut self.io.built_in_execd {
            execd.give_up();
        }
        done
    }

    /// Ends the loop: sends the last frames, and gives peers a moment to read them.
    fn let_peers_go(&mut self) -> Result<(), Fatal> {
        for link in self.io.links.ids() {
            self.io.close(link);
        }
        let mut until = self.io.now.plus_millis(END_MS);
        while self.io.links.len() > 0 && self.io.now < until && !self.is_hurried {
            self.io.flush_all();
            if self.io.all_lingering() {
                until = until.min(self.io.now.plus_millis(END_LINGER_MS));
            }
            let due = if self.io.again.is_empty() { until } else { self.io.now };
            self.wait(Some(due))?;
            self.io.now = self.clock.now();
            self.take_events();
            self.take_again();
            self.serve_pre_login();
        }
        Ok(())
    }
}
