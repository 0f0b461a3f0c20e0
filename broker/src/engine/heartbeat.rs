//! Finds peers that owe a sign of life and are silent for too long: pings idle workers, hosts and
//! the clients that promised to answer, and closes connections without a login. A busy worker owes
//! none, because it works with one thread; neither does one whose request `idle` took away, until
//! its late reply (tests/scripts/heartbeat/owed.script).
//!
//! Silence is counted in heartbeats. If the broker itself stood still (it was stopped, or its
//! machine slept), the timers for what others are to do are put off by that time, and nobody counts
//! as silent because of it.

use super::action::Action;
use super::due::Due;
use super::links::{AnnouncedLimits, End};
use super::workers::{ProcessState, WorkerList};
use super::{Engine, Out};
use protocol::bodies::ErrorBody;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::ids::LinkId;
use protocol::settings::Setting;
use protocol::time::Micros;

/// Heartbeats in each `heartbeat_ms`: silence is noticed late by this share of it at most.
const BEATS: u64 = 4;

/// How much silence of a link is borne, counted in heartbeats.
pub(crate) struct SilenceLimits {
    /// A ping is sent each time that so many were missed.
    pub(crate) ping_each: u32,
    /// The link is closed when so many were missed.
    pub(crate) end: u32,
}

impl Engine {
    /// Milliseconds between two heartbeats by the setting.
    fn beat_set_ms(&self) -> u64 {
        self.settings.get(Setting::HeartbeatMs) / BEATS
    }

    /// Milliseconds until the next heartbeat: a link that a shorter `heartbeat_ms` was announced to
    /// still gets its pings as often.
    fn beat_due_ms(&self) -> u64 {
        let shortest = self.links.announced_heartbeat_ms();
        let announced = shortest.map_or(u64::MAX, |ms| u64::from(ms) / BEATS);
        self.beat_set_ms().min(announced).max(1)
    }

    /// `silence_ms` as it is announced to workers and clients, which expect to hear from the broker
    /// within it, too. It is two heartbeats at least, whatever the settings, so that a ping can be
    /// answered.
    pub(crate) fn silence_ms(&self) -> u64 {
        self.settings.get(Setting::SilenceMs).max(2 * self.beat_set_ms())
    }

    /// The limits for a peer that logs in now. They hold for it as long as it is connected.
    pub(crate) fn limits_to_announce(&self) -> AnnouncedLimits {
        let narrow = |ms: u64| u32::try_from(ms).unwrap_or(u32::MAX);
        AnnouncedLimits {
            heartbeat_ms: narrow(self.settings.get(Setting::HeartbeatMs)),
            silence_ms: narrow(self.silence_ms()),
        }
    }

    /// How much silence of a host's link is borne: hosts are announced no limits.
    pub(crate) fn silence_limits_of_hosts(&self) -> SilenceLimits {
        self.silence_limits(None)
    }

    /// How much silence of a link is borne to which these limits were announced; `None` = it was
    /// announced none. The longer of the limits announced and in force counts for its end, the
    /// shorter for its pings.
    pub(crate) fn silence_limits(&self, announced: Option<AnnouncedLimits>) -> SilenceLimits {
        let now_ms = self.silence_ms();
        let announced_ms = announced.map_or(now_ms, |limits| u64::from(limits.silence_ms));
        let beats = |ms: u64| (ms / self.beat_ms.max(1)).max(2);
        let narrow = |beats: u64| u32::try_from(beats).unwrap_or(u32::MAX);
        SilenceLimits {
            ping_each: narrow(BEATS.min(beats(now_ms.min(announced_ms)) / 2)),
            end: narrow(beats(now_ms.max(announced_ms))),
        }
    }

    /// Sets the timer of the next heartbeat.
    pub(crate) fn start_heartbeat(&mut self) {
        let beat_ms = self.beat_due_ms();
        if beat_ms != self.beat_ms {
            self.beat_ms = beat_ms;
            self.links.count_anew();
        }
        let next = self.now.plus_millis(beat_ms);
        self.next_beat = Some(next);
        self.due.add(next, Due::Heartbeat);
    }

    /// Handles a change of `heartbeat_ms` or `silence_ms`: silence is counted from now on, and the
    /// next heartbeat comes no later than the new setting says.
    pub(crate) fn heartbeat_changed(&mut self) {
        self.links.count_anew();
        let next = self.now.plus_millis(self.beat_due_ms());
        if self.next_beat.is_some_and(|at| next < at) {
            self.start_heartbeat();
        }
    }

    /// Handles a heartbeat that comes late by a whole one or more, so that the broker stood still
    /// for as long. What others sent meanwhile may be unread, and what they wait for unsent, so all
    /// timers for them are put off by that time and one heartbeat. Deadlines of requests are not
    /// put off, because they were promised.
    pub(crate) fn excuse_standstill(&mut self) {
        let Some(late) = self.next_beat.map(|next| self.now.since(next)) else { return };
        if late.as_millis() >= self.beat_ms {
            let more = late + Micros::from_millis(self.beat_ms);
            self.due.put_off(more);
            self.links.put_off(more, self.now);
        }
    }

    /// `Due::Heartbeat`: looks at all links that owe a sign of life, and sets the next
    /// heartbeat.
    pub(crate) fn on_heartbeat(&mut self, out: Out<'_>) {
        if self.next_beat.is_some_and(|next| self.now < next) {
            // It was set under an earlier setting, and a later setting has set an earlier one in
            // its place.
            return;
        }
        self.start_heartbeat();
        let mut silent: Vec<LinkId> = Vec::new();
        silent.extend(self.hosts.by_name().filter_map(|(_, host)| host.state.link()));
        let idle = self
            .workers
            .by_id()
            .filter(|(_, worker)| {
                worker.state == ProcessState::Ready && worker.list != WorkerList::Busy
            })
            .filter(|(_, worker)| worker.late_work_since.is_none());
        silent.extend(idle.filter_map(|(_, worker)| worker.link));
        if self.clients.heartbeats > 0 {
            let clients = self.clients.by_id().filter(|(_, client)| client.heartbeat);
            silent.extend(clients.map(|(_, client)| client.link));
        }
        for link in silent {
            self.ping(link, out);
        }
        self.pong_unread(out);
        let idle_ms = self.settings.get(Setting::IdleMs);
        if idle_ms > 0 {
            self.close_idle(idle_ms, out);
        }
    }

    /// Closes clients that have nothing under way and sent nothing for `idle_ms`.
    fn close_idle(&mut self, idle_ms: u64, out: Out<'_>) {
        let is_over = |link| {
            let slot = self.links.get(link);
            // What a link that is not read has sent is not known.
            !self.links.is_unread(link)
                && slot.is_some_and(|slot| self.now.since(slot.heard).as_millis() >= idle_ms)
        };
        let clients =
            self.clients.by_id().filter(|(_, c)| c.in_flight.is_empty() && c.watch.is_none());
        let links: Vec<LinkId> =
            clients.map(|(_, c)| c.link).filter(|&link| is_over(link)).collect();
        for link in links {
            let text = format!("nothing was asked for {idle_ms} ms (idle_ms)");
            self.refuse_link(link, ErrorBody::new(ErrorCode::IdleTimeout, text), out);
        }
    }

    /// Sends pongs to links that are not read: the broker does not see their pings, and they must
    /// hear from it all the same.
    fn pong_unread(&mut self, out: Out<'_>) {
        for link in self.links.unread() {
            let limits = self.silence_limits(self.links.get(link).and_then(|slot| slot.announced));
            let Some(slot) = self.links.get_mut(link) else { continue };
            slot.missed = slot.missed.saturating_add(1);
            if slot.missed.is_multiple_of(limits.ping_each) {
                out.push(Action::Send { link, frame: Frame::Pong { sequence: 0 } });
            }
        }
    }

    /// Counts a heartbeat that a link missed; pings it, or closes it if it was silent for too long.
    fn ping(&mut self, link: LinkId, out: Out<'_>) {
        if self.links.is_unread(link) {
            return;
        }
        let Some((announced, worker)) = self.links.get(link).map(|slot| {
            let End::Worker(key) = slot.end else { return (slot.announced, None) };
            (slot.announced, Some(key))
        }) else {
            return;
        };
        let limits = self.silence_limits(announced);
        let end = worker.map_or(limits.end, |key| self.worker_silence_end(key, &limits));
        let least =
            announced.map_or(0, |limits| u64::from(limits.silence_ms)).max(self.silence_ms());
        let now = self.now;
        let Some(slot) = self.links.get_mut(link) else { return };
        slot.missed = slot.missed.saturating_add(1);
        // The first heartbeat may have come right after the last sign of life. Then `silence_ms` is
        // not over at the last one, and the next one is the end.
        let is_early = now.since(slot.heard).as_millis() < least;
        if slot.missed < end || is_early {
            if slot.missed.is_multiple_of(limits.ping_each) {
                let sequence = slot.missed / limits.ping_each;
                out.push(Action::Send { link, frame: Frame::Ping { sequence } });
            }
            return;
        }
        let silent_ms = self.now.since(slot.heard).as_millis();
        let set = self.settings.get(Setting::SilenceMs);
        let max = match announced.map(|limits| u64::from(limits.silence_ms)) {
            Some(announced) if announced > set.max(2 * self.beat_ms) => {
                format!("silence_ms was {announced} at its login")
            }
            Some(_) | None => format!("silence_ms is {set}"),
        };
        let why = format!("was silent for {silent_ms} ms and answered no ping ({max}); closing it");
        match slot.end {
            End::Worker(key) => self.silent_worker(link, key, &why, out),
            End::Client(_) | End::Host(_) | End::NewClient | End::NewWorker | End::Free => {
                self.drop_link(link, why, out);
            }
        }
    }

    /// `Due::Login`: refuses a connection without a login.
    pub(crate) fn on_login_due(&mut self, link: LinkId, out: Out<'_>) {
        let Some(slot) = self.links.get(link) else { return };
        // A peer whose proof waits to be checked has done its part.
        let is_waiting = slot.pending.as_ref().is_some_and(|pending| pending.is_checked);
        if matches!(slot.end, End::NewClient | End::NewWorker) && !is_waiting {
            let wait = self.settings.get(Setting::LoginMs);
            let text = format!("no login came within {wait} ms (login_ms)");
            self.refuse_link(link, ErrorBody::new(ErrorCode::LoginTimeout, text), out);
        }
    }
}
