//! The fuzz targets: one function each, which takes any bytes and panics when a law is broken. They
//! are plain functions, so that `cargo test` on stable replays the corpora; `tests/fuzz` has the
//! targets of cargo-fuzz, three lines each.
//!
//! | file | what is fed |
//! | --- | --- |
//! | [`wire`] | the decoder; each control body |
//! | [`command`] | the operator's command parser, words, scripts |
//! | [`broker`] | the broker's engine as a state machine |
//! | [`execd`] | execd's engine and its links |
//! | [`session`] | the client's session, against an evil broker |
//! | [`streams`] | the reader of streams, against what is in them |
//! | [`files`] | state, configuration, tokens, addresses |
//! | [`source`] | small decisions out of bytes |
//! | [`corpus`] | the inputs kept in `tests/fuzz/corpora` |
//! | [`seeds`] | what a fuzzer begins with |

pub mod broker;
pub mod command;
pub mod corpus;
pub mod execd;
pub mod files;
pub mod seeds;
pub mod session;
pub mod source;
pub mod streams;
pub mod wire;

/// A row of [`TARGETS`].
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of the binary in `tests/fuzz`, and of its corpus.
    pub name: &'static str,
    /// Takes any bytes; panics when a law is broken.
    pub run: fn(&[u8]),
}

/// TABLE of the targets.
pub const TARGETS: &[Target] = &[
    Target { name: "decoder", run: wire::decoder },
    Target { name: "bodies", run: wire::bodies },
    Target { name: "command", run: command::command },
    Target { name: "broker", run: broker::broker },
    Target { name: "execd", run: execd::execd },
    Target { name: "session", run: session::session },
    Target { name: "streams", run: streams::streams },
    Target { name: "files", run: files::files },
];

/// Runs the target of this name.
///
/// # Panics
/// There is no such target, or a law is broken.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("no target {name}")).run)(data);
}
