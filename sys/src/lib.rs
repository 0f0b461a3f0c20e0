//! What all programs of isect ask of the operating system beyond reading and writing: signals, who
//! is at the other end of a socket, descriptors and processes by number, a standard error that
//! never blocks its writer. Apart from the fork of execd, `unsafe` stands only here.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`attributes`] | rights of a file beside its mode: access list, capabilities |
//! | [`descriptors`] | descriptors by number; room for them before a call has to wait for it |
//! | [`log_line`] | the form of a line in the log |
//! | [`memory`] | gives free memory back |
//! | [`proc`] | what the kernel shows of processes under `/proc` |
//! | [`processes`] | waiting for children, signals by number, process descriptors |
//! | [`signals`] | the meaning of each signal for a program that runs for long |
//! | [`socket_owner`] | which user is at the other end of a connection |
//! | [`stderr`] | diagnostics: a thread writes them, so that the program never waits for a reader |
//! | [`tcp_info`] | whether the machine at the other end acknowledges what is sent |
//! | [`threads`] | threads beside the loop, with all signals blocked |

pub mod attributes;
pub mod descriptors;
pub mod log_line;
pub mod memory;
pub mod proc;
pub mod processes;
pub mod signals;
pub mod socket_owner;
pub mod stderr;
pub mod tcp_info;
pub mod threads;
