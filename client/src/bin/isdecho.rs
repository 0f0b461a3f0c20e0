//! The sample worker `isdecho`; the library has its code in `samples::echo`.

use std::process::ExitCode;

fn main() -> ExitCode {
    client::samples::echo::main()
}
