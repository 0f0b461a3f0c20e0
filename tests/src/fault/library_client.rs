//! A client of the fault run that uses the library as an application does. The library logs in
//! again and retries by itself, and the checker also judges what the library reports.

use super::ask::{Act, Sum};
use super::clock::pause;
use super::conn::Endpoint;
use super::history::{Asked, Got, Outcome};
use super::load::{Load, Phase, Plan, SERVICES};
use super::watch;
use crate::sim::rng::Rng;
use client::address::Address;
use client::caller::{Caller, Options, Send};
use client::error::{Code, Error};
use client::token::Token;
use protocol::names::ServiceName;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A client by the library.
pub struct LibraryClient<'a> {
    load: &'a Load,
    rng: Rng,
    service: usize,
    addresses: Vec<Address>,
    token: Option<Token>,
}

impl<'a> LibraryClient<'a> {
    /// With random numbers of its own; it connects to one endpoint.
    ///
    /// # Panics
    /// If there is no endpoint.
    pub fn new(load: &'a Load, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let service = rng.index(SERVICES.len());
        let endpoint = &load.endpoints[rng.index(load.endpoints.len())];
        let address = endpoint.address(load.secrets.is_some());
        let secrets = load.secrets.as_ref().filter(|_| !matches!(endpoint, Endpoint::Unix(_)));
        let token = secrets.map(|secrets| secrets.library_token());
        Self { load, rng, service, addresses: vec![address], token }
    }

    /// Calls, again and again, until the load is stopped.
    pub fn run(mut self) {
        let mut caller = None;
        let mut is_drained = false;
        loop {
            match self.load.phase() {
                Phase::Stop => return,
                Phase::Drain => {
                    caller = None;
                    if !std::mem::replace(&mut is_drained, true) {
                        self.load.drained.fetch_add(1, Ordering::AcqRel);
                    }
                    pause(Duration::from_millis(10));
                }
                Phase::Ask => {
                    is_drained = false;
                    let present = caller.take().or_else(|| self.log_in());
                    self.load.logins[usize::from(present.is_none())]
                        .fetch_add(1, Ordering::Relaxed);
                    if let Some(mut present) = present {
                        self.call(&mut present);
                        // Now and then another connection, so that impairments differ.
                        caller = (!self.rng.hits(10)).then_some(present);
                    }
                    pause(Duration::from_micros(self.rng.between(500, 60_000)));
                }
            }
        }
    }

    fn log_in(&mut self) -> Option<Caller> {
        let name = ServiceName::new(SERVICES[self.service].name).expect("a service name");
        let mut options = Options::new(name);
        options.reconnect = self.rng.hits(800);
        options.connect_timeout = Duration::from_secs(2);
        if let Some(secrets) = self.load.secrets.as_ref() {
            options.trust = Some(secrets.trust());
            options.token = self.token.clone();
        }
        Caller::login(&self.addresses, options).ok()
    }

    fn call(&mut self, caller: &mut Caller) {
        let mut plan = Plan::by(&mut self.rng, &SERVICES[self.service], self.load.id());
        if plan.ask.act == Act::Talk {
            plan.ask.act = Act::Answer;
        }
        let body = [plan.ask.to_string().into_bytes(), plan.pieces.remove(0)].concat();
        let mut sum = Sum::default();
        sum.add(&body);
        let deadline =
            (plan.deadline_ms != 0).then(|| Duration::from_millis(u64::from(plan.deadline_ms)));
        let send = Send { idempotent: plan.idempotent, deadline, ..Send::default() };
        let (sent, waited) = (self.load.clock.now(), watch::own_wait());
        let result = caller.call_with(body, &send);
        let got = match &result {
            Ok(answer) => Got::Answer { right: *answer == sum.answer(&plan.ask) },
            Err(Error { code: Code::Application(code) | Code::Newer(code), ran, .. }) => {
                Got::Error { code: *code, ran: *ran }
            }
            Err(Error { code: Code::Isect(code), ran, .. }) => {
                Got::Error { code: code.number(), ran: *ran }
            }
        };
        let (at, blind) = (self.load.clock.now(), watch::own_wait().saturating_sub(waited));
        self.load.keep([Asked {
            id: plan.ask.id,
            service: self.service,
            idempotent: plan.idempotent,
            reply: true,
            deadline: plan.deadline_us(),
            sent,
            behind: 0,
            port: 0,
            library: true,
            changing: false,
            outcomes: vec![Outcome { at, blind, got }],
            end: None,
        }]);
    }
}
