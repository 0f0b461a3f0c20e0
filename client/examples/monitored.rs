//! A complete program that the broker watches: `monitored NAME GROUP` counts lines of its standard
//! input. Its own loop says that it goes on; if it hangs, the broker says `timed out`.

use client::address::Address;
use client::bus::{Bus, InstanceOptions, InstanceState, Options, Standing};
use std::io::BufRead as _;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

#[expect(clippy::print_stderr, reason = "it is a program for a terminal")]
#[expect(clippy::disallowed_methods, reason = "an example may start a thread for its input")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(name), Some(group)) = (args.next(), args.next()) else {
        eprintln!("usage: monitored NAME GROUP (ISECT_HOST says where the broker is)");
        std::process::exit(2);
    };
    let bus = Bus::connect(&Address::defaults()?, Options::default())?;
    let options = InstanceOptions::new(name).group(group).state_name(100, "counting");
    let watched = bus.announce(options)?;
    let (tell, lines) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    watched.set_state(InstanceState::Running, "")?;
    let mut count = 0;
    loop {
        let due = bus.beat_due().unwrap_or(Duration::from_millis(500));
        match lines.recv_timeout(due) {
            Ok(_) => {
                count += 1;
                watched.idle(false);
                watched.checkpoint(count);
                watched.set_own_state(100, &format!("{count} lines"))?;
            }
            Err(RecvTimeoutError::Timeout) => watched.idle(true),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        // It answers pings, too.
        bus.poll()?;
        bus.beat_if_due()?;
        if let Standing::Ended(error) = watched.standing() {
            return Err(error.into());
        }
    }
    watched.withdraw(&format!("{count} lines"))?;
    bus.close()?;
    Ok(())
}
