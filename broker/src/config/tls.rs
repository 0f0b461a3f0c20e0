//! Checks the TLS options of the command line: which files belong together, and whether a port uses
//! them. The reactor reads the files at the start and at each `reload`.

use super::cli::Args;
use crate::exit::Fatal;
use std::path::{Path, PathBuf};
use transport::setup::{CallerFiles, ListenerFiles, Pair};

/// The files of each side of the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// For clients that connect to `tls://`.
    pub clients: Option<ListenerFiles>,
    /// For workers that connect to `tls://`.
    pub workers: Option<ListenerFiles>,
    /// For hosts that are reached at `tls://`.
    pub hosts: CallerFiles,
}

/// The ports that use TLS, from the addresses of the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// At least one address of `--listen` begins with `tls://`.
    pub clients: bool,
    /// The address of `--worker-listen` begins with `tls://`.
    pub workers: bool,
}

fn usage(text: &str) -> Fatal {
    Fatal::Usage(text.to_owned())
}

impl TlsFiles {
    /// Checks the options.
    ///
    /// # Errors
    /// Names the option that is missing or of no use.
    pub fn check(args: &Args, ports: Ports) -> Result<Self, Fatal> {
        let pair = match (&args.tls_cert, &args.tls_key) {
            (Some(cert), Some(key)) => Some(Pair { cert: absolute(cert), key: absolute(key) }),
            (None, None) => None,
            (Some(_), None) => {
                return Err(usage("--tls-cert needs its key; name the file with --tls-key FILE"));
            }
            (None, Some(_)) => {
                return Err(usage(
                    "--tls-key needs its certificate; name the file with --tls-cert FILE",
                ));
            }
        };
        if (ports.clients || ports.workers) && pair.is_none() {
            return Err(usage(
                "a port with tls:// needs a certificate and its key; name the files with \
                 --tls-cert FILE --tls-key FILE",
            ));
        }
        if pair.is_some() && !ports.clients && !ports.workers && args.tls_ca.is_none() {
            return Err(usage(
                "--tls-cert is of no use: no --listen or --worker-listen begins with tls://, and \
                 no --tls-ca is there for hosts",
            ));
        }
        let (client_ca, worker_ca) = (&args.tls_client_ca, &args.tls_worker_ca);
        let (client_only, worker_only) = (args.tls_client_exporter, args.tls_worker_exporter);
        for (option, address, is_given, is_used) in [
            ("--tls-client-ca", "--listen", client_ca.is_some(), ports.clients),
            ("--tls-client-exporter", "--listen", client_only, ports.clients),
            ("--tls-worker-ca", "--worker-listen", worker_ca.is_some(), ports.workers),
            ("--tls-worker-exporter", "--worker-listen", worker_only, ports.workers),
        ] {
            if is_given && !is_used {
                let text = format!("{option} is of no use: no {address} begins with tls://");
                return Err(Fatal::Usage(text));
            }
        }
        let listener = |is_wanted: bool, ca: &Option<PathBuf>, is_exporter_only: bool| {
            let (pair, ca) = (pair.clone().filter(|_| is_wanted)?, ca.as_deref());
            Some(ListenerFiles { pair, client_ca: ca.map(absolute), is_exporter_only })
        };
        Ok(Self {
            clients: listener(ports.clients, client_ca, client_only),
            workers: listener(ports.workers, worker_ca, worker_only),
            hosts: CallerFiles { ca: args.tls_ca.as_deref().map(absolute), pair },
        })
    }
}

/// Makes a path absolute, so that a reload finds the same file after the process changed its
/// directory.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn check(words: &str, clients: bool, workers: bool) -> Result<TlsFiles, String> {
        let words = words.split_ascii_whitespace();
        let args = Args::try_parse_from(["isectd"].into_iter().chain(words)).unwrap();
        TlsFiles::check(&args, Ports { clients, workers }).map_err(|fatal| fatal.to_string())
    }

    #[test]
    fn files_go_to_the_ports_that_speak_tls() {
        let files = check("--tls-cert /c --tls-key /k --tls-client-ca /a", true, false).unwrap();
        assert_eq!(files.clients.unwrap().client_ca, Some("/a".into()));
        assert_eq!(files.workers, None);
        let files = check("--tls-cert /c --tls-key /k --tls-worker-ca /a", false, true).unwrap();
        assert_eq!(files.workers.unwrap().client_ca, Some("/a".into()));
        let files = check("--tls-ca /a", false, false).unwrap();
        assert_eq!((files.clients, files.hosts.ca), (None, Some("/a".into())));
        for (words, which) in [
            ("--tls-cert /c --tls-key /k", [false, false]),
            ("--tls-cert /c --tls-key /k --tls-client-exporter", [true, false]),
            ("--tls-cert /c --tls-key /k --tls-worker-exporter", [false, true]),
        ] {
            let TlsFiles { clients, workers, .. } = check(words, true, true).unwrap();
            let only = [clients, workers].map(|files| files.unwrap().is_exporter_only);
            assert_eq!(only, which, "{words}");
        }
        assert_eq!(check("", false, false), Ok(TlsFiles::default()));
        let files = check("--tls-cert c --tls-key k", true, true).unwrap();
        assert!(files.workers.unwrap().pair.key.is_absolute());
    }

    #[test]
    fn what_is_missing_or_of_no_use_is_named() {
        for (words, clients, workers, part) in [
            ("--tls-cert c", true, false, "--tls-key FILE"),
            ("--tls-key k", true, false, "--tls-cert FILE"),
            ("", true, false, "--tls-cert FILE --tls-key FILE"),
            ("", false, true, "--tls-cert FILE --tls-key FILE"),
            ("--tls-cert c --tls-key k", false, false, "no --listen or --worker-listen begins"),
            ("--tls-client-ca a", false, false, "--tls-client-ca is of no use: no --listen begins"),
            ("--tls-client-exporter", false, false, "--tls-client-exporter is of no use: no --l"),
            ("--tls-worker-exporter", false, false, "no --worker-listen begins with tls://"),
            (
                "--tls-cert c --tls-key k --tls-worker-ca a",
                true,
                false,
                "no --worker-listen begins",
            ),
        ] {
            let error = check(words, clients, workers).unwrap_err();
            assert!(error.contains(part), "{words}: {error}");
        }
    }
}
