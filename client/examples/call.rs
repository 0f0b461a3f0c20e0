//! A complete client: `call SERVICE TEXT` asks once with a deadline, and once more if that is safe.

use client::address::Address;
use client::caller::{Caller, Options};
use client::protocol::names::ServiceName;
use client::retry::should_retry;
use std::time::Duration;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for a terminal")]
#[expect(clippy::disallowed_methods, reason = "a program may sleep before it asks again")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(service), Some(text)) = (args.next(), args.next()) else {
        eprintln!("usage: call SERVICE TEXT (ISECT_HOST says where the broker is)");
        std::process::exit(2);
    };
    let mut options = Options::new(ServiceName::new(&service)?);
    options.name = Some("example".to_owned());
    options.reconnect = true;
    let mut caller = Caller::login(&Address::defaults()?, options)?;
    let deadline = Some(Duration::from_secs(2));
    let mut answer = caller.call(text.clone(), deadline);
    if let Err(error) = &answer {
        eprintln!("{error}");
        // This request is not idempotent, so it is repeated only if it did not run. The wait is
        // the one that the error calls for.
        if let Some(wait) = should_retry(error, false) {
            std::thread::sleep(wait);
            answer = caller.call(text, deadline);
        }
    }
    println!("{}", String::from_utf8_lossy(&answer?));
    caller.logout()?;
    Ok(())
}
