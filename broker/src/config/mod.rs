//! What the broker is told at its start: the command line ([`cli`]), checked by itself ([`low`]),
//! then with the machine ([`load`]). Not what operators change later: that is the engine's.

pub mod cli;
pub mod load;
pub mod low;
pub mod script;
pub mod tls;
pub mod tokens;
