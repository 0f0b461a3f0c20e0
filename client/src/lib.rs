//! What an application links: to ask a service ([`caller`]) or to answer for one ([`worker`]).
//! Blocking, no threads of its own, one connection each; not a place where anything is decided that
//! is the broker's to decide.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`caller`] | log in, ask, take answers: `call`, or `send` and `recv` with many under way |
//! | [`worker`] | log in, take requests one by one, answer, come back after a restart |
//! | [`session`] | pure: what a client may send and expect next |
//! | [`error`], [`retry`] | what failed, whether it ran, whether and when to ask again |
//! | [`samples`] | the workers `isdecho` and `isdpipe` |
//! | [`token`] | who this program is, where the broker wants to know it |
//! | [`address`] | where a broker is: `host:port`, `tls://host:port` or `unix:PATH` |
//! | [`trust`] | with which files a `tls://` address is checked |
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
mod keepalive;
mod stream;

#[doc(hidden)]
pub mod inbox;

/// The words of the wire: names, error codes, limits.
pub use protocol;
