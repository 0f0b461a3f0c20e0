//! Events of links: accepted, closed by the peer, closed by the broker, garbage received. A link
//! that the broker dialled is opened in `hosts` and ends here like the others. What the end of a
//! link means for the client, worker or host at it is decided in `clients`, `process` and `hosts`.

use super::action::Action;
use super::context::context;
use super::deaths;
use super::dispatch::retry::Loss;
use super::fact::{About, FactKind, Values};
use super::hub::Engine;
use super::input::{Close, Expected, Peer};
use super::keys::WorkerKey;
use super::operator::status;
use super::quotas::{Class, LINE_BYTES_MAX, TEXT_BYTES_MAX};
use super::sessions::connection::End;
use super::timers::Timer;
use crate::engine::sessions::peer_name::from;
use protocol::{
    ErrorBody, ErrorCode, Frame, Header, HostName, LinkId, Ran, RunId, Setting, WireError,
    WorkerId, show,
};

impl Engine {
    pub(crate) fn on_opened(&mut self, link: LinkId, end: End, peer: Peer) {
        self.open_link(link, end, peer);
        let wait = self.settings.get(Setting::LoginMs);
        self.timers.add(self.now.plus_millis(wait), Timer::Login(link));
    }

    pub(crate) fn on_closed(&mut self, link: LinkId, how: Close) {
        let timed_out;
        let why = match how {
            Close::Eof => "closed its connection",
            Close::Torn => "closed its connection in the middle of a frame",
            Close::Reset => "lost its connection",
            Close::TimedOut => {
                let limit = self.settings.get(Setting::SilenceMs);
                timed_out =
                    format!("timed out: its machine answers nothing (silence_ms is {limit})");
                &timed_out
            }
        };
        self.link_gone(link, how, why);
    }

    /// Removes a link that ended or was closed, and lets its client, worker or host know. `why`
    /// continues a sentence about it, as in "lost its connection".
    pub(crate) fn link_gone(&mut self, link: LinkId, how: Close, why: &str) {
        self.link_ended(link, (how, how), why);
    }

    /// As [`link_gone`](Self::link_gone); `shown` is the end that says of the peer's machine as
    /// much as is known.
    fn link_ended(&mut self, link: LinkId, (how, shown): (Close, Close), why: &str) {
        let Some(end) = self.sessions.end(link) else { return };
        self.free_link(link);
        match end {
            End::Free | End::NewClient | End::NewWorker => {}
            End::Client(key) => self.client_gone(key, why),
            End::Worker(key) => {
                let is_death = self.is_death(key, shown);
                self.worker_lost(key, (how, is_death), why);
            }
            End::Host(key) => {
                let why = format!("its execd {why}");
                self.supervision.host_down(key, why, context!(self));
            }
        }
    }

    /// Closes a link; the caller handles what that means for its client, worker or host.
    pub(crate) fn close_link(&mut self, link: LinkId) {
        if self.sessions.end(link).is_some() {
            self.out.push(Action::Close { link });
            self.free_link(link);
        }
    }

    /// Whether the loss of a worker's connection may be the fault of the request that it has.
    /// During the shutdown, whoever stops the broker may have stopped the worker as well.
    fn is_death(&self, key: WorkerKey, how: Close) -> bool {
        self.shutdown.is_none() && self.supervision.is_death(key, how)
    }

    /// Handles the end of a worker's connection: its requests are lost, and it has some time to
    /// come back or to end. One that started itself is forgotten. `is_death`: the request that it
    /// had may be the cause.
    fn worker_lost(&mut self, key: WorkerKey, (how, is_death): (Close, bool), why: &str) {
        if let Some(link) = self.dispatch.seat(key).link {
            status::on_status_lost(self, link, self.dispatch.seat(key).id);
        }
        deaths::note_loss(self, key);
        let loss = Loss { is_orderly: how == Close::Eof, is_death, why };
        let had = self.dispatch.lose(key, loss, context!(self));
        self.supervision.lost(key, (how, why), had, context!(self));
    }

    /// Closes the connection of a worker, if it has one, and counts it as lost.
    pub(crate) fn disconnect(&mut self, key: WorkerKey, how: Close, why: &str) {
        let is_death = self.is_death(key, how);
        self.drop_worker(key, (how, is_death), why);
    }

    /// Closes the connection that a worker had before it came back on a new one: it has not died.
    pub(crate) fn replace_link(&mut self, key: WorkerKey) {
        self.drop_worker(key, (Close::Reset, false), "came back on a new connection");
    }

    fn drop_worker(&mut self, key: WorkerKey, end: (Close, bool), why: &str) {
        if let Some(link) = self.dispatch.seat(key).link {
            self.close_link(link);
        }
        self.worker_lost(key, end, why);
    }

    /// Tells a worker to end, and shuts its connection for writing.
    pub(crate) fn ask_to_end(&mut self, key: WorkerKey) {
        if let Some(link) = self.dispatch.seat(key).link {
            self.instances.ends_in_order(link);
            self.out.push(Action::Send { link, frame: Frame::End });
            self.out.push(Action::ShutWrite { link });
        }
    }

    /// `Action::Dial` succeeded, the TLS handshake included.
    pub(crate) fn on_host_opened(
        &mut self,
        link: LinkId,
        name: HostName,
        (fd, must): (i32, Option<Box<Expected>>),
    ) {
        match self.supervision.on_host_opened(link, name, must, context!(self)) {
            Some((key, address)) => {
                self.open_link(link, End::Host(key), Peer { address, fd, ..Peer::default() });
            }
            None => self.out.push(Action::Close { link }),
        }
    }

    /// A link begins.
    pub(crate) fn open_link(&mut self, link: LinkId, end: End, peer: Peer) {
        self.sessions.open(link, end, peer, self.now);
        self.dispatch.flow_mut().open(link);
        self.facts.quotas_mut().opened(link);
    }

    fn free_link(&mut self, link: LinkId) {
        let Some(slot) = self.sessions.connection(link) else { return };
        self.facts.quotas_mut().closed(link, || from(&slot.peer));
        self.dispatch.flow_mut().close(link, &mut self.effects, &mut self.out);
        self.sessions.close(link);
        self.topics.link_gone(link, context!(self));
        self.instances.link_gone(link, context!(self));
        self.store.forget(link);
    }

    /// `Timer::LeftOut`: says what was left out in the last second.
    pub(crate) fn on_left_out_due(&mut self) {
        let sessions = &self.sessions;
        let from =
            |link| sessions.connection(link).map_or_else(String::new, |slot| from(&slot.peer));
        let text = self.facts.quotas_mut().tell(from);
        self.record(FactKind::FactsLeftOut, About::default(), text);
    }

    /// Closes a link because of a fault of its peer, and records why. Its end counts as a reset
    /// (`Close::Reset`), so requests that its worker has may have run.
    pub(crate) fn drop_link(&mut self, link: LinkId, why: String) {
        let Some(slot) = self.sessions.connection(link) else { return };
        let (class, end, from) = (class_of(&slot.end), slot.end, from(&slot.peer));
        if self.may_cause(class, Some(link)) {
            let (name, mut about) = self.name_of(&end);
            about.who = Some(from);
            self.record(FactKind::LinkClosed, about, format!("{name}: {why}"));
        }
        self.out.push(Action::Close { link });
        self.link_gone(link, Close::Reset, &why);
    }

    /// Closes a link whose outbox is over its own limit, or a client's that has much of the sum
    /// over all outboxes while that is over its limit.
    pub(crate) fn on_outbox_full(&mut self, link: LinkId, bytes: u64) {
        let max = self.settings.get(Setting::OutboxBytesMax);
        let limit = if bytes > max {
            format!("outbox_bytes_max is {max}")
        } else {
            let all = self.settings.get(Setting::OutboxesBytesMax);
            format!("in all outboxes more than {all}, outboxes_bytes_max")
        };
        self.drop_link(link, format!("outbox is full ({bytes} bytes wait, {limit}); closing it"));
    }

    /// Sends the peer an error, records it, and closes the link.
    pub(crate) fn refuse_link(&mut self, link: LinkId, error: ErrorBody) {
        self.refuse_because(link, error, None);
    }

    /// As [`refuse_link`](Self::refuse_link), with a `detail` that only the fact has and the peer
    /// does not get.
    pub(crate) fn refuse_because(
        &mut self,
        link: LinkId,
        mut error: ErrorBody,
        detail: Option<&str>,
    ) {
        let Some(slot) = self.sessions.connection(link) else { return };
        if let End::Client(key) = slot.end
            && error.ran == Ran::No
            && !self.dispatch.caller(key).in_flight.is_empty()
        {
            // The error is about the connection, and requests that are under way on it may have
            // run.
            error.ran = Ran::Maybe;
        }
        if let End::Worker(key) = slot.end {
            self.supervision.refused(key);
        }
        let (end, from) = (slot.end, from(&slot.peer));
        if let Some(pid) = slot.peer.pid.filter(|_| end == End::NewWorker) {
            self.supervision.note_refused(pid, &error.text);
        }
        if self.may_cause(class_of(&end), Some(link)) {
            let (name, mut about) = self.name_of(&end);
            let kind = match end {
                End::NewClient | End::NewWorker => FactKind::LoginRefused,
                End::Client(_) | End::Worker(_) | End::Host(_) | End::Free => FactKind::LinkClosed,
            };
            let detail = detail.map_or_else(String::new, |detail| format!(" ({detail})"));
            let said = show::brief(&error.text, LINE_BYTES_MAX);
            let text = format!("{name} at {from}: {}: {said}{detail}", error.code);
            about.who = Some(from);
            about.values = error_values(&error);
            self.record(kind, about, text);
        }
        let why = format!("was closed: {}", error.code);
        self.out.push(Action::Send { link, frame: Frame::refusal(error) });
        self.out.push(Action::Close { link });
        // What it sent shows that its machine is reached, as an end that its machine sends does.
        self.link_ended(link, (Close::Reset, Close::Torn), &why);
    }

    /// The name of an end in facts, and its ids.
    pub(crate) fn name_of(&self, end: &End) -> (String, About) {
        let mut about = About::default();
        let name = match end {
            End::Free => "a closed link".to_owned(),
            End::NewClient => "a program on the client port".to_owned(),
            End::NewWorker => "a program on the worker port".to_owned(),
            End::Client(key) => {
                about.client = Some(self.sessions.client(*key).id);
                format!("client {}", self.sessions.client(*key).id)
            }
            End::Worker(key) => {
                about = self.supervision.about_worker(*key, &self.catalog);
                format!("worker {}", self.supervision.worker(*key).id)
            }
            End::Host(key) => {
                about.host = Some(self.supervision.host(*key).name.clone());
                format!("host {}", self.supervision.host(*key).name)
            }
        };
        (name, about)
    }

    /// Handles a frame of a worker that is no valid reply: its request fails, and its connection is
    /// closed.
    pub(crate) fn bad_worker(&mut self, link: LinkId, text: String) {
        let Some(End::Worker(key)) = self.sessions.end(link) else { return };
        self.dispatch.on_bad_reply(link, (key, None), text, context!(self));
    }

    pub(crate) fn on_garbage(&mut self, link: LinkId, error: WireError) {
        let Some(slot) = self.sessions.connection(link) else { return };
        let body = ErrorBody::new(error.code, error.text.clone());
        match (slot.end, error.skip) {
            (End::Client(_) | End::Worker(_), Some(_)) if error.is_publish => {
                let head = Header { sequence: error.sequence, ..Header::default() };
                self.out.push(Action::Send { link, frame: Frame::Error { head, error: body } });
            }
            (End::Worker(_), _) => self.bad_worker(link, error.text),
            (End::Client(key), Some(_)) => self.dispatch.on_skipped(key, &error, context!(self)),
            (End::Host(key), _) => {
                if self.may_cause(Class::Host, Some(link)) {
                    let about = About {
                        host: Some(self.supervision.host(key).name.clone()),
                        ..About::default()
                    };
                    let said = show::brief(&error.text, TEXT_BYTES_MAX);
                    let text = format!("execd sent garbage: {said}");
                    self.record(FactKind::HostError, about, text);
                }
                self.drop_link(link, "sent what is no frame".into());
            }
            (End::Client(_) | End::NewClient | End::NewWorker | End::Free, _) => {
                self.refuse_link(link, body);
            }
        }
    }

    /// A client that logs out is gone. A worker takes no further request, and closes its connection
    /// when it has answered those that it has.
    pub(crate) fn on_logout(&mut self, link: LinkId, received: Option<u32>) {
        self.instances.ends_in_order(link);
        match self.sessions.end(link) {
            Some(End::Worker(key)) => {
                self.dispatch.log_out(key, received, context!(self));
                self.supervision.logged_out(key, context!(self));
            }
            Some(_) => {
                self.out.push(Action::Close { link });
                self.link_gone(link, Close::Eof, "logged out");
            }
            None => {}
        }
    }

    pub(crate) fn on_peer_error(
        &mut self,
        link: LinkId,
        (worker, run): (WorkerId, RunId),
        error: &ErrorBody,
    ) {
        let Some(slot) = self.sessions.connection(link) else { return };
        let end = slot.end;
        if let (End::Host(key), ErrorCode::ShuttingDown, 0) = (end, error.code, worker.0)
            && self.supervision.on_host_shutdown(link, key, context!(self))
        {
            return;
        }
        if self.may_cause(class_of(&end), Some(link)) {
            let (name, mut about) = self.name_of(&end);
            about.values = error_values(error);
            let kind = match end {
                End::Host(_) => FactKind::HostError,
                End::Client(_) | End::Worker(_) | End::NewClient | End::NewWorker | End::Free => {
                    FactKind::PeerError
                }
            };
            let text = show::brief(&error.text, TEXT_BYTES_MAX);
            let error = ErrorBody { text, ..error.clone() };
            self.record(kind, about, format!("{name} says: {error}"));
        }
        match end {
            // Before its welcome, an error about the connection means that it does not serve this
            // broker.
            End::Host(key) if worker.0 == 0 && self.supervision.is_awaiting_welcome(key) => {
                let said = show::brief(&error.text, TEXT_BYTES_MAX);
                self.close_link(link);
                let why = format!("its execd refused the broker: {said}");
                self.supervision.host_down(key, why, context!(self));
            }
            End::Host(key) if error.code == ErrorCode::NotFound => {
                let start = (worker, run);
                self.supervision.on_nobody_to_stop(link, key, start, context!(self));
            }
            // A program that is not logged in can only complain of its login, so that has failed.
            End::NewClient | End::NewWorker => self.close_link(link),
            End::Host(_) | End::Client(_) | End::Worker(_) | End::Free => {}
        }
    }
}

/// What facts say of an error.
fn error_values(error: &ErrorBody) -> Values {
    Values { error: Some(error.code), ran: Some(error.ran), ..Values::default() }
}

/// The class that facts about this end are counted in.
pub(crate) const fn class_of(end: &End) -> Class {
    match end {
        End::Free | End::NewClient | End::NewWorker => Class::PreLogin,
        End::Client(_) | End::Worker(_) => Class::LoggedIn,
        End::Host(_) => Class::Host,
    }
}
