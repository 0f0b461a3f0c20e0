//! Decides which request goes to which worker, and gives each its one outcome. A request that
//! nothing goes wrong with touches no other machine.
//!
//! | file | what it is |
//! | --- | --- |
//! | `machine` | what the machine owns, and what others may ask it |
//! | `transaction`, `stage` | one request, and where it is |
//! | `admission` | requests come in, or are refused |
//! | `messages` | messages of topics that are taken as requests |
//! | `no_worker` | services for which no worker can come |
//! | `serve` | who gets the next one |
//! | `lists` | which workers can take a request |
//! | `replies` | what a worker's frames mean |
//! | `overlong` | workers that are busy for too long |
//! | `outcome`, `retry` | errors instead of replies; what becomes of the requests of lost workers |
//! | `lost_requests` | what a worker had when it was lost, for the black box |
//! | `closing` | who gives up, or closes in order |
//! | `intervention` | an operator gives up one request |
//! | `trace`, `trace_notes`, `traces` | how a request went, for `why` |
//! | `clients` | clients come, go, are blocked and moved |
//! | `conversations` | replies whose deadline is put off, or that have none |
//! | `caller`, `seat`, `service_queue` | what is known of a client, a worker, a service |
//! | `queue`, `in_flight`, `wheel` | orders of requests: by priority, by sequence, by deadline |
//! | `turns` | workers that are idle, or have room |
//! | `flow` | who is read no further because another takes too little |
//! | `service_rate`, `retry_budget` | measures for early rejection and for retries |
//! | `histogram`, `buckets`, `poison` | figures, and the requests set aside |

mod admission;
pub(crate) mod buckets;
pub(crate) mod caller;
mod clients;
mod closing;
mod conversations;
mod flow;
mod histogram;
mod in_flight;
mod intervention;
mod laws;
mod lists;
mod lost_requests;
pub(crate) mod machine;
pub(crate) mod messages;
mod no_worker;
mod outcome;
mod overlong;
pub(crate) mod poison;
mod queue;
mod replies;
pub(crate) mod retry;
mod retry_budget;
pub(crate) mod seat;
mod serve;
pub(crate) mod service_queue;
mod service_rate;
pub(crate) mod stage;
pub(crate) mod trace;
mod trace_notes;
pub(crate) mod traces;
pub(crate) mod transaction;
mod turns;
mod wheel;

pub(crate) use machine::Dispatch;
