//! The broker's certificates and keys, read at the start and at each reload. If a reload can't read
//! a file, the old ones stay in use. Existing connections keep the certificate they began with.

use crate::config::tls::TlsFiles;
use crate::engine::input::Certificates;
use protocol::kinds::Role;
use transport::session::Session;
use transport::setup::{CallerConfig, ListenerConfig, ListenerFiles, Notes};

/// What each side of the broker needs for TLS.
#[derive(Debug, Default)]
pub(super) struct TlsConfig {
    files: TlsFiles,
    clients: Option<ListenerConfig>,
    workers: Option<ListenerConfig>,
    hosts: Option<CallerConfig>,
}

/// For each side the result of reading its files; `None` = no files are configured.
#[derive(Debug)]
pub(super) struct Loaded {
    clients: Option<Result<ListenerConfig, String>>,
    workers: Option<Result<ListenerConfig, String>>,
    hosts: Option<Result<CallerConfig, String>>,
}

impl Loaded {
    /// Reads all files; a helper does that, because a disk may take its time.
    pub(super) fn read(files: &TlsFiles) -> Self {
        let is_wanted = files.hosts.ca.is_some();
        Self {
            clients: files.clients.as_ref().map(ListenerFiles::load),
            workers: files.workers.as_ref().map(ListenerFiles::load),
            hosts: is_wanted.then(|| files.hosts.load()),
        }
    }

    /// Nothing could be read.
    pub(super) fn failed(files: &TlsFiles, why: &str) -> Self {
        Self {
            clients: files.clients.as_ref().map(|_| Err(why.to_owned())),
            workers: files.workers.as_ref().map(|_| Err(why.to_owned())),
            hosts: files.hosts.ca.as_ref().map(|_| Err(why.to_owned())),
        }
    }
}

impl TlsConfig {
    /// Reads the files of the command line; returns them, and what is to be recorded of the
    /// reading.
    ///
    /// # Errors
    /// Names the file, what is wrong with it, and the cure.
    pub(super) fn open(files: TlsFiles) -> Result<(Self, Certificates), String> {
        let loaded = Loaded::read(&files);
        let mut tls_config = Self { files, ..Self::default() };
        let mut found = tls_config.put(loaded);
        match found.failed.pop() {
            None => Ok((tls_config, found)),
            Some(failed) => Err(failed),
        }
    }

    /// The files of the command line, if it names any.
    pub(super) fn files(&self) -> Option<&TlsFiles> {
        let files = &self.files;
        let is_used =
            files.clients.is_some() || files.workers.is_some() || files.hosts.ca.is_some();
        is_used.then_some(files)
    }

    /// Takes new files into use; a side whose files are bad keeps its old ones.
    pub(super) fn put(&mut self, loaded: Loaded) -> Certificates {
        let mut found = Certificates::default();
        put(&mut self.clients, loaded.clients, ListenerConfig::notes, &mut found);
        put(&mut self.workers, loaded.workers, ListenerConfig::notes, &mut found);
        put(&mut self.hosts, loaded.hosts, CallerConfig::notes, &mut found);
        found
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
    /// No CA is configured to check the certificate, or the name is not valid in one.
    pub(super) fn dial(&self, name: &str) -> Result<Session, String> {
        match &self.hosts {
            None => Err("'tls://' needs the CA that signed its certificate; start isectd with \
                 --tls-ca FILE"
                .to_owned()),
            Some(setup) => setup.session(name),
        }
    }
}

fn put<T>(
    current: &mut Option<T>,
    loaded: Option<Result<T, String>>,
    notes: impl Fn(&T) -> &Notes,
    found: &mut Certificates,
) {
    let add = |line: &String, to: &mut Vec<String>| {
        // Two sides may name the same file; its error is reported once.
        if !to.contains(line) {
            to.push(line.clone());
        }
    };
    match loaded {
        None => {}
        Some(Ok(new)) => {
            notes(&new).read.iter().for_each(|line| add(line, &mut found.read));
            notes(&new).warnings.iter().for_each(|line| add(line, &mut found.warnings));
            *current = Some(new);
        }
        Some(Err(why)) => add(&why, &mut found.failed),
    }
}
