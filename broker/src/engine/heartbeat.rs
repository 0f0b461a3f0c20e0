//! Who was silent too long: pings for idle workers, hosts and clients that promised to answer;
//! logins that did not come. A busy worker owes no answer: it works with one thread.

use super::action::Action;
use super::due::Due;
use super::links::End;
use super::workers::{Life, Place};
use super::{Engine, Out};
use protocol::bodies::ErrorBody;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::ids::LinkId;
use protocol::settings::Setting;

/// Pings without an answer after which a link is closed.
const PINGS_MAX: u32 = 3;

impl Engine {
    pub(crate) fn start_heartbeat(&mut self) {
        let wait = self.settings.get(Setting::HeartbeatMs);
        self.due.add(self.now.plus_millis(wait), Due::Heartbeat);
    }

    /// `Due::Heartbeat`: looks at all links that owe an answer, then sets the next one.
    pub(crate) fn on_heartbeat(&mut self, out: Out<'_>) {
        self.start_heartbeat();
        let mut silent: Vec<LinkId> = Vec::new();
        silent.extend(self.hosts.values().filter_map(|host| host.state.link()));
        let idle = self
            .workers
            .by_id()
            .filter(|(_, worker)| worker.life == Life::Ready && worker.place != Place::Busy);
        silent.extend(idle.filter_map(|(_, worker)| worker.link));
        if self.clients.heartbeats > 0 {
            let clients = self.clients.by_id().filter(|(_, client)| client.heartbeat);
            silent.extend(clients.map(|(_, client)| client.link));
        }
        for link in silent {
            self.ping(link, out);
        }
        let idle_ms = self.settings.get(Setting::IdleMs);
        if idle_ms > 0 {
            self.close_idle(idle_ms, out);
        }
    }

    /// Closes clients that have nothing under way and have said nothing for too long.
    fn close_idle(&mut self, idle_ms: u64, out: Out<'_>) {
        let is_over = |link| {
            let slot = self.links.get(link);
            slot.is_some_and(|slot| self.now.since(slot.heard).as_millis() >= idle_ms)
        };
        let clients = self.clients.by_id().filter(|(_, c)| c.live.is_empty() && c.watch.is_none());
        let links: Vec<LinkId> =
            clients.map(|(_, c)| c.link).filter(|&link| is_over(link)).collect();
        for link in links {
            let text = format!("nothing was asked for {idle_ms} ms (idle_ms)");
            self.refuse_link(link, ErrorBody::new(ErrorCode::IdleTimeout, text), out);
        }
    }

    /// Pings a link that was silent for a heartbeat; closes one that left three pings unanswered.
    fn ping(&mut self, link: LinkId, out: Out<'_>) {
        let every_ms = self.settings.get(Setting::HeartbeatMs);
        let is_paused = self.links.is_paused(link);
        let Some(slot) = self.links.get_mut(link) else { return };
        let silent_ms = self.now.since(slot.heard).as_millis();
        if silent_ms < every_ms / 2 || is_paused {
            return;
        }
        if slot.pings < PINGS_MAX {
            slot.pings += 1;
            let sequence = slot.pings;
            out.push(Action::Send { link, frame: Frame::Ping { sequence } });
            return;
        }
        let why = format!(
            "was silent for {silent_ms} ms and left {PINGS_MAX} pings unanswered; closing it"
        );
        match slot.end {
            End::Worker(key) => {
                let (name, about) = self.name_of(&End::Worker(key));
                self.record(
                    super::fact::FactKind::WorkerKilled,
                    about,
                    format!("{name} {why}"),
                    out,
                );
                self.kill_worker(key, "was silent and is killed", out);
            }
            End::Client(_) | End::Host(_) | End::NewClient | End::NewWorker | End::Free => {
                self.cut(link, why, out);
            }
        }
    }

    /// `Due::Login`: no login or badge came in time.
    pub(crate) fn on_login_due(&mut self, link: LinkId, out: Out<'_>) {
        let Some(slot) = self.links.get(link) else { return };
        if matches!(slot.end, End::NewClient | End::NewWorker) {
            let wait = self.settings.get(Setting::LoginMs);
            let text = format!("no login or badge came within {wait} ms (login_ms)");
            self.refuse_link(link, ErrorBody::new(ErrorCode::LoginTimeout, text), out);
        }
    }
}
