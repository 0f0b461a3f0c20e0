//! Knows what is alive, goes on, is stalled or gone: the instances that programs announce, and the
//! workers.
//!
//! | file | what it is |
//! | --- | --- |
//! | `machine` | what the machine owns, and what becomes of each frame |
//! | `instance` | one instance, and how it is |
//! | `table` | the instances, found by name and by connection |
//! | `begin`, `announced` | how instances begin; what may be announced, and by whom |
//! | `activity` | the clock by which instances are timed out |
//! | `look`, `overdue` | which instances are looked at when, and are timed out |
//! | `state_messages` | what is published of each change |
//! | `groups` | the groups, and the states that follow from their members |
//! | `history` | the instances that ended |
//! | `workers` | workers as instances |

pub(crate) mod activity;
pub(crate) mod announced;
mod begin;
pub(crate) mod groups;
pub(crate) mod history;
pub(crate) mod instance;
mod laws;
mod look;
mod machine;
mod overdue;
mod state_messages;
pub(crate) mod table;
pub(crate) mod workers;

pub(crate) use machine::Instances;
