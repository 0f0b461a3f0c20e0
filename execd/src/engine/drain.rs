//! A request to end execd itself. The first one is announced to the brokers, and each ends its
//! workers when they have answered what they have; a worker whose broker is away has nobody to
//! answer and gets TERM at once. After `drain_ms`, or at a second request, TERM goes to all that
//! are left, at a further one KILL. execd ends when the last one is gone.

use super::{Engine, Shutdown};
use std::sync::Arc;

impl Engine {
    /// Handles a request to end execd.
    pub(super) fn terminate(&mut self) {
        match (self.shutdown, self.drain_until) {
            (Shutdown::None, _) => self.begin_drain(),
            (Shutdown::Begun, Some(_)) => self.end_drain(),
            (Shutdown::Begun | Shutdown::Done, _) => self.stop_all(None, 0),
        }
    }

    fn begin_drain(&mut self) {
        self.begin_shutdown("asked to end by a signal");
        if self.config.limits.drain_ms == 0 {
            self.end_drain();
            return;
        }
        let until = self.now.plus_millis(self.config.limits.drain_ms);
        self.drain_until = Some(until);
        self.give_up = Some(until.plus_millis(self.config.limits.give_up_ms));
        let away = self.brokers.iter().filter(|(_, broker)| broker.link.is_none());
        for broker in away.map(|(name, _)| Arc::clone(name)).collect::<Vec<_>>() {
            self.stop_all(Some(&broker), self.config.limits.shutdown_grace_ms);
        }
    }

    /// The brokers' time is over.
    fn end_drain(&mut self) {
        self.drain_until = None;
        self.give_up = Some(self.now.plus_millis(self.config.limits.give_up_ms));
        self.stop_all(None, self.config.limits.shutdown_grace_ms);
    }

    /// The deadline of the brokers may have passed.
    pub(super) fn drained(&mut self) {
        if self.drain_until.is_some_and(|until| until <= self.now) {
            self.end_drain();
        }
    }

    /// A broker is away that was to end its workers; it can't come back to this execd.
    pub(super) fn not_drained(&mut self, broker: &Arc<str>) {
        if self.drain_until.is_some() {
            self.stop_all(Some(broker), self.config.limits.shutdown_grace_ms);
        }
    }
}
