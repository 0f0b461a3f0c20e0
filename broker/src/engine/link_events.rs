//! What happens to links: opened, closed by the peer, closed by the broker for a fault, garbage
//! received. Who is at a link, and what its loss means, is known to `clients`, `process`, `hosts`.

use super::action::Action;
use super::clients;
use super::due::Due;
use super::fact::{About, FactKind};
use super::input::{Close, Peer};
use super::keys::ClientKey;
use super::links::End;
use super::quotas::{Class, LINE_BYTES_MAX, TEXT_BYTES_MAX};
use super::{Engine, Out};
use protocol::bodies::ErrorBody;
use protocol::decode::WireError;
use protocol::errors::{ErrorCode, Ran};
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::settings::Setting;
use protocol::show;

impl Engine {
    pub(crate) fn on_opened(&mut self, link: LinkId, end: End, peer: Peer) {
        self.links.open(link, end, peer, self.now);
        let wait = self.settings.get(Setting::LoginMs);
        self.due.add(self.now.plus_millis(wait), Due::Login(link));
    }

    pub(crate) fn on_closed(&mut self, link: LinkId, how: Close, out: Out<'_>) {
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
        self.link_gone(link, how, why, out);
    }

    /// A link is gone, by itself or because it was closed: what that means for who was there.
    pub(crate) fn link_gone(&mut self, link: LinkId, how: Close, why: &str, out: Out<'_>) {
        let Some(end) = self.links.get(link).map(|slot| slot.end) else { return };
        self.links.free(link, out);
        match end {
            End::Free | End::NewClient | End::NewWorker => {}
            End::Client(key) => self.client_gone(key, why, out),
            End::Worker(key) => self.worker_lost(key, how, why, out),
            End::Host(key) => self.host_down(key, format!("its execd {why}"), out),
        }
    }

    /// Closes a link; what follows for who was there is the caller's business.
    pub(crate) fn close_link(&mut self, link: LinkId, out: Out<'_>) {
        if self.links.get(link).is_some() {
            out.push(Action::Close { link });
            self.links.free(link, out);
        }
    }

    /// Drops a link for a fault of its: closes it, with a fact that says why.
    pub(crate) fn drop_link(&mut self, link: LinkId, why: String, out: Out<'_>) {
        let Some(slot) = self.links.get(link) else { return };
        let (class, end, from) = (class_of(&slot.end), slot.end, clients::from(&slot.peer));
        if self.may_cause(class, Some(link)) {
            let (name, mut about) = self.name_of(&end);
            about.who = Some(from);
            self.record(FactKind::LinkClosed, about, format!("{name}: {why}"), out);
        }
        out.push(Action::Close { link });
        self.link_gone(link, Close::Reset, &why, out);
    }

    /// Too much waits for a link, or for all and much of it for this one.
    pub(crate) fn on_outbox_full(&mut self, link: LinkId, bytes: u64, out: Out<'_>) {
        let max = self.settings.get(Setting::OutboxBytesMax);
        let limit = if bytes > max {
            format!("outbox_bytes_max is {max}")
        } else {
            let all = self.settings.get(Setting::OutboxesBytesMax);
            format!("for all clients more than {all}, outboxes_bytes_max")
        };
        self.drop_link(
            link,
            format!("outbox is full ({bytes} bytes wait, {limit}); closing it"),
            out,
        );
    }

    /// Says what is wrong, then closes the link.
    pub(crate) fn refuse_link(&mut self, link: LinkId, error: ErrorBody, out: Out<'_>) {
        self.refuse_because(link, error, None, out);
    }

    /// As [`refuse_link`](Self::refuse_link); `detail` is for the operator alone.
    pub(crate) fn refuse_because(
        &mut self,
        link: LinkId,
        mut error: ErrorBody,
        detail: Option<&str>,
        out: Out<'_>,
    ) {
        let Some(slot) = self.links.get(link) else { return };
        if let End::Client(key) = slot.end
            && error.ran == Ran::No
            && !self.clients[key].in_flight.is_empty()
        {
            // It is said of the connection, and what is under way on it may have run.
            error.ran = Ran::Maybe;
        }
        if let End::Worker(key) = slot.end {
            self.workers[key].is_refused = true;
        }
        let (end, from) = (slot.end, clients::from(&slot.peer));
        self.note_refused(link, &error.text);
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
            self.record(kind, about, text, out);
        }
        let why = format!("was closed: {}", error.code);
        out.push(Action::Send { link, frame: Frame::refusal(error) });
        out.push(Action::Close { link });
        self.link_gone(link, Close::Reset, &why, out);
    }

    /// How an end is named in facts.
    pub(crate) fn name_of(&self, end: &End) -> (String, About) {
        let mut about = About::default();
        let name = match end {
            End::Free => "a closed link".to_owned(),
            End::NewClient => "a program on the client port".to_owned(),
            End::NewWorker => "a program on the worker port".to_owned(),
            End::Client(key) => {
                about.client = Some(self.clients[*key].id);
                format!("client {}", self.clients[*key].id)
            }
            End::Worker(key) => {
                about = self.about_worker(*key);
                format!("worker {}", self.workers[*key].id)
            }
            End::Host(key) => {
                about.host = Some(self.hosts[*key].name.clone());
                format!("host {}", self.hosts[*key].name)
            }
        };
        (name, about)
    }

    /// A login that was let in turns out to be of no start of its worker. Its requests are lost.
    pub(crate) fn refuse_worker(&mut self, link: LinkId, text: String, out: Out<'_>) {
        self.refuse_link(link, ErrorBody::new(ErrorCode::BadWorkerLogin, text), out);
    }

    /// A worker sent what is no reply: its request fails, it is closed and ended.
    pub(crate) fn bad_worker(&mut self, link: LinkId, text: String, out: Out<'_>) {
        let Some(End::Worker(key)) = self.links.get(link).map(|slot| slot.end) else {
            return;
        };
        if let Some(current) = self.workers[key].current
            && !self.transactions[current].is_ended
        {
            let error = ErrorBody::new(ErrorCode::BadReply, text.clone());
            self.fail(current, error, out);
        }
        self.refuse_link(link, ErrorBody::new(ErrorCode::BadReply, text), out);
    }

    pub(crate) fn on_garbage(&mut self, link: LinkId, error: WireError, out: Out<'_>) {
        let Some(slot) = self.links.get(link) else { return };
        let body = ErrorBody::new(error.code, error.text.clone());
        match (slot.end, error.skip) {
            (End::Worker(_), _) => self.bad_worker(link, error.text, out),
            (End::Client(key), Some(_)) => self.on_oversized(key, &error, body, out),
            (End::Host(key), _) => {
                if self.may_cause(Class::Host, Some(link)) {
                    let about =
                        About { host: Some(self.hosts[key].name.clone()), ..About::default() };
                    let said = show::brief(&error.text, TEXT_BYTES_MAX);
                    let text = format!("execd sent garbage: {said}");
                    self.record(FactKind::HostError, about, text, out);
                }
                self.drop_link(link, "sent what is no frame".into(), out);
            }
            (End::Client(_) | End::NewClient | End::NewWorker | End::Free, _) => {
                self.refuse_link(link, body, out);
            }
        }
    }

    /// A client's data frame was too large: only it is lost, the stream can be trusted. What it was
    /// a piece of can't be whole any more.
    fn on_oversized(&mut self, key: ClientKey, error: &WireError, body: ErrorBody, out: Out<'_>) {
        let sequence = error.sequence;
        let (reply, more) = (u16::from(error.reply), u16::from(error.more));
        let head = Header { sequence, reply, more, ..Header::default() };
        if self.clients[key].is_rest(&head) {
            self.on_rest(key, &head, out);
            return;
        }
        let transaction = self.clients[key].in_flight.get(sequence);
        let piece_of = transaction.filter(|&key| {
            let transaction = &self.transactions[key];
            !transaction.is_complete || transaction.in_conversation
        });
        if let Some(transaction) = piece_of {
            self.fail(transaction, body, out);
            if !error.more {
                self.clients[key].discarded.remove(&sequence);
            }
        } else if !error.more || self.may_come_in_pieces(key, out) {
            // One under way with the same sequence is whole, and goes on.
            self.refuse_request(key, &head, body, out);
        }
    }

    pub(crate) fn on_logout(&mut self, link: LinkId, out: Out<'_>) {
        if self.links.get(link).is_some() {
            out.push(Action::Close { link });
            self.link_gone(link, Close::Eof, "logged out", out);
        }
    }

    pub(crate) fn on_peer_error(
        &mut self,
        link: LinkId,
        (worker, run): (WorkerId, RunId),
        error: &ErrorBody,
        out: Out<'_>,
    ) {
        let Some(slot) = self.links.get(link) else { return };
        let end = slot.end;
        if let (End::Host(key), ErrorCode::ShuttingDown, 0) = (end, error.code, worker.0)
            && self.on_host_shutdown(link, key, out)
        {
            return;
        }
        if self.may_cause(class_of(&end), Some(link)) {
            let (name, about) = self.name_of(&end);
            let kind = match end {
                End::Host(_) => FactKind::HostError,
                End::Client(_) | End::Worker(_) | End::NewClient | End::NewWorker | End::Free => {
                    FactKind::PeerError
                }
            };
            let text = show::brief(&error.text, TEXT_BYTES_MAX);
            let error = ErrorBody { text, ..error.clone() };
            self.record(kind, about, format!("{name} says: {error}"), out);
        }
        match end {
            // Why it does not serve the broker, unless it is about a worker.
            End::Host(key) if worker.0 == 0 && self.is_greeted(key, link) => {
                let said = show::brief(&error.text, TEXT_BYTES_MAX);
                self.close_link(link, out);
                self.host_down(key, format!("its execd refused the broker: {said}"), out);
            }
            End::Host(key) if error.code == ErrorCode::NotFound => {
                self.on_nobody_to_stop(link, key, (worker, run), out);
            }
            // What it could complain of before its login ends its connection.
            End::NewClient | End::NewWorker => {
                self.close_link(link, out);
            }
            End::Host(_) | End::Client(_) | End::Worker(_) | End::Free => {}
        }
    }
}

/// Whose facts those about this end are.
pub(crate) const fn class_of(end: &End) -> Class {
    match end {
        End::Free | End::NewClient | End::NewWorker => Class::PreLogin,
        End::Client(_) | End::Worker(_) => Class::Logged,
        End::Host(_) => Class::Host,
    }
}
