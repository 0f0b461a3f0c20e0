//! The program `isdclient`: the operator's console and a generic client. The code is in the
//! library.

use std::process::ExitCode;

fn main() -> ExitCode {
    sys::signals::default_faults();
    admin_cli::main()
}
