//! The library that applications link, to ask a service ([`caller`]) or to answer for one
//! ([`worker`]). Both are blocking, with one connection and no threads of their own, except those
//! of [`worker::serve_concurrently`]. The broker takes all decisions about requests.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`caller`] | log in, ask, take answers: `call`, or `send` and `recv` with many under way |
//! | [`worker`] | log in, take requests, one or several at a time, answer, connect again |
//! | [`bus`] | publish to topics, subscribe to them, have the broker watch instances |
//! | [`session`] | pure: what a client may send, and what it may expect next |
//! | [`topics`], [`instances`] | pure: the same of subscriptions, and of instances |
//! | [`error`], [`retry`] | what failed, whether it ran, whether and when to ask again |
//! | [`samples`] | the workers `isdecho` and `isdpipe` |
//! | [`token`] | the token of this program, for brokers that want one |
//! | [`address`] | the address of a broker: `host:port`, `tls://host:port` or `unix:PATH` |
//! | [`trust`] | the files with which a `tls://` address is checked |
//!
//! A program that asks:
//!
//! ```no_run
//! use client::address::Address;
//! use client::caller::{Caller, Options};
//! use client::protocol::names::ServiceName;
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = Options::new(ServiceName::new("echo")?);
//! let mut caller = Caller::login(&Address::defaults()?, options)?;
//! let answer = caller.call("hello", Some(Duration::from_secs(2)))?;
//! assert_eq!(answer, "hello");
//! caller.logout()?;
//! # Ok(())
//! # }
//! ```
//!
//! A program that answers; `config worker upper localhost /path/of/it` makes the broker start it:
//!
//! ```no_run
//! use client::worker::Worker;
//!
//! # fn main() -> Result<(), client::error::Error> {
//! let mut worker = Worker::connect_from_args()?;
//! while let Some(request) = worker.next()? {
//!     match str::from_utf8(&request.body) {
//!         Ok(text) => worker.reply(text.to_uppercase())?,
//!         Err(e) => worker.fail(1, &format!("the request is not text: {e}"))?,
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A program that answers up to eight requests at a time, each on a thread:
//!
//! ```no_run
//! use client::worker::{run_concurrent, serve_concurrently};
//!
//! fn main() -> std::process::ExitCode {
//!     run_concurrent("usage: upper HOST PORT WORKER SERVICE", 8, |worker| {
//!         serve_concurrently(worker, |request| {
//!             let upper = String::from_utf8_lossy(&request.body).to_uppercase();
//!             request.reply(upper);
//!         })
//!     })
//! }
//! ```
//!
//! A program that publishes, subscribes, or is watched: [`bus`].
//!
//! What a program should know:
//!
//! - *Giving up.* [`cancel`](caller::Caller::cancel) tells the broker that nobody wants the answer;
//!   a call that comes too late does so by itself. The worker learns it by
//!   [`is_over`](worker::Worker::is_over), and should stop.
//! - *Long work.* A worker puts the deadline of an [`extendable`](caller::Send::extendable) request
//!   off with [`reply_piece_within`](worker::Worker::reply_piece_within), up to an hour in all.
//! - *Requests without an answer.* Only [`flush`](caller::Caller::flush) says whether they were
//!   taken; [`logout`](caller::Caller::logout) does it, closing a connection does not.
//! - *Closing one side.* With [`half_close`](caller::Options::half_close) a program may
//!   [end what it sends](caller::Caller::finish_sending) and then read what is left.
//! - *A worker that ends by itself* logs out ([`end_after`](worker::Worker::end_after),
//!   [`reply_and_logout`](worker::Worker::reply_and_logout)), so that no request is lost to it.

/// The blocks of the pages about topics and instances, which must build.
#[cfg(doctest)]
#[doc = include_str!("../../docs/topics.md")]
#[doc = include_str!("../../docs/instances.md")]
struct Pages;

pub mod address;
pub mod bus;
pub mod caller;
pub mod error;
pub mod instances;
pub mod retry;
pub mod samples;
pub mod session;
pub mod start_secret;
pub mod token;
pub mod topics;
pub mod trust;
pub mod worker;

mod clock;
mod conn;
mod dial;
mod keepalive;

/// The protocol: names, error codes, limits.
pub use protocol;
