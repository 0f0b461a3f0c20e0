//! The operator's command language: the commands ([`table`]), parsing ([`parse`]), help ([`help`])
//! and answers ([`reply`]). The engine carries the commands out.

mod args;
mod commands;
mod death_shapes;
pub mod events;
mod field;
mod foreign;
pub mod help;
mod instance_args;
mod instance_shape;
mod layout;
mod log_args;
mod log_shapes;
mod params;
pub mod parse;
pub mod reply;
mod rollout_args;
mod rollout_shapes;
mod setting_args;
pub mod shape;
pub mod spec;
pub mod table;
mod text;
mod topic_args;
mod topic_shapes;
mod words;
mod worker_setting_args;
pub mod worker_settings;
mod worker_shapes;
