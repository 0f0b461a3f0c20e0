//! Finds and reads the broker's token file, and the file of tokens that it proves to execds.
//! `auth::list` defines the format; the command `isectd token` changes the file.

use auth::list::{FILE_BYTES_MAX, TokenList};
use auth::private;
use auth::token::Token;
use protocol::names::HostName;
use std::path::Path;
use zeroize::Zeroizing;

/// Name of the token file in the state directory.
pub const FILE: &str = "tokens";

/// Name, in the state directory, of the file with the tokens that the broker proves to execds.
pub const HOST_FILE: &str = "host-token";

/// Name, in the state directory, of the record that tokens are in force; it holds the path of their
/// file.
pub const NOTE: &str = "tokens-in-force";

/// Largest file of tokens for hosts.
pub const HOST_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Reads a token file.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn read(path: &Path) -> Result<TokenList, String> {
    let text = private::read(path, FILE_BYTES_MAX)?;
    TokenList::of_file(&text).map_err(|why| format!("{}: {why}", path.display()))
}

/// Checks that a broker of this state directory may start without tokens. A broker that had tokens
/// must not become open because their file is missing.
///
/// # Errors
/// Tokens were in force; says which, and the ways out.
pub fn check_had_none(state: &Path) -> Result<(), String> {
    let note = state.join(NOTE);
    let text = match private::is_there(&note)? {
        true => private::read(&note, FILE_BYTES_MAX)?,
        false => return Ok(()),
    };
    let file = text.trim().escape_debug();
    Err(format!(
        "the tokens of {file} were in force when this broker last ran, and now there are none, so \
         everybody would be let in; put the file back, make tokens ('isectd token add NAME --role \
         …'), name their file with --tokens FILE, or say --tokens none if that is meant"
    ))
}

/// The token to prove to the execd of a host; `None` = there is none for it. The file has lines
/// `HOST TOKEN`, and `TOKEN` alone for all other hosts.
///
/// # Errors
/// Names the file and what is wrong with it, never a token.
pub fn of_host(path: &Path, host: &HostName) -> Result<Option<Token>, String> {
    host_file(path, Some(host))
}

/// Says at once what is wrong with a file of tokens for hosts.
///
/// # Errors
/// As [`of_host`], for each of its lines.
pub fn check_host_file(path: &Path) -> Result<(), String> {
    host_file(path, None).map(|_| ())
}

fn host_file(path: &Path, host: Option<&HostName>) -> Result<Option<Token>, String> {
    let text = Zeroizing::new(private::read(path, HOST_FILE_BYTES_MAX)?);
    let (mut own, mut general, mut has_others) = (None, None, false);
    for (at, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (token_of, token) = match words.as_slice() {
            [] => continue,
            [first, ..] if first.starts_with('#') => continue,
            [token] => (&mut general, token),
            [name, token] if host.is_none_or(|host| *name == host.as_str()) => (&mut own, token),
            [_, _] => {
                has_others = true;
                continue;
            }
            _ => {
                return Err(format!(
                    "{}: line {}: a line is 'HOST TOKEN' or 'TOKEN'",
                    path.display(),
                    at + 1
                ));
            }
        };
        let wrong = |why| format!("{}: line {}: {why}", path.display(), at + 1);
        *token_of = Some(Token::parse(token).map_err(wrong)?);
    }
    if own.is_none() && general.is_none() && !has_others {
        return Err(format!(
            "{}: has no token in it, so any execd would be taken for the host's; a line is 'HOST \
             TOKEN' or 'TOKEN'; remove the file if that is meant",
            path.display()
        ));
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
        for text in ["", "\n# hosts\n"] {
            private::replace(&path, text).unwrap();
            let error = of_host(&path, &HostName::new("h1").unwrap()).unwrap_err();
            assert!(error.contains("has no token in it"), "{error}");
            assert_eq!(check_host_file(&path), Err(error));
        }
        private::replace(&path, &format!("h1 one.{secret}\nh2 short\n")).unwrap();
        assert!(check_host_file(&path).unwrap_err().contains("line 2"));
        for text in [format!("h1 a b.{secret}\n"), format!("h1 {secret}\n")] {
            private::replace(&path, &text).unwrap();
            let error = of_host(&path, &HostName::new("h1").unwrap()).unwrap_err();
            assert!(error.contains("line 1") && !error.contains(secret), "{error}");
        }
    }

    #[test]
    fn who_had_tokens_does_not_start_without_any() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(check_had_none(dir.path()), Ok(()));
        private::create(&dir.path().join(NOTE), "/etc/isect/tokens\n").unwrap();
        let why = check_had_none(dir.path()).unwrap_err();
        for part in ["/etc/isect/tokens", "--tokens none", "isectd token add"] {
            assert!(why.contains(part), "{part}: {why}");
        }
        std::fs::remove_file(dir.path().join(NOTE)).unwrap();
        std::os::unix::fs::symlink("/no/such", dir.path().join(NOTE)).unwrap();
        assert!(check_had_none(dir.path()).unwrap_err().contains("symbolic link"));
    }

    #[test]
    fn an_empty_file_is_no_token_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        for text in ["", "\n \n", "\0\0\0"] {
            private::replace(&path, text).unwrap();
            assert!(read(&path).unwrap_err().contains("is empty"), "{text:?}");
        }
        // All tokens were removed, so nobody is let in.
        private::replace(&path, "# isect tokens\n").unwrap();
        assert!(read(&path).unwrap().entries.is_empty());
    }
}
