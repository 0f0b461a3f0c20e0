//! Makes lists that may be long part by part, one part in a step, so that requests are served in
//! between and a list of 100,000 entries delays nobody by a measurable time. What is there from the
//! beginning to the end is listed; what comes or goes meanwhile may be, or not. Each row shows its
//! entry at the moment at which it is made. `read`, `show`, `load` and `requests` make the rows.

use super::cells::{number, table};
use super::{answer, groups, instances, names, read, requests, show, topics};
use crate::engine::dispatch::seat::WorkerList;
use crate::engine::dispatch::stage::Stage;
use crate::engine::dispatch::transaction::Transaction;
use crate::engine::fact_log;
use crate::engine::hub::Engine;
use crate::engine::keys::{Key, TransactionKey};
use crate::engine::operator::begin_listing::{
    begin_clients, begin_events, begin_services, begin_workers,
};
use crate::engine::operator::open_listing::{
    ListedRequests, Listing, OpenListing, Order, ROWS_MAX, ServiceTable, WaitingCount,
};
use crate::engine::operator::result::{OpResult, refused};
use crate::engine::sessions::connection::End;
use crate::engine::timers::Timer;
use protocol::{Block, Command, Header, LinkId, OpError, OpReply, OpRequest, ServiceName, Tick};
use std::cmp::Reverse;

/// Most rows made in one step.
const PART_ROWS: usize = 128;
/// Most rows of all listings under way, those that are still to be made among them: they take
/// memory.
const ROWS_UNDER_WAY_MAX: usize = 2 * ROWS_MAX;
/// Slots of the table of requests that are looked at instead of one row that is made.
const SLOTS_EACH: usize = 16;
/// Slots that are looked at when a listing begins.
const SLOTS_AT_ONCE: usize = 2048;
/// Most listings that may be under way at once.
const LISTINGS_MAX: usize = 32;

impl Listing {
    /// How many rows are still to be made at most.
    fn left(&self) -> usize {
        match self {
            Self::Clients { left, .. } => left.len(),
            Self::Workers { left, .. } => left.len(),
            Self::Services { left, .. } => left.len(),
            Self::Hosts { left, .. } => left.len(),
            Self::Events { left, .. } | Self::Ended { left, .. } | Self::Topics { left, .. } => {
                *left
            }
            Self::Instances { left, .. } => left.len(),
            Self::Groups { left, .. } => left.len(),
            Self::Subscriptions { left, .. } => left.left,
            Self::Queue { left, .. } | Self::Requests { left, .. } => {
                left.heap.len() + left.next.map_or(0, |_| PART_ROWS + 1)
            }
        }
    }

    fn rows(&self) -> usize {
        match self {
            Self::Clients { rows, .. } | Self::Requests { rows, .. } | Self::Queue { rows, .. } => {
                rows.len()
            }
            Self::Services { rows, .. }
            | Self::Hosts { rows, .. }
            | Self::Instances { rows, .. }
            | Self::Ended { rows, .. }
            | Self::Groups { rows, .. }
            | Self::Topics { rows, .. }
            | Self::Subscriptions { rows, .. } => rows.len(),
            Self::Events { lines, .. } => lines.len(),
            Self::Workers { rows, .. } => rows.iter().map(Vec::len).sum(),
        }
    }

    /// How many rows it will have at most.
    fn most_rows(&self, hub: &Engine) -> usize {
        let left = match self {
            Self::Queue { left, .. } | Self::Requests { left, .. } => {
                let slots = hub.dispatch.transaction_slots();
                left.heap.len() + left.next.map_or(0, |next| slots.saturating_sub(next))
            }
            Self::Clients { .. }
            | Self::Workers { .. }
            | Self::Services { .. }
            | Self::Hosts { .. }
            | Self::Instances { .. }
            | Self::Ended { .. }
            | Self::Groups { .. }
            | Self::Topics { .. }
            | Self::Subscriptions { .. }
            | Self::Events { .. } => self.left(),
        };
        (self.rows() + left).min(ROWS_MAX)
    }

    fn reply(self, hub: &Engine, left_out: usize) -> OpReply {
        let mut reply = match self {
            Self::Clients { rows, .. } => table("clients", rows),
            Self::Workers { filter, rows, .. } => show::workers_tables(filter, rows),
            Self::Requests { rows, .. } => table("requests", rows),
            Self::Services { of, rows, without, .. } => match of {
                ServiceTable::Names => table("services", rows),
                ServiceTable::Load => table("load", rows),
                ServiceTable::Latency { .. } => show::latency_table(rows, without),
            },
            Self::Hosts { rows, .. } => table("hosts", rows),
            Self::Instances { rows, .. } => table("instances", rows),
            Self::Ended { rows, .. } => table("ended", rows),
            Self::Groups { rows, .. } => table("groups", rows),
            Self::Topics { rows, .. } => topics::topics_table(hub, rows),
            Self::Subscriptions { rows, .. } => table("subscriptions", rows),
            Self::Events { lines, .. } => OpReply { blocks: lines },
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

/// Begins a listing of the requests that wait for one service or for all: for each service
/// those in its queue, in serving order, then those that are blocked or held.
fn begin_queue(hub: &Engine, service: Option<&ServiceName>) -> Result<Listing, OpError> {
    let service = service.map(|name| names::service_named(hub, name)).transpose()?;
    let mut left = ListedRequests { next: Some(0), service, ..ListedRequests::default() };
    look(hub, &mut left, queue_order, SLOTS_AT_ONCE);
    Ok(Listing::Queue { rows: Vec::new(), left, services: Vec::new() })
}

fn queue_order(hub: &Engine, at: TransactionKey, t: &Transaction) -> Option<Order> {
    let of = hub.catalog[t.service].id.0 as usize * 2;
    match t.stage {
        Stage::Waiting => Some((of, t.priority.into(), t.id.0)),
        Stage::Blocked | Stage::Held(_) => Some((of + 1, 0, at.index() as u64)),
        Stage::Bound(_)
        | Stage::Parked(_)
        | Stage::HeldEnded(_)
        | Stage::Ended(_)
        | Stage::ParkedEnded(_)
        | Stage::Lost
        | Stage::Gone => None,
    }
}

/// Looks at further slots of the table of requests.
fn look(
    hub: &Engine,
    found: &mut ListedRequests,
    order: fn(&Engine, TransactionKey, &Transaction) -> Option<Order>,
    most: usize,
) {
    let Some(next) = found.next else { return };
    for (key, t) in hub.dispatch.transactions_from(next, most) {
        if found.service.is_none_or(|service| service == t.service)
            && let Some(order) = order(hub, key, t)
        {
            found.heap.push(Reverse((order, key, t.id)));
        }
    }
    found.next =
        Some(next.saturating_add(most)).filter(|next| *next < hub.dispatch.transaction_slots());
}

impl ListedRequests {
    /// Takes out the next ones. Those that are gone by now are left out.
    fn take<'a>(
        &'a mut self,
        hub: &'a Engine,
        most: usize,
    ) -> impl Iterator<Item = (TransactionKey, &'a Transaction)> {
        let next = move || self.heap.pop().map(|Reverse((_, at, id))| (at, id));
        std::iter::from_fn(next).take(most).filter_map(move |(at, id)| {
            Some((at, hub.dispatch.transaction(at).filter(|t| t.id == id)?))
        })
    }
}

/// Makes up to `most` further rows. Entries that are gone by now are passed over. Returns how many
/// there was no room for.
fn make_rows(hub: &Engine, listing: &mut Listing, most: usize) -> usize {
    let part = most.min(listing.left());
    let slots = most.saturating_mul(SLOTS_EACH);
    let (mut room, mut left_out) = (ROWS_MAX.saturating_sub(listing.rows()), 0);
    let mut has_room = || {
        left_out += usize::from(room == 0);
        room = room.saturating_sub(1);
        left_out == 0
    };
    match listing {
        Listing::Requests { left, .. } if left.next.is_some() => {
            look(hub, left, requests::order, slots);
        }
        Listing::Queue { left, .. } if left.next.is_some() => look(hub, left, queue_order, slots),
        Listing::Services { of, left, rows, without } => {
            for key in left.drain(..part).filter_map(|id| hub.catalog.find_id(id)) {
                match of {
                    ServiceTable::Names => rows.push(read::service_row(hub, key)),
                    ServiceTable::Load => rows.push(show::load_row(hub, key)),
                    ServiceTable::Latency { is_one } => {
                        // Those without a request are left out: their zeros would hide the others.
                        if *is_one || hub.dispatch.queue(key).figures.was_asked() {
                            rows.extend(show::latency_rows(hub, key));
                        } else {
                            *without += 1;
                        }
                    }
                }
            }
        }
        Listing::Hosts { left, rows } => {
            let hosts = left.drain(..part).filter_map(|name| hub.supervision.find_host(&name));
            rows.extend(hosts.map(|key| show::host_row(hub, hub.supervision.host(key))));
        }
        Listing::Instances { left, rows } => {
            let there = instances::next(hub, left, part).into_iter();
            rows.extend(there.filter(|_| has_room()).map(|it| instances::instance_row(hub, it)));
        }
        Listing::Ended { left, before, rows } => {
            *left -= part;
            for (number, ended) in hub.instances.history().before(*before).take(part) {
                *before = number;
                rows.extend(has_room().then(|| instances::ended_row(hub, ended)));
            }
        }
        Listing::Groups { left, rows } => {
            let there = left.drain(..part).filter_map(|name| groups::group_row(hub, &name));
            rows.extend(there.filter(|_| has_room()));
        }
        Listing::Events { left, before, filter, most, lines } => {
            let look_at = slots.min(*left);
            let (mut looked_at, mut shown) = (0, 0);
            for fact in hub.facts.recent().before(*before).take(look_at) {
                if shown == part || *most == 0 {
                    break;
                }
                (*before, looked_at) = (fact.seq, looked_at + 1);
                if filter.passes(fact) {
                    (*most, shown) = (*most - 1, shown + 1);
                    lines.push(fact_log::line(fact));
                }
            }
            let is_part = shown == part && part > 0;
            *left = match *most {
                0 => 0,
                // Those that were not found were pushed out meanwhile.
                _ => *left - if is_part { looked_at } else { look_at },
            };
        }
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
            let found = left.take(hub, part).filter(|_| has_room());
            rows.extend(found.map(|(_, t)| requests::request_row(hub, t)));
        }
        Listing::Topics { pattern, after, left, rows } => {
            *left -= part;
            let found = hub.topics.values_behind(after.as_ref(), pattern.as_ref(), part);
            let last = found.last().map(|value| value.topic.clone());
            let is_shown = |topic: &str| pattern.as_ref().is_none_or(|p| p.matches(topic));
            let found = found.into_iter().filter(|value| is_shown(&value.topic));
            rows.extend(found.filter(|_| has_room()).map(|value| topics::topic_row(hub, &value)));
            match last {
                Some(last) => *after = Some(last),
                None => *left = 0,
            }
        }
        Listing::Subscriptions { left, rows } => {
            let found = topics::next_subscriptions(hub, left, part).into_iter();
            rows.extend(found.filter(|_| has_room()).map(|it| topics::subscription_row(hub, &it)));
        }
        Listing::Queue { left, rows, services } => {
            for (at, t) in left.take(hub, part) {
                if !t.stage.waits() && !matches!(t.stage, Stage::Held(_)) {
                    continue;
                }
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

/// Begins the listing that a command asks for; `None` = it asks for none.
fn listing_of(hub: &Engine, request: &OpRequest) -> Option<Result<Listing, OpError>> {
    if let OpRequest::Workers(filter) = request {
        Some(Ok(begin_workers(hub, *filter)))
    } else if let OpRequest::Queue(service) = request {
        Some(begin_queue(hub, service.as_ref()))
    } else if let OpRequest::Requests(of) = request {
        Some(requests::chosen(hub, of).map(|mut left| {
            look(hub, &mut left, requests::order, SLOTS_AT_ONCE);
            Listing::Requests { rows: Vec::new(), left }
        }))
    } else if let OpRequest::Instances(of) = request {
        Some(instances::chosen(hub, of))
    } else if *request == OpRequest::Groups {
        Some(Ok(groups::begin(hub)))
    } else if let OpRequest::Load(service) = request {
        Some(begin_services(hub, ServiceTable::Load, service.as_ref()))
    } else if let OpRequest::Latency(service) = request {
        let of = ServiceTable::Latency { is_one: service.is_some() };
        Some(begin_services(hub, of, service.as_ref()))
    } else if let OpRequest::ListEvents(filter) = request {
        Some(begin_events(hub, filter)).filter(|_| hub.facts.recent().max() > 0)
    } else if let OpRequest::Topics(pattern) = request {
        let (pattern, left) = (pattern.clone(), hub.topics.values());
        Some(Ok(Listing::Topics { pattern, after: None, left, rows: Vec::new() }))
    } else if let OpRequest::Subscriptions(of) = request {
        let left = topics::chosen(hub, of);
        Some(left.map(|left| Listing::Subscriptions { left, rows: Vec::new() }))
    } else if let OpRequest::Services(is_builtin) = request {
        let left = hub.catalog.ids_of(*is_builtin).map(|(id, _)| id).rev().collect();
        let of = ServiceTable::Names;
        Some(Ok(Listing::Services { of, left, rows: Vec::new(), without: 0 }))
    } else if *request == OpRequest::Hosts {
        let left = hub.supervision.hosts().map(|(_, host)| host.name.clone()).collect();
        Some(Ok(Listing::Hosts { left, rows: Vec::new() }))
    } else if let OpRequest::Clients(is_builtin) = request {
        Some(Ok(begin_clients(hub, *is_builtin)))
    } else {
        None
    }
}

fn end(hub: &Engine, mut listing: Listing) -> OpReply {
    let mut left_out = 0;
    while listing.left() > 0 {
        left_out += make_rows(hub, &mut listing, usize::MAX);
    }
    listing.reply(hub, left_out)
}

/// How a command that asks for a list is answered.
#[derive(Debug)]
pub(crate) enum Listed {
    /// Now: the list is short, or refused.
    Now(OpResult),
    /// Part by part.
    Later,
    /// It asks for no list.
    No,
}

/// Handles a command of an operator that asks for a list which may be long.
pub(crate) fn list(hub: &mut Engine, link: LinkId, head: Header, request: &OpRequest) -> Listed {
    let listing = match listing_of(hub, request) {
        Some(Ok(listing)) if listing.left() <= PART_ROWS => {
            return Listed::Now(Ok(end(hub, listing)));
        }
        Some(Ok(listing)) => listing,
        Some(Err(error)) => return Listed::Now(Err(error)),
        None => return Listed::No,
    };
    let others = &hub.listings.0;
    let rows: usize = others.iter().map(|open| open.listing.most_rows(hub)).sum();
    if others.len() >= LISTINGS_MAX || rows + listing.most_rows(hub) > ROWS_UNDER_WAY_MAX {
        let text = format!(
            "{} long listings with {rows} rows are being made already; try again",
            others.len()
        );
        return Listed::Now(Err(refused(text)));
    }
    hub.listings.0.push_back(OpenListing { link, head, listing, left_out: 0 });
    go_on_listing(hub);
    Listed::Later
}

fn go_on_listing(hub: &mut Engine) {
    if !hub.listings.0.is_empty() {
        // At the next tick, so after everything that can be done now.
        hub.timers.add(Tick(hub.now.0 + 1), Timer::Listing);
    }
}

/// `Timer::Listing`: makes the next part of the listing whose turn it is.
pub(crate) fn on_listing(hub: &mut Engine) {
    let Some(mut order) = hub.listings.0.pop_front() else { return };
    let requester = hub.sessions.end(order.link);
    if let Some(End::Client(requester)) = requester {
        order.left_out += make_rows(hub, &mut order.listing, PART_ROWS);
        if order.listing.left() == 0 {
            answer::answer(
                hub,
                requester,
                &order.head,
                Ok(order.listing.reply(hub, order.left_out)),
            );
        } else {
            hub.listings.0.push_back(order);
        }
    }
    go_on_listing(hub);
}

const fn list_index(list: WorkerList) -> usize {
    match list {
        WorkerList::Lazy => 0,
        WorkerList::Idle => 1,
        WorkerList::Busy => 2,
    }
}
