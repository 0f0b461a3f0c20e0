//! The library of the tests in `tests/tests`: runs scripts, simulations and real processes, and
//! makes documents. No program uses it.

pub mod between;
pub mod blackhole;
pub mod builtin;
pub mod certs;
pub mod conformance;
pub mod docs;
pub mod far_host;
pub mod fault;
pub mod figures;
pub mod flags;
pub mod fuzz;
pub mod lan;
pub mod netns_link;
pub mod other_user;
pub mod page;
pub mod proc;
pub mod proof;
pub mod python_tables;
pub mod schema;
pub mod script;
pub mod shell;
pub mod sim;
pub mod source_text;
pub mod walkthrough;
pub mod wire;
