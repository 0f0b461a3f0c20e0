//! Instances of this program that the broker watches: which frames say that they are there, that
//! they go on, and what they do. Pure, as [`session`](crate::session) is; [`bus`](crate::bus) and
//! [`worker`](crate::worker) give it a socket and a clock.
//!
//! ```text
//! announce ──► Asked ──announced──► Watched ──withdraw──► (none)
//!                │  ◄──loss of the connection──│
//!                └──error──► Ended ◄──displaced─┘
//! ```

use crate::error::Error;
use protocol::bodies::{Announce, Announced, Beat, BeatOk, StateChange, Withdraw};
use protocol::instances::{BeatOf, InstanceState, InstanceType, STATE_TEXT_CHARS_MAX, StateName};
use protocol::{ErrorCode, Frame};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Most instances that one beat names; a control frame has at most 4096 lines.
const BEAT_INSTANCES_MAX: usize = 2000;

/// What a program says of an instance when it announces it.
#[derive(Clone, Debug)]
pub struct InstanceOptions {
    announce: Announce,
    has_id: bool,
}

impl InstanceOptions {
    /// An instance of this name. It is `starting`, and its id is made of the id of this process,
    /// unless [`id`](Self::id) says another one.
    pub fn new(name: impl Into<String>) -> Self {
        let announce = Announce {
            sequence: 0,
            name: name.into(),
            id: std::process::id().into(),
            kind: InstanceType::Data,
            groups: Vec::new(),
            activity_timeout_ms: 0,
            stalled_ms: 0,
            state: InstanceState::Starting,
            addresses: Vec::new(),
            meta: Vec::new(),
            state_names: Vec::new(),
        };
        Self { announce, has_id: false }
    }

    /// The id that tells it from others of its name on this machine. One that comes back with the
    /// same id after a restart displaces what was left of the one before.
    #[must_use]
    pub fn id(mut self, id: u64) -> Self {
        self.announce.id = id;
        self.has_id = true;
        self
    }

    /// A group that it belongs to; may be called several times.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.announce.groups.push(group.into());
        self
    }

    /// What it mainly does.
    #[must_use]
    pub fn kind(mut self, kind: InstanceType) -> Self {
        self.announce.kind = kind;
        self
    }

    /// It is timed out when no beat came for so long, 100 ms to a day; zero = the broker's setting.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.announce.activity_timeout_ms = whole_millis(timeout);
        self
    }

    /// It is stalled when its checkpoint stays the same for so long while it is not idle.
    #[must_use]
    pub fn stalled(mut self, after: Duration) -> Self {
        self.announce.stalled_ms = whole_millis(after);
        self
    }

    /// Its state at the beginning.
    #[must_use]
    pub fn state(mut self, state: InstanceState) -> Self {
        self.announce.state = state;
        self
    }

    /// Where it is reached, for people and other programs; may be called several times.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.announce.addresses.push(address.into());
        self
    }

    /// A word and a value, for people and other programs; may be called several times.
    #[must_use]
    pub fn meta(mut self, word: &str, value: &str) -> Self {
        self.announce.meta.push(format!("{word} {value}"));
        self
    }

    /// How a state of its own is called, a number from 100 on; may be called several times.
    #[must_use]
    pub fn state_name(mut self, number: u32, text: impl Into<String>) -> Self {
        self.announce.state_names.push(StateName { number, text: text.into() });
        self
    }
}

fn whole_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What changes too often for a frame each time; beats carry it.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    checkpoint: AtomicU64,
    is_idle: AtomicBool,
}

impl Figures {
    pub(crate) fn set_checkpoint(&self, checkpoint: u64) {
        self.checkpoint.store(checkpoint, Ordering::Relaxed);
    }

    pub(crate) fn set_idle(&self, is_idle: bool) {
        self.is_idle.store(is_idle, Ordering::Relaxed);
    }
}

/// What the broker says of an instance that it watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watching {
    /// Tells this announcement from earlier ones of the same name and id.
    pub incarnation: u64,
    /// The time-out in force.
    pub timeout: Duration,
    /// An earlier instance of this name and id on another connection was ended for it.
    pub displaced: bool,
}

/// How far the broker is with an instance.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It is not answered yet, or there is no connection.
    Asked,
    /// The broker watches it.
    Watched(Watching),
    /// The broker does not watch it any more, or never did.
    Ended(Error),
}

#[derive(Debug)]
struct Known {
    announce: Announce,
    text: String,
    figures: Arc<Figures>,
    standing: Standing,
}

impl Known {
    /// The state that an announce can't say as a whole.
    fn change(&self, sequence: u32) -> StateChange {
        StateChange {
            sequence,
            id: self.announce.id,
            state: self.announce.state,
            checkpoint: Some(self.figures.checkpoint.load(Ordering::Relaxed)),
            text: self.text.clone(),
        }
    }
}

/// The instances of a program.
#[derive(Debug, Default)]
pub struct Instances {
    all: BTreeMap<u64, Known>,
    beat: u32,
    /// How often a beat is due, as the broker said last; `None` = it has not said.
    beat_every: Option<Duration>,
    /// How many instances had no id of their own.
    without_id: u64,
}

impl Instances {
    /// Notes an instance, and makes the frame that announces it. Returns its id, too.
    ///
    /// # Errors
    /// There is one with this id.
    pub fn announce(
        &mut self,
        options: InstanceOptions,
        sequence: u32,
    ) -> Result<(u64, Frame), Error> {
        let InstanceOptions { mut announce, has_id } = options;
        announce.sequence = sequence;
        if !has_id {
            // A process has many instances, and each has an id of its own.
            announce.id += self.without_id << 32;
            self.without_id += 1;
        }
        let id = announce.id;
        let is_there = |known: &Known| !matches!(known.standing, Standing::Ended(_));
        if self.all.get(&id).is_some_and(is_there) {
            let text = format!("there is an instance with id {id} on this connection already");
            return Err(Error::new(ErrorCode::BadInstance, text));
        }
        let frame = Frame::Announce(announce.clone());
        let figures = Arc::default();
        let known = Known { announce, text: String::new(), figures, standing: Standing::Asked };
        self.all.insert(id, known);
        Ok((id, frame))
    }

    /// The figures of an instance, which its handle changes.
    pub(crate) fn figures(&self, id: u64) -> Option<Arc<Figures>> {
        self.all.get(&id).map(|known| Arc::clone(&known.figures))
    }

    /// How far the broker is with an instance.
    pub fn standing(&self, id: u64) -> Standing {
        match self.all.get(&id) {
            Some(known) => known.standing.clone(),
            None => Standing::Ended(unknown(id)),
        }
    }

    /// The answer to an announce.
    pub fn announced(&mut self, answer: Announced) {
        self.beat_every = Some(Duration::from_millis(answer.beat_ms.max(1)));
        if let Some(known) = self.all.get_mut(&answer.id) {
            known.standing = Standing::Watched(Watching {
                incarnation: answer.incarnation,
                timeout: Duration::from_millis(answer.activity_timeout_ms),
                displaced: answer.displaced,
            });
        }
    }

    /// An error with this number; `false` = it is not about an announce.
    pub fn failed(&mut self, sequence: u32, error: &Error) -> bool {
        let is_it = |known: &&mut Known| {
            known.announce.sequence == sequence && matches!(known.standing, Standing::Asked)
        };
        let Some(known) = self.all.values_mut().find(is_it) else { return false };
        known.standing = Standing::Ended(error.clone());
        true
    }

    /// Notes another state, and makes the frame that says it. Without a connection nothing is sent:
    /// [`resume`](Self::resume) says it then.
    ///
    /// # Errors
    /// The broker does not watch the instance any more.
    pub fn set_state(
        &mut self,
        id: u64,
        state: InstanceState,
        text: &str,
        sequence: u32,
    ) -> Result<Frame, Error> {
        let known = self.all.get_mut(&id).ok_or_else(|| unknown(id))?;
        if let Standing::Ended(error) = &known.standing {
            return Err(error.clone());
        }
        known.announce.state = state;
        text.clone_into(&mut known.text);
        Ok(Frame::StateChange(known.change(sequence)))
    }

    /// Removes an instance, and makes the frame that says that it ends; `None` = it had ended.
    pub fn withdraw(&mut self, id: u64, failed: bool, text: &str, sequence: u32) -> Option<Frame> {
        let known = self.all.remove(&id)?;
        let withdraw = Withdraw { sequence, id, failed, text: text.to_owned() };
        let has_ended = matches!(known.standing, Standing::Ended(_));
        (!has_ended).then_some(Frame::Withdraw(withdraw))
    }

    /// How often a beat is due; `None` = never, because no instance is watched.
    pub fn beat_every(&self) -> Option<Duration> {
        let is_watched = |known: &Known| matches!(known.standing, Standing::Watched(_));
        self.beat_every.filter(|_| self.all.values().any(is_watched))
    }

    /// The frames of a beat of all instances that are watched.
    pub fn beat(&mut self) -> Vec<Frame> {
        let watched =
            self.all.iter().filter(|(_, known)| matches!(known.standing, Standing::Watched(_)));
        let beats: Vec<BeatOf> = watched
            .map(|(id, known)| BeatOf {
                id: *id,
                checkpoint: known.figures.checkpoint.load(Ordering::Relaxed),
                is_idle: known.figures.is_idle.load(Ordering::Relaxed),
            })
            .collect();
        let mut frames = Vec::new();
        for instances in beats.chunks(BEAT_INSTANCES_MAX) {
            self.beat = self.beat.wrapping_add(1);
            let instances = instances.to_vec();
            frames.push(Frame::Beat(Beat { beat: self.beat, instances }));
        }
        frames
    }

    /// The answer to a beat.
    pub fn beat_ok(&mut self, answer: &BeatOk) {
        for id in &answer.unknown {
            if let Some(known) = self.all.get_mut(id)
                && matches!(known.standing, Standing::Watched(_))
            {
                let text = format!(
                    "the broker watches instance '{}' with id {id} no more: another program \
                     announced the same and displaced it",
                    known.announce.name
                );
                known.standing = Standing::Ended(Error::new(ErrorCode::BadInstance, text));
            }
        }
    }

    /// The connection was lost.
    pub fn lost(&mut self) {
        for known in self.all.values_mut() {
            if matches!(known.standing, Standing::Watched(_)) {
                known.standing = Standing::Asked;
            }
        }
    }

    /// No connection is made again.
    pub fn end(&mut self, why: &Error) {
        for known in self.all.values_mut() {
            if !matches!(known.standing, Standing::Ended(_)) {
                known.standing = Standing::Ended(why.clone());
            }
        }
    }

    /// The frames that announce all again on a new connection, each with its present state.
    pub fn resume(&mut self, mut sequence: impl FnMut() -> u32) -> Vec<Frame> {
        let mut frames = Vec::new();
        for known in self.all.values_mut() {
            if matches!(known.standing, Standing::Asked) {
                known.announce.sequence = sequence();
                frames.push(Frame::Announce(known.announce.clone()));
                frames.push(Frame::StateChange(known.change(sequence())));
            }
        }
        frames
    }
}

/// A text beside a state, as short as it may be and in one line.
pub(crate) fn short(text: &str) -> String {
    protocol::show::one_line(text.chars().take(STATE_TEXT_CHARS_MAX).collect())
}

fn unknown(id: u64) -> Error {
    let text = format!("there is no instance with id {id} on this connection");
    Error::new(ErrorCode::BadInstance, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(all: &mut Instances, options: InstanceOptions, beat_ms: u64) -> u64 {
        let (id, _) = all.announce(options, 1).unwrap();
        all.announced(Announced {
            sequence: 1,
            id,
            incarnation: 1,
            beat_ms,
            activity_timeout_ms: 5000,
            displaced: false,
        });
        id
    }

    #[test]
    fn instances_without_an_id_of_their_own_have_different_ones() {
        let mut all = Instances::default();
        let pid = u64::from(std::process::id());
        let ids = ["a", "a", "b"].map(|name| announced(&mut all, InstanceOptions::new(name), 500));
        assert_eq!(ids, [pid, pid + (1 << 32), pid + (2 << 32)]);
        let error = all.announce(InstanceOptions::new("c").id(pid), 9).unwrap_err();
        assert!(error.is(ErrorCode::BadInstance), "{error}");
    }

    #[test]
    fn a_beat_of_many_instances_is_several_frames_that_the_broker_takes() {
        let mut all = Instances::default();
        for id in 0..4001 {
            announced(&mut all, InstanceOptions::new("a").id(id), 500);
        }
        let sizes: Vec<usize> = all
            .beat()
            .into_iter()
            .map(|frame| match frame {
                Frame::Beat(beat) => beat.instances.len(),
                other => panic!("{other:?} is no beat"),
            })
            .collect();
        assert_eq!(sizes, [2000, 2000, 1]);
        assert_eq!(all.beat_every(), Some(Duration::from_millis(500)));
    }

    #[test]
    fn only_what_is_watched_beats() {
        let mut all = Instances::default();
        assert_eq!((all.beat_every(), all.beat()), (None, Vec::new()));
        let id = announced(&mut all, InstanceOptions::new("a"), 0);
        assert_eq!(all.beat_every(), Some(Duration::from_millis(1)));
        all.lost();
        assert_eq!((all.beat_every(), all.beat()), (None, Vec::new()));
        assert_eq!(all.resume(|| 5).len(), 2);
        assert!(all.failed(5, &Error::new(ErrorCode::InstanceTaken, "taken")));
        assert!(matches!(all.standing(id), Standing::Ended(_)));
        assert!(all.set_state(id, InstanceState::Running, "", 6).is_err());
        assert!(all.resume(|| 7).is_empty());
        // It may be announced again.
        announced(&mut all, InstanceOptions::new("a").id(id), 500);
        assert_eq!(all.beat().len(), 1);
    }

    #[test]
    fn a_beat_that_crosses_a_withdraw_displaces_nothing() {
        let mut all = Instances::default();
        let id = announced(&mut all, InstanceOptions::new("a"), 500);
        assert!(all.withdraw(id, false, "done", 2).is_some());
        all.beat_ok(&BeatOk { beat: 1, unknown: vec![id] });
        assert!(all.withdraw(id, false, "done", 3).is_none());
    }
}
