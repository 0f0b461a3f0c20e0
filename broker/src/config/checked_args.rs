//! First stage of the configuration: checks the command line by itself, without touching the
//! machine.

use super::cli::{Args, LogFormat, LogLevel, WorkerArgs};
use super::tls::{Ports, TlsFiles};
use crate::engine::builtin::{self, BUILT_IN};
use crate::exit::Fatal;
use protocol::address::{Host, HostPort, ParsedAddress};
use protocol::limits::{CLIENT_PORT, TLS_PREFIX};
use protocol::settings::{SETTINGS, Setting};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use transport::setup::ListenerFiles;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// TCP; port 0 = any.
    Tcp(SocketAddr),
    /// TLS over TCP; port 0 = any.
    Tls(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// The choice of `--state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateDirArg {
    /// In the user's state directory.
    Default,
    /// Nowhere.
    None,
    /// Here.
    At(PathBuf),
}

/// The choice of `--tokens`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenFile {
    /// In the state directory, if there is one.
    Default,
    /// There are none.
    None,
    /// Here.
    At(PathBuf),
}

/// The command line, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedArgs {
    /// Addresses for clients, from `--listen`.
    pub listen: Vec<Endpoint>,
    /// Where workers connect, over TCP or TLS.
    pub worker_listen: Endpoint,
    /// Name or address of this machine for workers on other hosts, if `--worker-host` gave one.
    pub worker_host: Option<String>,
    /// The files for TLS.
    pub tls: TlsFiles,
    /// The state directory, from `--state`.
    pub state: StateDirArg,
    /// Files of commands to run at the start, from `--source`, in order.
    pub sources: Vec<String>,
    /// Settings that were given, in order.
    pub set: Vec<(Setting, u64)>,
    /// File for the addresses in JSON, from `--ports-file`.
    pub ports_file: Option<PathBuf>,
    /// The token file, from `--tokens`.
    pub tokens: TokenFile,
    /// The file with the tokens that execds want proved.
    pub host_token: Option<PathBuf>,
    /// The first option that opens a port to other machines without asking for a certificate.
    pub reachable: Option<String>,
    /// `--insecure`: such a port may be open without tokens.
    pub is_insecure: bool,
    /// The built-in services that are on, from `--with`.
    pub with: Vec<&'static str>,
    /// What the built-in execd may start, and as whom.
    pub workers: WorkerArgs,
    /// Least severity of logged lines.
    pub log: LogLevel,
    /// Format of log lines.
    pub log_format: LogFormat,
}

impl CheckedArgs {
    /// Checks the command line.
    ///
    /// # Errors
    /// Names the option, the value and the cure.
    pub fn check(args: Args) -> Result<Self, Fatal> {
        let mut listen = Vec::new();
        for text in &args.listen {
            let endpoint = endpoint("--listen", text, CLIENT_PORT)?;
            if !listen.contains(&endpoint) {
                listen.push(endpoint);
            }
        }
        let worker_listen = endpoint("--worker-listen", &args.worker_listen, 0)?;
        if matches!(worker_listen, Endpoint::Unix(_)) {
            return Err(usage(
                "--worker-listen is ADDR:PORT; a Unix socket for workers is in the state directory",
            ));
        }
        let worker_host = args.worker_host.as_deref().map(worker_host).transpose()?;
        let is_tls = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Tls(_));
        let ports = Ports { clients: listen.iter().any(is_tls), workers: is_tls(&worker_listen) };
        let tls = TlsFiles::check(&args, ports)?;
        if args.web != "none" {
            return Err(usage(format!(
                "--web {} can't be served: the web page is not built yet; say --web none",
                args.web
            )));
        }
        let state = match args.state {
            None => StateDirArg::Default,
            Some(dir) if dir.as_os_str() == "none" => StateDirArg::None,
            Some(dir) if dir.as_os_str().is_empty() => {
                return Err(usage("--state is empty; name a directory, or 'none'"));
            }
            Some(dir) => StateDirArg::At(dir),
        };
        let reachable = reachable(&listen, &worker_listen, &tls);
        let tokens = match args.tokens {
            None => TokenFile::Default,
            Some(file) if file.as_os_str() == "none" => TokenFile::None,
            Some(file) => TokenFile::At(file),
        };
        Ok(Self {
            tls,
            listen,
            worker_listen,
            tokens,
            host_token: args.host_token,
            reachable,
            is_insecure: args.insecure,
            worker_host,
            state,
            sources: args.source,
            set: args.set.iter().map(|text| set(text)).collect::<Result<_, _>>()?,
            ports_file: args.ports_file,
            with: with(&args.with)?,
            workers: args.workers,
            log: args.log,
            log_format: args.log_format,
        })
    }
}

/// The built-in services that `--with` names.
fn with(list: &str) -> Result<Vec<&'static str>, Fatal> {
    match list {
        "all" => return Ok(BUILT_IN.iter().map(|row| row.name).collect()),
        "none" => return Ok(Vec::new()),
        _ => {}
    }
    let row = |name: &str| {
        builtin::row_of(name).map(|row| row.name).ok_or_else(|| {
            let names: Vec<&str> = BUILT_IN.iter().map(|row| row.name).collect();
            usage(format!(
                "--with {list}: no service called '{name}' is built in; there are {}, and the words \
                 all and none stand alone",
                names.join(", ")
            ))
        })
    };
    list.split(',').map(row).collect()
}

/// The option of a port that other machines can reach and that asks for no client certificate.
fn reachable(listen: &[Endpoint], worker: &Endpoint, tls: &TlsFiles) -> Option<String> {
    let is_mutual = |files: &Option<ListenerFiles>| {
        files.as_ref().is_some_and(|files| files.client_ca.is_some())
    };
    let (clients, workers) = (is_mutual(&tls.clients), is_mutual(&tls.workers));
    let named = listen.iter().map(|endpoint| ("--listen", endpoint, clients));
    named.chain([("--worker-listen", worker, workers)]).find_map(|(option, endpoint, is_mutual)| {
        let (scheme, address) = match endpoint {
            Endpoint::Tcp(address) => ("", address),
            Endpoint::Tls(address) if !is_mutual => (TLS_PREFIX, address),
            Endpoint::Tls(_) | Endpoint::Unix(_) => return None,
        };
        (!address.ip().to_canonical().is_loopback()).then(|| format!("{option} {scheme}{address}"))
    })
}

impl CheckedArgs {
    /// Checks that the ports may be opened.
    ///
    /// # Errors
    /// Other machines can reach one, and nothing proves who comes.
    pub fn check_reach(&self, has_tokens: bool, file: Option<&Path>) -> Result<(), Fatal> {
        let file = file.map_or_else(|| "FILE".into(), Path::to_string_lossy);
        match &self.reachable {
            Some(option) if !has_tokens && !self.is_insecure => Err(usage(format!(
                "{option} can be reached from other machines, and there are no tokens; either make \
                 tokens ('isectd token add NAME --role … --file {file}', docs/tokens.md), or ask for \
                 certificates \
                 (tls:// with --tls-client-ca or --tls-worker-ca, docs/tls.md), or say --insecure \
                 if everybody who can reach it may use it"
            ))),
            Some(_) | None => Ok(()),
        }
    }
}

fn usage(text: impl Into<String>) -> Fatal {
    Fatal::Usage(text.into())
}

/// Parses an address to listen on. Names are refused, because a name may have several addresses,
/// and not the intended ones.
fn endpoint(option: &str, text: &str, port: u16) -> Result<Endpoint, Fatal> {
    let wrong = |why: String| {
        usage(format!(
            "{option} '{}' {why}; it is ADDR:PORT, as in 127.0.0.1:5501 or [::1]:5501, \
             tls://ADDR:PORT or unix:PATH",
            text.escape_debug()
        ))
    };
    match ParsedAddress::parse(text).map_err(wrong)? {
        ParsedAddress::Unix(path) => Ok(Endpoint::Unix(PathBuf::from(path))),
        ParsedAddress::Tcp(host_port) => bound(&host_port, port).map(Endpoint::Tcp).map_err(wrong),
        ParsedAddress::Tls(host_port) => bound(&host_port, port).map(Endpoint::Tls).map_err(wrong),
    }
}

fn bound(host_port: &HostPort, port: u16) -> Result<SocketAddr, String> {
    let port = host_port.port.unwrap_or(port);
    match (&host_port.host, host_port.host.ip()) {
        (_, Some(ip)) => Ok(SocketAddr::new(ip, port)),
        // The zone is the name or the number of an interface; resolving it asks no network.
        (Host::V6(..), None) => {
            let found = (host_port.host.bare().as_str(), port).to_socket_addrs();
            let first = found.map(|mut all| all.next());
            first.ok().flatten().ok_or_else(|| "names an interface that is not there".to_owned())
        }
        (Host::Name(_) | Host::V4(_), None) => Err("names no address of this machine".to_owned()),
    }
}

/// Checks the name of this machine for workers; it is put before a port in their arguments.
fn worker_host(text: &str) -> Result<String, Fatal> {
    Host::parse(text).map(|host| host.bare()).map_err(|why| {
        usage(format!(
            "--worker-host '{}' {why}; it is a name or an address, without a port",
            text.escape_debug()
        ))
    })
}

fn set(text: &str) -> Result<(Setting, u64), Fatal> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(usage(format!("--set '{}' is not NAME=VALUE", text.escape_debug())));
    };
    let Some(setting) = Setting::named(name) else {
        let names = SETTINGS.iter().map(|row| row.name);
        let near = protocol::op::parse::nearest(name, names).map_or_else(
            || "; docs/config.md and the command 'settings' list them".to_owned(),
            |near| format!("; did you mean '{near}'?"),
        );
        return Err(usage(format!("--set: there is no setting '{}'{near}", name.escape_debug())));
    };
    let value = setting.check(value).map_err(|error| usage(format!("--set {error}")))?;
    Ok((setting, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn low(words: &[&str]) -> Result<CheckedArgs, String> {
        let args =
            Args::try_parse_from([&["isectd"], words].concat()).map_err(|e| e.to_string())?;
        CheckedArgs::check(args).map_err(|fatal| {
            assert_eq!(fatal.status(), crate::exit::USAGE);
            fatal.to_string()
        })
    }

    #[test]
    fn the_defaults_are_loopback() {
        let low = low(&[]).unwrap();
        assert_eq!(low.listen, [Endpoint::Tcp("127.0.0.1:5501".parse().unwrap())]);
        assert_eq!(low.worker_listen, Endpoint::Tcp("127.0.0.1:0".parse().unwrap()));
        assert_eq!((low.state, low.set), (StateDirArg::Default, vec![]));
    }

    #[test]
    fn values_are_understood() {
        let low = low(&[
            "--listen",
            "localhost:0",
            "--listen",
            "unix:/tmp/x.sock",
            "--listen",
            "[::1]:7",
            "--state",
            "none",
            "--set",
            "login_ms=100",
            "--worker-listen",
            "127.0.0.1:9",
        ])
        .unwrap();
        assert_eq!(low.listen.len(), 3);
        assert_eq!(low.listen[1], Endpoint::Unix("/tmp/x.sock".into()));
        assert_eq!(low.state, StateDirArg::None);
        assert_eq!(low.set, [(Setting::LoginMs, 100)]);
    }

    #[test]
    fn what_is_wrong_is_named_with_the_cure() {
        for (words, part) in [
            (&["--listen", "somewhere"][..], "ADDR:PORT"),
            (&["--listen", "tls://127.0.0.1:1"], "--tls-cert FILE --tls-key FILE"),
            (&["--listen", "tls://x"], "ADDR:PORT"),
            (&["--listen", "unix:"], "no path after"),
            (&["--with", "wealth"], "no service called 'wealth' is built in; there are health"),
            (&["--with", "health,all"], "the words all and none stand alone"),
            (&["--with", ""], "no service called ''"),
            (&["--listen", "127.1"], "ends in a number"),
            (&["--listen", "[fe80::1%nowhere]:1"], "interface that is not there"),
            (&["--worker-listen", "unix:/x"], "state directory"),
            (&["--worker-host", "h:1"], "without a port"),
            (&["--web", "127.0.0.1:8080"], "--web none"),
            (&["--set", "login_ms"], "NAME=VALUE"),
            (&["--set", "logn_ms=5"], "did you mean 'login_ms'?"),
            (&["--set", "login_ms=5"], "10 to 60000"),
            (&["--set", "zzzzzzzzzzz=5"], "there is no setting"),
            (&["--state", ""], "--state"),
            (&["--nonsense"], "--nonsense"),
            (&["--role-execd"], "value"),
        ] {
            let error = low(words).unwrap_err();
            assert!(error.contains(part), "{words:?}: {error}");
        }
    }

    #[test]
    fn a_port_that_asks_for_certificates_needs_no_token() {
        let files = ["--tls-cert", "/c", "--tls-key", "/k"];
        let reach = |words: &[&str]| {
            let low = low(&[words, &files[..]].concat()).unwrap();
            low.check_reach(false, None).is_ok()
        };
        let mutual = low(&[&["--listen", "tls://0.0.0.0:1"], &files[..]].concat()).unwrap();
        assert_eq!(mutual.listen, [Endpoint::Tls("0.0.0.0:1".parse().unwrap())]);
        assert!(!reach(&["--listen", "tls://0.0.0.0:1"]));
        assert!(reach(&["--listen", "tls://0.0.0.0:1", "--tls-client-ca", "/a"]));
        assert!(reach(&["--worker-listen", "tls://0.0.0.0:1", "--tls-worker-ca", "/a"]));
        // Each port is judged by itself, and a certificate counts only over TLS.
        let two = ["--listen", "tls://0.0.0.0:1", "--worker-listen", "tls://0.0.0.0:1"];
        assert!(!reach(&[&two[..], &["--tls-client-ca", "/a"]].concat()));
        let plain = ["--listen", "0.0.0.0:1", "--listen", "tls://0.0.0.0:2"];
        assert!(!reach(&[&plain[..], &["--tls-client-ca", "/a"]].concat()));
    }

    #[test]
    fn other_machines_reach_a_port_only_with_tokens_or_by_an_explicit_word() {
        for words in [
            &["--listen", "0.0.0.0:1"][..],
            &["--listen", "127.0.0.1:1", "--listen", "[::]:1"],
            &["--listen", "192.0.2.1:1"],
            &["--worker-listen", "192.0.2.1:0"],
            &["--worker-listen", "[2001:db8::1]:0"],
            &["--listen", "[::ffff:0.0.0.0]:1"],
        ] {
            let error = low(words).unwrap().check_reach(false, None).unwrap_err();
            assert_eq!(error.status(), crate::exit::USAGE);
            let text = error.to_string();
            for way_out in ["isectd token add", "--insecure", words[words.len() - 2]] {
                assert!(text.contains(way_out), "{words:?}: {text}");
            }
            assert!(low(words).unwrap().check_reach(true, None).is_ok());
            let insecure = [words, &["--insecure"]].concat();
            assert!(low(&insecure).unwrap().check_reach(false, None).is_ok());
        }
        for words in [
            &["--listen", "[::1]:1"][..],
            &["--listen", "::1"],
            &["--listen", "127.9.9.9:1"],
            &["--listen", "[::ffff:127.0.0.1]:1"],
            &["--listen", "localhost"],
            &[],
        ] {
            assert!(low(words).unwrap().check_reach(false, None).is_ok(), "{words:?}");
        }
    }

    #[test]
    fn tokens_are_where_it_is_said() {
        assert_eq!(low(&[]).unwrap().tokens, TokenFile::Default);
        assert_eq!(low(&["--tokens", "none"]).unwrap().tokens, TokenFile::None);
        assert_eq!(low(&["--tokens", "/t"]).unwrap().tokens, TokenFile::At("/t".into()));
    }
}
