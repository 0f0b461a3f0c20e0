//! A token as its holder has it: `NAME.SECRET`, from a private file or the environment, never from
//! a command line. Debug output hides the secret, and dropping the token wipes it from memory.

use crate::private;
use crate::scram::{Cost, Keys};
use protocol::names::TokenName;
use protocol::show::digits;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// Fewest characters of a secret.
const SECRET_MIN: usize = 16;
/// Most characters of a secret.
const SECRET_MAX: usize = 256;
/// Most bytes of a file with a token.
const FILE_MAX: u64 = 4096;

/// The last derived keys, with the salt and cost that they were derived with.
type Hashed = Option<(Vec<u8>, Cost, Keys)>;

/// A token: a name and a secret. Clones share both.
#[derive(Clone)]
pub struct Token {
    name: TokenName,
    secret: Arc<Zeroizing<String>>,
    /// The hash is expensive on purpose, so it is computed once for all logins of a program.
    hashed: Arc<Mutex<Hashed>>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}.…)", self.name)
    }
}

impl Token {
    /// Makes a token with a new random secret of 32 bytes.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn make(name: TokenName) -> Result<Self, String> {
        let secret = Zeroizing::new(crate::random_bytes::<32>()?);
        Ok(Self::of(name, digits(secret.as_ref())))
    }

    fn of(name: TokenName, secret: String) -> Self {
        let secret = Arc::new(Zeroizing::new(secret));
        Self { name, secret, hashed: Arc::default() }
    }

    /// Parses `NAME.SECRET`; white space around it is ignored.
    ///
    /// # Errors
    /// The text is not a token. The error never repeats what was given.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let form = "a token is one line, NAME.SECRET, as 'isectd token add' prints it";
        let (name, secret) = text.rsplit_once('.').ok_or(form)?;
        let name = TokenName::new(name).map_err(|_| form)?;
        if !(SECRET_MIN..=SECRET_MAX).contains(&secret.len()) {
            return Err(format!(
                "the secret of token '{name}' has {} letters, and must have {SECRET_MIN} to \
                 {SECRET_MAX}",
                secret.len()
            ));
        }
        if !secret.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(form.into());
        }
        Ok(Self::of(name, secret.to_owned()))
    }

    /// Reads a private file with a token.
    ///
    /// # Errors
    /// The file can't be read, others may read it, or it has no token in it.
    pub fn from_file(path: &Path) -> Result<Self, String> {
        let text = Zeroizing::new(private::read(path, FILE_MAX)?);
        Self::parse(&text).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// The name before the dot.
    pub fn name(&self) -> &TokenName {
        &self.name
    }

    /// `NAME.SECRET`, for showing a new token to its holder once.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{}.{}", self.name, self.secret.as_str()))
    }

    /// The keys for this salt and cost; derived on the first call, then remembered.
    ///
    /// # Errors
    /// See [`Keys::derive`].
    pub fn keys(&self, salt: &[u8], cost: Cost) -> Result<Keys, String> {
        let mut hashed = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, at, keys)) = &*hashed
            && of == salt
            && *at == cost
        {
            return Ok(keys.clone());
        }
        let keys = Keys::derive(self.secret.as_bytes(), salt, cost)?;
        *hashed = Some((salt.to_vec(), cost, keys.clone()));
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_printed_and_hides_itself() {
        let made = Token::make(TokenName::new("ops.eu").unwrap()).unwrap();
        let shown = made.reveal();
        let read = Token::parse(&format!(" {}\n", shown.as_str())).unwrap();
        assert_eq!((read.name().as_str(), read.reveal()), ("ops.eu", shown.clone()));
        assert_eq!(format!("{made:?}"), "Token(ops.eu.…)");
        let other = Token::make(TokenName::new("ops.eu").unwrap()).unwrap();
        assert_ne!(other.reveal(), shown);
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_repeated() {
        for text in ["", "ops", "ops.short", ".0123456789abcdef", "o ps.0123456789abcdef"] {
            let error = Token::parse(text).unwrap_err();
            assert!(!error.contains("0123456789"), "{error}");
        }
        assert!(Token::parse(&format!("ops.{}", "x".repeat(SECRET_MAX))).is_ok());
        let error = Token::parse(&format!("ops.{}", "x".repeat(SECRET_MAX + 1))).unwrap_err();
        assert!(error.contains("257 letters") && !error.contains("xx"), "{error}");
        assert!(Token::parse("ops.0123456789abcde\u{7f}f").is_err());
    }

    #[test]
    fn the_hash_is_made_once_for_a_salt() {
        let token = Token::parse("ops.0123456789abcdef").unwrap();
        let cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };
        let copy = token.clone();
        let one = token.keys(b"saltsalt", cost).unwrap().verifier();
        assert_eq!(copy.hashed.lock().unwrap().as_ref().unwrap().2.verifier(), one);
        assert_ne!(copy.keys(b"other salt", cost).unwrap().verifier(), one);
        assert_eq!(token.keys(b"saltsalt", cost).unwrap().verifier(), one);
    }
}
