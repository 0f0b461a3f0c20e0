//! Finds the broker and logs in, the first time and again after a loss.

use super::{Caller, Options};
use crate::address::Address;
use crate::conn::{Conn, Lost, Wait, WriteFault};
use crate::dial::ConnectError;
use crate::error::Error;
use crate::retry;
use crate::session::{Event, Session};
use crate::{clock, token};
use protocol::{ErrorCode, Ran, Role};
use std::time::{Duration, Instant};

/// First and longest wait between two attempts to log in again.
pub(super) const RETURN_WAITS: (Duration, Duration) =
    (Duration::from_millis(20), Duration::from_secs(1));

impl Caller {
    /// Logs in again; tries until it works, the time is over, or the broker refuses for good.
    pub(super) fn come_back(&mut self, until: Option<Instant>) -> Result<(), Error> {
        let until = until.unwrap_or_else(|| clock::until(self.options.connect_timeout));
        let wait = self.returns.after_loss(clock::now(), clock::random());
        clock::sleep(wait.min(clock::left(until)));
        loop {
            let error = match self.connect(Some(until)) {
                Ok(()) => return Ok(()),
                Err(error) => error.with_ran(Ran::No),
            };
            let wait = self.returns.next_wait(clock::random());
            if retry::should_retry(&error, true).is_none() || clock::left(until) <= wait {
                return Err(error);
            }
            clock::sleep(wait);
        }
    }

    /// Tries each address once.
    pub(super) fn connect(&mut self, until: Option<Instant>) -> Result<(), Error> {
        let (conn, address, session) =
            enter(&self.addresses, &self.options, self.session.clone(), until)?;
        self.session = session;
        self.conn = Some((conn, address));
        self.lost = None;
        self.is_finished = false;
        self.used = clock::now();
        self.returns.began(self.used);
        Ok(())
    }
}

/// Connects and logs in: tries each address once, and uses the first where somebody answers.
pub(crate) fn enter(
    addresses: &[Address],
    options: &Options,
    session: Session,
    until: Option<Instant>,
) -> Result<(Conn, Address, Session), Error> {
    let mut tried = Vec::new();
    let mut source = None;
    for address in addresses {
        let timeout = match until.map(clock::left) {
            None => options.connect_timeout,
            Some(left) => left.max(Duration::from_millis(1)).min(options.connect_timeout),
        };
        match Conn::dial(address, timeout, options.trust.as_ref()) {
            Ok(mut conn) => {
                let session = log_in(&mut conn, address, options, session, clock::until(timeout))?;
                return Ok((conn, address.clone(), session));
            }
            Err(ConnectError::Tls(text)) => {
                let error = Error::new(ErrorCode::Tls, text);
                return Err(error.with_context(format!("login at {address}")));
            }
            Err(ConnectError::Io(e)) => {
                tried.push(format!("{address}: {e}"));
                source = Some(e);
            }
        }
    }
    let text = match tried.is_empty() {
        true => "no address was given".to_owned(),
        false => format!("no broker answers at {}", tried.join("; ")),
    };
    let error = Error::new(ErrorCode::Unreachable, text);
    Err(match source {
        Some(source) => error.with_source(source),
        None => error,
    })
}

/// Logs in on a new connection.
fn log_in(
    conn: &mut Conn,
    address: &Address,
    options: &Options,
    mut session: Session,
    until: Instant,
) -> Result<Session, Error> {
    let context = |error: Error| error.with_context(format!("login at {address}"));
    let lost = |lost: Lost| context(lost.into_error(address)).with_ran(Ran::No);
    let late = || {
        let text = "a program took the connection but did not answer the login in time";
        context(Error::new(ErrorCode::Unreachable, text))
    };
    let service = &options.service;
    let prover = options.token.as_ref().map(|t| t.prover(Role::Client, service));
    let mut prover = prover.transpose()?;
    let claim = prover.as_ref().map(|prover| prover.claim().clone());
    let frame = session.login(options.login(claim))?;
    match conn.write(frame, Some(until)) {
        Ok(()) => {}
        Err(WriteFault::NotBegun) => return Err(late()),
        // The broker's refusal may be there to be read.
        Err(WriteFault::Broken(_)) => conn.read_ahead(),
    }
    loop {
        let frame = conn.next(Wait::Until(Some(until))).map_err(lost)?.ok_or_else(late)?;
        match session.receive(frame).map_err(context)? {
            Event::LoggedIn(ok) => {
                if prover.is_some_and(|prover| !prover.is_proven(ok.signature.as_deref())) {
                    return Err(context(token::not_signed()));
                }
                conn.set_body_bytes_max(ok.body_bytes_max);
                conn.watch_silence(ok.silence_ms);
                return Ok(session);
            }
            Event::Challenged(challenge) => {
                let proof = token::prove(prover.as_mut(), &challenge, conn);
                let proof = proof.map_err(context)?;
                match conn.write(session.prove(proof), Some(until)) {
                    Ok(()) => {}
                    Err(WriteFault::NotBegun) => return Err(late()),
                    Err(WriteFault::Broken(_)) => conn.read_ahead(),
                }
            }
            Event::Refused(error) => return Err(context(error)),
            Event::Answer(answer) => match conn.write(answer, Some(until)) {
                Ok(()) | Err(WriteFault::NotBegun) => {}
                Err(WriteFault::Broken(fault)) => return Err(lost(fault)),
            },
            Event::Reply(_)
            | Event::Dropped(_)
            | Event::Flushed(_)
            | Event::Published(_)
            | Event::Closing(_)
            | Event::Quiet => {}
        }
    }
}
