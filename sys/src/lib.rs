//! What all programs of isect ask of the system in the same way: which signals mean what, a
//! standard error that never blocks its writer, room for descriptors. No sockets, no files.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`descriptors`] | room for descriptors, so that no call waits while the kernel makes it |
//! | [`signals`] | what each signal means to a program that runs for long |
//! | [`stderr`] | diagnostics: a thread that may block, so that nobody else does |
//! | [`threads`] | threads beside the loop, in which no signal arrives |

pub mod descriptors;
pub mod signals;
pub mod stderr;
pub mod threads;
