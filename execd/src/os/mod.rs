//! The impure module of execd: sockets, signals, pipes, fork and wait, the state directory. nix and
//! `unsafe` are only here (`unsafe` only in `spawn`, `launch`, `enter`, `raw`, `memory`). Decisions
//! are the engine's.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`run`], `begin`, `end` | the loop; what is settled before it; the end |
//! | [`options`] | what the mains may ask for, and why it can fail |
//! | `reload` | what SIGHUP has read again |
//! | `apply`, `log` | one exhaustive match each: action → effect, note → line in the log |
//! | `listen`, `link` | the socket, one connection |
//! | `peer`, `diag` | who may use it, what the kernel knows of whoever connects |
//! | `spawn`, `launch` | the fork, and what the child tells on its way to the exec |
//! | `check`, `enter` | in the child: may it run, what it is made to be |
//! | `script`, `acl` | a script's first line, and who may write to a file, as the kernel sees it |
//! | [`policy`] | digests of what is enforced and of which program it is |
//! | [`user`], [`rlimits`] | whom children run as, and their resource limits |
//! | `reap`, `orphans` | wait; what workers leave behind |
//! | `raw` | the calls that nix does not have |
//! | `children` | which process belongs to which child, its pipes |
//! | `state`, `private` | the state directory: finding the processes of an execd that died |
//! | `writer` | the thread that writes it |
//! | [`memory`] | giving free memory back to the system |
//! | `clock` | the only clock |

mod acl;
mod apply;
mod authenticator;
mod begin;
mod check;
mod children;
mod clock;
mod diag;
mod end;
mod enter;
mod launch;
mod link;
mod listen;
pub mod log;
pub mod memory;
pub mod options;
mod orphans;
pub mod peer;
pub mod policy;
pub mod private;
mod raw;
mod reap;
mod reload;
pub mod rlimits;
pub mod run;
mod script;
mod spawn;
pub mod state;
mod stream;
pub mod user;
mod writer;
