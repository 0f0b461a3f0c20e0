//! Finds peers that owe a sign of life and are silent for too long: pings idle workers, hosts and
//! the clients that promised to answer. A busy worker owes none, because it works with one thread;
//! neither does one whose request `idle` took away, until its late reply
//! (tests/scripts/heartbeat/owed.script). Connections without a login are closed in `login`.
//!
//! Silence is counted in heartbeats. If the broker itself stood still (it was stopped, or its
//! machine slept), the timers for what others are to do are put off by that time, and nobody counts
//! as silent because of it.

use super::connection::{AnnouncedLimits, End};
use super::machine::Sessions;
use crate::engine::action::Action;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::silence_limits::{BEATS, SilenceLimits, beat_set_ms, silence_ms};
use crate::engine::timers::Timer;
use protocol::{Frame, LinkId, Micros, Setting, Settings};

/// The limits for a peer that logs in now. They hold for it as long as it is connected.
pub(crate) fn limits_to_announce(settings: &Settings) -> AnnouncedLimits {
    let narrow = |ms: u64| u32::try_from(ms).unwrap_or(u32::MAX);
    AnnouncedLimits {
        heartbeat_ms: narrow(settings.get(Setting::HeartbeatMs)),
        silence_ms: narrow(silence_ms(settings)),
    }
}

impl Sessions {
    /// Milliseconds until the next heartbeat: a link that a shorter `heartbeat_ms` was announced to
    /// still gets its pings as often.
    fn beat_due_ms(&self, settings: &Settings) -> u64 {
        let shortest = self.links.announced_heartbeat_ms();
        let announced = shortest.map_or(u64::MAX, |ms| u64::from(ms) / BEATS);
        beat_set_ms(settings).min(announced).max(1)
    }

    /// How much silence of a link is borne to which these limits were announced; `None` = it was
    /// announced none. The longer of the limits announced and in force counts for its end, the
    /// shorter for its pings.
    fn limits(&self, announced: Option<AnnouncedLimits>, settings: &Settings) -> SilenceLimits {
        let now_ms = silence_ms(settings);
        let announced_ms = announced.map_or(now_ms, |limits| u64::from(limits.silence_ms));
        let beats = |ms: u64| (ms / self.beat_ms.max(1)).max(2);
        let narrow = |beats: u64| u32::try_from(beats).unwrap_or(u32::MAX);
        SilenceLimits {
            ping_each: narrow(BEATS.min(beats(now_ms.min(announced_ms)) / 2)),
            end: narrow(beats(now_ms.max(announced_ms))),
        }
    }

    /// Sets the next heartbeat. Returns whether their length changed, so that silence is counted
    /// from now on.
    pub(crate) fn start_heartbeat(&mut self, cx: &mut Context<'_>) -> bool {
        let beat_ms = self.beat_due_ms(cx.settings);
        let is_other = beat_ms != self.beat_ms;
        if is_other {
            self.beat_ms = beat_ms;
            self.links.count_anew();
        }
        let next = cx.now.plus_millis(beat_ms);
        self.next_beat = Some(next);
        cx.timers.add(next, Timer::Heartbeat);
        is_other
    }

    /// Handles a change of `heartbeat_ms` or `silence_ms`: silence is counted from now on, and the
    /// next heartbeat comes no later than the new setting says.
    pub(crate) fn heartbeat_changed(&mut self, cx: &mut Context<'_>) {
        self.links.count_anew();
        let next = cx.now.plus_millis(self.beat_due_ms(cx.settings));
        if self.next_beat.is_some_and(|at| next < at) {
            self.start_heartbeat(cx);
        }
    }

    /// By how much the heartbeat is late, if that is a whole one or more: the broker stood still.
    /// What others sent meanwhile may be unread, and what they wait for unsent, so all timers for
    /// them are put off by what this returns. Deadlines of requests are not put off, because they
    /// were promised.
    pub(crate) fn standstill(&self, cx: &mut Context<'_>) -> Option<Micros> {
        let late = cx.now.since(self.next_beat?);
        (late.as_millis() >= self.beat_ms).then(|| late + Micros::from_millis(self.beat_ms))
    }

    /// Whether the next heartbeat is still to come: what calls for it was set under an earlier
    /// setting, and a later setting has set an earlier one in its place.
    pub(crate) fn is_before_beat(&self, cx: &mut Context<'_>) -> bool {
        self.next_beat.is_some_and(|next| cx.now < next)
    }

    /// The links of the clients that promised to answer pings.
    pub(crate) fn pinged_clients(&self) -> impl Iterator<Item = LinkId> {
        // Mostly there is none, and thousands of others.
        let some = (self.clients.heartbeats > 0).then(|| self.clients.by_id());
        let clients = some.into_iter().flatten().filter(|(_, client)| client.heartbeat);
        clients.map(|(_, client)| client.link)
    }

    /// Whether nothing came from a link for so many milliseconds.
    pub(crate) fn is_silent_for(&self, link: LinkId, ms: u64, cx: &mut Context<'_>) -> bool {
        let connection = self.links.get(link);
        connection.is_some_and(|connection| cx.now.since(connection.heard).as_millis() >= ms)
    }

    /// Sends a pong to a link that is not read, now and then: the broker does not see its pings,
    /// and it must hear from it all the same.
    pub(crate) fn pong_unread(&mut self, link: LinkId, cx: &mut Context<'_>) {
        let announced = self.links.get(link).and_then(|connection| connection.announced);
        let limits = self.limits(announced, cx.settings);
        let Some(connection) = self.links.get_mut(link) else { return };
        connection.missed = connection.missed.saturating_add(1);
        if connection.missed.is_multiple_of(limits.ping_each) {
            cx.out.push(Action::Send { link, frame: Frame::Pong { sequence: 0 } });
        }
    }

    /// How much silence of a link is borne, by what was announced to it.
    pub(crate) fn limits_of(&self, link: LinkId, cx: &mut Context<'_>) -> Option<SilenceLimits> {
        let connection = self.links.get(link)?;
        Some(self.limits(connection.announced, cx.settings))
    }

    /// Counts a heartbeat that a link missed; pings it, or says that it was silent for too long
    /// after `end` of them.
    pub(crate) fn ping(&mut self, link: LinkId, end: u32, cx: &mut Context<'_>) {
        let reached_max = self.limits(None, cx.settings).ping_each.saturating_add(1);
        let Some(announced) = self.links.get(link).map(|connection| connection.announced) else {
            return;
        };
        let limits = self.limits(announced, cx.settings);
        let announced_ms = announced.map(|limits| u64::from(limits.silence_ms));
        let least = announced_ms.unwrap_or(0).max(silence_ms(cx.settings));
        let Some(connection) = self.links.get_mut(link) else { return };
        connection.missed = connection.missed.saturating_add(1);
        if let End::Host(host) = connection.end
            && connection.missed > reached_max
        {
            cx.effects.push(Effect::SilentHost { host });
        }
        // The first heartbeat may have come right after the last sign of life. Then `silence_ms` is
        // not over at the last one, and the next one is the end.
        let is_early = cx.now.since(connection.heard).as_millis() < least;
        if connection.missed < end || is_early {
            if connection.missed.is_multiple_of(limits.ping_each) {
                let sequence = connection.missed / limits.ping_each;
                cx.out.push(Action::Send { link, frame: Frame::Ping { sequence } });
            }
            return;
        }
        let silent_ms = cx.now.since(connection.heard).as_millis();
        let set = cx.settings.get(Setting::SilenceMs);
        let max = match announced_ms {
            Some(announced) if announced > set.max(2 * self.beat_ms) => {
                format!("silence_ms was {announced} at its login")
            }
            Some(_) | None => format!("silence_ms is {set}"),
        };
        let why = format!("was silent for {silent_ms} ms and answered no ping ({max}); closing it");
        cx.effects.push(match connection.end {
            End::Worker(worker) => Effect::SilentWorker { worker, why },
            End::Client(_) | End::Host(_) | End::NewClient | End::NewWorker | End::Free => {
                Effect::DropLink { link, why }
            }
        });
    }
}
