//! The sample worker `isdecho`; what it does stands in the library, in `samples::echo`.

use std::process::ExitCode;

fn main() -> ExitCode {
    client::samples::echo::main()
}
