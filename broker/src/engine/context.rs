//! What the hub lends a machine for one event: the time, what is configured, and where it puts what
//! follows.

use super::action::Action;
use super::catalog::Catalog;
use super::effect::{Effect, Effects};
use super::fact::{About, FactKind};
use super::fact_log::FactLog;
use super::input::Listening;
use super::quotas::{Class, FACT_BYTES_MAX, TELL_MS, TEXT_BYTES_MAX};
use super::timers::{Timer, Timers};
use super::wall_clock::WallClock;
use protocol::{ErrorBody, Frame, Header, LinkId, Settings, Tick};

/// Lent to a machine for one event. It reads the first fields, and writes to the others.
pub(crate) struct Context<'a> {
    /// The tick of the step.
    pub(crate) now: Tick,
    /// Converts a tick to the time of day.
    pub(crate) wall_clock: &'a WallClock,
    /// The broker's settings in force.
    pub(crate) settings: &'a Settings,
    /// The services.
    pub(crate) catalog: &'a Catalog,
    /// Where the broker listens, and what it is called.
    pub(crate) listening: &'a Listening,
    /// Whether the start is over: before, no host is dialled.
    pub(crate) is_started: bool,
    /// Whether the broker shuts down: nothing new begins.
    pub(crate) is_shutting_down: bool,
    /// Records facts.
    pub(crate) facts: &'a mut FactLog,
    /// What is due later.
    pub(crate) timers: &'a mut Timers,
    /// What other machines must know.
    pub(crate) effects: &'a mut Effects,
    /// What the net is to do, in order.
    pub(crate) out: &'a mut Vec<Action>,
}

impl Context<'_> {
    /// Records a fact.
    pub(crate) fn record(&mut self, kind: FactKind, about: About, text: String) {
        let at = (self.now, self.wall_clock);
        if let Some(fact) = self.facts.record(at, (kind, about), text, self.out) {
            self.effects.push(Effect::Fact(fact));
        }
    }

    /// Whether a peer may cause one more fact; if not, that is counted. Ask before making the text
    /// of the fact, because making it costs time, too.
    pub(crate) fn may_cause(&mut self, class: Class, link: Option<LinkId>) -> bool {
        self.may_cause_for(1, class, link)
    }

    /// The same for a line that a program wrote: each 256 bytes of it count as one more fact.
    pub(crate) fn may_pass_on(&mut self, line: &str, link: LinkId) -> bool {
        let bytes = line.len().min(FACT_BYTES_MAX);
        let count = 1 + (bytes / TEXT_BYTES_MAX) as u32;
        self.may_cause_for(count, Class::Output, Some(link))
    }

    fn may_cause_for(&mut self, count: u32, class: Class, link: Option<LinkId>) -> bool {
        let may = self.facts.quotas_mut().take(count, (class, link), self.now);
        if !may {
            self.left_out(class, link);
        }
        may
    }

    /// Counts a fact that is not recorded.
    pub(crate) fn left_out(&mut self, class: Class, link: Option<LinkId>) {
        if self.facts.quotas_mut().left_out(class, link) {
            self.timers.add(self.now.plus_millis(TELL_MS), Timer::LeftOut);
        }
    }

    /// Sends an error as the outcome of a request, unless its sender waits for nothing.
    pub(crate) fn answer_error(&mut self, link: LinkId, request: &Header, error: ErrorBody) {
        self.out.extend(refusal(link, request, error));
    }
}

/// An error as the outcome of a request; `None` if its sender waits for nothing.
pub(crate) fn refusal(link: LinkId, request: &Header, error: ErrorBody) -> Option<Action> {
    if request.reply == 0 {
        return None;
    }
    let head = Header {
        sequence: request.sequence,
        transaction: request.transaction,
        trace_id: request.trace_id,
        span_id: request.span_id,
        ..Header::default()
    };
    Some(Action::Send { link, frame: Frame::Error { head, error } })
}

/// Lends a machine of the hub what it needs, while the machine itself is borrowed.
macro_rules! context {
    ($hub:expr) => {
        &mut $crate::engine::context::Context {
            now: $hub.now,
            wall_clock: &$hub.wall_clock,
            settings: &$hub.settings,
            catalog: &$hub.catalog,
            listening: &$hub.listening,
            is_started: $hub.is_started,
            is_shutting_down: $hub.shutdown.is_some(),
            facts: &mut $hub.facts,
            timers: &mut $hub.timers,
            effects: &mut $hub.effects,
            out: &mut $hub.out,
        }
    };
}
pub(crate) use context;
