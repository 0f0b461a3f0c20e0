//! Certificates for tests: a certificate authority in a folder and the certificates it signs, as
//! PEM files. Nothing outside the tests trusts them.

use client::trust::Trust;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// An RSA key for tests.
const RSA_KEY: &str = include_str!("rsa4096.pem");

/// A certificate authority and the folder for its files, removed on drop.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Path of the certificate, in PEM.
    pub cert: PathBuf,
    /// Path of the key, in PEM, readable by this user alone.
    pub key: PathBuf,
}

impl Pair {
    /// The path of the certificate.
    pub fn cert(&self) -> &str {
        self.cert.to_str().expect("UTF-8")
    }

    /// The path of the key.
    pub fn key(&self) -> &str {
        self.key.to_str().expect("UTF-8")
    }
}

/// Writes a file that nobody else may read.
pub fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("a mode");
}

impl Authority {
    /// Makes an authority; its certificate is `ca.pem` in the folder.
    pub fn new() -> Self {
        let folder = TempDir::with_prefix("isect-ca-").expect("temporary folder");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Authorities of different tests have different names, as real ones do.
        let name = folder.path().to_string_lossy().into_owned();
        params.distinguished_name.push(DnType::CommonName, name);
        let cert = params.self_signed(&key).expect("a certificate");
        std::fs::write(folder.path().join("ca.pem"), cert.pem()).expect("a file");
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// The folder of all files made here.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The path of its certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder().join("ca.pem")
    }

    /// The same as text.
    pub fn ca_text(&self) -> String {
        self.ca().to_string_lossy().into_owned()
    }

    /// Signs a certificate for these names, valid until 2090.
    pub fn sign(&self, file: &str, names: &[&str]) -> Pair {
        self.sign_until(file, names, 2090)
    }

    /// Signs a certificate that is valid from 2020 until the beginning of `year`.
    pub fn sign_until(&self, file: &str, names: &[&str], year: i32) -> Pair {
        self.sign_key(file, names, year, &KeyPair::generate().expect("a key"))
    }

    fn sign_key(&self, file: &str, names: &[&str], year: i32, key: &KeyPair) -> Pair {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, file);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let cert = params.signed_by(key, &self.issuer).expect("a certificate");
        let pair = Pair {
            cert: self.folder().join(format!("{file}.pem")),
            key: self.folder().join(format!("{file}.key")),
        };
        std::fs::write(&pair.cert, cert.pem()).expect("a file");
        write_private(&pair.key, &key.serialize_pem());
        pair
    }

    /// Signs a certificate for an RSA key of 4096 bits, with which a signature takes milliseconds.
    /// The key is an example that stands in the sources: to make one takes seconds.
    pub fn sign_rsa(&self, file: &str, names: &[&str]) -> Pair {
        let key = KeyPair::from_pem_and_sign_algo(RSA_KEY, &rcgen::PKCS_RSA_SHA256).expect("a key");
        self.sign_key(file, names, 2090, &key)
    }

    /// A client setup that trusts this authority and has no certificate.
    pub fn trust(&self) -> Trust {
        Trust { ca: Some(self.ca()), ..Trust::default() }
    }

    /// A client setup that trusts this authority and shows the certificate `pair`.
    pub fn trust_with(&self, pair: &Pair) -> Trust {
        Trust { cert: Some(pair.cert.clone()), key: Some(pair.key.clone()), ..self.trust() }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
