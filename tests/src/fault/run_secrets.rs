//! Tokens and certificates of a fault run with both switched on: their files, the options for the
//! programs, and how they change during the run. `conn` and the client library log in with them.

use crate::certs::{Authority, Pair};
use crate::proc::run;
use auth::token::Token;
use client::trust::Trust;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use tempfile::TempDir;
use transport::session::Session;
use transport::setup::{CallerConfig, CallerFiles};

/// The names of this machine in certificates.
const HERE: &[&str] = &["127.0.0.1", "localhost"];
/// The token that is made anew during the faults.
const CHANGED: &str = "changed";
/// The token that stays as it is.
const STEADY: &str = "steady";

/// Everything that is secret in a run.
#[derive(Debug)]
pub struct RunSecrets {
    authority: Authority,
    broker: Pair,
    host: Pair,
    folder: TempDir,
    caller: CallerConfig,
    /// What clients log in with that take the token which is made anew.
    changed: Mutex<Token>,
    steady: Token,
}

impl RunSecrets {
    /// Makes an authority, certificates for broker and host, and tokens, as an operator does.
    ///
    /// # Panics
    /// If anything of it can't be made.
    pub fn new() -> Self {
        let authority = Authority::new();
        let (broker, host) = (authority.sign("broker", HERE), authority.sign("host", HERE));
        let folder = TempDir::with_prefix("isect-tokens-").expect("temporary folder");
        let files = CallerFiles { ca: Some(authority.ca()), pair: None };
        let caller = files.load().expect("an authority");
        let file = |name: &str| folder.path().join(name);
        add(&folder, "hosts", "broker", "host");
        add(&folder, "tokens", STEADY, "client:*");
        add(&folder, "tokens", CHANGED, "client:*");
        let token = |name: &str| Token::from_file(&file(name)).expect("a token");
        let (changed, steady) = (Mutex::new(token(CHANGED)), token(STEADY));
        Self { authority, broker, host, folder, caller, changed, steady }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    /// How the broker is started.
    pub fn broker_words(&self) -> Vec<String> {
        words(&[
            ("--listen", "tls://127.0.0.1:0"),
            ("--worker-listen", "tls://127.0.0.1:0"),
            ("--tls-cert", self.broker.cert()),
            ("--tls-key", self.broker.key()),
            ("--tls-ca", &self.authority.ca_text()),
            ("--tokens", &self.file("tokens")),
            ("--host-token", &self.file("broker")),
        ])
    }

    /// How the far execd is started, which listens at a `tls://` address: who connects must show a
    /// certificate, and prove a token.
    pub fn host_words(&self) -> Vec<String> {
        words(&[
            ("--tls-cert", self.host.cert()),
            ("--tls-key", self.host.key()),
            ("--tls-client-ca", &self.authority.ca_text()),
            ("--tokens", &self.file("hosts")),
            ("--env", &format!("ISECT_CA={}", self.authority.ca_text())),
        ])
    }

    /// A session with the broker, whatever its certificate is now.
    ///
    /// # Panics
    /// If the system has no random bytes.
    pub fn session(&self) -> Session {
        self.caller.session("127.0.0.1").expect("a session")
    }

    /// The token of a client: one that stays, or the one that is made anew.
    ///
    /// # Panics
    /// If another client did.
    pub fn token(&self, is_changing: bool) -> Token {
        if is_changing {
            self.changed.lock().expect("no panic").clone()
        } else {
            self.steady.clone()
        }
    }

    /// The token that stays, for the client library.
    ///
    /// # Panics
    /// If it can't be read.
    pub fn library_token(&self) -> client::token::Token {
        client::token::Token::from_file(&self.folder.path().join(STEADY)).expect("a token")
    }

    /// Whom clients trust.
    pub fn trust(&self) -> Trust {
        self.authority.trust()
    }

    /// Makes the token anew that changes: whoever is in with the old one is out at the next reload,
    /// and only with the new one in again.
    ///
    /// # Panics
    /// If the file of the tokens can't be changed.
    pub fn renew_token(&self) {
        let file = self.file("tokens");
        let done = run("isectd", &["token", "remove", CHANGED, "--file", &file], b"");
        assert_eq!(done.status, 0, "{}", done.err);
        add(&self.folder, "tokens", CHANGED, "client:*");
        let token = Token::from_file(&self.folder.path().join(CHANGED)).expect("a token");
        *self.changed.lock().expect("no panic") = token;
    }

    /// Puts a new certificate in the place of the broker's, or the far host's.
    pub fn renew_certificate(&self, is_host: bool) {
        let new = self.authority.sign("new", HERE);
        put(&new, if is_host { &self.host } else { &self.broker });
    }

    /// Puts a certificate there to which the key does not belong, calls `meanwhile`, and mends it.
    pub fn with_wrong_certificate<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let kept = std::fs::read(&self.broker.cert).expect("a certificate");
        let wrong = self.authority.sign("wrong", HERE);
        std::fs::rename(wrong.cert, &self.broker.cert).expect("a file");
        let result = meanwhile();
        std::fs::write(&self.broker.cert, kept).expect("a file");
        result
    }

    /// Lets everybody write to the file of the tokens, calls `meanwhile`, and mends it.
    pub fn with_open_tokens<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let path = PathBuf::from(self.file("tokens"));
        let permit = |mode| {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("a mode");
        };
        permit(0o666);
        let result = meanwhile();
        permit(0o600);
        result
    }
}

impl Default for RunSecrets {
    fn default() -> Self {
        Self::new()
    }
}

fn words(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().flat_map(|(option, value)| [option.to_string(), value.to_string()]).collect()
}

/// Adds a token to a file of the folder; it stands in a file of its own name.
fn add(folder: &TempDir, file: &str, name: &str, role: &str) {
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    // The one of before, if it is made anew.
    let _ = std::fs::remove_file(at(name));
    let words = ["token", "add", name, "--file", &at(file), "--out", &at(name), "--role", role];
    let done = run("isectd", &words, b"");
    assert_eq!(done.status, 0, "{}", done.err);
}

fn put(new: &Pair, old: &Pair) {
    std::fs::rename(&new.key, &old.key).expect("a file");
    std::fs::rename(&new.cert, &old.cert).expect("a file");
}
