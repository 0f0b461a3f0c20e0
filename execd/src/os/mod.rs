//! The impure module of execd: sockets, signals, pipes, fork and wait, the state directory. Only
//! this module uses nix and `unsafe` (`unsafe` only in `spawn`, `launch`, `child_setup`, `raw`,
//! `memory`). The engine takes the decisions.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`run`], `startup`, `shutdown` | the loop, and what happens before and after it |
//! | [`options`] | the options of an execd, and why it can't run |
//! | `reload` | reads certificates and tokens again on SIGHUP |
//! | `apply`, `log` | one exhaustive match each: action → effect, note → line in the log |
//! | `listen`, `link` | the socket, one connection |
//! | `peer`, `diag` | which user a connection comes from |
//! | `spawn`, `launch` | the fork, and the answer of the child before its exec |
//! | `check`, `child_setup` | in the child: whether the program may run, and what it is given |
//! | `script`, `acl` | a script's first line, and who may write to a file, as the kernel sees it |
//! | [`policy`] | digests of what is enforced and of the program file |
//! | [`user`], [`rlimits`] | the user that children run as, and their resource limits |
//! | `reap`, `orphans` | waiting for children; processes that workers leave behind |
//! | `raw` | the calls that nix does not have |
//! | `children` | the process and the pipes of each child |
//! | `state_dir`, `private` | the state directory, for adopting processes of an execd that died |
//! | `writer` | the thread that writes it |
//! | [`memory`] | giving free memory back to the system |
//! | `clock` | the only clock |

mod acl;
mod apply;
mod authenticator;
mod check;
mod child_setup;
mod children;
mod clock;
mod diag;
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
mod shutdown;
mod spawn;
mod startup;
pub mod state_dir;
mod stream;
pub mod user;
mod writer;
