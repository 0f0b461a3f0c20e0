//! `logs`: what workers wrote, as the command `logs` of the broker shows it; Ctrl-C ends it.

use crate::cli::Cli;
use crate::connection::{Connection, Purpose};
use crate::output::Output;
use crate::status::Failure;
use crate::stop::stop_flag;
use crate::verbs::LogsArgs;
use bytes::Bytes;
use protocol::op::spec::{LogsWanted, OpRequest};

/// Prints the lines, and with `-f` those that follow, until Ctrl-C.
///
/// # Errors
/// The failure that ended it.
pub fn run(cli: &Cli, args: &LogsArgs, out: &mut Output) -> Result<(), Failure> {
    let stop = stop_flag();
    let wanted = LogsWanted { target: args.target.clone(), lines: args.lines, follow: args.follow };
    let body = Bytes::from(OpRequest::Logs(wanted).to_string());
    let mut connection = Connection::open(cli, Purpose::Requests, out)?;
    match connection.ask(body, Some(&stop), out) {
        Err(Failure::Interrupted) => Ok(()),
        result => result,
    }
}
