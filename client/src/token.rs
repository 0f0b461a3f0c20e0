//! The token of a caller or of a self-started worker, from a private file or the environment, never
//! from the command line.

use crate::conn::Conn;
use crate::error::Error;
use auth::prover::Prover;
use protocol::limits::{TOKEN_FILE_VARIABLE, TOKEN_VARIABLE};
use protocol::{Challenge, ErrorCode, Proof, Role, ServiceName};
use std::ffi::OsString;
use std::path::Path;

/// A name and a secret. The token is proved to the broker without being sent, and debug output
/// hides the secret.
#[derive(Clone, Debug)]
pub struct Token(auth::token::Token);

impl Token {
    /// Parses `NAME.SECRET`, as `isectd token add` prints it.
    ///
    /// # Errors
    /// The text is not a token; the error does not repeat it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        auth::token::Token::parse(text).map(Self).map_err(usage)
    }

    /// Reads a file with a token. Only its owner, who must be this user or root, may write it, and
    /// only the owner and its group may read it.
    ///
    /// # Errors
    /// The file can't be read, others may read or change it, or it has no token in it.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let read = auth::token::Token::from_file(path);
        read.map(Self).map_err(|why| usage(format!("token file {why}")))
    }

    /// The token of the environment: `ISECT_TOKEN_FILE` names a file, otherwise `ISECT_TOKEN` is
    /// the token itself; `None` = neither is set.
    ///
    /// # Errors
    /// The variable or file does not have a valid token.
    pub fn from_environment() -> Result<Option<Self>, Error> {
        if let Some(path) = variable(TOKEN_FILE_VARIABLE) {
            let token = Self::from_file(Path::new(&path));
            return token.map(Some).map_err(|e| e.with_context(TOKEN_FILE_VARIABLE));
        }
        // A value that is not UTF-8 is not a token, and must not make the program go without one.
        let text = variable(TOKEN_VARIABLE).map(|text| text.to_string_lossy().into_owned());
        let token = text.map(|text| Self::parse(&text)).transpose();
        token.map_err(|e| e.with_context(TOKEN_VARIABLE))
    }

    /// Begins the proof for a login.
    pub(crate) fn prover(&self, role: Role, service: &ServiceName) -> Result<Prover, Error> {
        Prover::begin(&self.0, role, service.as_str()).map_err(unproven)
    }
}

/// Answers a challenge on a connection with this channel binding.
pub(crate) fn prove(
    prover: Option<&mut Prover>,
    challenge: &Challenge,
    conn: &Conn,
) -> Result<Proof, Error> {
    let prover = prover.ok_or_else(|| unproven("no token was named"))?;
    let channel = conn.channel().map_err(unproven)?;
    prover.answer(challenge, channel.as_ref()).map_err(unproven)
}

fn usage(text: String) -> Error {
    Error::new(ErrorCode::Usage, text).with_advice("'isectd token add NAME --role …' makes a token")
}

/// The error for a broker that did not behave as one that knows the token.
fn unproven(text: impl Into<String>) -> Error {
    Error::new(ErrorCode::Unproven, text)
}

/// The error for a broker that accepted the login without proving that it knows the token.
pub(crate) fn not_signed() -> Error {
    unproven("the broker let this login in, but did not prove that it knows the token")
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
