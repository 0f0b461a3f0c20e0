//! A broker on this machine and the execd of host `far` on another one behind a netns link, started
//! and ended together. Needs root; see `netns_link`.

use crate::netns_link::{FAR, NEAR, NetnsLink};
use crate::proc::{Broker, Execd, TIMEOUT, program, within};
use client::address::Address;
use nix::sys::signal::Signal;
use std::net::TcpListener;

/// A broker with a far host.
#[derive(Debug)]
pub struct FarHost {
    /// Here.
    pub broker: Broker,
    execd: Option<Execd>,
    /// The link between the two machines, which a test can set down.
    pub netns: NetnsLink,
    /// The broker's client port as the far machine reaches it.
    pub clients: Address,
}

impl FarHost {
    /// Starts both, with more arguments for the broker; `None` if that can't be done here, which is
    /// said on stderr.
    ///
    /// # Panics
    /// If no port is free.
    pub fn build(more: &[&str]) -> Option<Self> {
        let netns = NetnsLink::create()?;
        // Nobody else is in this network, so the port stays free.
        let free = TcpListener::bind((NEAR, 0)).expect("a port").local_addr().expect("an address");
        let (at, any) = (free.to_string(), format!("{NEAR}:0"));
        let mut usual = vec!["--insecure", "--worker-listen", &any];
        // Operators come over loopback, where the kernel knows them.
        usual.extend(["--listen", "127.0.0.1:0", "--listen", &at]);
        let broker = Broker::start(&[&usual, more].concat());
        let execd = netns.far.run(|| Execd::start_at(&format!("{FAR}:0"), &["--insecure"]));
        broker.op("config events 100000");
        broker.op(&format!("config host far {}", execd.address));
        broker.await_page("host far", "host->state = up");
        let clients = Address::Tcp(at);
        Some(Self { broker, execd: Some(execd), netns, clients })
    }

    /// The far machine's execd.
    ///
    /// # Panics
    /// Never: it runs until this is dropped.
    pub fn execd(&self) -> &Execd {
        self.execd.as_ref().expect("it runs")
    }

    /// Workers on the far machine, idle when this returns.
    pub fn far_workers(&self, service: &str, words: &str, count: i64) {
        let broker = &self.broker;
        let (name, args) = words.split_once(' ').unwrap_or((words, ""));
        let before = broker.number("", "isdData.IdleWorkers");
        broker.op(&format!("config service {service}"));
        for _ in 0..count {
            let path = program(name);
            broker.op(&format!("config worker {service} far {} {args}", path.display()));
        }
        broker.op(&format!("start {service}"));
        broker.await_idle(before + count);
    }
}

impl Drop for FarHost {
    fn drop(&mut self) {
        // In order, so that its workers end with it.
        if let Some(mut execd) = self.execd.take() {
            execd.process.signal(Signal::SIGTERM);
            within(TIMEOUT, || execd.process.ended());
        }
    }
}
