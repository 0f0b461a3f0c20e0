//! Real programs under test: a broker, execds and clients as processes, on ports that the kernel
//! chooses, in a temporary directory. Waits are for a condition, with a time limit. Nothing is left
//! behind.
//!
//! | file | what |
//! | --- | --- |
//! | `broker` | starts, kills and ends a broker |
//! | `broker_op` | asks it, and waits for what it says |
//! | `execd` | starts and kills an execd |
//! | `process`, `programs` | any program: beside the test, or to its end |
//! | `pids` | processes by their ids, signals |
//! | `wait` | waits with a time limit |

mod broker;
mod broker_op;
mod execd;
mod pids;
mod process;
mod programs;
mod wait;

pub use self::broker::Broker;
pub use self::execd::Execd;
pub use self::pids::{began_at, is_alive, processes_of, signal_number, signal_pid};
pub use self::process::Process;
pub use self::programs::{Done, copy_program, program, python_folder, run, write_program};
pub use self::wait::{TIMEOUT, await_that, within};
