//! The attached clients (the manual's priority list), as they introduced themselves. `dispatch` has
//! their requests.

use crate::engine::keys::{ClientKey, Table};
use crate::engine::operator_act::OperatorAct;
use protocol::{ClientId, Format, LinkId, Login, Tick};
use std::collections::BTreeMap;

/// An attached client.
#[derive(Debug)]
pub(crate) struct Client {
    /// Counted up from 0 at each login.
    pub(crate) id: ClientId,
    /// Its connection, from its login until it is gone.
    pub(crate) link: LinkId,
    /// Host name that it gave at its login; not checked.
    pub(crate) loghost: String,
    /// Process id that it gave at its login; not checked.
    pub(crate) hostpid: u32,
    /// Name of the program that it gave at its login; not checked. Independent of all else: it
    /// never changes.
    pub(crate) name: Option<String>,
    /// Form in which the answers of `op` are sent to it.
    pub(crate) format: Format,
    /// It promised at its login to answer pings, and can. Independent of all else: only a client
    /// that closes its side can't any more.
    pub(crate) heartbeat: bool,
    /// The last `block`: its tick and its origin. Valid while it is blocked (`Caller::is_blocked`).
    pub(crate) block_act: Option<Box<OperatorAct>>,
    /// When it logged in.
    pub(crate) since: Tick,
}

/// All attached clients, `op`'s included.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    table: Table<ClientKey, Client>,
    ids: BTreeMap<ClientId, ClientKey>,
    /// The id of the next client (`isdData.NextClientID`).
    pub(super) next_id: u32,
    /// How many of them promised to answer pings.
    pub(super) heartbeats: usize,
}

impl Client {
    /// A client that logs in now; [`Clients::add`] gives it its id.
    pub(super) fn new(link: LinkId, login: Login, now: Tick) -> Self {
        Self {
            id: ClientId(0),
            link,
            loghost: login.loghost,
            hostpid: login.hostpid,
            name: login.name,
            format: login.format,
            heartbeat: login.heartbeat,
            block_act: None,
            since: now,
        }
    }
}

impl Clients {
    /// Adds a client, with the next id.
    pub(super) fn add(&mut self, mut client: Client) -> (ClientKey, ClientId) {
        let id = ClientId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        self.heartbeats += usize::from(client.heartbeat);
        client.id = id;
        let key = self.table.insert(client);
        self.ids.insert(id, key);
        (key, id)
    }

    /// Removes a client.
    pub(super) fn remove(&mut self, key: ClientKey) -> Client {
        let client = self.table.remove(key);
        self.ids.remove(&client.id);
        self.heartbeats -= usize::from(client.heartbeat);
        client
    }

    /// A client can answer no pings from now on.
    pub(crate) fn forget_heartbeat(&mut self, key: ClientKey) {
        self.heartbeats -= usize::from(std::mem::take(&mut self.table[key].heartbeat));
    }

    /// The client with this id, if it is attached.
    pub(crate) fn find(&self, id: ClientId) -> Option<ClientKey> {
        self.ids.get(&id).copied()
    }

    /// Number of attached clients (`isdData.PriList`).
    pub(crate) fn count(&self) -> usize {
        self.table.len()
    }

    /// All attached clients in the order of their ids.
    pub(crate) fn by_id(&self) -> impl Iterator<Item = (ClientKey, &Client)> {
        self.ids.values().map(|&key| (key, &self.table[key]))
    }

    /// Gives back the memory of the free slots at the end.
    pub(crate) fn shrink(&mut self) {
        self.table.shrink_to_fit();
    }

    /// The client with this key, which may be gone.
    pub(crate) fn get(&self, key: ClientKey) -> Option<&Client> {
        self.table.get(key)
    }
}

impl std::ops::Index<ClientKey> for Clients {
    type Output = Client;
    fn index(&self, key: ClientKey) -> &Client {
        &self.table[key]
    }
}

impl std::ops::IndexMut<ClientKey> for Clients {
    fn index_mut(&mut self, key: ClientKey) -> &mut Client {
        &mut self.table[key]
    }
}
