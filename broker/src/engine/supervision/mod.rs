//! Decides what runs where, and when it is started again: the workers' processes and the hosts on
//! which they run. The processes themselves are execd's.
//!
//! | file | what it is |
//! | --- | --- |
//! | `machine` | what the machine owns, and what others may ask it |
//! | `workers`, `process_state` | a worker as it is configured, and how far its process is |
//! | `run` | what is known of one start of its process |
//! | `launch` | a worker is started |
//! | `own_settings` | settings of processes change |
//! | `process` | up, lost, ended, started again |
//! | `starts` | what identifies a start, and which messages about it are valid |
//! | `logins` | a worker logs in |
//! | `drain` | how a worker is ended |
//! | `rollout`, `rolling`, `replaced` | the workers of a service are replaced, one after another |
//! | `recycle` | which workers are to be replaced by new ones |
//! | `demand`, `demand_state` | services whose workers run only while they are asked for |
//! | `programs` | workers that are any programs, without requests |
//! | `outlook`, `service_outlook` | whether a worker may come for the requests of a service |
//! | `absence` | workers that can't be reached |
//! | `exit_cause`, `restart`, `start_failures` | why it ended; when it is started again, or not |
//! | `deaths` | what is told of an unexpected end |
//! | `host`, `host_state` | a host as it is configured, and how far the link to its execd is |
//! | `greeting` | which execds are trusted |
//! | `hosts`, `handover`, `host_shutdown` | the links to execds |
//! | `host_drain` | hosts that an operator drains |

mod absence;
mod deaths;
pub(crate) mod demand;
mod demand_state;
mod drain;
pub(crate) mod exit_cause;
mod greeting;
mod handover;
pub(crate) mod host;
mod host_drain;
mod host_shutdown;
pub(crate) mod host_state;
mod hosts;
mod launch;
mod laws;
pub(crate) mod logins;
mod machine;
mod outlook;
mod own_settings;
mod process;
pub(crate) mod process_state;
mod programs;
mod recycle;
mod replaced;
mod restart;
mod rolling;
pub(crate) mod rollout;
pub(crate) mod run;
mod service_outlook;
mod start_failures;
mod starts;
pub(crate) mod workers;

pub(crate) use machine::Supervision;
