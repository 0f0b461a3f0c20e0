//! The fault run: real processes under load while everything around them breaks, and a checker that
//! reads the histories of clients and workers afterwards. Not the simulation: nothing here is
//! simulated, and a seed repeats the plan, not the machine.

pub mod ask;
pub mod canary;
pub mod checker;
pub mod clock;
pub mod disk;
pub mod history;
pub mod injector;
pub mod library_client;
pub mod line;
pub mod load;
pub mod proxy;
pub mod quiescence;
pub mod raw_client;
pub mod run;
pub mod secure;
pub mod watch;
pub mod world;
