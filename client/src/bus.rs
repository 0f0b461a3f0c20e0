//! The bus: publish messages to topics, subscribe to patterns of topics, and have the broker watch
//! instances of this program. It is blocking, and has one connection, which any number of threads
//! use. After a loss it connects again by itself.
//!
//! ```no_run
//! use client::address::Address;
//! use client::bus::{Bus, Event, Options};
//!
//! # fn main() -> Result<(), client::error::Error> {
//! let bus = Bus::connect(&Address::defaults()?, Options::default())?;
//! bus.publish("orders.eu.created", "17")?;
//! let receipt = bus.message("orders.open").retain().send_and_wait("3")?;
//! assert!(receipt.position.number > 0);
//! for event in bus.subscribe("orders.>")? {
//!     match event? {
//!         Event::Message(message) => println!("{}: {}", message.topic, message.text()),
//!         Event::Missing(missing) => println!("some can't be had any more: {missing}"),
//!         Event::CaughtUp { .. } | Event::Lost(_) | Event::Resumed(_) => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A program that is watched says itself that it goes on: no thread of the library does it, because
//! that of a program that hangs would do it, too.
//!
//! ```no_run
//! use client::address::Address;
//! use client::bus::{Bus, InstanceOptions, InstanceState, Options};
//! # fn work() -> bool { true }
//!
//! # fn main() -> Result<(), client::error::Error> {
//! let bus = Bus::connect(&Address::defaults()?, Options::default())?;
//! let pump = bus.announce(InstanceOptions::new("pump").group("night"))?;
//! pump.set_state(InstanceState::Running, "")?;
//! let mut done = 0;
//! while work() {
//!     done += 1;
//!     pump.checkpoint(done);
//!     bus.beat_if_due()?;
//! }
//! pump.withdraw("all pumped")?;
//! # Ok(())
//! # }
//! ```

use crate::address::Address;
use crate::clock;
use crate::error::Error;
use protocol::{ErrorCode, Frame, Ran};
use shared::Shared;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use crate::instances::{InstanceOptions, Standing, Watching};
pub use crate::topics::{Event, Message, SubscribeOptions};
pub use instance::Instance;
pub use options::Options;
pub use protocol::bodies::Unsubscribed;
pub use protocol::instances::{InstanceState, InstanceType};
pub use protocol::messages::{Missing, Position, Removed, Retain};
pub use publish::{Publish, Receipt};
pub use subscription::{Messages, Subscription};

mod instance;
mod options;
mod publish;
mod session;
mod shared;
mod subscription;

/// A connection to the bus. Clones share it; it ends with the last of them and with the last
/// [`Subscription`] and [`Instance`].
#[derive(Clone)]
pub struct Bus(Arc<Shared>);

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl Bus {
    /// Logs in at the first address where a broker answers.
    ///
    /// # Errors
    /// No broker answers at any of them, or the broker refuses the login.
    pub fn connect(addresses: &[Address], options: Options) -> Result<Self, Error> {
        Ok(Self(Arc::new(Shared::open(addresses, options)?)))
    }

    /// The address of the connected broker; `None` while the connection is lost.
    pub fn address(&self) -> Option<Address> {
        self.0.lock().address().cloned()
    }

    /// Publishes a message, and does not wait. If the broker refuses it,
    /// [`flush`](Self::flush) or [`refused`](Self::refused) says so.
    ///
    /// # Errors
    /// The topic breaks a rule, or there is no connection. Nobody got the message.
    pub fn publish(&self, topic: &str, payload: impl AsRef<[u8]>) -> Result<(), Error> {
        self.message(topic).send(payload)
    }

    /// Begins a message for which more is to be said.
    pub fn message<'a>(&'a self, topic: &'a str) -> Publish<'a> {
        Publish::new(self, topic)
    }

    /// Removes the value that is kept of a topic; subscribers are told.
    ///
    /// # Errors
    /// As [`Publish::send_and_wait`].
    pub fn remove(&self, topic: &str) -> Result<Receipt, Error> {
        self.message(topic).removed().send_and_wait("")
    }

    /// Waits until the broker has had all that was sent before, and returns the errors of what it
    /// refused of that, as [`refused`](Self::refused) does.
    ///
    /// # Errors
    /// The connection was lost, or the broker did not answer in time; whether all was published is
    /// not known then.
    pub fn flush(&self, timeout: Duration) -> Result<Vec<Error>, Error> {
        let number = self.0.with(|state| {
            let (number, frame) = state.session.flush();
            state.send(frame, timeout).inspect_err(|_| state.session.forget(number))?;
            Ok::<_, Error>(number)
        });
        self.answer(number.map_err(|error| error.with_ran(Ran::Maybe))?, timeout)?;
        Ok(self.refused())
    }

    /// The errors of what the broker refused and nobody waited for, since this was asked last; at
    /// most the last thousand.
    pub fn refused(&self) -> Vec<Error> {
        self.0.with(|state| state.session.take_refused())
    }

    /// Subscribes to all topics that match a pattern: words between dots, `*` for any one word, `>`
    /// at the end for one or more. The values that are kept of such topics come first.
    ///
    /// # Errors
    /// The pattern breaks a rule, or the broker refuses it.
    pub fn subscribe(&self, pattern: &str) -> Result<Subscription, Error> {
        self.subscribe_with(pattern, SubscribeOptions::default())
    }

    /// As [`subscribe`](Self::subscribe), from a [position](Subscription::position) on that an
    /// earlier subscription had, also one of an earlier run of the program.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub fn subscribe_with(
        &self,
        pattern: &str,
        options: SubscribeOptions,
    ) -> Result<Subscription, Error> {
        Subscription::open(self, pattern, options)
    }

    /// Announces an instance of this program, which must [beat](Self::beat) from now on.
    ///
    /// # Errors
    /// The broker refuses it, or there is one with this id on this connection.
    pub fn announce(&self, options: InstanceOptions) -> Result<Instance, Error> {
        Instance::announce(self, options)
    }

    /// Says that this program goes on, for all its instances. Returns whether that was sent: while
    /// there is no connection it can't, and this tries to connect again when that is due.
    ///
    /// # Errors
    /// There is no connection, and none is made again.
    pub fn beat(&self) -> Result<bool, Error> {
        let timeout = self.0.options.answer_timeout;
        self.0.with(|state| {
            state.take_in();
            for frame in state.beat() {
                if state.send(frame, timeout).is_err() {
                    break;
                }
            }
            state.standing()
        })
    }

    /// How long until a beat is due, or the next attempt to connect; `None` = no instance of this
    /// program is watched.
    pub fn beat_due(&self) -> Option<Duration> {
        self.0.lock().beat_due()
    }

    /// As [`beat`](Self::beat), if one is due. A program calls this wherever its work has gone on;
    /// it costs little where none is due. Returns whether a beat was sent.
    ///
    /// # Errors
    /// As [`beat`](Self::beat).
    pub fn beat_if_due(&self) -> Result<bool, Error> {
        match self.beat_due() {
            Some(Duration::ZERO) => self.beat(),
            Some(_) | None => Ok(false),
        }
    }

    /// When something of the broker came last, the answer to a beat for example; `None` = nothing
    /// ever came. It is read in calls of the bus only.
    pub fn broker_seen(&self) -> Option<Instant> {
        self.0.lock().heard()
    }

    /// Handles what the broker has sent, without waiting: pings, answers to beats, and messages,
    /// which wait for their subscriptions. Returns whether there is a connection.
    ///
    /// # Errors
    /// There is no connection, and none is made again.
    pub fn poll(&self) -> Result<bool, Error> {
        self.0.with(|state| {
            state.take_in();
            state.standing()
        })
    }

    /// Waits for so long, and handles meanwhile what the broker sends; for a program that has
    /// nothing to do but to be there. Returns whether there is a connection.
    ///
    /// # Errors
    /// There is no connection, and none is made again.
    pub fn wait(&self, span: Duration) -> Result<bool, Error> {
        self.0.wait(Some(clock::until(span)), |_| None::<()>)?;
        self.0.lock().standing()
    }

    /// Logs out. Subscriptions and instances end with the connection, and values that are kept as
    /// long as it is there. Nothing is sent after that, whatever handles there are.
    ///
    /// # Errors
    /// There was no connection any more.
    pub fn close(self) -> Result<(), Error> {
        let timeout = self.0.options.connect_timeout;
        let mut state = self.0.lock();
        let sent = state.send(Frame::Logout(protocol::bodies::Logout::default()), timeout);
        state.close(Error::new(ErrorCode::BadState, "this program closed its bus"));
        // A thread that waits for the socket must not go on doing so.
        self.0.tell(state);
        sent
    }
}
