//! The modules of the broker. Bytes come in through `reactor`, `protocol` decodes them to frames,
//! [`translate`] turns frames into inputs, and [`engine`] decides. Its actions leave the same way
//! in reverse.
//!
//! | module | what it is | pure |
//! | --- | --- | --- |
//! | [`engine`] | decides: inputs in, actions out | yes |
//! | [`translate`] | frames ↔ inputs and actions; answers as JSON | yes |
//! | `reactor` | sockets, clock, signals, files; the loop | no |
//! | `config` | the command line | no |
//! | [`exit`] | one exit status for each fatal condition | yes |
//!
//! What is pure compiles without the feature `os`, and nothing that could do IO is in its tree;
//! only what is sent (`translate::outbound`) needs the feature, for the crate that writes JSON.

pub mod engine;
pub mod exit;
pub mod translate;

#[cfg(feature = "os")]
pub mod config;
#[cfg(feature = "os")]
pub mod reactor;
#[cfg(feature = "os")]
pub mod token_command;
