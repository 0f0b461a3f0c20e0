//! The links of brokers: hello within its time, then frames, ping and silence. Each broker has one
//! link; a newer link of the same broker replaces it. `os` reads and writes the bytes.

use super::action::{Action, Note};
use super::limits::Limits;
use super::proofs::Proving;
use super::{Broker, Engine, Shutdown};
use protocol::bodies::{Child, ExecEnd, ExecHello, ExecListed, ExecWelcome};
use protocol::{
    ErrorBody, ErrorCode, Frame, Header, HostName, Kind, LinkId, PeerGroup, Role, Tick, TokenName,
    WireError,
};
use std::sync::Arc;

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Link {
    /// The broker, once it has said hello.
    pub(super) broker: Option<Arc<str>>,
    /// The tick of its opening or of the last bytes.
    heard: Tick,
    /// The tick of the last ping.
    pinged: Option<Tick>,
    /// The tick of a partial frame's first bytes, and how many bytes of it are there.
    part: Option<(Tick, usize)>,
    pub(super) peer_group: PeerGroup,
    /// How far the link is with proving a token.
    pub(super) proving: Proving,
}

/// Bytes of a partial frame that extend its time by one millisecond.
const BYTES_A_MS: usize = 16;

/// A deadline noticed this many milliseconds late shows that this process or its machine was
/// stopped.
const STANDSTILL_MS: u64 = 250;
/// After such a stop the peers get the lost time and this many milliseconds more.
const HEARING_MS: u64 = 250;

impl Link {
    /// The tick at which the link is gone if nothing more comes. Bytes of a frame count as a sign
    /// of life, but a frame that never becomes whole is not waited for forever.
    fn gone_at(&self, limits: &Limits) -> Tick {
        let silent = self.heard.plus_millis(limits.silence_ms);
        let Some((since, bytes)) = self.part else { return silent };
        silent.min(since.plus_millis(limits.silence_ms + (bytes / BYTES_A_MS) as u64))
    }

    /// The tick at which the link is due for a ping or for its end.
    pub(super) fn due(&self, limits: &Limits) -> Tick {
        if self.broker.is_none() {
            // A proof that waits to be checked does not count as silence.
            let times = if self.proving.is_checked { 3 } else { 1 };
            return self.heard.plus_millis(limits.hello_ms.saturating_mul(times));
        }
        let gone = self.gone_at(limits);
        let ping = self.pinged.unwrap_or(self.heard).max(self.heard).plus_millis(limits.ping_ms);
        gone.min(ping)
    }
}

impl Engine {
    pub(super) fn opened(
        &mut self,
        (link, peer_group): (LinkId, PeerGroup),
        (denied, must_prove): (Option<String>, bool),
    ) {
        let links_max = self.config.limits.links_max;
        if let Some(text) = denied {
            self.refuse(link, 0, (ErrorCode::Denied, text));
        } else if self.shutdown != Shutdown::None {
            self.refuse(link, 0, (ErrorCode::ShuttingDown, "execd is ending".into()));
        } else if self.links.len() >= links_max && !self.make_room(peer_group) {
            let text = format!("execd has {links_max} connections, as many as it may");
            self.refuse(link, 0, (ErrorCode::TooManyConnections, text));
        } else {
            self.links.insert(
                link,
                Link {
                    broker: None,
                    heard: self.now,
                    pinged: None,
                    part: None,
                    peer_group,
                    proving: Proving::new(must_prove),
                },
            );
        }
    }

    pub(super) fn frame(&mut self, id: LinkId, frame: Frame) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.heard = link.heard.max(self.now);
        link.part = None;
        let kind = frame.kind();
        let Some(broker) = link.broker.clone() else {
            if let Frame::ExecHello(hello) = frame {
                self.greeted(id, hello);
            } else if let Frame::Proof(proof) = frame {
                self.proved(id, proof);
            } else {
                let text = format!("the first frame must be exec-hello, not {kind}");
                self.drop_link(id, (ErrorCode::BadState, text));
            }
            return;
        };
        match frame {
            Frame::ExecStart(start) => {
                self.flush_missed(&broker);
                self.start(&broker, start);
            }
            Frame::ExecStop(stop) => self.stop((id, &broker), stop),
            Frame::ExecSignal(signal) => self.signal((id, &broker), signal),
            Frame::ExecList => self.list(id, &broker),
            Frame::ExecRead(read) => self.read_lines(id, &broker, read),
            Frame::ExecEnd(ExecEnd { keep: true, .. }) => self.hand_over(id),
            Frame::ExecEnd(end) => {
                self.flush_missed(&broker);
                self.end(&broker, end.grace_ms);
            }
            Frame::Ping { sequence } => {
                self.out.push(Action::Send { link: id, frame: Frame::Pong { sequence } });
            }
            Frame::Pong { .. } => {}
            Frame::Error { error, .. } => {
                self.out.push(Action::Note(Note::PeerError { broker, text: error.to_string() }));
            }
            Frame::ExecHello(_) => {
                let text = "exec-hello was said before on this connection".into();
                self.drop_link(id, (ErrorCode::BadState, text));
            }
            Frame::Data { .. }
            | Frame::Login(_)
            | Frame::LoginOk(_)
            | Frame::WorkerLogin(_)
            | Frame::WorkerLoginOk(_)
            | Frame::Challenge(_)
            | Frame::Proof(_)
            | Frame::Logout(_)
            | Frame::Cancel { .. }
            | Frame::Flush { .. }
            | Frame::Flushed(_)
            | Frame::Subscribe(_)
            | Frame::Subscribed(_)
            | Frame::Unsubscribe(_)
            | Frame::Unsubscribed(_)
            | Frame::Publish { .. }
            | Frame::Published(_)
            | Frame::Message { .. }
            | Frame::CaughtUp(_)
            | Frame::Announce(_)
            | Frame::Announced(_)
            | Frame::StateChange(_)
            | Frame::Beat(_)
            | Frame::BeatOk(_)
            | Frame::Withdraw(_)
            | Frame::End
            | Frame::Reinit
            | Frame::Status { .. }
            | Frame::StatusReply { .. }
            | Frame::ExecWelcome(_)
            | Frame::ExecListed(_)
            | Frame::ExecStarted(_)
            | Frame::ExecFailed(_)
            | Frame::ExecExited(_)
            | Frame::ExecOutput(_)
            | Frame::ExecLines(_)
            | Frame::ExecMemory(_) => {
                self.drop_link(id, (ErrorCode::BadState, not_for_execd(kind)));
            }
        }
    }

    pub(super) fn hello(&mut self, id: LinkId, hello: &ExecHello, signature: Option<String>) {
        if self.shutdown != Shutdown::None {
            self.drop_link(id, (ErrorCode::ShuttingDown, "execd is ending".into()));
            return;
        }
        if hello.broker.is_empty() {
            let text = "exec-hello frame: 'broker' is empty; it must name the broker".into();
            self.drop_link(id, (ErrorCode::BadLogin, text));
            return;
        }
        let name: Arc<str> = Arc::from(hello.broker.as_str());
        let claim = hello.token.as_ref().filter(|_| signature.is_some());
        let token = claim.map(|claim| claim.token.clone());
        if let Some(text) = self.why_another(&name, &hello.host, token.as_ref()) {
            self.drop_link(id, (ErrorCode::Denied, text));
            return;
        }
        if !self.make_room_for(&name) {
            let text = format!(
                "execd serves {} brokers already, as many as it may",
                self.config.limits.brokers_max
            );
            self.drop_link(id, (ErrorCode::TooManyConnections, text));
            return;
        }
        let broker = self.brokers.entry(Arc::clone(&name)).or_default();
        broker.has_list = false;
        broker.has_ended = false;
        (broker.token, broker.host) = (token, Some(hello.host.clone()));
        let old = broker.link.replace(id);
        if let Some(link) = self.links.get_mut(&id) {
            link.broker = Some(Arc::clone(&name));
        }
        if let Some(old) = old.filter(|old| self.links.remove(old).is_some()) {
            let text = format!("a newer connection of broker '{name}' took over");
            self.refuse(old, 0, (ErrorCode::BadState, text));
        }
        let own = || self.children.values().filter(|child| child.broker == name);
        let older = own().filter(|child| child.is_older).map(|child| child.worker).collect();
        let (children, host) = (own().count(), hello.host.to_string());
        let broker = Arc::clone(&name);
        self.out.push(Action::Note(Note::BrokerUp { link: id, broker, host, children }));
        let welcome = ExecWelcome {
            hostpid: self.config.hostpid,
            version: self.config.version.clone(),
            children_max: self.config.limits.children_max as u64,
            policy: self.config.policy.clone(),
            binary: self.config.binary.clone(),
            hands_over: self.config.hands_over,
            keeps_output: true,
            older,
            signature,
        };
        self.out.push(Action::Send { link: id, frame: Frame::ExecWelcome(welcome) });
    }

    /// Why a broker of this name must be another than the connected one; `None` = it may be the
    /// same. Either the connected one has proved another token, and its workers must not be given
    /// away. Or it calls this machine by another name: then one broker has two names for this
    /// execd, and each link would replace the other and end its workers.
    fn why_another(
        &self,
        name: &Arc<str>,
        host: &HostName,
        token: Option<&TokenName>,
    ) -> Option<String> {
        let known = self.brokers.get(name).filter(|known| known.link.is_some())?;
        if known.token.as_ref() != token {
            return Some(format!("broker '{name}' is connected, and has proved another token"));
        }
        let other = known.host.as_ref().filter(|other| *other != host)?;
        Some(format!(
            "broker '{name}' is connected and calls this machine {other}, not {host}: both are \
             names of one execd; remove one of them ('delete host')"
        ))
    }

    /// Makes room for a broker of this name; returns whether there is room. A broker that is away
    /// and has no children is forgotten for it.
    fn make_room_for(&mut self, name: &Arc<str>) -> bool {
        if self.brokers.contains_key(name) || self.brokers.len() < self.config.limits.brokers_max {
            return true;
        }
        let is_bare = |name: &Arc<str>, broker: &Broker| {
            broker.link.is_none() && !self.children.values().any(|child| child.broker == *name)
        };
        let bare = self.brokers.iter().find(|(name, broker)| is_bare(name, broker));
        let Some(bare) = bare.map(|(name, _)| Arc::clone(name)) else { return false };
        self.brokers.remove(&bare);
        true
    }

    fn list(&mut self, link: LinkId, broker: &Arc<str>) {
        let children = self
            .children
            .values()
            .filter(|child| child.broker == *broker && child.pid != 0 && child.state.has_process())
            .map(|child| Child {
                worker: child.worker,
                run: child.run,
                pid: child.pid,
                digest: child.digest,
            })
            .collect();
        self.out.push(Action::Send { link, frame: Frame::ExecListed(ExecListed { children }) });
        self.flush_missed(broker);
    }

    /// Sends the reports that were kept while the broker was away.
    fn flush_missed(&mut self, name: &Arc<str>) {
        let Some(broker) = self.brokers.get_mut(name) else { return };
        let Some(link) = broker.link else { return };
        broker.has_list = true;
        broker.missed_bytes = 0;
        self.out.extend(broker.missed.drain(..).map(|frame| Action::Send { link, frame }));
    }

    pub(super) fn garbled(&mut self, id: LinkId, error: WireError) {
        if let Some(link) = self.links.remove(&id) {
            self.refuse(id, error.sequence, (error.code, error.text));
            self.left(link, "sent what is no frame");
        }
    }

    pub(super) fn closed(&mut self, id: LinkId, why: &'static str) {
        if let Some(link) = self.links.remove(&id) {
            self.left(link, why);
        }
    }

    pub(super) fn drop_link(&mut self, id: LinkId, error: (ErrorCode, String)) {
        if let Some(link) = self.links.remove(&id) {
            self.refuse(id, 0, error);
            self.left(link, "sent what it may not send");
        }
    }

    /// Closes the link of a broker that answers no ping. It is told why, in case it is still there.
    fn drop_silent(&mut self, id: LinkId) {
        if let Some(link) = self.links.remove(&id) {
            let silence_ms = self.config.limits.silence_ms;
            let text = format!("silent for {silence_ms} ms; pings were not answered");
            self.say_and_close(id, 0, (ErrorCode::IdleTimeout, text));
            self.left(link, "was silent and answered no ping");
        }
    }

    /// Closes a link whose token was removed or renewed. The broker's workers go on.
    pub(super) fn revoked(&mut self, id: LinkId) {
        if let Some(link) = self.links.remove(&id) {
            let text = "the token that was proved was removed or renewed".into();
            self.refuse(id, 0, (ErrorCode::BadToken, text));
            self.left(link, "its token is gone");
        }
    }

    /// Ends this execd without ending a child: the next execd of the state directory adopts them.
    /// Without `hands_over` execd refuses.
    fn hand_over(&mut self, link: LinkId) {
        if self.config.hands_over {
            self.shutdown = Shutdown::Done;
            let why = "another one takes over and adopts the workers";
            self.out.push(Action::Note(Note::ShuttingDown { why, children: self.children.len() }));
            self.out.push(Action::HandOver);
        } else {
            let text = "only an execd that a broker brought along, with a state directory, ends \
                        without its processes";
            let error = ErrorBody::new(ErrorCode::Refused, text);
            let frame = Frame::Error { head: Header::default(), error };
            self.out.push(Action::Send { link, frame });
        }
    }

    /// Forgets a link; if it was a broker's, the broker is away now.
    fn left(&mut self, link: Link, why: &'static str) {
        let Some(name) = link.broker else { return };
        let Some(broker) = self.brokers.get_mut(&name) else { return };
        broker.link = None;
        broker.has_list = false;
        let in_order = broker.has_ended;
        let why = if in_order { "has shut down in order" } else { why };
        let is_bare = broker.missed.is_empty();
        let children = self.children.values().filter(|child| child.broker == name).count();
        if is_bare && children == 0 && !self.brokers[&name].is_shutting_down {
            self.brokers.remove(&name);
        }
        self.not_drained(&name);
        self.out.push(Action::Note(Note::BrokerGone { broker: name, why, in_order, children }));
        if self.config.exits_with_broker && self.shutdown == Shutdown::None {
            self.begin_shutdown("the broker is gone and left no state");
            self.stop_all(None, self.config.limits.shutdown_grace_ms);
        }
    }

    /// Notes that some bytes of a frame came.
    pub(super) fn partial_frame(&mut self, id: LinkId, bytes: usize) {
        // The time for the hello is not extended by its bytes.
        let Some(link) = self.links.get_mut(&id).filter(|link| link.broker.is_some()) else {
            return;
        };
        link.heard = link.heard.max(self.now);
        link.part = Some((link.part.map_or(self.now, |(since, _)| since), bytes));
    }

    /// Corrects the times of all links after this process or its machine was stopped: brokers could
    /// not be heard during that time, and it must not count as their silence.
    fn excuse_standstill(&mut self) {
        let limits = self.config.limits;
        let Some(due) = self.links.values().map(|link| link.due(&limits)).min() else { return };
        let late = self.now.since(due);
        if late.as_millis() < STANDSTILL_MS {
            return;
        }
        let later = |at: Tick| (at + late).plus_millis(HEARING_MS).min(self.now);
        for link in self.links.values_mut() {
            link.heard = later(link.heard);
            link.pinged = link.pinged.map(later);
            link.part = link.part.map(|(since, bytes)| (later(since), bytes));
        }
    }

    pub(super) fn links_due(&mut self) {
        self.excuse_standstill();
        let limits = self.config.limits;
        let due = |link: &Link| link.due(&limits) <= self.now;
        let ids: Vec<LinkId> =
            self.links.iter().filter(|(_, link)| due(link)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(link) = self.links.get_mut(&id) else { continue };
            if link.broker.is_none() {
                let text = format!("no exec-hello within {} ms", limits.hello_ms);
                self.drop_link(id, (ErrorCode::LoginTimeout, text));
            } else if link.gone_at(&limits) <= self.now {
                self.drop_silent(id);
            } else {
                link.pinged = Some(self.now);
                self.out.push(Action::Send { link: id, frame: Frame::Ping { sequence: 0 } });
            }
        }
    }

    /// Logs and sends an error, then closes the link, which the engine does not know (any more).
    fn refuse(&mut self, link: LinkId, sequence: u32, error: (ErrorCode, String)) {
        self.out.push(Action::Note(Note::Refused { link, text: error.1.clone() }));
        self.say_and_close(link, sequence, error);
    }

    fn say_and_close(&mut self, link: LinkId, sequence: u32, (code, text): (ErrorCode, String)) {
        let head = Header { sequence, ..Header::default() };
        let error = ErrorBody::new(code, text);
        self.out.push(Action::Send { link, frame: Frame::Error { head, error } });
        self.out.push(Action::Close { link });
    }
}

fn not_for_execd(kind: Kind) -> String {
    if kind.may_send(Role::Broker) {
        format!("{kind} may not be sent to an execd")
    } else {
        format!("{kind} may not be sent by a broker")
    }
}
