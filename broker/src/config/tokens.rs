//! The token file of the broker: where it is by default, how it is read. Not what stands in it
//! (`auth::list`), not who changes it (the command `isectd token`).

use auth::list::{FILE_BYTES_MAX, TokenList};
use auth::private;
use auth::token::Token;
use protocol::names::HostName;
use std::path::Path;
use zeroize::Zeroizing;

/// Its name in the state directory.
pub const FILE: &str = "tokens";

/// The name, in the state directory, of the file with the tokens that execds want proved.
pub const HOST_FILE: &str = "host-token";

/// Largest file of tokens for hosts.
pub const HOST_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Reads a token file.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn read(path: &Path) -> Result<TokenList, String> {
    let text = private::read(path, FILE_BYTES_MAX)?;
    TokenList::parse(&text).map_err(|why| format!("{}: {why}", path.display()))
}

/// The token to prove to the execd of a host; `None` = there is none for it. The file has lines
/// `HOST TOKEN`, and `TOKEN` alone for all other hosts.
///
/// # Errors
/// Names the file and what is wrong with it, never a token.
pub fn of_host(path: &Path, host: &HostName) -> Result<Option<Token>, String> {
    let text = Zeroizing::new(private::read(path, HOST_FILE_BYTES_MAX)?);
    let (mut own, mut general) = (None, None);
    for (at, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (place, token) = match words.as_slice() {
            [] => continue,
            [first, ..] if first.starts_with('#') => continue,
            [token] => (&mut general, token),
            [name, token] if *name == host.as_str() => (&mut own, token),
            [_, _] => continue,
            _ => {
                return Err(format!(
                    "{}: line {}: a line is 'HOST TOKEN' or 'TOKEN'",
                    path.display(),
                    at + 1
                ));
            }
        };
        let wrong = |why| format!("{}: line {}: {why}", path.display(), at + 1);
        *place = Some(Token::parse(token).map_err(wrong)?);
    }
    Ok(own.or(general))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_token_of_its_own_or_that_of_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(HOST_FILE);
        let secret = "0123456789abcdef";
        let text = format!("# hosts\nh1 one.{secret}\n\nany.{secret}\nh2 two.{secret}\n");
        private::create(&path, &text).unwrap();
        let name = |host: &str| {
            let token = of_host(&path, &HostName::new(host).unwrap()).unwrap();
            token.map(|token| token.name().to_string())
        };
        assert_eq!(name("h1").as_deref(), Some("one"));
        assert_eq!(name("h2").as_deref(), Some("two"));
        assert_eq!(name("h3").as_deref(), Some("any"));
        private::replace(&path, &format!("h1 one.{secret}\n")).unwrap();
        assert_eq!(name("h3"), None);
        for text in [format!("h1 a b.{secret}\n"), format!("h1 {secret}\n")] {
            private::replace(&path, &text).unwrap();
            let error = of_host(&path, &HostName::new("h1").unwrap()).unwrap_err();
            assert!(error.contains("line 1") && !error.contains(secret), "{error}");
        }
    }
}
