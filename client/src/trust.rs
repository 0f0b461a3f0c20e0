//! The files for a `tls://` address: CAs to check the broker, and a certificate to show. The
//! program names them, or the environment does. `tls` and rustls do the checks.

use protocol::limits::{CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE};
use std::path::PathBuf;
use transport::setup::{CallerConfig, CallerFiles, Pair};

/// The files of one side that connects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// PEM file of the CAs that sign brokers' certificates, for example the system's own bundle.
    pub ca: Option<PathBuf>,
    /// PEM file of the certificate to show, if the broker wants one.
    pub cert: Option<PathBuf>,
    /// PEM file of its key, which nobody else may be able to read.
    pub key: Option<PathBuf>,
}

impl Trust {
    /// The files that `ISECT_CA`, `ISECT_CERT` and `ISECT_KEY` name.
    pub fn from_env() -> Self {
        let file = |name| {
            let path = std::env::var_os(name).filter(|value| !value.is_empty());
            path.map(PathBuf::from)
        };
        Self { ca: file(CA_VARIABLE), cert: file(CERT_VARIABLE), key: file(KEY_VARIABLE) }
    }

    /// These files; the environment's for those that are not named.
    #[must_use]
    pub fn or_env(self) -> Self {
        let env = Self::from_env();
        // A certificate and its key always come from the same place.
        let (cert, key) = match (self.cert, self.key) {
            (None, None) => (env.cert, env.key),
            said => said,
        };
        Self { ca: self.ca.or(env.ca), cert, key }
    }

    pub(crate) fn load(&self) -> Result<CallerConfig, String> {
        let pair = match (&self.cert, &self.key) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some(Pair { cert: cert.clone(), key: key.clone() }),
            (Some(_), None) => {
                return Err(format!(
                    "a certificate needs its key; name its file in {KEY_VARIABLE}"
                ));
            }
            (None, Some(_)) => {
                let text = "a key needs its certificate; name its file in";
                return Err(format!("{text} {CERT_VARIABLE}"));
            }
        };
        CallerFiles { ca: self.ca.clone(), pair }.load()
    }
}
