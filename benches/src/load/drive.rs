//! Drives the load: one turn of its loop, and one measured run.

use super::schedule::TIMER;
use super::{DRAIN_LIMIT, Load, Tally};
use crate::clock;
use crate::stop::Stop;
use mio::Token;
use std::io::ErrorKind;
use std::mem;
use std::time::{Duration, Instant};

impl Load {
    /// Warms up, measures, waits for the last replies. `on_edge(false)` is called when measuring
    /// begins, `on_edge(true)` when it ends.
    ///
    /// # Errors
    /// A reply was wrong or did not come, a connection broke, or somebody stopped it.
    pub fn run(
        &mut self,
        stop: &Stop,
        mut on_edge: impl FnMut(bool) -> Result<(), String>,
    ) -> Result<Tally, String> {
        self.begin()?;
        self.go_on_until(clock::now() + self.plan.warm, stop)?;
        self.tally.latency.reset();
        self.tally.replies = 0;
        on_edge(false)?;
        let begun = clock::now();
        self.is_measuring = true;
        self.go_on_until(self.end_of(begun), stop)?;
        self.is_measuring = false;
        self.tally.unsent = self.unsent as u64;
        self.tally.span = clock::now().saturating_duration_since(begun);
        on_edge(true)?;
        self.drain(stop)?;
        Ok(self.tally.clone())
    }

    fn begin(&mut self) -> Result<(), String> {
        let now = clock::now();
        self.is_asking = true;
        if let Some(schedule) = &mut self.schedule {
            return schedule.begin(now);
        }
        let (clients, depth) = (self.plan.shape.clients, self.plan.shape.depth);
        for index in 0..clients {
            for _ in 0..depth {
                self.ask(index, now);
            }
        }
        self.flush()
    }

    fn go_on_until(&mut self, end: Instant, stop: &Stop) -> Result<(), String> {
        let mut turns = 0u32;
        loop {
            let now = clock::now();
            if now >= end {
                return Ok(());
            }
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(256) {
                stop.check()?;
            }
            let most = Duration::from_millis(50);
            self.turn(Some(end.saturating_duration_since(now).min(most)))?;
        }
    }

    /// Asks no more and waits until everything that was asked is answered.
    fn drain(&mut self, stop: &Stop) -> Result<(), String> {
        self.is_asking = false;
        self.clients.iter_mut().for_each(|client| client.late.clear());
        self.unsent = 0;
        let end = clock::now() + DRAIN_LIMIT;
        while self.under_way > 0 {
            stop.check()?;
            if clock::now() > end {
                return Err(format!(
                    "{} requests have no reply {} s after the last was sent",
                    self.under_way,
                    DRAIN_LIMIT.as_secs()
                ));
            }
            self.turn(Some(Duration::from_millis(50)))?;
        }
        Ok(())
    }

    fn ask(&mut self, index: usize, at: Instant) {
        let client = &mut self.clients[index];
        client.ask(self.plan.shape.payload, at);
        self.under_way += 1;
        if !mem::replace(&mut client.is_dirty, true) {
            self.dirty.push(index);
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        let mut dirty = mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            let client = &mut self.clients[index];
            client.is_dirty = false;
            client.stream.flush(self.poll.registry(), Token(index))?;
        }
        self.dirty = dirty;
        Ok(())
    }

    /// One turn of the loop.
    pub(super) fn turn(&mut self, timeout: Option<Duration>) -> Result<(), String> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(format!("epoll: {error}")),
        }
        let events = mem::replace(&mut self.events, mio::Events::with_capacity(0));
        let result = self.take(&events);
        self.events = events;
        result?;
        self.flush()
    }

    fn take(&mut self, events: &mio::Events) -> Result<(), String> {
        for event in events {
            match event.token() {
                TIMER => self.beat()?,
                Token(index) => {
                    let client = &mut self.clients[index];
                    if event.is_writable() {
                        client.stream.writable(self.poll.registry(), event.token())?;
                    }
                    if event.is_readable() {
                        self.receive(index)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self, index: usize) -> Result<(), String> {
        let now = clock::now();
        let client = &mut self.clients[index];
        let was_ready = client.is_ready;
        let (is_measuring, tally) = (self.is_measuring, &mut self.tally);
        let mut replies = 0;
        let is_closed = client.receive(&mut self.scratch, self.plan.shape.payload, |asked| {
            replies += 1;
            if is_measuring {
                tally.latency.saturating_record(clock::nanos(asked, now).max(1));
            }
        })?;
        if is_closed {
            return Err(format!("the peer closed the connection of client {index}"));
        }
        if is_measuring {
            tally.replies += replies as u64;
        }
        self.ready += usize::from(client.is_ready && !was_ready);
        self.under_way -= replies;
        if !client.stream.out.is_empty() && !mem::replace(&mut client.is_dirty, true) {
            self.dirty.push(index);
        }
        for _ in 0..replies {
            if let Some(meant) = self.clients[index].late.pop_front() {
                self.unsent -= 1;
                self.ask(index, meant);
            } else if self.schedule.is_none() && self.is_asking {
                self.ask(index, now);
            }
        }
        Ok(())
    }

    /// Sends what is meant to leave by now, client after client.
    fn beat(&mut self) -> Result<(), String> {
        let now = clock::now();
        let (clients, depth) = (self.plan.shape.clients, self.plan.shape.depth);
        while self.is_asking {
            let Some((number, meant)) =
                self.schedule.as_mut().and_then(|schedule| schedule.next_due(now))
            else {
                break;
            };
            let index = (number % clients as u64) as usize;
            if self.clients[index].under_way() < depth {
                self.ask(index, meant);
            } else {
                self.clients[index].late.push_back(meant);
                self.unsent += 1;
            }
        }
        match &mut self.schedule {
            Some(schedule) if self.is_asking => schedule.arm(now),
            Some(_) | None => Ok(()),
        }
    }
}
