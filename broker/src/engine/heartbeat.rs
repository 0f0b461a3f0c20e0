//! Who was silent too long: pings for idle workers, hosts and clients that promised to answer;
//! logins that did not come. A busy worker owes no answer: it works with one thread; nor does one
//! whose request the operator took away, until its late reply came. Silence is counted in beats,
//! not in time, and what is due of others is put off by the time that the broker stood still itself
//! (stopped, or its machine): it blames nobody for that.

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

/// Looks at the links in each `heartbeat_ms`: what is noticed is late by at most this share of it.
const BEATS: u64 = 4;

/// How many silent beats are due a ping, and how many are the end.
pub(crate) struct SilenceLimits {
    pub(crate) ping_each: u32,
    pub(crate) end: u32,
}

impl Engine {
    /// Milliseconds between two looks at the links, by the setting.
    fn beat_set_ms(&self) -> u64 {
        self.settings.get(Setting::HeartbeatMs) / BEATS
    }

    /// The same as it is to be: to whom a shorter one was announced is still looked at as often.
    fn beat_due_ms(&self) -> u64 {
        let shortest = self.links.announced_heartbeat_ms();
        let announced = shortest.map_or(u64::MAX, |ms| u64::from(ms) / BEATS);
        self.beat_set_ms().min(announced).max(1)
    }

    /// The silence that is the end, as announced to workers and clients: they hear of the broker
    /// often enough to hold it to the same. At least two beats, whatever the settings, so that a
    /// ping can be answered.
    pub(crate) fn silence_ms(&self) -> u64 {
        self.settings.get(Setting::SilenceMs).max(2 * self.beat_set_ms())
    }

    /// What is announced to a peer that logs in; it is judged by that as long as it is connected.
    pub(crate) fn limits_to_announce(&self) -> AnnouncedLimits {
        let narrow = |ms: u64| u32::try_from(ms).unwrap_or(u32::MAX);
        AnnouncedLimits {
            heartbeat_ms: narrow(self.settings.get(Setting::HeartbeatMs)),
            silence_ms: narrow(self.silence_ms()),
        }
    }

    /// How long a link's silence is borne: one to which more was announced has that, and one to
    /// which less was announced hears of the broker within that.
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

    /// `heartbeat_ms` or `silence_ms` was set: silence is counted from now, and the next look is no
    /// later than the new setting says.
    pub(crate) fn heartbeat_changed(&mut self) {
        self.links.count_anew();
        let next = self.now.plus_millis(self.beat_due_ms());
        if self.next_beat.is_some_and(|at| next < at) {
            self.start_heartbeat();
        }
    }

    /// The beats come late by a whole one or more: the broker stood still for so long. What others
    /// did meanwhile may be unread, and what they were to be answered unsaid, so all that is due of
    /// them has that much more time, and a beat to be heard in. The deadlines of requests hold:
    /// those were promised.
    pub(crate) fn excuse_standstill(&mut self) {
        let Some(late) = self.next_beat.map(|next| self.now.since(next)) else { return };
        if late.as_millis() >= self.beat_ms {
            let more = late + Micros::from_millis(self.beat_ms);
            self.due.put_off(more);
            self.links.put_off(more, self.now);
        }
    }

    /// `Due::Heartbeat`: looks at all links that owe an answer, then sets the next one.
    pub(crate) fn on_heartbeat(&mut self, out: Out<'_>) {
        if self.next_beat.is_some_and(|next| self.now < next) {
            // One that an earlier setting asked for; an earlier one took its place.
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
            .filter(|(_, worker)| worker.owed_since.is_none());
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

    /// Closes clients that have nothing under way and have said nothing for too long.
    fn close_idle(&mut self, idle_ms: u64, out: Out<'_>) {
        let is_over = |link| {
            let slot = self.links.get(link);
            // What one has said that is read no further is not known.
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

    /// A link that is read no further can't have its pings answered: it hears all the same that the
    /// broker is there.
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

    /// Pings a link that was silent for a heartbeat; ends one that was silent too long.
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
        let end = worker.map_or(limits.end, |key| self.beats_of_worker(key, &limits));
        let least =
            announced.map_or(0, |limits| u64::from(limits.silence_ms)).max(self.silence_ms());
        let now = self.now;
        let Some(slot) = self.links.get_mut(link) else { return };
        slot.missed = slot.missed.saturating_add(1);
        // The first beat may have come right after it was heard: then not all of `silence_ms` has
        // passed at the last one, and the next is the end.
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

    /// `Due::Login`: no login came in time.
    pub(crate) fn on_login_due(&mut self, link: LinkId, out: Out<'_>) {
        let Some(slot) = self.links.get(link) else { return };
        // Whoever waits for the broker to check its proof has done its part.
        let is_waiting = slot.pending.as_ref().is_some_and(|pending| pending.is_checked);
        if matches!(slot.end, End::NewClient | End::NewWorker) && !is_waiting {
            let wait = self.settings.get(Setting::LoginMs);
            let text = format!("no login came within {wait} ms (login_ms)");
            self.refuse_link(link, ErrorBody::new(ErrorCode::LoginTimeout, text), out);
        }
    }
}
