//! The configuration of the broker at its start. [`cli`] is the command line, [`checked_args`]
//! checks it by itself, [`load`] reads the files it names. Operators change settings later through
//! the engine.

pub mod checked_args;
pub mod cli;
pub mod load;
pub mod script;
pub mod tls;
pub mod tokens;
