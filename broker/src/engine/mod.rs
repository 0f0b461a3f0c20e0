//! The broker's decisions, pure: inputs in, actions out. No IO, no clock, no randomness, no thread,
//! no log, no serialisation.
//!
//! Read in this order: `input` (what can happen), `action` (what can be done), `fact` (what is
//! worth remembering); then `step` (what each input means) and `dispatch` (requests).

pub mod action;
pub mod builtin;
pub mod drawings;
pub mod fact;
pub mod input;
pub mod view;

mod black_box;
mod builtin_services;
mod catalog;
mod client_frames;
mod client_logins;
mod context;
mod counted;
mod deadlines;
mod death;
mod deaths;
mod demand;
mod dispatch;
mod effect;
mod fact_filter;
mod fact_log;
mod fact_messages;
mod had;
mod heartbeat;
mod hub;
mod instance_frames;
mod instances;
mod keep;
mod keys;
mod law;
mod laws;
mod link_events;
mod no_worker;
mod operator;
mod operator_act;
pub mod origin;
mod outlook;
mod quotas;
mod recent;
mod recycle;
mod rollouts;
mod sessions;
mod shutdown;
mod shutdown_begin;
mod shutdown_step;
mod silence_limits;
mod start;
mod start_logins;
mod step;
mod store;
pub mod stored_config;
mod supervision;
mod timers;
mod topic_frames;
mod topics;
mod wall_clock;
mod work;
mod work_parts;
mod worker_instances;
mod worker_logins;

pub use dispatch::machine::Totals;
pub use hub::{Engine, EngineOptions};
pub use operator::save;
