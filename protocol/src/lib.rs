//! The protocol of isect: everything that both ends of a link must agree on, as tables and pure
//! functions. No IO, no clock, no randomness.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`header`] | the 64 bytes in front of every frame |
//! | [`kinds`] | TABLE of the kinds of frames and of the keys of their bodies |
//! | [`errors`] | TABLE of error codes: whose fault, whether it ran, what to do |
//! | [`lines`], `keys`, [`bodies`] | the form and the meaning of control bodies |
//! | [`process`] | what is set of a worker's process |
//! | [`proof`], [`rights`] | how a token is proved without being sent, and what it may do |
//! | [`frame`], [`encode`], [`decode`] | a frame by value, to bytes and back |
//! | [`frame_reader`] | splits a stream of bytes into frames |
//! | [`show`] | one line and hex for logs and documents |
//! | [`topics`], [`messages`], [`instances`] | words of topics, and of programs that are watched |
//! | [`peer_group`], [`login_failures`], [`quota`] | what a peer can have done and remembered |
//! | [`names`], [`address`], [`ids`], [`time`], [`limits`] | spelling, numbers, ticks, sizes |
//! | [`variants`] | whole lists of an enum's variants |
//! | [`settings`] | TABLE of the broker's settings |
//! | [`op`] | TABLE of the operator's commands, parser, help, replies |
//!
//! The types that most files name stand at the root, too.
//!
//! Reading order for a newcomer: `header`, `kinds`, `errors`, then `op::table`.

pub mod address;
pub mod bodies;
pub mod decode;
pub mod encode;
pub mod errors;
pub mod frame;
pub mod frame_reader;
pub mod header;
pub mod ids;
pub mod instances;
mod keys;
pub mod kinds;
pub mod limits;
pub mod lines;
pub mod login_failures;
pub mod messages;
pub mod names;
pub mod op;
pub mod peer_group;
pub mod process;
pub mod proof;
pub mod quota;
pub mod rights;
pub mod settings;
pub mod show;
pub mod time;
mod time_text;
pub mod topics;
pub mod variants;

pub use address::{HostPort, ParsedAddress};
pub use bodies::{ErrorBody, ExecStart, ExitCause, Format, Login, WorkerLogin};
pub use decode::WireError;
pub use errors::{ErrorCode, Ran};
pub use frame::Frame;
pub use header::Header;
pub use ids::{ClientId, FactSeq, LinkId, RunId, ServiceId, TransactionId, WorkerId};
pub use kinds::{Kind, Role};
pub use names::{HostName, ServiceName, TokenName};
pub use op::parse::OpError;
pub use op::reply::{Block, Column, OpReply, Value};
pub use op::spec::{Command, Effect, OpRequest, Target, WorkerFilter};
pub use peer_group::PeerGroup;
pub use proof::{Binding, Bindings, Challenge, Channel, Claim, Proof};
pub use rights::Rights;
pub use settings::{ServiceSetting, ServiceSettings, Setting, Settings};
pub use time::{Micros, Tick, Wall};
