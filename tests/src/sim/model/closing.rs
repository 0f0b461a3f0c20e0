//! What was promised to clients who give up requests, ask whether all was taken, or close their
//! side.

use super::{Broken, Model, Unanswered};
use protocol::bodies::Flushed;
use protocol::errors::ErrorCode;
use protocol::ids::LinkId;
use protocol::limits::DEADLINE_MS_MAX;
use protocol::time::Tick;
use std::collections::{BTreeSet, VecDeque};

/// A flush that is not answered.
#[derive(Debug)]
struct Flush {
    sequence: u32,
    /// The last request before it.
    last: u64,
    /// All before it is taken or over by then.
    due: Tick,
}

/// What came on the link of a client.
#[derive(Debug, Default)]
pub(super) struct Inflow {
    /// Requests that no worker was given, as far as no answer to a flush covered them.
    untaken: BTreeSet<u64>,
    last: u64,
    flushes: VecDeque<Flush>,
    /// How many more were said to be refused than the answered flushes cover: of later ones.
    ahead: u64,
    /// Frames that may be refused, and are no request that is known.
    unknown: u64,
    /// When all that came has its outcome.
    due: Tick,
    is_half_closed: bool,
    is_refused: bool,
}

impl Model {
    /// The first frame of a request came on a link.
    pub(super) fn sent(&mut self, link: LinkId, uid: u64, due: Tick) {
        let inflow = self.inflows.entry(link).or_default();
        inflow.untaken.insert(uid);
        inflow.last = uid;
        inflow.due = inflow.due.max(due);
    }

    /// A frame came of which nobody knows what it is.
    pub(super) fn sent_unknown(&mut self, link: LinkId) {
        self.inflows.entry(link).or_default().unknown += 1;
    }

    /// A worker is given a request.
    pub fn taken(&mut self, uid: u64) {
        for inflow in self.inflows.values_mut() {
            inflow.untaken.remove(&uid);
        }
    }

    /// A client asks whether all was taken.
    pub fn flushes(&mut self, link: LinkId, sequence: u32, now: Tick) {
        let inflow = self.inflows.entry(link).or_default();
        let due = if inflow.untaken.is_empty() { now } else { inflow.due.max(now) };
        inflow.flushes.push_back(Flush { sequence, last: inflow.last, due });
    }

    /// Whether a request of a link may still wait for a worker.
    pub fn waits_to_be_taken(&self, link: LinkId) -> bool {
        self.inflows.get(&link).is_some_and(|inflow| !inflow.untaken.is_empty())
    }

    /// A client is told that all before its flush was taken or refused.
    ///
    /// # Errors
    /// It was not, or the number of those that were refused is wrong.
    pub fn flushed(&mut self, link: LinkId, flushed: &Flushed) -> Result<(), Broken> {
        let inflow = self.inflows.entry(link).or_default();
        let Some(flush) = inflow.flushes.pop_front() else {
            return Err(format!("link {link} is told {flushed:?}, and did not flush"));
        };
        let mut before = std::mem::take(&mut inflow.untaken);
        inflow.untaken = before.split_off(&(flush.last + 1));
        let (covered, said) = (before.len() as u64, flushed.refused + inflow.ahead);
        let most = covered + inflow.untaken.len() as u64 + inflow.unknown;
        if flush.sequence != flushed.flush || said < covered || said > most {
            return Err(format!(
                "link {link} is told {flushed:?} for {flush:?}; of what came before, no worker was \
                 given {before:?}"
            ));
        }
        inflow.ahead = said - covered;
        self.count("flushes answered");
        Ok(())
    }

    /// A client gives up a request: if it is under way, it has its outcome at once.
    pub fn cancels(&mut self, link: LinkId, sequence: u32, now: Tick) {
        let is_open =
            |entries: &std::collections::BTreeMap<u32, Unanswered>| entries.contains_key(&sequence);
        if self.unanswered.get(&link).is_some_and(is_open) {
            self.is_due((link, sequence), now);
            self.cancelled.insert((link, sequence));
        }
    }

    /// Whether this error may say that nobody waits any more, or that a time is over.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn check_given_up(
        &self,
        (link, sequence): (LinkId, u32),
        entry: Unanswered,
        code: ErrorCode,
    ) -> Result<(), Broken> {
        let is_half_closed = self.inflows.get(&link).is_some_and(|inflow| inflow.is_half_closed);
        let is_asked = is_half_closed || self.cancelled.contains(&(link, sequence));
        if code == ErrorCode::Cancelled && !is_asked {
            return Err(format!("request {} is cancelled by nobody", entry.uid));
        }
        if code == ErrorCode::Deadline && entry.is_parked {
            return Err(format!("request {} has no deadline, and ends with it", entry.uid));
        }
        Ok(())
    }

    /// A part of an answer leaves for a client. `is_open_ended`: it makes the request a
    /// conversation without a deadline; `None` = nobody knows.
    ///
    /// # Errors
    /// It puts off a deadline that it may not.
    pub fn goes_on(
        &mut self,
        at: (LinkId, u32),
        is_open_ended: Option<bool>,
        deadline_ms: u32,
        now: Tick,
    ) -> Result<(), Broken> {
        let (link, sequence) = at;
        let entries = self.unanswered.get_mut(&link);
        let Some(entry) = entries.and_then(|entries| entries.get_mut(&sequence)) else {
            return Ok(());
        };
        if is_open_ended != Some(false) {
            let is_new = !std::mem::replace(&mut entry.is_parked, is_open_ended == Some(true));
            if is_open_ended.is_none()
                && let Some(inflow) = self.inflows.get_mut(&link)
            {
                inflow.due = Tick(u64::MAX);
            }
            self.is_due(at, Tick(u64::MAX));
            if is_new {
                self.count("conversations without a deadline");
            }
            return Ok(());
        }
        if deadline_ms == 0 {
            return Ok(());
        }
        let (uid, came) = (entry.uid, entry.came);
        if !self.get(uid).is_some_and(|asked| asked.is_extendable) {
            return Err(format!("the deadline of request {uid} is put off"));
        }
        let most = came.plus_millis(DEADLINE_MS_MAX);
        let due = now.plus_millis(u64::from(deadline_ms) + 1).min(most);
        self.is_due(at, due);
        self.count("deadlines put off");
        if let Some(inflow) = self.inflows.get_mut(&link) {
            inflow.due = inflow.due.max(due);
        }
        Ok(())
    }

    /// The client of a conversation has said what it had to say: its worker has a deadline for the
    /// next part.
    pub fn awaits_worker(&mut self, uid: u64) {
        let entries = self.unanswered.values_mut().flat_map(|entries| entries.values_mut());
        entries.filter(|entry| entry.uid == uid).for_each(|entry| entry.is_parked = false);
    }

    /// A client has closed its side.
    pub fn half_closed(&mut self, link: LinkId, now: Tick) {
        let inflow = self.inflows.entry(link).or_default();
        inflow.is_half_closed = true;
        inflow.due = inflow.due.max(now);
    }

    /// A client is told that its connection will end.
    pub fn refuses(&mut self, link: LinkId) {
        self.inflows.entry(link).or_default().is_refused = true;
    }

    /// The broker closes the link of a client.
    ///
    /// # Errors
    /// The client closed its side, and waits for an answer yet.
    pub fn closes(&self, link: LinkId, is_too_slow: bool) -> Result<(), Broken> {
        let inflow =
            self.inflows.get(&link).filter(|inflow| inflow.is_half_closed && !inflow.is_refused);
        let left = self.unanswered.get(&link).filter(|left| inflow.is_some() && !left.is_empty());
        match left.filter(|_| !is_too_slow) {
            Some(left) => Err(format!(
                "link {link} is closed, and its client waits for {:?}",
                left.keys().collect::<Vec<_>>()
            )),
            None => Ok(()),
        }
    }

    /// After each step: no flush waits, and no link whose client closed its side is open, longer
    /// than what came before.
    pub(super) fn check_inflows(&self, now: Tick) -> Result<(), Broken> {
        for (link, inflow) in &self.inflows {
            let flush = inflow.flushes.front();
            if let Some(flush) = flush.filter(|flush| flush.due < now) {
                return Err(format!("link {link} has no answer to {flush:?}"));
            }
            if inflow.is_half_closed && inflow.due < now {
                return Err(format!("link {link} is open: its client closed its side"));
            }
        }
        Ok(())
    }
}
