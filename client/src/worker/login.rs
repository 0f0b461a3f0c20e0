//! Finds the broker and logs in, the first time and again after a loss.

use super::WorkerOptions;
use crate::address::Address;
use crate::conn::{Conn, Wait, WriteFault};
use crate::dial::ConnectError;
use crate::error::{Code, Error};
use crate::retry::{self, Returns};
use crate::{clock, token};
use protocol::bodies::WorkerLoginOk;
use protocol::{ErrorCode, Frame, Role};
use std::time::{Duration, Instant};

/// First and longest wait between two attempts to connect again.
pub(super) const RETURN_WAITS: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_secs(1));

/// What to do when nobody listens at a worker's address. The reader did not choose the address;
/// execd gave it.
const ABSENT_UNIX: &str = "it may be restarting, or its state directory was removed";
/// The same for a TCP address.
const ABSENT_TCP: &str = "it may be restarting, or its worker port is not reached from this host";
/// What to do when the listener there is silent.
const SILENT: &str = "see whether the broker is stuck, or something else listens there";

/// Until when a worker tries to come back that lost its connection at this moment, for this reason.
///
/// # Errors
/// It must not try: the reason, or that the program itself closed the connection.
pub(super) fn return_until(
    lost_at: Option<(Instant, Error)>,
    limits: &WorkerLoginOk,
) -> Result<Instant, Error> {
    match lost_at {
        None => {
            let text = "the connection was closed by this program";
            Err(Error::new(ErrorCode::BrokerLost, text))
        }
        Some((_, why)) if limits.reconnect_ms == 0 => Err(why),
        Some((since, _)) => Ok(clock::after(since, clock::millis(limits.reconnect_ms))),
    }
}

/// Connects, again and again until a moment; at least once. `returns` has the waits. The worker of
/// the options gets the id that the broker says.
pub(super) fn keep_trying(
    options: &mut WorkerOptions,
    concurrency: u32,
    until: Instant,
    returns: &mut Returns,
) -> Result<(Conn, WorkerLoginOk), Error> {
    let wait = returns.after_loss(clock::now(), clock::random());
    clock::sleep(wait.min(clock::left(until)));
    loop {
        let error = match log_in(options, concurrency) {
            Ok((conn, limits)) => {
                options.worker = limits.worker;
                returns.began(clock::now());
                return Ok((conn, limits));
            }
            Err(error) => error,
        };
        let left = clock::left(until);
        if !is_worth_returning(&error) || left.is_zero() {
            return Err(error);
        }
        clock::sleep(returns.next_wait(clock::random()).min(left));
    }
}

fn log_in(options: &WorkerOptions, concurrency: u32) -> Result<(Conn, WorkerLoginOk), Error> {
    let address = options.address.clone();
    let timeout = options.connect_timeout;
    let context = |error: Error| error.with_context(format!("worker login at {address}"));
    let dialled = Conn::dial(&address, timeout, options.trust.as_ref());
    let mut conn = dialled.map_err(|unmade| {
        let e = match unmade {
            ConnectError::Tls(text) => return context(Error::new(ErrorCode::Tls, text)),
            ConnectError::Io(e) => e,
        };
        let text = format!("the broker does not listen at {address}: {e}");
        let advice = match &address {
            Address::Unix(_) => ABSENT_UNIX,
            Address::Tcp(_) | Address::Tls(_) => ABSENT_TCP,
        };
        Error::new(ErrorCode::Unreachable, text).with_advice(advice).with_source(e)
    })?;
    let until = Some(clock::until(timeout));
    let token = options.token.as_ref().filter(|_| options.secret.is_empty());
    let prover = token.map(|token| token.prover(Role::Worker, &options.service));
    let mut prover = prover.transpose()?;
    let claim = prover.as_ref().map(|prover| prover.claim().clone());
    match conn.write(Frame::WorkerLogin(options.login(concurrency, claim)), until) {
        Ok(()) | Err(WriteFault::NotBegun) => {}
        // The broker's refusal may be there to be read.
        Err(WriteFault::Broken(_)) => conn.read_ahead(),
    }
    loop {
        let frame = conn.next(Wait::Until(until)).map_err(|e| context(e.into_error(&address)))?;
        match frame {
            Some(Frame::WorkerLoginOk(ok)) => {
                if prover.is_some_and(|prover| !prover.is_proven(ok.signature.as_deref())) {
                    return Err(context(token::not_signed()));
                }
                conn.set_body_bytes_max(ok.body_bytes_max);
                conn.watch_silence(ok.silence_ms);
                return Ok((conn, ok));
            }
            Some(Frame::Error { error, .. }) => {
                return Err(context(Error::from_body(error).of_worker()));
            }
            Some(Frame::Challenge(challenge)) => {
                let proof = token::prove(prover.as_mut(), &challenge, &conn);
                let proof = proof.map_err(context)?;
                // The next read reports a failure.
                drop(conn.write(Frame::Proof(proof), until));
            }
            Some(Frame::Ping { sequence }) => {
                // The next read reports a failure.
                drop(conn.write(Frame::Pong { sequence }, until));
            }
            Some(other) => {
                let kind = other.kind();
                let text = format!("the broker answered the login with a {kind} frame");
                return Err(context(Error::new(ErrorCode::BadState, text)));
            }
            None => {
                let text = "a program took the connection but did not answer the login in time";
                let error = Error::new(ErrorCode::Unreachable, text).with_advice(SILENT);
                return Err(context(error));
            }
        }
    }
}

/// Whether another attempt to log in can succeed.
pub(super) fn is_worth_returning(error: &Error) -> bool {
    matches!(error.code, Code::Isect(code) if retry::is_retryable(code))
}
