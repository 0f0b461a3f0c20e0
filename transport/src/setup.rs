//! The TLS configuration of a listener or a caller, made from files at the start and again at a
//! reload. Open connections keep their configuration. Sessions are not resumed: links last long,
//! and a revoked certificate must not live on in a ticket.

use crate::end_point::end_point;
use crate::files::{self, Identity};
use crate::session::Session;
use crate::validity::{self, Validity};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A certificate that expires within this many seconds (14 days) gets a warning.
const SOON_SECONDS: i64 = 14 * 86_400;

/// What is said of a certificate to which no proof can be bound.
const NO_END_POINT: &str = ", signed in a way that has no tls-server-end-point";

/// The files of a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// PEM file of the certificate and of those between it and its CA.
    pub cert: PathBuf,
    /// PEM file of its key; only its owner may read it.
    pub key: PathBuf,
}

/// The files of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerFiles {
    /// The certificate that it shows.
    pub pair: Pair,
    /// PEM file of the CAs of callers; `None` = callers need no certificate.
    pub client_ca: Option<PathBuf>,
    /// Whether proofs of tokens must be bound to their connection (`tls-exporter`). `false` = to
    /// the certificate is enough for callers whose TLS has no exporter.
    pub is_exporter_only: bool,
}

/// The files of a caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallerFiles {
    /// PEM file of the CAs of listeners.
    pub ca: Option<PathBuf>,
    /// The certificate that it shows if the listener asks for one.
    pub pair: Option<Pair>,
}

/// The loaded configuration of a listener.
#[derive(Clone)]
pub struct ListenerConfig {
    config: Arc<ServerConfig>,
    /// The hash of its certificate; `None` = no proofs that are bound to it are taken.
    end_point: Option<Arc<[u8]>>,
    notes: Notes,
}

/// The loaded configuration of a caller.
#[derive(Clone)]
pub struct CallerConfig {
    config: Arc<ClientConfig>,
    notes: Notes,
}

/// What the program should log about the files that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// One line for each certificate.
    pub read: Vec<String>,
    /// Certificates that have expired or will expire soon.
    pub warnings: Vec<String>,
}

impl fmt::Debug for ListenerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerConfig").field("notes", &self.notes).finish_non_exhaustive()
    }
}

impl fmt::Debug for CallerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerConfig").field("notes", &self.notes).finish_non_exhaustive()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

impl ListenerFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// Names the file, what is wrong with it, and the cure.
    pub fn load(&self) -> Result<ListenerConfig, String> {
        let identity = self.pair.load()?;
        let mut notes = Notes::of(&self.pair.cert, &identity, now());
        let end_point = match identity.chain.first() {
            Some(certificate) if !self.is_exporter_only => end_point(certificate),
            Some(_) | None => None,
        };
        if end_point.is_none() && !self.is_exporter_only {
            notes.read.iter_mut().for_each(|line| line.push_str(NO_END_POINT));
        }
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(files::roots(path, "client CA")?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                    .build()
                    .map_err(|e| format!("client CA {}: {e}", path.display()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(identity.chain, identity.key)
            .map_err(|error| self.pair.wrong(&error))?;
        // Without it, two sessions of TLS 1.2 can be made to share keys (RFC 7627), and a proof
        // that is bound to one would be valid on the other.
        config.require_ems = true;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let end_point = end_point.map(Into::into);
        Ok(ListenerConfig { config: Arc::new(config), end_point, notes })
    }
}

impl CallerFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// Names the file, what is wrong with it, and the cure.
    pub fn load(&self) -> Result<CallerConfig, String> {
        let ca = self.ca.as_ref().ok_or(
            "'tls://' needs the certificate of the CA that signed the other side's; name its file \
             in ISECT_CA",
        )?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(files::roots(ca, "CA")?);
        let (mut config, notes) = match &self.pair {
            None => (builder.with_no_client_auth(), Notes::default()),
            Some(pair) => {
                let identity = pair.load()?;
                let notes = Notes::of(&pair.cert, &identity, now());
                let config = builder
                    .with_client_auth_cert(identity.chain, identity.key)
                    .map_err(|error| pair.wrong(&error))?;
                (config, notes)
            }
        };
        config.require_ems = true;
        config.resumption = Resumption::disabled();
        Ok(CallerConfig { config: Arc::new(config), notes })
    }
}

impl Pair {
    fn load(&self) -> Result<Identity, String> {
        files::identity(&self.cert, &self.key)
    }

    fn wrong(&self, error: &Error) -> String {
        let (cert, key) = (self.cert.display(), self.key.display());
        match error {
            Error::InconsistentKeys(_) => {
                format!(
                    "key {key} is not that of certificate {cert}; name the two that were made \
                         together"
                )
            }
            error => format!("certificate {cert} with key {key} can't be used: {error}"),
        }
    }
}

impl ListenerConfig {
    /// A session for an accepted connection.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn session(&self) -> Result<Session, String> {
        let conn = ServerConnection::new(Arc::clone(&self.config)).map_err(|e| e.to_string())?;
        Ok(Session::new(conn, self.end_point.clone()))
    }

    /// What the program should log about the files.
    pub const fn notes(&self) -> &Notes {
        &self.notes
    }
}

impl CallerConfig {
    /// A session for a connection to this host, a name or an address. The other side's certificate
    /// must be valid for it.
    ///
    /// # Errors
    /// The text is not a name or address that a certificate could be valid for.
    pub fn session(&self, host: &str) -> Result<Session, String> {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        // The zone of an address (`%eth0`) has a meaning on this machine only.
        let bare = bare.split_once('%').map_or(bare, |(address, _)| address);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| {
            format!(
                "'{}' is not a name or address that a certificate can be for",
                bare.escape_debug()
            )
        })?;
        let conn =
            ClientConnection::new(Arc::clone(&self.config), name).map_err(|e| e.to_string())?;
        Ok(Session::new(conn, None))
    }

    /// What the program should log about the files.
    pub const fn notes(&self) -> &Notes {
        &self.notes
    }
}

fn now() -> i64 {
    i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX)
}

impl Notes {
    fn of(path: &Path, identity: &Identity, now: i64) -> Self {
        let validity = identity.chain.first().and_then(|first| validity::of(first));
        let path = path.display();
        let Some(Validity { from, until }) = validity else {
            return Self { read: vec![format!("certificate {path}")], warnings: Vec::new() };
        };
        let mut warnings = Vec::new();
        if until < now {
            let text = format!(
                "certificate {path} expired on {}: nobody who checks it will connect; put a new one \
                 there and say 'reload'",
                validity::local(until)
            );
            warnings.push(text);
        } else if until - now < SOON_SECONDS {
            let text = format!(
                "certificate {path} expires on {}; put a new one there and say 'reload'",
                validity::local(until)
            );
            warnings.push(text);
        }
        if from > now {
            let text =
                format!("certificate {path} is valid only from {} on", validity::local(from));
            warnings.push(text);
        }
        let read = format!("certificate {path}, valid until {}", validity::local(until));
        Self { read: vec![read], warnings }
    }
}
