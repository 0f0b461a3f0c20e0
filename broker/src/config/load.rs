//! Second stage of the configuration: reads the files and directories that the checked command line
//! names, and returns what the broker starts with.

use super::checked_args::{CheckedArgs, Endpoint, StateDirArg, TokenFile};
use super::cli::{LogFormat, LogLevel, WorkerArgs};
use super::tls::TlsFiles;
use super::{script, tokens};
use crate::exit::Fatal;
use auth::list::TokenList;
use auth::private;
use protocol::settings::{Setting, Settings};
use std::path::{Path, PathBuf};

/// The configuration the broker starts with: checked, and with its files read.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect, besides the socket in the state directory.
    pub listen: Vec<Endpoint>,
    /// Where workers connect, besides the socket in the state directory.
    pub worker_listen: Endpoint,
    /// Name or address of this machine for workers on other hosts, if `--worker-host` gave one.
    pub worker_host: Option<String>,
    /// The files for TLS.
    pub tls: TlsFiles,
    /// The state directory; `None` = keep nothing.
    pub state: Option<PathBuf>,
    /// Scripts to run after the saved configuration: file and text.
    pub sources: Vec<(String, String)>,
    /// Path of the token file, which need not exist; `None` = no tokens are used.
    pub token_file: Option<PathBuf>,
    /// The tokens in that file; `None` = the file does not exist.
    pub tokens: Option<TokenList>,
    /// The file with the tokens that execds want proved; `None` = there is none.
    pub host_token_file: Option<PathBuf>,
    /// Settings of `--set`, in order; they win over the saved configuration.
    pub set: Vec<(Setting, u64)>,
    /// All settings: the defaults, changed by `--set`.
    pub settings: Settings,
    /// The file of `--ports-file`, written once everything listens.
    pub ports_file: Option<PathBuf>,
    /// The built-in services that are on.
    pub with: Vec<&'static str>,
    /// What the built-in execd may start, and as whom.
    pub workers: WorkerArgs,
    /// Least severity of logged lines.
    pub log: LogLevel,
    /// Format of log lines.
    pub log_format: LogFormat,
}

impl Config {
    /// Reads the files that the command line names and finds the state directory.
    ///
    /// # Errors
    /// A file can't be read, or the environment names no place for the state.
    #[allow(clippy::disallowed_methods, reason = "the environment says where state is kept")]
    pub fn load(args: CheckedArgs) -> Result<Self, Fatal> {
        let state = match args.state.clone() {
            StateDirArg::None => None,
            StateDirArg::At(dir) => Some(dir),
            StateDirArg::Default => Some(default_state()?),
        };
        let (token_file, tokens) = tokens_of(&args.tokens, state.as_deref())
            .map_err(|why| Fatal::Usage(format!("--tokens: {why}")))?;
        args.check_reach(tokens.is_some(), token_file.as_deref())?;
        let host_token_file = host_token_of(args.host_token.as_deref(), state.as_deref())
            .map_err(|why| Fatal::Usage(format!("--host-token: {why}")))?;
        let mut sources = Vec::new();
        for path in args.sources {
            let text =
                script::read(&path).map_err(|why| Fatal::Source(format!("--source {why}")))?;
            sources.push((path, text));
        }
        let ports_file = args.ports_file.as_deref().map(private::replace_target).transpose();
        let ports_file = ports_file.map_err(|why| Fatal::Usage(format!("--ports-file {why}")))?;
        let mut settings = Settings::default();
        for (setting, value) in &args.set {
            settings.set(*setting, *value);
        }
        Ok(Self {
            listen: args.listen,
            worker_listen: args.worker_listen,
            worker_host: args.worker_host,
            tls: args.tls,
            state,
            sources,
            token_file,
            tokens,
            host_token_file,
            set: args.set,
            settings,
            ports_file,
            with: args.with,
            workers: args.workers,
            log: args.log,
            log_format: args.log_format,
        })
    }
}

/// Finds the token file, which need not exist, and reads the tokens in it.
fn tokens_of(
    said: &TokenFile,
    state: Option<&Path>,
) -> Result<(Option<PathBuf>, Option<TokenList>), String> {
    let file = match (said, state) {
        (TokenFile::At(file), _) => {
            let tokens = tokens::read(file)?;
            return Ok((Some(file.clone()), Some(tokens)));
        }
        (TokenFile::None, _) | (TokenFile::Default, None) => return Ok((None, None)),
        (TokenFile::Default, Some(state)) => state.join(tokens::FILE),
    };
    if private::is_there(&file)? {
        let tokens = tokens::read(&file)?;
        return Ok((Some(file), Some(tokens)));
    }
    state.map_or(Ok(()), tokens::check_had_none)?;
    Ok((Some(file), None))
}

/// Finds the file with the tokens for hosts, if there is one. It is read again at each connection;
/// it is read here only to report errors at the start.
fn host_token_of(said: Option<&Path>, state: Option<&Path>) -> Result<Option<PathBuf>, String> {
    let file = match (said, state) {
        (Some(file), _) => file.to_owned(),
        (None, None) => return Ok(None),
        (None, Some(state)) => {
            let file = state.join(tokens::HOST_FILE);
            if !private::is_there(&file)? {
                return Ok(None);
            }
            file
        }
    };
    tokens::check_host_file(&file)?;
    Ok(Some(file))
}

/// The user's state directory.
///
/// # Errors
/// The environment names no place for it.
#[allow(clippy::disallowed_methods, reason = "the environment says where state is kept")]
pub fn default_state() -> Result<PathBuf, Fatal> {
    state_of(|name| std::env::var(name).ok())
}

/// The user's state directory, as the XDG convention places it.
fn state_of(variable: impl Fn(&str) -> Option<String>) -> Result<PathBuf, Fatal> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let base = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .ok_or_else(|| {
            Fatal::State(
                "neither XDG_STATE_HOME nor HOME names a place for the state; give --state DIR"
                    .to_owned(),
            )
        })?;
    Ok(base.join("isect"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_kept_where_the_convention_says() {
        let place = |xdg: Option<&str>, home: Option<&str>| {
            state_of(|name| {
                let value = if name == "HOME" { home } else { xdg };
                value.map(str::to_owned)
            })
        };
        assert_eq!(place(Some("/x"), Some("/h")).unwrap(), PathBuf::from("/x/isect"));
        assert_eq!(place(None, Some("/h")).unwrap(), PathBuf::from("/h/.local/state/isect"));
        assert_eq!(place(Some("x"), Some("/h")).unwrap(), PathBuf::from("/h/.local/state/isect"));
        assert!(place(None, None).unwrap_err().to_string().contains("--state"));
    }
}
