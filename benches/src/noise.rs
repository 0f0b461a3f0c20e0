//! Clients that are a burden: one streams 64 KiB bodies, one sends garbage, one never reads, and an
//! operator lists all clients again and again. Each is a process that runs until it is killed.
//! `fairness` measures their effect.

use crate::load::{Load, Plan};
use crate::protocols::{ClientProtocol, Protocol, isect};
use crate::shape::Shape;
use crate::sock::Endpoint;
use crate::stop::Stop;
use client::address::Address;
use client::caller::{Caller, Options};
use protocol::names::ServiceName;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The service of those who stream; it has workers of its own, so that only the broker is shared.
pub const BULK: &str = "bulk";

/// TABLE of burdens: name and what it does.
pub const NOISES: [(&str, &str); 4] = [
    ("stream", "one client streams 64 KiB bodies, four under way"),
    ("garbage", "one client sends bad frames, is closed, comes back"),
    ("deaf", "one client asks for 64 KiB bodies and never reads"),
    ("lister", "one operator lists all clients without pause"),
];

/// Is a burden until it is killed.
///
/// # Errors
/// It can't be one any more: the broker is gone.
pub fn run(name: &str, endpoint: &Endpoint) -> Result<(), String> {
    match name {
        "stream" => stream(endpoint),
        "garbage" => garbage(endpoint),
        "deaf" => deaf(endpoint),
        "lister" => lister(endpoint),
        other => Err(format!("there is no noise '{other}'")),
    }
}

fn bulk() -> Result<ServiceName, String> {
    ServiceName::new(BULK).map_err(|e| e.to_string())
}

fn stream(endpoint: &Endpoint) -> Result<(), String> {
    let shape: Shape = "c1w1p65536d4".parse()?;
    let span = Duration::from_secs(3600);
    let service = bulk()?;
    let new_client =
        move || -> Box<dyn ClientProtocol> { Box::new(isect::Client::new(service.clone(), 0)) };
    let stop = Stop::new()?;
    let plan = Plan { shape, rate: None, warm: Duration::ZERO, span };
    Load::connect(endpoint, plan, &new_client, &stop)?.run(&stop, |_| Ok(()))?;
    Ok(())
}

fn dial(endpoint: &Endpoint) -> Result<TcpStream, String> {
    let Endpoint::Tcp(address) = endpoint else {
        return Err("this noise is for TCP".into());
    };
    let stream = TcpStream::connect(address).map_err(|e| format!("{endpoint}: {e}"))?;
    // A broker that does not close would stop the noise.
    stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(|e| e.to_string())?;
    Ok(stream)
}

fn garbage(endpoint: &Endpoint) -> Result<(), String> {
    let mut bytes = [0x5au8; 300];
    loop {
        bytes[7] = bytes[7].wrapping_add(13);
        let mut stream = dial(endpoint)?;
        // It may be closed before all is written.
        let _ = stream.write_all(&bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
}

fn deaf(endpoint: &Endpoint) -> Result<(), String> {
    loop {
        let mut stream = dial(endpoint)?;
        let mut client = isect::Client::new(bulk()?, 0);
        let mut out = Vec::new();
        client.hello(&mut out);
        // The broker reads no further at some point, and closes it at another.
        stream.set_write_timeout(Some(Duration::from_secs(60))).map_err(|e| e.to_string())?;
        let mut number = 0;
        while stream.write_all(&out).is_ok() {
            out.clear();
            number += 1;
            client.ask(crate::payload::Payload { conn: 0, number, size: 65536 }, &mut out);
        }
    }
}

fn lister(endpoint: &Endpoint) -> Result<(), String> {
    let address = Address::parse(&endpoint.to_string()).map_err(|e| e.to_string())?;
    let mut caller =
        Caller::login(&[address], Options::new(ServiceName::op())).map_err(|e| e.to_string())?;
    loop {
        caller.call("clients", Some(Duration::from_secs(10))).map_err(|e| e.to_string())?;
    }
}

/// The name by which workers of the bulk service are started.
pub fn bulk_protocol() -> String {
    format!("isect:{BULK}")
}
