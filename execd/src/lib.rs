//! isdexecd: starts, watches and ends the worker processes of one host for a broker.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`engine`] | PURE: which process is in which state, who is told what, what is due when |
//! | [`os`] | sockets, signals, fork, wait; the only module with nix and `unsafe` (feature `os`) |
//! | [`exit`] | one exit status for each way to end |
//!
//! execd has no restart policy (the broker decides what runs), no shell and no configuration file;
//! its only threads write the log and the state directory. The engine never names `os`; `os` feeds
//! it inputs and carries out its actions.

pub mod engine;
pub mod exit;
#[cfg(feature = "os")]
pub mod os;
