//! Parts of the operating system that all programs of isect use in the same way: signals, a
//! standard error that never blocks its writer, room for descriptors, threads. No sockets and no
//! files.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`descriptors`] | enlarges the table of descriptors before a call has to wait for that |
//! | [`signals`] | the meaning of each signal for a program that runs for long |
//! | [`stderr`] | diagnostics: a thread writes them, so that the program never waits for a reader |
//! | [`threads`] | threads beside the loop, with all signals blocked |

pub mod descriptors;
pub mod signals;
pub mod stderr;
pub mod threads;
