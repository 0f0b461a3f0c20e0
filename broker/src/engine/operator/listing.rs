//! Makes long listings (`clients`, `workers`, `queue`, `requests`) part by part, one part in a
//! step, so that requests are served in between and a listing of 10,000 entries delays nobody by a
//! measurable time. Which entries are listed is fixed at the beginning; each row shows its entry at
//! the moment at which it is made. `read`, `show` and `requests` make the rows.

use super::answer;
use super::cells::number;
use super::names;
use super::read;
use super::requests;
use super::show;
use crate::engine::dispatch::seat::WorkerList;
use crate::engine::dispatch::stage::Stage;
use crate::engine::hub::{Engine, Out};
use crate::engine::operator::open_listing::Listing;
use crate::engine::operator::open_listing::OpenListing;
use crate::engine::operator::open_listing::WaitingCount;
use crate::engine::operator::result::OpResult;
use crate::engine::operator::result::refused;
use crate::engine::sessions::connection::End;
use crate::engine::timers::Timer;
use protocol::header::Header;
use protocol::ids::{ClientId, LinkId};
use protocol::names::ServiceName;
use protocol::op::parse::OpError;
use protocol::op::reply::{Block, OpReply};
use protocol::op::spec::{Command, OpRequest, WorkerFilter};
use protocol::time::Tick;
use std::collections::VecDeque;

/// Most rows made in one step.
const PART_ROWS: usize = 128;
/// Most rows of an answer; the others are counted. So many take less than `outbox_bytes_max` has by
/// default, beyond which the operator's connection would be closed.
const ROWS_MAX: usize = 50_000;
/// Most rows of all listings under way, those that are still to be made among them: they take
/// memory.
const ROWS_UNDER_WAY_MAX: usize = 2 * ROWS_MAX;
/// Most listings that may be under way at once.
const LISTINGS_MAX: usize = 32;

impl Listing {
    /// How many rows are still to be made at most.
    fn left(&self) -> usize {
        match self {
            Self::Clients { left, .. } => left.len(),
            Self::Workers { left, .. } => left.len(),
            Self::Queue { left, .. } | Self::Requests { left, .. } => left.len(),
        }
    }

    fn rows(&self) -> usize {
        match self {
            Self::Clients { rows, .. } | Self::Requests { rows, .. } | Self::Queue { rows, .. } => {
                rows.len()
            }
            Self::Workers { rows, .. } => rows.iter().map(Vec::len).sum(),
        }
    }

    /// How many rows it will have at most.
    fn most_rows(&self) -> usize {
        (self.rows() + self.left()).min(ROWS_MAX)
    }

    fn reply(self, left_out: usize) -> OpReply {
        let mut reply = match self {
            Self::Clients { rows, .. } => read::clients_table(rows),
            Self::Workers { filter, rows, .. } => show::workers_tables(filter, rows),
            Self::Requests { rows, .. } => requests::requests_table(rows),
            Self::Queue { rows, services, .. } => {
                read::queue_tables(rows, services).complete(Command::Queue)
            }
        };
        if left_out > 0 {
            let text =
                format!("{left_out} more are not shown: an answer has at most {ROWS_MAX} rows");
            let fields = vec![("rows", number(left_out))];
            reply.blocks.push(Block::Line { name: "left_out", text, fields });
        }
        reply
    }
}

/// Begins a listing of all clients, in the order in which they are served.
fn begin_clients(hub: &Engine) -> Listing {
    let all = hub.sessions.clients().map(|(key, c)| (hub.dispatch.caller(key).priority, c.id));
    let mut all: Vec<_> = all.collect();
    all.sort_unstable();
    let left: VecDeque<ClientId> = all.into_iter().map(|(_, id)| id).collect();
    Listing::Clients { rows: Vec::with_capacity(left.len().min(ROWS_MAX)), left }
}

/// Begins a listing of the workers in the lists that a filter names, by id.
fn begin_workers(hub: &Engine, filter: WorkerFilter) -> Listing {
    let is_meant = |list| filter == WorkerFilter::All || filter == filter_of(list);
    let left = hub.supervision.workers().filter(|(key, _)| is_meant(hub.dispatch.seat(*key).list));
    let left = left.map(|(_, w)| w.id);
    Listing::Workers { filter, left: left.collect(), rows: Default::default() }
}

/// Begins a listing of the requests that wait for one service or for all: for each service
/// those in its queue, in serving order, then those that are blocked or held.
fn begin_queue(hub: &Engine, service: Option<&ServiceName>) -> Result<Listing, OpError> {
    let keys = match service {
        Some(name) => vec![names::service_named(hub, name)?],
        None => hub.catalog.keys(),
    };
    // One pass over the transactions, however many services there are.
    let all = hub.dispatch.transactions();
    let others = all.filter(|(_, t)| matches!(t.stage, Stage::Blocked | Stage::Held(_)));
    let mut others: Vec<_> = others.map(|(at, t)| (t.service, at, t.id)).collect();
    others.sort_unstable();
    let mut left = VecDeque::new();
    for key in keys {
        left.extend(hub.dispatch.waiting(key).map(|(at, t)| (at, t.id)));
        let first = others.partition_point(|(service, ..)| *service < key);
        let mine = others[first..].iter().take_while(|(service, ..)| *service == key);
        left.extend(mine.map(|(_, at, id)| (*at, *id)));
    }
    Ok(Listing::Queue {
        rows: Vec::with_capacity(left.len().min(ROWS_MAX)),
        left,
        services: Vec::new(),
    })
}

/// Makes up to `most` further rows. Entries that are gone by now are passed over. Returns how many
/// there was no room for.
fn make_rows(hub: &Engine, listing: &mut Listing, most: usize) -> usize {
    let part = most.min(listing.left());
    let (mut room, mut left_out) = (ROWS_MAX.saturating_sub(listing.rows()), 0);
    let mut has_room = || {
        left_out += usize::from(room == 0);
        room = room.saturating_sub(1);
        left_out == 0
    };
    match listing {
        Listing::Clients { left, rows } => {
            let keys = left.drain(..part).filter_map(|id| hub.sessions.find_client(id));
            rows.extend(keys.filter(|_| has_room()).map(|key| read::client_row(hub, key)));
        }
        Listing::Workers { left, rows, .. } => {
            let keys = left.drain(..part).filter_map(|id| hub.supervision.find_worker(id));
            for key in keys.filter(|_| has_room()) {
                let worker = hub.supervision.worker(key);
                rows[list_index(hub.dispatch.seat(key).list)]
                    .push(show::worker_row(hub, key, worker));
            }
        }
        Listing::Requests { left, rows } => {
            for (at, id) in left.drain(..part) {
                let found = hub.dispatch.transaction(at).filter(|t| t.id == id);
                if let Some(t) = found.filter(|_| has_room()) {
                    rows.push(requests::request_row(hub, t));
                }
            }
        }
        Listing::Queue { left, rows, services } => {
            for (at, id) in left.drain(..part) {
                let is_held = |stage| matches!(stage, Stage::Held(_));
                let found = hub.dispatch.transaction(at).filter(|t| t.id == id);
                let found = found.filter(|t| t.stage.waits() || is_held(t.stage));
                let Some(t) = found else { continue };
                let (stage, service) = (t.stage, t.service);
                if has_room() {
                    rows.push(read::queue_row(hub, at, t));
                }
                match services.iter_mut().rfind(|crowd| crowd.service == service) {
                    Some(crowd) => crowd.count += 1,
                    None => services.push(WaitingCount {
                        service,
                        name: hub.catalog[service].name.clone(),
                        count: 1,
                        why: read::why_waiting(hub, service, stage),
                    }),
                }
            }
        }
    }
    left_out
}

/// Begins the listing that a command asks for.
fn listing_of(hub: &Engine, request: &OpRequest) -> Result<Listing, OpError> {
    if let OpRequest::Workers(filter) = request {
        Ok(begin_workers(hub, *filter))
    } else if let OpRequest::Queue(service) = request {
        begin_queue(hub, service.as_ref())
    } else if let OpRequest::Requests(of) = request {
        let left = requests::chosen(hub, of)?;
        Ok(Listing::Requests { rows: Vec::with_capacity(left.len().min(ROWS_MAX)), left })
    } else {
        Ok(begin_clients(hub))
    }
}

/// The whole listing in one step, for scripts.
pub(crate) fn list_whole(hub: &Engine, request: &OpRequest) -> OpResult {
    listing_of(hub, request).map(|listing| end(hub, listing))
}

fn end(hub: &Engine, mut listing: Listing) -> OpReply {
    let left_out = make_rows(hub, &mut listing, usize::MAX);
    listing.reply(left_out)
}

/// Handles `clients`, `workers`, `queue` and `requests` of an operator. Returns the answer if the
/// list is short or refused; `None` = the answer comes part by part.
pub(crate) fn list(
    hub: &mut Engine,
    link: LinkId,
    head: Header,
    request: &OpRequest,
) -> Option<OpResult> {
    let listing = match listing_of(hub, request) {
        Ok(listing) if listing.left() <= PART_ROWS => return Some(Ok(end(hub, listing))),
        Ok(listing) => listing,
        Err(error) => return Some(Err(error)),
    };
    let others = &hub.listings.0;
    let rows: usize = others.iter().map(|open| open.listing.most_rows()).sum();
    if others.len() >= LISTINGS_MAX || rows + listing.most_rows() > ROWS_UNDER_WAY_MAX {
        let text = format!(
            "{} long listings with {rows} rows are being made already; try again",
            others.len()
        );
        return Some(Err(refused(text)));
    }
    hub.listings.0.push_back(OpenListing { link, head, listing, left_out: 0 });
    go_on_listing(hub);
    None
}

fn go_on_listing(hub: &mut Engine) {
    if !hub.listings.0.is_empty() {
        // At the next tick, so after everything that can be done now.
        hub.timers.add(Tick(hub.now.0 + 1), Timer::Listing);
    }
}

/// `Timer::Listing`: makes the next part of the listing whose turn it is.
pub(crate) fn on_listing(hub: &mut Engine, out: Out<'_>) {
    let Some(mut order) = hub.listings.0.pop_front() else { return };
    let requester = hub.sessions.end(order.link);
    if let Some(End::Client(requester)) = requester {
        order.left_out += make_rows(hub, &mut order.listing, PART_ROWS);
        if order.listing.left() == 0 {
            answer::answer(
                hub,
                requester,
                &order.head,
                Ok(order.listing.reply(order.left_out)),
                out,
            );
        } else {
            hub.listings.0.push_back(order);
        }
    }
    go_on_listing(hub);
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
