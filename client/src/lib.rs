//! The library that applications link, to ask a service ([`caller`]) or to answer for one
//! ([`worker`]). Both are blocking, with one connection and no threads of their own. The broker
//! takes all decisions about requests.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`caller`] | log in, ask, take answers: `call`, or `send` and `recv` with many under way |
//! | [`worker`] | log in, take requests one by one, answer, connect again after a restart |
//! | [`session`] | pure: what a client may send, and what it may expect next |
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

pub mod address;
pub mod caller;
pub mod error;
pub mod retry;
pub mod samples;
pub mod session;
pub mod token;
pub mod trust;
pub mod worker;

mod clock;
mod conn;
mod dial;
mod keepalive;

/// The protocol: names, error codes, limits.
pub use protocol;
