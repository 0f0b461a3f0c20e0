//! Carries out actions: one exhaustive match. It never steps the engine; what follows is queued as
//! an input.

use super::check::StartFailure;
use super::clock::Clock;
use super::link::Link;
use super::log;
use super::run::ExecLoop;
use super::state_dir::Entry;
use crate::engine::action::{Action, KeptText};
use crate::engine::child::ChildId;
use crate::engine::input::{Input, Watched};
use protocol::login_failures::Check;
use protocol::{ExecStart, Frame, LinkId, Proof, Tick};
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

/// Bytes that wait on a connection, past which no lines that were read are added.
const KEPT_UNSENT_MAX: usize = 1 << 20;

impl ExecLoop {
    pub(super) fn apply(&mut self, now: Tick, action: Action) {
        match action {
            Action::Send { link, frame } => {
                let Some(known) = self.links.get_mut(&link) else { return };
                if known.send(frame) {
                    self.dirty.insert(link);
                } else {
                    self.lost(link, "reads too slowly");
                }
            }
            Action::Close { link } => {
                if let Some(known) = self.links.get_mut(&link) {
                    known.linger(now);
                    self.dirty.insert(link);
                }
            }
            Action::Challenge { link, host, claim } => {
                let bindings = self.links.get(&link).map_or(Ok(None), Link::bindings);
                let made = match (&mut self.authenticator, bindings) {
                    (Some(authenticator), Ok(bindings)) => authenticator.challenge(
                        link,
                        &host,
                        &claim,
                        bindings,
                        (now, &mut self.log_limiter),
                    ),
                    (Some(_), Err(why)) => Err(why),
                    (None, _) => Err("is not known here: this execd has no tokens; start it with \
                                 --tokens FILE"
                        .into()),
                };
                match (made, self.links.get_mut(&link)) {
                    (Ok(challenge), Some(known)) => {
                        if known.send(Frame::Challenge(challenge)) {
                            self.dirty.insert(link);
                        } else {
                            self.lost(link, "reads too slowly");
                        }
                    }
                    (Err(why), Some(_)) => {
                        self.inputs.push_back(Input::Proven { link, proven: Err(why) });
                    }
                    (_, None) => {}
                }
            }
            Action::Verify { link, proof } => {
                let peer_group =
                    self.links.get(&link).map(|known| known.peer_group).unwrap_or_default();
                match self
                    .authenticator
                    .as_mut()
                    .map(|authenticator| authenticator.when(link, peer_group, now))
                {
                    Some(Check::At(at)) => {
                        self.proofs.insert((at, link), proof);
                    }
                    Some(Check::Now) | None => self.verify(now, link, &proof),
                    Some(Check::Refuse) => {
                        let proven = Err("failed too often from here; try again later".into());
                        self.inputs.push_back(Input::Proven { link, proven });
                    }
                }
            }
            Action::Spawn { child, broker, start } => match self.spawn(child, broker, start) {
                Ok(pid) => {
                    self.inputs.push_back(Input::Forked { child, pid });
                    self.await_launch(child);
                }
                Err((permanent, text)) => {
                    self.inputs.push_back(Input::SpawnFailed { child, permanent, text });
                }
            },
            Action::Adopt { child, pid } => {
                if let Some(entry) = self.recorded.remove(&pid) {
                    self.inputs.extend(self.children.adopt(child, entry));
                }
            }
            Action::Signal { child, signal } => {
                // The broker is told why its child ends before it ends.
                self.write_queued();
                if let Err(error) = self.children.signal(child, signal) {
                    warn!(%child, ?signal, %error, "signal not sent");
                }
            }
            Action::GiveUp { child } => self.inputs.extend(self.children.give_up(child)),
            Action::Keep { child, lines } => self.keep(child, lines),
            Action::ReadKept { link, broker, read } => {
                if let Some(output) = &self.output {
                    output.read(link, (broker, read.worker), read);
                }
            }
            Action::Measure { child } => {
                let bytes = self.children.memory(child);
                self.inputs.extend(bytes.map(|bytes| Input::Memory { child, bytes }));
            }
            Action::Forget { child } => {
                self.children.remove(child);
                self.is_state_stale = true;
            }
            Action::Note(note) => log::note(&note, now, &mut self.log_limiter),
            Action::Exit => self.is_exiting = true,
            Action::HandOver => {
                self.is_exiting = true;
                self.keeps_children = true;
            }
        }
    }

    fn verify(&mut self, now: Tick, link: LinkId, proof: &Proof) {
        let peer_group = self.links.get(&link).map(|known| known.peer_group).unwrap_or_default();
        let proven = match &mut self.authenticator {
            Some(authenticator) => {
                authenticator.verify(link, proof, (peer_group, now), &mut self.log_limiter)
            }
            None => Err("is not known here".into()),
        };
        self.inputs.push_back(Input::Proven { link, proven });
    }

    /// Checks the delayed proofs whose time has come.
    pub(super) fn check_proofs(&mut self, now: Tick) {
        while let Some(entry) = self.proofs.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, link), proof) = entry.remove_entry();
            if self.links.contains_key(&link) {
                self.verify(now, link, &proof);
            }
        }
    }

    /// Writes what is queued for links, as far as the sockets take it.
    pub(super) fn write_queued(&mut self) {
        for id in std::mem::take(&mut self.dirty) {
            if let Some(link) = self.links.get_mut(&id)
                && let Err(why) = link.flush()
            {
                self.lost(id, why);
            }
        }
    }

    /// Has lines kept that a child wrote.
    fn keep(&self, child: ChildId, lines: KeptText) {
        if let (Some(output), Some(entry)) = (&self.output, self.children.entry(child)) {
            let owner = (Arc::clone(&entry.broker), entry.worker);
            output.keep(owner, entry.watched, Clock::epoch_ms(), lines);
        }
    }

    /// Passes on lines that were read, as far as the connections have room.
    pub(super) fn pass_kept(&mut self) {
        let Some(output) = &self.output else { return };
        let (links, dirty) = (&mut self.links, &mut self.dirty);
        output.answers(|id, frame| {
            let Some(link) = links.get_mut(&id) else { return true };
            if link.unsent() > KEPT_UNSENT_MAX {
                return false;
            }
            // There is room, so this can't be past the limit.
            let _ = link.send(frame.clone());
            dirty.insert(id);
            true
        });
    }

    /// Forgets a link that broke, and queues the input for the engine.
    pub(super) fn lost(&mut self, link: LinkId, why: &'static str) {
        self.links.remove(&link);
        if let Some(authenticator) = &mut self.authenticator {
            authenticator.forget(link);
        }
        self.dirty.remove(&link);
        self.inputs.push_back(Input::Closed { link, why });
    }

    /// Waits a moment for the result of a start. Nearly all starts are decided by then, and are
    /// answered before whatever the broker asks next.
    fn await_launch(&mut self, child: ChildId) {
        let until = self.turn_wait_until();
        let clock = &self.clock;
        let has_ended = self.children.await_launch(child, || until.since(clock.read()));
        self.turn_wait = until.since(clock.read());
        if has_ended {
            self.reap();
        } else {
            self.inputs.extend(self.children.launched(child));
        }
    }

    /// Waits a moment for the state directory. On nearly all disks everything is written by then,
    /// so that the next execd finds what this one has reported, whenever this one may be killed.
    pub(super) fn await_written(&mut self) {
        let until = self.turn_wait_until();
        if let Some(state) = &self.state {
            state.finish(Duration::from_micros(self.turn_wait.0));
            self.turn_wait = until.since(self.clock.read());
        }
    }

    fn turn_wait_until(&self) -> Tick {
        Tick(self.clock.read().0.saturating_add(self.turn_wait.0))
    }

    fn spawn(
        &mut self,
        child: ChildId,
        broker: Arc<str>,
        start: ExecStart,
    ) -> Result<u32, StartFailure> {
        let (worker, run, digest) = (start.worker, start.run, start.digest);
        let watched = Watched::of(&start);
        let spawned = self.spawn_config.spawn(start)?;
        let pid = spawned.pid;
        let (start_time, pipes, policy) = (0, [0; 2], self.policy.clone());
        let entry = Entry { broker, worker, run, digest, pid, start_time, pipes, policy, watched };
        let entry = self.children.add(child, spawned, entry);
        if let Some(state) = &self.state {
            state.append(&entry);
            self.await_written();
        }
        Ok(pid)
    }
}
