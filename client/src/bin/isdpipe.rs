//! The sample worker `isdpipe`; what it does stands in the library, in `samples::pipe`.

use std::process::ExitCode;

fn main() -> ExitCode {
    client::samples::pipe::main()
}
