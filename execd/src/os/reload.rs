//! What SIGHUP reads again: the certificates and the token file. A bad file changes nothing.
//! `authenticator` reads the token file at each connection, too.

use super::run::ExecLoop;
use crate::engine::input::Input;
use tracing::{error, info};

impl ExecLoop {
    /// Reads again whichever of them there are, and logs the result.
    pub(super) fn reload(&mut self) {
        let has_certificates = self.listener.as_mut().is_some_and(|listener| listener.reload());
        match self.authenticator.as_mut().map(|authenticator| authenticator.reload()) {
            None if has_certificates => {}
            None => info!("nothing to reload"),
            Some(Err(why)) => error!("{why}; the tokens in force stay"),
            Some(Ok((what, gone))) => {
                info!("reloaded {what}");
                self.inputs.extend(gone.into_iter().map(|link| Input::Revoked { link }));
            }
        }
    }
}
