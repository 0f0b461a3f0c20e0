//! The commands of operators: functions over the hub. What a command shows joins what the machines
//! know; what it changes it asks the machines for.
//!
//! | file | what it is |
//! | --- | --- |
//! | `run` | commands come in and are answered |
//! | `start_stop`, `change` | which workers are to run; what else they change |
//! | `targets` | the workers and services that a command is for |
//! | `config` | what makes and unmakes services, workers and hosts |
//! | `read`, `show`, `states` | what they show |
//! | `listing`, `begin_listing`, `open_listing` | long lists, part by part |
//! | `instances`, `groups` | what programs have announced, workers, and the groups of both |
//! | `requests` | the requests under way |
//! | `topics` | what is kept of topics, and the subscriptions |
//! | `why` | how one request went |
//! | `seek`, `sought` | which request `why` and `cancel` mean; `cancel` |
//! | `deaths` | unexpected ends of processes, with the requests that they had |
//! | `facts`, `settings`, `status` | single commands |
//! | `tokens`, `certificates` | rights, and what `reload` reads |
//! | `script`, `script_workers` | scripts of commands; what they mean by a worker without an id |
//! | `save`, `lines` | the configuration as a script of commands; changes as such commands |

pub(crate) mod answer;
mod begin_listing;
pub(crate) mod cells;
pub(crate) mod certificates;
pub(crate) mod change;
pub(crate) mod config;
pub(crate) mod deaths;
pub(crate) mod facts;
pub(crate) mod groups;
pub(crate) mod instances;
pub(crate) mod lines;
pub(crate) mod listing;
pub(crate) mod names;
pub(crate) mod open_listing;
pub(crate) mod read;
pub(crate) mod requests;
pub(crate) mod result;
pub(crate) mod run;
pub mod save;
pub(crate) mod script;
pub(crate) mod script_workers;
pub(crate) mod seek;
pub(crate) mod settings;
pub(crate) mod show;
pub(crate) mod sought;
pub(crate) mod start_stop;
pub(crate) mod states;
pub(crate) mod status;
pub(crate) mod status_query;
pub(crate) mod targets;
pub(crate) mod tokens;
pub(crate) mod topics;
pub(crate) mod why;
