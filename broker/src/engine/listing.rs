//! Long listings are made part by part, a part in a step, so that requests of others are served in
//! between: an operator who lists 10,000 clients costs them nothing they can measure. Not what a
//! row says: `op_read`.

use super::due::Due;
use super::links::End;
use super::op_run::{OpResult, refused};
use super::{Engine, Out};
use protocol::header::Header;
use protocol::ids::{ClientId, LinkId};
use protocol::op::reply::Value;
use protocol::time::Tick;
use std::collections::VecDeque;

/// Most rows made in one step.
pub(crate) const PART_ROWS: usize = 128;
/// Most listings under way at once.
const LISTINGS_MAX: usize = 32;

/// A listing of the clients that is under way.
#[derive(Debug)]
struct Listing {
    /// Who asked.
    link: LinkId,
    head: Header,
    /// Whom it is to show, those that are still to come last.
    ids: VecDeque<ClientId>,
    rows: Vec<Vec<Value>>,
}

/// The listings under way; each gets its turn.
#[derive(Debug, Default)]
pub(crate) struct Listings(VecDeque<Listing>);

impl Engine {
    /// Begins to list the clients for an operator; the answer comes later. `Some`: it is answered
    /// at once, or refused.
    pub(crate) fn list_clients(&mut self, link: LinkId, head: Header) -> Option<OpResult> {
        if self.clients.count() <= PART_ROWS {
            return Some(Ok(self.show_clients()));
        }
        if self.listings.0.len() >= LISTINGS_MAX {
            let text = format!("{LISTINGS_MAX} long listings are being made already; try again");
            return Some(Err(refused(text)));
        }
        let ids = self.clients_in_order();
        let rows = Vec::with_capacity(ids.len());
        self.listings.0.push_back(Listing { link, head, ids, rows });
        self.go_on_listing();
        None
    }

    fn go_on_listing(&mut self) {
        if !self.listings.0.is_empty() {
            // As soon as everything has been done that is there to do.
            self.due.add(Tick(self.now.0 + 1), Due::Listing);
        }
    }

    /// `Due::Listing`: makes the next part of the next listing.
    pub(crate) fn on_listing(&mut self, out: Out<'_>) {
        let Some(mut listing) = self.listings.0.pop_front() else { return };
        let asker = self.links.get(listing.link).map(|slot| slot.end.clone());
        if let Some(End::Client(asker)) = asker {
            let part = PART_ROWS.min(listing.ids.len());
            for id in listing.ids.drain(..part) {
                // One that is gone meanwhile is left out.
                let client = self.clients.find(id).map(|key| &self.clients[key]);
                listing.rows.extend(client.map(|client| self.client_row(client)));
            }
            if listing.ids.is_empty() {
                let reply = Self::clients_table(listing.rows);
                self.answer(asker, &listing.head, Ok(reply), out);
            } else {
                self.listings.0.push_back(listing);
            }
        }
        self.go_on_listing();
    }
}
