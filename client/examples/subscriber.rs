//! A complete subscriber: `subscriber PATTERN [EPOCH:NUMBER]` prints messages, those after a
//! position if one is given. After a loss of the connection it goes on by itself.

use client::address::Address;
use client::bus::{Bus, Event, Options, Position, SubscribeOptions};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for a terminal")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let Some(pattern) = args.next() else {
        eprintln!("usage: subscriber PATTERN [EPOCH:NUMBER] (ISECT_HOST says where the broker is)");
        std::process::exit(2);
    };
    let from = args.next().and_then(|word| Position::read(&word));
    let bus = Bus::connect(&Address::defaults()?, Options::default())?;
    for event in bus.subscribe_with(&pattern, SubscribeOptions { from, retained: true })? {
        match event? {
            Event::Message(message) => {
                if message.dropped > 0 {
                    eprintln!("{} were dropped before this one", message.dropped);
                }
                println!("{} {} {}", message.position, message.topic, message.text());
            }
            Event::Missing(missing) => eprintln!("can't be had any more: {missing}"),
            Event::Lost(error) => eprintln!("{error}"),
            Event::Resumed(position) => eprintln!("connected again at {position}"),
            Event::CaughtUp { kept, .. } => eprintln!("{kept} were kept; what follows is new"),
        }
    }
    Ok(())
}
