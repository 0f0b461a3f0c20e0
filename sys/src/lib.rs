//! What all programs of isect ask of the system in the same way: which signals mean what, and a
//! standard error that never blocks its writer. No sockets, no files.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`signals`] | what each signal means to a program that runs for long |
//! | [`stderr`] | diagnostics: a thread that may block, so that nobody else does |

pub mod signals;
pub mod stderr;
