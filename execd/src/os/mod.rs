//! The impure room of execd: sockets, signals, pipes, fork and wait, the state directory. nix and
//! `unsafe` are only here (`unsafe` only in `spawn`). Not a single decision: the engine takes them.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`run`] | start-up, the loop, the end |
//! | [`options`] | what the mains may ask for, and why it can fail |
//! | `apply`, `log` | one exhaustive match each: action → effect, note → line in the log |
//! | `listen`, `peer`, `link` | the socket, who may use it, one connection |
//! | `check`, `spawn`, `reap` | may it run, fork and exec, wait |
//! | `children` | which process belongs to which child, its pipes |
//! | `state` | the state directory: finding the processes of an execd that died |
//! | `clock` | the only clock |

mod apply;
mod check;
mod children;
mod clock;
mod link;
mod listen;
mod log;
pub mod options;
pub mod peer;
mod reap;
pub mod run;
mod spawn;
mod state;
