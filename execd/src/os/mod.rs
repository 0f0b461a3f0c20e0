//! The impure module of execd: sockets, signals, pipes, fork and wait, the state directory. Only
//! this module uses nix and, for the fork (`spawn`, `launch`, `child_setup`), `unsafe`. The engine
//! takes the decisions.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`run`], `startup`, `shutdown` | the loop, and what happens before and after it |
//! | [`options`] | the options of an execd, and why it can't run |
//! | `reload` | reads certificates and tokens again on SIGHUP |
//! | `apply`, `log` | one exhaustive match each: action → effect, note → line in the log |
//! | `listen`, `link` | the socket, one connection |
//! | `peer` | which users may use it without a token |
//! | `spawn`, `launch` | the fork, and the answer of the child before its exec |
//! | `check`, `child_setup` | in the child: whether the program may run, and what it is given |
//! | [`permit`] | which users and variables an operator may name |
//! | `process_settings` | what a start asks for beside its program, before the fork |
//! | [`setting_files`] | the files that it names for that, in the child |
//! | `script` | a script's first line, as the kernel sees it |
//! | [`policy`] | digests of what is enforced and of the program file |
//! | [`user`], [`rlimits`] | the user that children run as, and their resource limits |
//! | `reap`, `orphans` | waiting for children; processes that workers leave behind |
//! | `oom` | whether the kernel killed for want of memory |
//! | `children` | the process and the pipes of each child |
//! | `state_dir` | the state directory, for adopting processes of an execd that died |
//! | `writer` | the thread that writes it |
//! | `output` | the thread that keeps what workers write |
//! | `output_files`, `output_line` | the files in which it does, and a line there |
//! | `output_read` | reads the last of them |
//! | `clock` | the only clock |

mod apply;
mod authenticator;
mod check;
mod child_setup;
mod children;
mod clock;
mod launch;
mod link;
mod listen;
mod log;
mod oom;
pub mod options;
mod orphans;
mod output;
mod output_files;
mod output_line;
mod output_read;
mod peer;
pub mod permit;
pub mod policy;
mod process_settings;
mod reap;
mod reload;
pub mod rlimits;
pub mod run;
mod script;
pub mod setting_files;
mod shutdown;
mod spawn;
mod startup;
pub mod state_dir;
pub mod user;
mod writer;
