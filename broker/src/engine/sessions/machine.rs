//! The machine `sessions`: knows who is connected, whether it is alive, and what it may do. It owns
//! the connections, the attached clients, and the rights.

use super::access::Access;
use super::clients::{Client, Clients, StartClients};
use super::connection::{Connection, Connections, End};
use crate::engine::input::{Peer, Tokens};
use crate::engine::keys::{ClientKey, HostKey};
use crate::engine::operator_act::OperatorAct;
use protocol::{ClientId, ErrorBody, LinkId, Micros, Rights, ServiceName, Tick};

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    pub(super) links: Connections,
    pub(super) clients: Clients,
    pub(super) access: Access,
    /// The links of clients that proved the secret of a start, by its worker.
    pub(super) started: StartClients,
    /// No new clients are let in (`reject on`).
    pub(super) is_rejecting: bool,
    /// No client is let in any more, operators excepted: the broker ends. Independent of
    /// `is_rejecting`, which an operator says.
    pub(super) is_turning_away: bool,
    /// When the next `Timer::Heartbeat` is.
    pub(super) next_beat: Option<Tick>,
    /// Milliseconds between two of them, as they are now.
    pub(super) beat_ms: u64,
    /// What a client without a connection would be, which there is none of.
    nobody: Peer,
}

/// What others may ask; nothing of it changes anything.
impl Sessions {
    /// A connection that is not gone.
    pub(crate) fn connection(&self, link: LinkId) -> Option<&Connection> {
        self.links.get(link)
    }

    /// Who is at the other end of a link that is not gone.
    pub(crate) fn end(&self, link: LinkId) -> Option<End> {
        self.links.get(link).map(|connection| connection.end)
    }

    /// The client that is logged in at a link.
    pub(crate) fn client_at(&self, link: LinkId) -> Option<ClientKey> {
        let Some(End::Client(key)) = self.end(link) else { return None };
        Some(key)
    }

    /// The host whose execd is at a link.
    pub(crate) fn host_at(&self, link: LinkId) -> Option<HostKey> {
        let Some(End::Host(key)) = self.end(link) else { return None };
        Some(key)
    }

    /// All connections that are not gone.
    pub(crate) fn connections(&self) -> impl Iterator<Item = (LinkId, &Connection)> {
        self.links.iter()
    }

    /// The link with this descriptor (column `fd`).
    pub(crate) fn link_with_fd(&self, fd: i32) -> Option<LinkId> {
        self.links.with_fd(fd)
    }

    pub(crate) fn client(&self, key: ClientKey) -> &Client {
        &self.clients[key]
    }

    /// A client that may be gone.
    pub(crate) fn get_client(&self, key: ClientKey) -> Option<&Client> {
        self.clients.get(key)
    }

    /// The key of a client's id.
    pub(crate) fn find_client(&self, id: ClientId) -> Option<ClientKey> {
        self.clients.find(id)
    }

    /// A client can answer no pings from now on.
    pub(crate) fn forget_heartbeat(&mut self, key: ClientKey) {
        self.clients.forget_heartbeat(key);
    }

    /// All clients, by id.
    pub(crate) fn clients(&self) -> impl Iterator<Item = (ClientKey, &Client)> {
        self.clients.by_id()
    }

    /// How many clients are attached, and the id of the next one.
    pub(crate) fn client_counts(&self) -> (usize, u32) {
        (self.clients.count(), self.clients.next_id)
    }

    /// Who a client is, as the kernel reports it, and its token.
    pub(crate) fn peer(&self, key: ClientKey) -> &Peer {
        let connection = self.links.get(self.clients[key].link);
        connection.map_or(&self.nobody, |connection| &connection.peer)
    }

    /// The rights of a client.
    pub(crate) fn rights_of(&self, key: ClientKey) -> &Rights {
        self.access.rights_of(self.peer(key))
    }

    /// Who may do what.
    pub(crate) const fn access(&self) -> &Access {
        &self.access
    }

    /// Whether no new clients are let in.
    pub(crate) const fn is_rejecting(&self) -> bool {
        self.is_rejecting
    }
}

/// What the hub and its commands change.
impl Sessions {
    /// A link begins.
    pub(crate) fn open(&mut self, link: LinkId, end: End, peer: Peer, now: Tick) {
        self.links.open(link, end, peer, now);
    }

    /// A link is gone.
    pub(crate) fn close(&mut self, link: LinkId) {
        self.forget_start_client(link);
        self.links.free(link);
    }

    /// Something came from a link. Returns the host that is there, if it had been silent.
    pub(crate) fn heard(&mut self, link: LinkId, now: Tick) -> Option<HostKey> {
        let connection = self.links.get_mut(link)?;
        connection.heard = now;
        if std::mem::take(&mut connection.missed) > 0
            && let End::Host(key) = connection.end
        {
            return Some(key);
        }
        None
    }

    /// A link is read again: its silence counts from now on.
    pub(crate) fn read_again(&mut self, link: LinkId) {
        self.links.resumed(link);
    }

    /// Nobody could be heard for this long: nobody's silence counts for it.
    pub(crate) fn put_off(&mut self, late: Micros, now: Tick) {
        self.links.put_off(late, now);
    }

    /// The kernel was asked which user is at a link.
    pub(crate) fn know(&mut self, link: LinkId, uid: Option<u32>, is_owner: bool) {
        if let Some(connection) = self.links.get_mut(link) {
            (connection.peer.uid, connection.peer.is_owner) = (uid, is_owner);
        }
    }

    /// Whether new clients are refused from now on.
    pub(crate) const fn reject(&mut self, is_rejecting: bool) {
        self.is_rejecting = is_rejecting;
    }

    /// Who blocked a client, and when; `None`: it was unblocked.
    pub(crate) fn set_block_act(&mut self, key: ClientKey, act: Option<OperatorAct>) {
        self.clients[key].block_act = act.map(Box::new);
    }

    /// Puts other tokens in force. Returns the rights that held before.
    pub(crate) fn change_tokens(&mut self, tokens: Tokens) -> Access {
        self.access.change(tokens)
    }

    /// Whether tokens are in force.
    pub(crate) const fn has_tokens(&self) -> bool {
        self.access.tokens.is_some()
    }

    /// Why a client, or a worker that started itself, must leave after a change of the tokens.
    pub(crate) fn shut_out(
        &self,
        old: &Access,
        link: LinkId,
        service: (&ServiceName, bool),
    ) -> Option<ErrorBody> {
        self.access.shut_out(old, &self.links.get(link)?.peer, service)
    }

    /// The broker ends: no client is let in any more, operators excepted.
    pub(crate) const fn turn_away(&mut self) {
        self.is_turning_away = true;
    }

    /// Gives up the room that a burst took. Returns for how many links there is room then.
    pub(crate) fn shrink(&mut self) -> usize {
        self.clients.shrink();
        self.links.shrink()
    }
}
