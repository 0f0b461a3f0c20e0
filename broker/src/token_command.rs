//! The command `isectd token`: adds, lists and removes tokens in a token file of the broker or of
//! an execd. It talks to no broker; `reload` or SIGHUP makes a running one read the file again.

use crate::config::load::default_state;
use crate::config::tokens::FILE;
use crate::exit::Fatal;
use auth::list::{Entry, FILE_BYTES_MAX, TokenList, with_line, without_line};
use auth::lock::Lock;
use auth::private;
use auth::scram::Cost;
use auth::token::Token;
use clap::{Args, Subcommand};
use nix::unistd::Uid;
use protocol::{Rights, TokenName};
use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What to do with tokens.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
#[expect(missing_docs, reason = "the fields are flattened groups of options")]
pub enum TokenCommand {
    /// Make a token and add it to the file; prints it, this once.
    Add {
        /// What it is called: letters, digits, '-', '_' and '.'.
        name: String,
        /// What it may do: client:SERVICE,SERVICE… or client:*, worker:… likewise, host,
        /// operator:read, operator:change, operator:danger; may be given several times.
        #[arg(long, value_name = "ROLE", required = true)]
        role: Vec<String>,
        /// Services for '--role client' and '--role worker' without any.
        #[arg(long, value_name = "SERVICE[,SERVICE]…")]
        service: Option<String>,
        /// Write the token into this new file, which nobody else may read, instead of printing it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        token_file: TokenFileArgs,
    },
    /// List the tokens: names and roles.
    List {
        #[command(flatten)]
        token_file: TokenFileArgs,
    },
    /// Remove a token from the file.
    Remove {
        /// The token's name.
        name: String,
        #[command(flatten)]
        token_file: TokenFileArgs,
    },
}

/// The options that choose a token file.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct TokenFileArgs {
    /// The token file [default: 'tokens' in the state directory].
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The state directory of the broker.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

impl TokenFileArgs {
    fn file(&self) -> Result<PathBuf, Fatal> {
        match (&self.file, &self.state) {
            (Some(file), _) => Ok(file.clone()),
            (None, Some(state)) => Ok(state.join(FILE)),
            (None, None) => Ok(default_state()?.join(FILE)),
        }
    }

    /// A warning to root when no file is named.
    fn note(&self, file: &Path) -> Option<String> {
        let is_unsaid = self.file.is_none() && self.state.is_none();
        (is_unsaid && Uid::effective().is_root()).then(|| {
            format!(
                "this is {}, of a broker that root itself runs; for one that runs as a user of its \
                 own name its state directory, as in --state /var/lib/isect",
                file.display()
            )
        })
    }
}

/// The output of the command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandOutput {
    /// On stdout.
    pub out: String,
    /// On stderr.
    pub note: Option<String>,
}

fn usage(text: impl Into<String>) -> Fatal {
    Fatal::Usage(text.into())
}

/// Runs the command; returns what is to be printed.
///
/// # Errors
/// A name or role is wrong, or the file can't be read or written.
pub fn run(command: &TokenCommand) -> Result<CommandOutput, Fatal> {
    let (TokenCommand::Add { token_file, .. }
    | TokenCommand::List { token_file }
    | TokenCommand::Remove { token_file, .. }) = command;
    let file = token_file.file()?;
    let note = token_file.note(&file);
    let out = change(command, &file).map_err(|fatal| match (&fatal, &note) {
        (Fatal::Usage(why), Some(note)) => usage(format!("{why}\n{note}")),
        _ => fatal,
    })?;
    Ok(CommandOutput { out, note })
}

fn change(command: &TokenCommand, file: &Path) -> Result<String, Fatal> {
    match command {
        TokenCommand::Add { name, role, service, out, token_file: _ } => {
            let rights = rights(role, service.as_deref()).map_err(usage)?;
            add(&self::name(name)?, rights, out.as_deref(), file)
        }
        TokenCommand::List { .. } => list(file),
        TokenCommand::Remove { name, token_file: _ } => {
            let (name, file) = (self::name(name)?, real(file)?);
            check_is_there(&file)?;
            let _lock = Lock::to_change(&file).map_err(usage)?;
            let text = without_line(&read(&file)?, &name).map_err(|why| at(&file, &why))?;
            private::replace(&file, &text).map_err(usage)?;
            Ok(format!("removed token '{name}' from {}\n{}", file.display(), hint()))
        }
    }
}

fn name(text: &str) -> Result<TokenName, Fatal> {
    TokenName::new(text).map_err(|e| usage(e.to_string()))
}

fn at(file: &Path, why: &str) -> Fatal {
    usage(format!("{}: {why}", file.display()))
}

fn hint() -> &'static str {
    "a running broker reads the file again at 'isdclient -c reload' or SIGHUP\n"
}

fn rights(roles: &[String], services: Option<&str>) -> Result<Rights, String> {
    let mut rights = Rights::default();
    let mut is_used = false;
    for role in roles {
        match (role.as_str(), services) {
            ("client" | "worker", Some(services)) => {
                is_used = true;
                rights.add(&format!("{role}:{services}"))?;
            }
            ("client" | "worker", None) => {
                return Err(format!(
                    "role {role} needs services: --role {role}:echo,sum, or --role '{role}:*' for all"
                ));
            }
            (role, _) => rights.add(role)?,
        }
    }
    match services {
        Some(_) if !is_used => Err("--service is for --role client and --role worker".into()),
        Some(_) | None => Ok(rights),
    }
}

/// The file to change, with symbolic links resolved.
fn real(file: &Path) -> Result<PathBuf, Fatal> {
    private::real(file).map_err(usage)
}

fn check_is_there(file: &Path) -> Result<(), Fatal> {
    if private::is_there(file).map_err(usage)? {
        return Ok(());
    }
    Err(usage(format!("{}: no such file; 'token add' makes it", file.display())))
}

fn read(file: &Path) -> Result<String, Fatal> {
    check_is_there(file)?;
    private::read_to_change(file, FILE_BYTES_MAX).map_err(usage)
}

fn add(name: &TokenName, rights: Rights, out: Option<&Path>, file: &Path) -> Result<String, Fatal> {
    let file = &real(file)?;
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        // The state directory, before the broker was ever started.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| at(folder, &e.to_string()))?;
    }
    let token = Token::make(name.clone()).map_err(Fatal::System)?;
    let entry = Entry::make(&token, rights, Cost::default()).map_err(Fatal::System)?;
    // The lock is held from reading to writing, so that no change of another program is lost.
    let _lock = Lock::to_change(file).map_err(usage)?;
    let is_there = private::is_there(file).map_err(usage)?;
    let text = if is_there { read(file)? } else { String::new() };
    let text = with_line(&text, name, &entry).map_err(|why| at(file, &why))?;
    // The token is written first: a line for a token that nobody has is useless.
    let shown = token.reveal();
    let mut said = String::new();
    match out {
        Some(out) => {
            private::create(out, &format!("{}\n", shown.as_str())).map_err(usage)?;
            // Writing to a String can't fail.
            let _ = writeln!(said, "wrote token '{name}' to {}", out.display());
        }
        None => {
            let _ = writeln!(said, "{}", shown.as_str());
        }
    }
    private::replace(file, &text)
        .inspect_err(|_| {
            if let Some(out) = out {
                let _ = std::fs::remove_file(out);
            }
        })
        .map_err(usage)?;
    Ok(said)
}

fn list(file: &Path) -> Result<String, Fatal> {
    let list = TokenList::parse(&read(file)?).map_err(|why| at(file, &why))?;
    let mut out = String::new();
    for (name, entry) in &list.entries {
        let _ = writeln!(out, "{:<20} {}", name.as_str(), entry.rights);
    }
    if !list.anonymous.is_empty() {
        let _ = writeln!(out, "{:<20} {}", "(without a token)", list.anonymous);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::os::unix::fs::MetadataExt;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: TokenCommand,
    }

    fn token(file: &Path, words: &[&str]) -> Result<String, String> {
        let file = file.to_str().unwrap();
        let line = [&["token"], words, &["--file", file]].concat();
        let line = Line::try_parse_from(line).map_err(|e| e.to_string())?;
        run(&line.command).map(|said| said.out).map_err(|fatal| {
            assert_eq!(fatal.status(), crate::exit::USAGE);
            fatal.to_string()
        })
    }

    #[test]
    fn tokens_are_made_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state/tokens");
        let shown = token(&file, &["add", "ops", "--role", "operator:danger"]).unwrap();
        let made = Token::parse(&shown).unwrap();
        assert_eq!(made.name().as_str(), "ops");
        let out = dir.path().join("shop.token");
        let words = ["add", "shop", "--role", "client", "--service", "echo,sum", "--out"];
        let said = token(&file, &[&words[..], &[out.to_str().unwrap()]].concat()).unwrap();
        let secret = std::fs::read_to_string(&out).unwrap();
        assert!(said.contains("wrote token 'shop'") && !said.contains(secret.trim()));
        assert!(Token::from_file(&out).is_ok());
        let text = std::fs::read_to_string(&file).unwrap();
        for secret in [shown.trim(), secret.trim()] {
            assert!(!text.contains(secret.rsplit('.').next().unwrap()), "{text}");
        }
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(
            token(&file, &["list"]).unwrap(),
            "ops                  operator:danger\nshop                 client:echo,sum\n"
        );
        assert!(token(&file, &["remove", "ops"]).unwrap().contains("reload"));
        assert!(!token(&file, &["list"]).unwrap().contains("ops"));
    }

    #[test]
    fn what_is_wrong_is_said_with_the_cure_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        assert!(token(&file, &["list"]).unwrap_err().contains("'token add' makes it"));
        assert!(token(&file, &["add", "x", "--role", "client"]).unwrap_err().contains("client:*"));
        assert!(!file.exists());
        token(&file, &["add", "ops", "--role", "host"]).unwrap();
        let before = std::fs::read_to_string(&file).unwrap();
        for (words, part) in [
            (&["add", "ops", "--role", "host"][..], "there already"),
            (&["add", "o ps", "--role", "host"], "contains ' '"),
            (&["add", "x", "--role", "admin"], "no role"),
            (&["add", "x"], "--role"),
            (&["add", "x", "--role", "host", "--service", "echo"], "--service is for"),
            (&["add", "x", "--role", "host", "--out", file.to_str().unwrap()], "name a new file"),
            (&["remove", "x"], "no token 'x'"),
        ] {
            let error = token(&file, words).unwrap_err();
            assert!(error.contains(part), "{words:?}: {error}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), before, "{words:?}");
        }
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .unwrap();
        assert!(token(&file, &["list"]).unwrap_err().contains("chmod 600"));
    }

    #[test]
    fn what_root_makes_for_another_user_is_that_users() {
        if !Uid::effective().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(65_534), Some(65_534)).unwrap();
        let file = dir.path().join("tokens");
        let owner = || std::fs::metadata(&file).unwrap().uid();
        for step in [&["add", "ops", "--role", "host"][..], &["add", "b", "--role", "host"]] {
            token(&file, step).unwrap();
            assert_eq!(owner(), 65_534, "{step:?}");
        }
        assert!(token(&file, &["list"]).unwrap().contains("ops"));
        token(&file, &["remove", "ops"]).unwrap();
        assert_eq!(owner(), 65_534);
    }

    #[test]
    fn root_is_told_whose_file_it_is_if_none_is_named() {
        let line = Line::try_parse_from(["token", "list"]).unwrap();
        let TokenCommand::List { token_file } = &line.command else { panic!() };
        let note = token_file.note(Path::new("/root/x/tokens"));
        assert_eq!(note.is_some(), Uid::effective().is_root());
        assert!(
            note.is_none_or(|note| note.contains("/root/x/tokens") && note.contains("--state"))
        );
        let named = TokenFileArgs { file: None, state: Some("/x".into()) };
        assert_eq!(named.note(Path::new("/x/tokens")), None);
    }
}
