//! The faults that change tokens and certificates, in a run that uses them. `run_secrets` has the
//! files.

use super::{Fault, FaultInjector};
use crate::fault::checker::{Cause, Excuse};
use crate::fault::world::World;
use client::error::Error;
use nix::sys::signal::Signal;
use protocol::errors::ErrorCode;

/// A change of what is secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secret {
    /// A token of the clients is made anew.
    Token,
    /// A new certificate of the broker.
    BrokersCertificate,
    /// A new certificate of the far host.
    HostsCertificate,
    /// Everybody may write to the file of the tokens: it is not taken.
    OpenTokens,
    /// A certificate without its key: it is not taken.
    WrongCertificate,
}

/// What comes besides, how often, and its name in the report.
pub(super) const SECRETS: &[(Fault, u64, &str)] = &[
    (Fault::Secret(Secret::Token), 4, "token made anew"),
    (Fault::Secret(Secret::BrokersCertificate), 3, "broker's certificate made anew"),
    (Fault::Secret(Secret::HostsCertificate), 2, "far execd's certificate made anew"),
    (Fault::Secret(Secret::OpenTokens), 2, "reload of a token file that everybody can write"),
    (Fault::Secret(Secret::WrongCertificate), 2, "reload of a certificate without its key"),
];

impl FaultInjector {
    /// Tokens and certificates change, or can't be used, while everything goes on.
    pub(super) fn change_secrets(&mut self, world: &World, secret: Secret) -> bool {
        let Some(secrets) = &world.secrets else { return false };
        if self.is_stopped() {
            return false;
        }
        match secret {
            Secret::Token => {
                let from = world.clock.now();
                self.excuses.push(Excuse { cause: Cause::Renewed, from, until: u64::MAX });
                secrets.renew_token();
                self.is_reload_due = true;
                self.reload(world);
            }
            Secret::BrokersCertificate => {
                secrets.renew_certificate(false);
                self.is_reload_due = true;
                self.reload(world);
            }
            Secret::HostsCertificate => {
                secrets.renew_certificate(true);
                world.far.process.signal(Signal::SIGHUP);
            }
            Secret::OpenTokens => {
                let said = secrets.with_open_tokens(|| world.op("reload"));
                self.must_be_refused(said, "chmod 600");
            }
            Secret::WrongCertificate => {
                let said = secrets.with_wrong_certificate(|| world.op("reload"));
                self.must_be_refused(said, "is not that of certificate");
            }
        }
        true
    }

    /// Has the broker read its files again; whether it did.
    pub(super) fn reload(&mut self, world: &World) -> bool {
        match world.op("reload") {
            Ok(_) => {
                let now = world.clock.now();
                for excuse in self.excuses.iter_mut().filter(|e| e.cause == Cause::Renewed) {
                    excuse.until = excuse.until.min(now);
                }
                self.is_reload_due = false;
                true
            }
            // It may have no descriptor left for an operator, or for the files.
            Err(error) if !error.is(ErrorCode::Refused) || lacks_descriptors(&error) => false,
            Err(error) => {
                self.wrong.push(format!("'reload' of good files: {error}"));
                false
            }
        }
    }

    /// A reload of a file that can't be used must be refused, with this in its text.
    fn must_be_refused(&mut self, said: Result<String, Error>, part: &str) {
        match said {
            Ok(page) => self.wrong.push(format!("a spoiled file was taken: {page}")),
            Err(error) if lacks_descriptors(&error) => {}
            Err(error) if error.is(ErrorCode::Refused) && !error.text.contains(part) => {
                self.wrong.push(format!("no '{part}' in: {error}"));
            }
            Err(_) => {}
        }
    }
}

/// Whether a flood left the broker no descriptor to read its files with.
fn lacks_descriptors(error: &Error) -> bool {
    error.text.contains("Too many open files")
}
