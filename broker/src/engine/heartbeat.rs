//! Each heartbeat: pings idle workers, hosts and the clients that promised to answer, and closes
//! clients that ask for nothing. `sessions::silence` counts what they miss.

use super::context::context;
use super::hub::{Engine, Out};
use super::keys::WorkerKey;
use super::sessions::connection::End;
use super::supervision::workers::ProcessState;
use protocol::bodies::ErrorBody;
use protocol::errors::ErrorCode;
use protocol::ids::LinkId;
use protocol::settings::Setting;

impl Engine {
    /// Sets the next heartbeat.
    pub(crate) fn start_heartbeat(&mut self, out: Out<'_>) {
        if self.sessions.start_heartbeat(context!(self, out)) {
            self.supervision.all_heard();
        }
    }

    /// `heartbeat_ms` or `silence_ms` was set.
    pub(crate) fn heartbeat_changed(&mut self, out: Out<'_>) {
        self.sessions.heartbeat_changed(context!(self, out));
        self.supervision.all_heard();
    }

    /// Nobody is blamed for the time in which the broker stood still.
    pub(crate) fn excuse_standstill(&mut self, out: Out<'_>) {
        if let Some(late) = self.sessions.standstill(context!(self, out)) {
            self.timers.put_off(late);
            self.sessions.put_off(late, self.now);
        }
    }

    /// `Timer::Heartbeat`: looks at all links that owe an answer, and sets the next heartbeat.
    pub(crate) fn on_heartbeat(&mut self, out: Out<'_>) {
        if self.sessions.is_before_beat(context!(self, out)) {
            return;
        }
        self.start_heartbeat(out);
        let mut silent: Vec<LinkId> = Vec::new();
        silent.extend(self.supervision.hosts().filter_map(|(_, host)| host.state.link()));
        let ready = self.supervision.workers().filter(|(_, w)| w.state == ProcessState::Ready);
        let seats = ready.map(|(key, _)| self.dispatch.seat(key));
        silent.extend(seats.filter(|seat| seat.must_answer()).filter_map(|seat| seat.link));
        silent.extend(self.sessions.pinged_clients());
        for link in silent {
            self.ping(link, out);
        }
        for link in self.dispatch.flow().unread() {
            self.sessions.pong_unread(link, context!(self, out));
        }
        let idle_ms = self.settings.get(Setting::IdleMs);
        if idle_ms > 0 {
            self.close_idle(idle_ms, out);
        }
    }

    fn ping(&mut self, link: LinkId, out: Out<'_>) {
        if self.dispatch.flow().is_unread(link) {
            return;
        }
        let Some(limits) = self.sessions.limits_of(link, context!(self, out)) else { return };
        let end = match self.sessions.end(link) {
            Some(End::Worker(key)) => self.supervision.beats_of_worker(key, &limits),
            Some(_) | None => limits.end,
        };
        self.sessions.ping(link, end, context!(self, out));
        self.settle(out);
    }

    /// A worker was silent for too long.
    pub(crate) fn silent_worker(&mut self, key: WorkerKey, why: &str, out: Out<'_>) {
        self.supervision.silent_worker(key, why, context!(self, out));
    }

    /// Closes clients that have nothing under way and sent nothing for `idle_ms`.
    fn close_idle(&mut self, idle_ms: u64, out: Out<'_>) {
        let clients: Vec<_> = self.sessions.clients().map(|(key, c)| (key, c.id, c.link)).collect();
        for (key, id, link) in clients {
            // What a link that is not read has sent is not known.
            let is_over = !self.dispatch.flow().is_unread(link)
                && self.dispatch.caller(key).in_flight.is_empty()
                && self.facts.watch_of(id).is_none()
                && self.sessions.is_silent_for(link, idle_ms, context!(self, out));
            if is_over {
                let text = format!("nothing was asked for {idle_ms} ms (idle_ms)");
                self.refuse_link(link, ErrorBody::new(ErrorCode::IdleTimeout, text), out);
            }
        }
    }
}
