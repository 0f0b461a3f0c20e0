//! A complete publisher: `publisher TOPIC TEXT` has the broker keep a value, and says how many
//! subscriptions it matched.

use client::address::Address;
use client::bus::{Bus, Options};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for a terminal")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(topic), Some(text)) = (args.next(), args.next()) else {
        eprintln!("usage: publisher TOPIC TEXT (ISECT_HOST says where the broker is)");
        std::process::exit(2);
    };
    // It answers no pings between its calls.
    let options = Options { heartbeat: false, ..Options::default() };
    let bus = Bus::connect(&Address::defaults()?, options)?;
    let receipt = bus.message(&topic).retain().line("by", "example").send_and_wait(text)?;
    println!("{} subscriptions, position {}", receipt.subscriptions, receipt.position);
    bus.close()?;
    Ok(())
}
