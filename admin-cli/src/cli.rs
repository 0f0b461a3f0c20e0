//! The command line of `isdclient` (product contract): the options and their ranges.

use crate::generate::What;
use crate::status::Failure;
use crate::verbs::Verb;
use bytes::Bytes;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Parser};
use client::address::Address;
use client::token::Token;
use client::trust::Trust;
use protocol::limits::{DEADLINE_MS_MAX, PRIORITY_DEFAULT, PRIORITY_MAX, PRIORITY_MIN};
use protocol::names::ServiceName;
use protocol::op::table::COMMANDS;
use std::path::PathBuf;
use std::time::Duration;

/// The heading of the options that verbs have, too.
const CONNECTION: &str = "Connection";

const AFTER: &str = "\
Without -c, on a terminal: an interactive console. Otherwise standard input: the lines up to a line
that is exactly 'go' are one message, the reply goes to standard output, and so on; what follows the
last 'go' is a message too, if it is not blank. For the service 'op', input without any 'go' is a
script: a command a line, blank lines and lines that begin with # are skipped, errors name the line.
If one of them is to change something, or failed, it ends with a summary: done, unchanged, failed.
With -k all messages are one conversation with one worker; the last has no 'more'. They are sent
as soon as the one after each is there, and the replies are printed as they come.
-c may be given several times: all are sent in order, and the status is that of the first failure.

The verbs pub, sub, announce and logs take no SERVICE; 'isdclient pub --help' explains one. A
service of such a name stands behind '--': isdclient -c hello -- pub

Exit status: 0 done; 1 the broker or the worker answered with an error (its text on standard
error); 2 usage; 3 no connection, or it was lost; 4 not answered in time.

Examples:
  isdclient -c services
  isdclient -c \"config worker echo localhost /usr/local/bin/isdecho\" -c \"start echo\"
  isdclient -c hello echo
  isdclient < saved-configuration
  isdclient --json -c workers
  isdclient pub orders.eu.created 17
  isdclient sub 'orders.>'
  isdclient announce pump -- /usr/local/bin/pump
  isdclient logs echo -f

'isdclient -c help' lists the operator's commands.";

/// Operator's console and generic client of isect: sends commands to the broker, or requests to a
/// service.
#[derive(Clone, Debug, Parser)]
#[command(name = "isdclient", version, after_help = AFTER, disable_help_flag = true)]
#[command(disable_help_subcommand = true, subcommand_value_name = "VERB")]
#[command(subcommand_help_heading = "Verbs")]
#[command(
    override_usage = "isdclient [-h [tls://]HOST[:PORT]|unix:PATH] [-c COMMAND]... [-k] [-d] \
    [--json] [--timeout MS] [--priority N] [--idempotent] [--token-file FILE] [SERVICE]\n       \
    isdclient [OPTIONS] pub|sub|announce|logs ..."
)]
pub struct Cli {
    /// The broker's address [default: $ISECT_HOST, else the Unix socket in the state directory,
    /// else 127.0.0.1:5501]
    #[arg(short = 'h', long = "host", value_name = "[tls://]HOST[:PORT]|unix:PATH",
        value_parser = address, global = true, help_heading = CONNECTION)]
    pub host: Option<Address>,

    /// File of the CAs that a tls:// address is checked with [default: $ISECT_CA]
    #[arg(long, value_name = "FILE", global = true, help_heading = CONNECTION)]
    pub tls_ca: Option<PathBuf>,

    /// Certificate to show at a tls:// address that wants one [default: $ISECT_CERT]
    #[arg(long, value_name = "FILE", requires = "tls_key", global = true,
        help_heading = CONNECTION)]
    pub tls_cert: Option<PathBuf>,

    /// Its key; nobody else may be able to read the file [default: $ISECT_KEY]
    #[arg(long, value_name = "FILE", requires = "tls_cert", global = true,
        help_heading = CONNECTION)]
    pub tls_key: Option<PathBuf>,

    /// Text to send to SERVICE, or an operator's command; may be given several times
    #[arg(short = 'c', long = "command", value_name = "COMMAND", allow_hyphen_values = true)]
    pub commands: Vec<String>,

    /// Keep the worker: all messages are one conversation (sets 'more')
    #[arg(short = 'k', long = "keep")]
    pub keep: bool,

    /// Show each frame sent and received on standard error
    #[arg(short = 'd', long = "debug")]
    pub debug: bool,

    /// Answers of the broker, and errors, as JSON on standard output
    #[arg(long, global = true)]
    pub json: bool,

    /// How long an answer is worth waiting for, in milliseconds, at most an hour
    #[arg(long, value_name = "MS",
        value_parser = clap::value_parser!(u64).range(1..=DEADLINE_MS_MAX))]
    pub timeout: Option<u64>,

    /// Priority of the requests, 1 to 255, lower is served first
    #[arg(long, value_name = "N", default_value_t = PRIORITY_DEFAULT,
        value_parser = clap::value_parser!(u8).range(PRIORITY_MIN as i64..=PRIORITY_MAX as i64))]
    pub priority: u8,

    /// The request may be run again on another worker if its worker dies
    #[arg(long)]
    pub idempotent: bool,

    /// The worker may put the deadline off while it sends parts of its answer, in all up to an hour
    #[arg(long)]
    pub extendable: bool,

    /// File with the token to log in with [default: $ISECT_TOKEN_FILE, else $ISECT_TOKEN is the
    /// token itself]
    #[arg(long, value_name = "FILE", global = true, help_heading = CONNECTION)]
    pub token_file: Option<PathBuf>,

    /// Print this help
    #[arg(long = "help", action = ArgAction::Help, global = true)]
    pub help: Option<bool>,

    /// Print a completion script (bash, zsh, fish), the man page or docs/op.md, made from the table
    /// of commands, and end
    #[arg(long, value_name = "WHAT", value_enum)]
    pub generate: Option<What>,

    /// The service to ask
    #[arg(value_name = "SERVICE", default_value = "op", value_parser = service)]
    pub service: ServiceName,

    /// What to do instead
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

impl Cli {
    /// What was said beside a verb that belongs to requests; `None` = nothing.
    pub fn beside_verb(&self) -> Option<String> {
        self.verb.as_ref()?;
        let said = [
            ("-c", !self.commands.is_empty()),
            ("-k", self.keep),
            ("-d", self.debug),
            ("--timeout", self.timeout.is_some()),
            ("--idempotent", self.idempotent),
            ("--extendable", self.extendable),
            ("--priority", self.priority != PRIORITY_DEFAULT),
            ("SERVICE", !self.service.is_op()),
        ];
        let (what, _) = said.iter().find(|(_, is_said)| *is_said)?;
        Some(format!(
            "{what} before a verb is for requests; options of the verb stand behind it, and a \
             service of the verb's name behind '--'"
        ))
    }

    /// Whether to read commands from a person at a prompt.
    pub fn is_interactive(&self, stdin_is_terminal: bool) -> bool {
        self.commands.is_empty() && self.verb.is_none() && stdin_is_terminal
    }

    /// The deadline of each request; `None` = the service's default.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout.map(Duration::from_millis)
    }

    /// The files for a `tls://` address, where options name them.
    pub fn trust(&self) -> Trust {
        let Self { tls_ca, tls_cert, tls_key, .. } = self.clone();
        Trust { ca: tls_ca, cert: tls_cert, key: tls_key }.or_env()
    }

    /// The addresses to try, in order.
    ///
    /// # Errors
    /// The environment names something that is not an address.
    pub fn addresses(&self) -> Result<Vec<Address>, Failure> {
        match &self.host {
            Some(address) => Ok(vec![address.clone()]),
            None => Address::defaults().map_err(|error| {
                let context = error.context().unwrap_or_default();
                Failure::Usage(format!("{context}: {}", error.text))
            }),
        }
    }

    /// The token of `--token-file` or the environment; `None` = there is none.
    ///
    /// # Errors
    /// The file can't be read, others may read it, or it has no token in it.
    pub fn token(&self) -> Result<Option<Token>, Failure> {
        let token = match &self.token_file {
            Some(file) => Token::from_file(file).map(Some),
            None => Token::from_environment(),
        };
        token.map_err(|error| {
            let context = error.context().map_or_else(String::new, |said| format!("{said}: "));
            Failure::Usage(format!("{context}{}; {}", error.text, error.advice()))
        })
    }

    /// The texts of `-c` as messages, in order.
    pub fn messages(&self) -> Vec<Bytes> {
        self.commands.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect()
    }
}

fn address(text: &str) -> Result<Address, String> {
    Address::parse(text).map_err(|error| error.text)
}

fn service(text: &str) -> Result<ServiceName, String> {
    let is_command = COMMANDS.iter().any(|row| row.first() == text);
    let hint = format!("; as a command it is given so: isdclient -c {text}");
    let hint = if is_command { hint.as_str() } else { "" };
    ServiceName::new(text).map_err(|error| format!("{error}{hint}"))
}

/// The error text for more words than a service; most likely a text without `-c`.
pub fn surplus(error: &clap::Error) -> Option<String> {
    let word = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) if error.kind() == ErrorKind::UnknownArgument => word,
        Some(_) | None => return None,
    };
    let is_word = !word.starts_with('-');
    is_word.then(|| {
        format!(
            "'{}' is one word too many: only a SERVICE stands alone. What is sent to it stands \
             behind -c, in quotes: isdclient -c \"TEXT\" SERVICE; a command to the broker needs no \
             SERVICE: isdclient -c \"COMMAND\"",
            word.escape_debug()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["isdclient"], line].concat())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_contract_is_taken() {
        let cli = parse(&[
            "-h",
            "h2:77",
            "-c",
            "services",
            "-c",
            "-x y",
            "-k",
            "-d",
            "--json",
            "--timeout",
            "5",
            "--priority",
            "7",
            "--idempotent",
            "echo",
        ])
        .unwrap();
        assert_eq!(cli.host.as_ref().map(ToString::to_string).as_deref(), Some("h2:77"));
        assert_eq!(cli.commands, ["services", "-x y"]);
        assert!(cli.keep && cli.debug && cli.json && cli.idempotent);
        assert_eq!((cli.timeout(), cli.priority), (Some(Duration::from_millis(5)), 7));
        assert_eq!(cli.service.as_str(), "echo");
        let bare = parse(&[]).unwrap();
        assert!(bare.service.is_op() && bare.commands.is_empty() && bare.timeout().is_none());
        assert!(bare.is_interactive(true) && !bare.is_interactive(false));
        assert!(!cli.is_interactive(true));
        assert_eq!(parse(&["-c", ""]).unwrap().commands, [""]);
        assert_eq!(parse(&["-hunix:/run/x"]).unwrap().host, Some(Address::Unix("/run/x".into())));
    }

    #[test]
    fn a_text_without_c_is_told_from_a_service() {
        let told = |line: &[&str]| surplus(&parse(line).unwrap_err());
        assert!(told(&["hello", "d"]).unwrap().starts_with("'d' is one word too many"));
        assert!(told(&["config", "service", "x"]).unwrap().contains("-c \"COMMAND\""));
        assert_eq!(told(&["--jsn"]), None);
        let error = parse(&["services"]).unwrap_err().to_string();
        assert!(error.contains("isdclient -c services"), "{error}");
    }

    #[test]
    fn verbs_stand_in_the_place_of_a_service() {
        let told = |line: &[&str]| {
            let cli = parse(line).unwrap();
            (cli.verb.is_some(), cli.beside_verb().is_some())
        };
        assert_eq!(told(&["pub", "orders.eu", "17"]), (true, false));
        assert_eq!(told(&["-h", "x:1", "--json", "sub", "orders.>", "a"]), (true, false));
        assert_eq!(told(&["announce", "pump", "--", "/bin/pump", "-v"]), (true, false));
        assert_eq!(told(&["-c", "hi", "pub", "orders.eu"]), (true, true));
        assert_eq!(told(&["--timeout", "5", "sub", "a"]), (true, true));
        // Services of such names, and others.
        let cli = parse(&["-c", "hi", "--", "pub"]).unwrap();
        assert_eq!((cli.verb.is_none(), cli.service.as_str()), (true, "pub"));
        assert_eq!(parse(&["publish"]).unwrap().service.as_str(), "publish");
        let cli =
            parse(&["sub", "-h", "x:1", "--token-file", "/t", "--timeout", "7", "a"]).unwrap();
        assert!(cli.host.is_some() && cli.token_file.is_some() && cli.timeout().is_none());
        assert!(!cli.is_interactive(true));
    }

    #[test]
    fn wrong_words_of_a_verb_are_told() {
        for (line, part) in [
            (&["pub", "a..b"][..], "word 2"),
            (&["pub", "a.>"], "wildcard"),
            (&["pub"], "TOPIC"),
            (&["pub", "--remove", "a", "x"], "--remove"),
            (&["pub", "--lines", "a", "x"], "--lines"),
            (&["pub", "--expires", "0", "a"], "1..="),
            (&["sub"], "PATTERN"),
            (&["sub", "a.>.b"], "before its end"),
            (&["sub", "--from", "7", "a"], "two numbers"),
            (&["sub", "-n", "0", "a"], "1.."),
            (&["announce", "pump"], "PROGRAM"),
            (&["announce", "7up", "--", "x"], "begins with '7'"),
            (&["announce", "a", "--timeout", "99", "--", "x"], "100..=86400000"),
            (&["announce", "a", "--type", "nice", "--", "x"], "management"),
            (&["announce", "a", "--meta", "alone", "--", "x"], "a blank and a value"),
            (&["announce", "a", "--group", "", "--", "x"], "--group"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line:?}");
            assert!(error.to_string().contains(part), "{line:?}: {error}");
        }
        for verb in ["pub", "sub", "announce"] {
            let help = parse(&[verb, "--help"]).unwrap_err();
            assert_eq!(help.kind(), ErrorKind::DisplayHelp);
            assert!(help.to_string().contains("Example"), "{help}");
        }
    }

    #[test]
    fn h_is_the_host_and_help_is_spelled_out() {
        assert_eq!(parse(&["--help"]).unwrap_err().kind(), ErrorKind::DisplayHelp);
        assert!(parse(&["-h"]).unwrap_err().use_stderr());
        assert_eq!(parse(&["--version"]).unwrap_err().kind(), ErrorKind::DisplayVersion);
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("Exit status: 0 done") && help.contains("ISECT_HOST"), "{help}");
        assert!(help.contains("--generate <WHAT>") && help.contains("zsh"), "{help}");
    }

    #[test]
    fn wrong_values_are_told_with_their_range() {
        for (line, part) in [
            (&["--timeout", "0"][..], "1..=3600000"),
            (&["--timeout", "3600001"], "1..=3600000"),
            (&["--timeout", "-1"], "-1"),
            (&["--timeout", "soon"], "soon"),
            (&["--priority", "0"], "1..=255"),
            (&["--priority", "256"], "1..=255"),
            (&["-h", "a:b"], "no port from 1 to 65535"),
            (&["-h", ""], "no host"),
            (&["7up"], "begins with '7'"),
            (&["two", "words"], "words"),
            (&["--jsn"], "--json"),
            (&["-c"], "-c"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.use_stderr(), "{line:?}");
            assert_eq!(error.exit_code(), 2, "{line:?}");
            assert!(error.to_string().contains(part), "{line:?}: {error}");
        }
    }
}
