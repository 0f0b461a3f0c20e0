//! Knows who is connected, whether it is alive, and what it may do.
//!
//! | file | what it is |
//! | --- | --- |
//! | `machine` | what the machine owns, and what others may ask it |
//! | `connection`, `phase` | one connection, and how far its login is |
//! | `login` | logins and proofs |
//! | `access` | who may do what |
//! | `start_clients` | those that show the secret of a worker's start |
//! | `clients` | the attached clients, as they introduced themselves |
//! | `silence` | pings, and peers that are silent for too long |

pub(crate) mod access;
pub(crate) mod clients;
pub(crate) mod connection;
mod laws;
pub(crate) mod login;
mod machine;
pub(crate) mod peer_name;
pub(crate) mod pending;
pub(crate) mod phase;
pub(crate) mod silence;
pub(crate) mod start_clients;

pub(crate) use machine::Sessions;
