//! The fault run: real processes under load while faults are injected; a checker then reads the
//! histories of clients and workers. A seed repeats the plan of faults, not the timing of the
//! machine. The deterministic simulation is in `sim`.

pub mod ask;
pub mod bus;
pub mod bus_checker;
pub mod canary;
pub mod checker;
pub mod clock;
pub mod conn;
pub mod disk;
pub mod history;
pub mod injector;
pub mod library_client;
pub mod load;
pub mod programs;
pub mod proxy;
pub mod quiescence;
pub mod raw_client;
pub mod run;
pub mod run_secrets;
pub mod watch;
pub mod world;
