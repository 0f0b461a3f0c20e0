//! Events of links: accepted, closed by the peer, closed by the broker, garbage received. A link
//! that the broker dialled is opened in `hosts` and ends here like the others. What the end of a
//! link means for the client, worker or host at it is decided in `clients`, `process` and `hosts`.

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
    /// A connection was accepted: it must log in within `login_ms`.
    pub(crate) fn on_opened(&mut self, link: LinkId, end: End, peer: Peer) {
        self.links.open(link, end, peer, self.now);
        let wait = self.settings.get(Setting::LoginMs);
        self.due.add(self.now.plus_millis(wait), Due::Login(link));
    }

    /// A connection ended by itself. The text says how, for facts and error texts.
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

    /// Removes a link that ended or was closed, and lets its client, worker or host know. `why`
    /// continues a sentence about it, as in "lost its connection".
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

    /// Closes a link; the caller handles what that means for its client, worker or host.
    pub(crate) fn close_link(&mut self, link: LinkId, out: Out<'_>) {
        if self.links.get(link).is_some() {
            out.push(Action::Close { link });
            self.links.free(link, out);
        }
    }

    /// Closes a link because of a fault of its peer, and records why. Its end counts as a reset
    /// (`Close::Reset`), so requests that its worker has may have run.
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

    /// Closes a link whose outbox is over its own limit, or a client's that has much of the sum
    /// over all outboxes while that is over its limit.
    pub(crate) fn on_outbox_full(&mut self, link: LinkId, bytes: u64, out: Out<'_>) {
        let max = self.settings.get(Setting::OutboxBytesMax);
        let limit = if bytes > max {
            format!("outbox_bytes_max is {max}")
        } else {
            let all = self.settings.get(Setting::OutboxesBytesMax);
            format!("in all outboxes more than {all}, outboxes_bytes_max")
        };
        self.drop_link(
            link,
            format!("outbox is full ({bytes} bytes wait, {limit}); closing it"),
            out,
        );
    }

    /// Sends the peer an error, records it, and closes the link.
    pub(crate) fn refuse_link(&mut self, link: LinkId, error: ErrorBody, out: Out<'_>) {
        self.refuse_because(link, error, None, out);
    }

    /// As [`refuse_link`](Self::refuse_link), with a `detail` that only the fact has and the peer
    /// does not get.
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
            // The error is about the connection, and requests that are under way on it may have
            // run.
            error.ran = Ran::Maybe;
        }
        if let End::Worker(key) = slot.end {
            self.workers[key].is_closed_with_error = true;
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

    /// The name of an end in facts, and its ids.
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

    /// Refuses a worker that is logged in, because its host reports that its start is none of this
    /// worker's. Its requests are lost.
    pub(crate) fn refuse_worker(&mut self, link: LinkId, text: String, out: Out<'_>) {
        self.refuse_link(link, ErrorBody::new(ErrorCode::BadWorkerLogin, text), out);
    }

    /// Handles a frame of a worker that is no valid reply: its request fails, and its connection is
    /// closed.
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

    /// Handles bytes that are no frame, by who sent them: a client may lose a single frame
    /// (`skip`), all others lose their link.
    pub(crate) fn on_garbage(&mut self, link: LinkId, error: WireError, out: Out<'_>) {
        let Some(slot) = self.links.get(link) else { return };
        let body = ErrorBody::new(error.code, error.text.clone());
        match (slot.end, error.skip) {
            (End::Worker(_), _) => self.bad_worker(link, error.text, out),
            (End::Client(key), Some(_)) => self.on_skipped(key, &error, body, out),
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

    /// Handles a data frame of a client whose body is skipped: it is too large, `reply`, `more` or
    /// `deadline_ms` is out of range, or too many bytes of partial frames are set aside already.
    /// The stream is still in step, so only this frame is lost; a request that it was a piece of
    /// can't become complete and fails.
    fn on_skipped(&mut self, key: ClientKey, error: &WireError, body: ErrorBody, out: Out<'_>) {
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
            // A request under way with the same sequence is complete and goes on.
            self.refuse_request(key, &head, body, out);
        }
    }

    /// Closes the link of a client or worker that logged out.
    pub(crate) fn on_logout(&mut self, link: LinkId, out: Out<'_>) {
        if self.links.get(link).is_some() {
            out.push(Action::Close { link });
            self.link_gone(link, Close::Eof, "logged out", out);
        }
    }

    /// Records an error that a peer sent. That of an execd may mean that it shuts down, refuses
    /// this broker, or does not have a process that it was to end.
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
            // Before its welcome, an error about the connection means that it does not serve this
            // broker.
            End::Host(key) if worker.0 == 0 && self.is_awaiting_welcome(key, link) => {
                let said = show::brief(&error.text, TEXT_BYTES_MAX);
                self.close_link(link, out);
                self.host_down(key, format!("its execd refused the broker: {said}"), out);
            }
            End::Host(key) if error.code == ErrorCode::NotFound => {
                self.on_nobody_to_stop(link, key, (worker, run), out);
            }
            // A program that is not logged in can only complain of its login, so that has failed.
            End::NewClient | End::NewWorker => {
                self.close_link(link, out);
            }
            End::Host(_) | End::Client(_) | End::Worker(_) | End::Free => {}
        }
    }
}

/// The class that facts about this end are counted in.
pub(crate) const fn class_of(end: &End) -> Class {
    match end {
        End::Free | End::NewClient | End::NewWorker => Class::PreLogin,
        End::Client(_) | End::Worker(_) => Class::LoggedIn,
        End::Host(_) => Class::Host,
    }
}
