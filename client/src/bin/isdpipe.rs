//! The sample worker `isdpipe`; the library has its code in `samples::pipe`.

use std::process::ExitCode;

fn main() -> ExitCode {
    client::samples::pipe::main()
}
