//! The commands of operators: functions over the hub. What a command shows joins what the machines
//! know; what it changes it asks the machines for.
//!
//! | file | what it is |
//! | --- | --- |
//! | `run` | commands come in and are answered |
//! | `start_stop`, `change` | which workers are to run; what else they change |
//! | `drain`, `keep` | a host on which nothing is started; an end that leaves the workers |
//! | `targets` | the workers and services that a command is for |
//! | `restart`, `open_restart` | workers are replaced by new processes |
//! | `scale` | how many workers a service has |
//! | `config` | what makes and unmakes services, workers and hosts |
//! | `worker_settings` | settings of workers' processes: their changes, and what is shown to whom |
//! | `service_kinds` | which settings of a service exclude each other |
//! | `read`, `show`, `states` | what they show |
//! | `listing`, `begin_listing`, `open_listing` | long lists, part by part |
//! | `instances`, `groups` | what programs have announced, workers, and the groups of both |
//! | `logs`, `log_queries` | what workers wrote, as their hosts keep it |
//! | `requests` | the requests under way |
//! | `topics` | what is kept of topics, and the subscriptions |
//! | `why` | how one request went |
//! | `seek`, `sought` | which request `why` and `cancel` mean; `cancel` |
//! | `deaths` | unexpected ends of processes, with the requests that they had |
//! | `facts`, `settings`, `status` | single commands |
//! | `restart_words` | what the settings say of restarts |
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
pub(crate) mod drain;
pub(crate) mod facts;
pub(crate) mod groups;
pub(crate) mod instances;
pub(crate) mod keep;
pub(crate) mod lines;
pub(crate) mod listing;
pub(crate) mod log_queries;
pub(crate) mod logs;
pub(crate) mod names;
pub(crate) mod open_listing;
pub(crate) mod open_restart;
pub(crate) mod read;
pub(crate) mod requests;
pub(crate) mod restart;
mod restart_words;
pub(crate) mod result;
pub(crate) mod run;
pub mod save;
pub(crate) mod scale;
pub(crate) mod script;
pub(crate) mod script_workers;
pub(crate) mod seek;
mod service_kinds;
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
pub(crate) mod worker_settings;
