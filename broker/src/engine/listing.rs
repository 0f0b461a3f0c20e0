//! Long listings (`clients`, `workers`, `queue`), made part by part, one part in a step, so that
//! requests are served in between and a listing of 10,000 entries delays nobody by a measurable
//! time. Which entries are listed is fixed at the beginning; each row shows its entry at the moment
//! at which it is made. The rows come from `op_read` and `op_show`.

use super::due::Due;
use super::keys::{ServiceKey, TransactionKey};
use super::links::End;
use super::op_run::{OpResult, refused};
use super::transaction::Stage;
use super::workers::WorkerList;
use super::{Engine, Out};
use protocol::header::Header;
use protocol::ids::{ClientId, LinkId, TransactionId, WorkerId};
use protocol::names::ServiceName;
use protocol::op::parse::OpError;
use protocol::op::reply::{OpReply, Value};
use protocol::op::spec::{Command, OpRequest, WorkerFilter};
use protocol::time::Tick;
use std::collections::VecDeque;

/// Most rows made in one step.
const PART_ROWS: usize = 128;
/// Most listings that may be under way at once.
const LISTINGS_MAX: usize = 32;

/// The rows of a table.
pub(crate) type Rows = Vec<Vec<Value>>;

/// A listing under way: the entries whose rows are still to be made, and the rows made so far.
#[derive(Debug)]
pub(crate) enum Listing {
    Clients {
        left: VecDeque<ClientId>,
        rows: Rows,
    },
    Workers {
        filter: WorkerFilter,
        left: VecDeque<WorkerId>,
        /// Rows of the lists LAZY, IDLE and BUSY.
        rows: [Rows; 3],
    },
    Queue {
        left: VecDeque<(TransactionKey, TransactionId)>,
        rows: Rows,
        /// The services that requests wait for.
        services: Vec<WaitingCount>,
    },
}

/// The requests that wait for one service.
#[derive(Debug)]
pub(crate) struct WaitingCount {
    service: ServiceKey,
    pub(crate) name: ServiceName,
    /// Number of rows of this service so far.
    pub(crate) count: usize,
    /// Why no worker serves them.
    pub(crate) why: String,
}

/// A listing under way, and the command that it answers.
#[derive(Debug)]
struct OpenListing {
    link: LinkId,
    head: Header,
    listing: Listing,
}

/// The listings under way, which take turns.
#[derive(Debug, Default)]
pub(crate) struct Listings(VecDeque<OpenListing>);

impl Listing {
    /// How many rows are still to be made at most.
    fn left(&self) -> usize {
        match self {
            Self::Clients { left, .. } => left.len(),
            Self::Workers { left, .. } => left.len(),
            Self::Queue { left, .. } => left.len(),
        }
    }

    /// The answer, made of the rows.
    fn reply(self) -> OpReply {
        match self {
            Self::Clients { rows, .. } => Engine::clients_table(rows),
            Self::Workers { filter, rows, .. } => Engine::workers_tables(filter, rows),
            Self::Queue { rows, services, .. } => {
                Engine::queue_tables(rows, services).complete(Command::Queue)
            }
        }
    }
}

impl Engine {
    /// Begins a listing of all clients, in the order in which they are served.
    fn begin_clients(&self) -> Listing {
        let mut all: Vec<_> = self.clients.by_id().map(|(_, c)| (c.priority, c.id)).collect();
        all.sort_unstable();
        let left: VecDeque<ClientId> = all.into_iter().map(|(_, id)| id).collect();
        Listing::Clients { rows: Vec::with_capacity(left.len()), left }
    }

    /// Begins a listing of the workers in the lists that a filter names, by id.
    fn begin_workers(&self, filter: WorkerFilter) -> Listing {
        let is_meant = |list| filter == WorkerFilter::All || filter == filter_of(list);
        let left = self.workers.by_id().filter(|(_, w)| is_meant(w.list)).map(|(_, w)| w.id);
        Listing::Workers { filter, left: left.collect(), rows: Default::default() }
    }

    /// Begins a listing of the requests that wait for one service or for all: for each service
    /// those in its queue, in serving order, then those that are blocked or held.
    fn begin_queue(&self, service: Option<&ServiceName>) -> Result<Listing, OpError> {
        let keys = match service {
            Some(name) => vec![self.service_named(name)?],
            None => self.registry.keys(),
        };
        // One pass over the transactions, however many services there are.
        let mut others: Vec<(ServiceKey, TransactionKey)> = self
            .transactions
            .iter()
            .filter(|(_, t)| matches!(t.stage, Stage::Blocked | Stage::Held(_)) && !t.is_ended)
            .map(|(at, t)| (t.service, at))
            .collect();
        others.sort_unstable();
        let mut left = VecDeque::new();
        let with_id = |at: TransactionKey| (at, self.transactions[at].id);
        for key in keys {
            left.extend(self.registry[key].queue.iter(&self.transactions).map(with_id));
            let first = others.partition_point(|(service, _)| *service < key);
            let mine = others[first..].iter().take_while(|(service, _)| *service == key);
            left.extend(mine.map(|(_, at)| with_id(*at)));
        }
        Ok(Listing::Queue { rows: Vec::with_capacity(left.len()), left, services: Vec::new() })
    }

    /// Makes up to `most` further rows. Entries that are gone by now are left out.
    fn make_rows(&self, listing: &mut Listing, most: usize) {
        let part = most.min(listing.left());
        match listing {
            Listing::Clients { left, rows } => {
                let keys = left.drain(..part).filter_map(|id| self.clients.find(id));
                rows.extend(keys.map(|key| self.client_row(&self.clients[key])));
            }
            Listing::Workers { left, rows, .. } => {
                for key in left.drain(..part).filter_map(|id| self.workers.find(id)) {
                    let worker = &self.workers[key];
                    rows[list_index(worker.list)].push(self.worker_row(key, worker));
                }
            }
            Listing::Queue { left, rows, services } => {
                for (at, id) in left.drain(..part) {
                    let found = self.transactions.get(at).filter(|t| t.id == id && !t.is_ended);
                    let Some((stage, service)) = found.map(|t| (t.stage, t.service)) else {
                        continue;
                    };
                    if matches!(stage, Stage::Bound(_)) {
                        continue;
                    }
                    rows.push(self.queue_row(at));
                    match services.iter_mut().rfind(|waiting| waiting.service == service) {
                        Some(waiting) => waiting.count += 1,
                        None => services.push(WaitingCount {
                            service,
                            name: self.registry[service].name.clone(),
                            count: 1,
                            why: self.why_waiting(service, stage),
                        }),
                    }
                }
            }
        }
    }

    /// Begins the listing that a command asks for.
    fn listing_of(&self, request: &OpRequest) -> Result<Listing, OpError> {
        if let OpRequest::Workers(filter) = request {
            Ok(self.begin_workers(*filter))
        } else if let OpRequest::Queue(service) = request {
            self.begin_queue(service.as_ref())
        } else {
            Ok(self.begin_clients())
        }
    }

    /// The whole listing in one step, for scripts.
    pub(crate) fn list_whole(&self, request: &OpRequest) -> OpResult {
        self.listing_of(request).map(|listing| self.end(listing))
    }

    /// Makes the rows that are left, and the answer.
    fn end(&self, mut listing: Listing) -> OpReply {
        self.make_rows(&mut listing, usize::MAX);
        listing.reply()
    }

    /// Handles `clients`, `workers` and `queue` of an operator. Returns the answer if the list is
    /// short or refused; `None` = the answer comes part by part.
    pub(crate) fn list(
        &mut self,
        link: LinkId,
        head: Header,
        request: &OpRequest,
    ) -> Option<OpResult> {
        let listing = match self.listing_of(request) {
            Ok(listing) if listing.left() <= PART_ROWS => return Some(Ok(self.end(listing))),
            Ok(listing) => listing,
            Err(error) => return Some(Err(error)),
        };
        if self.listings.0.len() >= LISTINGS_MAX {
            let text = format!("{LISTINGS_MAX} long listings are being made already; try again");
            return Some(Err(refused(text)));
        }
        self.listings.0.push_back(OpenListing { link, head, listing });
        self.go_on_listing();
        None
    }

    /// Sets the timer for the next part, if a listing is under way.
    fn go_on_listing(&mut self) {
        if !self.listings.0.is_empty() {
            // At the next tick, so after everything that can be done now.
            self.due.add(Tick(self.now.0 + 1), Due::Listing);
        }
    }

    /// `Due::Listing`: makes the next part of the listing whose turn it is.
    pub(crate) fn on_listing(&mut self, out: Out<'_>) {
        let Some(mut order) = self.listings.0.pop_front() else { return };
        let requester = self.links.get(order.link).map(|slot| slot.end);
        if let Some(End::Client(requester)) = requester {
            self.make_rows(&mut order.listing, PART_ROWS);
            if order.listing.left() == 0 {
                self.answer(requester, &order.head, Ok(order.listing.reply()), out);
            } else {
                self.listings.0.push_back(order);
            }
        }
        self.go_on_listing();
    }
}

const fn filter_of(list: WorkerList) -> WorkerFilter {
    match list {
        WorkerList::Lazy => WorkerFilter::Lazy,
        WorkerList::Idle => WorkerFilter::Idle,
        WorkerList::Busy => WorkerFilter::Busy,
    }
}

const fn list_index(list: WorkerList) -> usize {
    match list {
        WorkerList::Lazy => 0,
        WorkerList::Idle => 1,
        WorkerList::Busy => 2,
    }
}
