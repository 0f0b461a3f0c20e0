//! The broker's certificates: read at the start and at a reload. What can't be read at a reload
//! leaves the old ones in use; connections that are there keep what they began with. Not a
//! connection: `stream`.

use crate::config::tls::TlsFiles;
use protocol::kinds::Role;
use tls::session::Session;
use tls::setup::{Caller, Listener, Notes};

/// What each side of the broker needs for TLS.
#[derive(Debug, Default)]
pub(super) struct Secure {
    files: TlsFiles,
    clients: Option<Listener>,
    workers: Option<Listener>,
    hosts: Option<Caller>,
}

/// What became of a reload.
#[derive(Debug, Default)]
pub(super) struct Reloaded {
    /// What was read.
    pub(super) done: Vec<String>,
    /// What was not, and why.
    pub(super) failed: Vec<String>,
    /// What the operator should know of what was read.
    pub(super) warnings: Vec<String>,
}

impl Secure {
    /// Reads what the command line names.
    ///
    /// # Errors
    /// Names the file, what is wrong with it, and the cure.
    pub(super) fn open(files: TlsFiles) -> Result<Self, String> {
        let mut secure = Self { files, ..Self::default() };
        match secure.reload().failed.into_iter().next() {
            None => Ok(secure),
            Some(failed) => Err(failed),
        }
    }

    /// Reads all files again. All or nothing of each side: a bad file leaves what was there.
    pub(super) fn reload(&mut self) -> Reloaded {
        let mut all = Reloaded::default();
        let Self { files, clients, workers, hosts } = self;
        let mut note = |notes: &Notes| {
            for (from, to) in [(&notes.read, &mut all.done), (&notes.warnings, &mut all.warnings)] {
                for line in from {
                    if !to.contains(line) {
                        to.push(line.clone());
                    }
                }
            }
        };
        let mut failed: Vec<String> = Vec::new();
        for (files, setup) in [(&files.clients, clients), (&files.workers, workers)] {
            match files.as_ref().map(tls::setup::ListenerFiles::load) {
                None => {}
                Some(Ok(new)) => {
                    note(new.notes());
                    *setup = Some(new);
                }
                Some(Err(why)) => failed.push(why),
            }
        }
        if files.hosts.ca.is_some() {
            match files.hosts.load() {
                Ok(new) => {
                    note(new.notes());
                    *hosts = Some(new);
                }
                Err(why) => failed.push(why),
            }
        }
        failed.dedup();
        all.failed = failed;
        all
    }

    #[expect(dead_code, reason = "told to the engine with reload")]
    /// What is to be said of the files that are in use.
    pub(super) fn warnings(&self) -> Vec<String> {
        let listeners = [&self.clients, &self.workers].into_iter().flatten().map(Listener::notes);
        let mut all: Vec<String> = listeners
            .chain(self.hosts.as_ref().map(Caller::notes))
            .flat_map(|notes| notes.warnings.iter().cloned())
            .collect();
        all.dedup();
        all
    }

    /// A session for a connection that was accepted; `None` = that port has no certificate.
    pub(super) fn accept(&self, role: Role) -> Option<Session> {
        let setup = match role {
            Role::Worker => self.workers.as_ref(),
            Role::Client | Role::Host | Role::Broker => self.clients.as_ref(),
        };
        setup?.session().inspect_err(|why| tracing::error!("no TLS session: {why}")).ok()
    }

    /// A session for a connection to a host's execd.
    ///
    /// # Errors
    /// There is no CA to check it with, or the name is none.
    pub(super) fn dial(&self, name: &str) -> Result<Session, String> {
        match &self.hosts {
            None => Err("'tls://' needs the CA that signed its certificate; start isectd with \
                 --tls-ca FILE"
                .to_owned()),
            Some(setup) => setup.session(name),
        }
    }
}
