//! Helper threads for the few things that may block (a name to resolve, a file to read, a disk to
//! sync), and the channel on which their results come back into the loop. Handshakes have threads
//! of their own (`pre_login`).

use super::authenticator::Authenticator;
use super::secure::Loaded;
use super::state::Paths;
use crate::config::tls::TlsFiles;
use crate::config::{script, tokens};
use crate::engine::input::Asker;
use crate::translate::outbound;
use auth::list::TokenList;
use auth::prover::Prover;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use mio::Waker;
use protocol::address::ParsedAddress;
use protocol::bodies::{ErrorBody, ExecHello, Format};
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::LinkId;
use protocol::kinds::Role;
use protocol::limits::EXECD_PORT;
use protocol::names::HostName;
use protocol::op::reply::OpReply;
use protocol::proof::{Challenge, Channel, Proof};
use std::fs::File;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use tls::session::Session;

/// Most helper threads at once; what would need more is refused.
const THREADS_MAX: usize = 16;
/// What a helper thread hands back to the loop.
#[derive(Debug)]
pub(super) enum HelperResult {
    /// The address of a host to dial, or why there is none.
    Address {
        /// Which host.
        host: HostName,
        /// Its address as the operator wrote it.
        text: String,
        /// Where it is.
        address: Result<SocketAddr, String>,
    },
    /// The file of a `source`.
    Script {
        /// The operator's link.
        link: LinkId,
        /// The header of its command.
        head: Header,
        /// The file.
        path: String,
        /// Its text, or why it can't be read.
        script: Result<String, String>,
    },
    /// The certificates.
    Certificates {
        /// Who wants to know.
        asker: Asker,
        /// What was read.
        loaded: Box<Loaded>,
    },
    /// The token file.
    Tokens {
        /// Who wants to know.
        asker: Asker,
        /// What stands in it, or why it can't be read.
        list: Result<TokenList, String>,
    },
    /// The token of a host, to say hello with; `None` = there is none.
    Greeting {
        /// Its execd's link.
        link: LinkId,
        /// The hello without a token.
        hello: ExecHello,
        /// The token's prover, or why there is none.
        prover: Result<Option<Prover>, String>,
    },
    /// The answer to an execd's challenge, or why there is none.
    Proof {
        /// The execd's link.
        link: LinkId,
        /// What checks the execd's own proof.
        prover: Prover,
        /// The answer.
        proof: Result<Proof, String>,
    },
    /// A long answer is written.
    Answer {
        /// The operator's link.
        link: LinkId,
        /// The answer.
        frame: Frame,
    },
    /// A step of a TLS handshake is done.
    Handshake {
        /// Of which connection.
        link: LinkId,
        /// Its session.
        session: Box<Session>,
    },
    /// The configuration is written but could not be brought to the disk.
    NotSynced(String),
}

/// Sends results of helper threads into the loop.
#[derive(Clone, Debug)]
pub(super) struct ResultSender {
    sender: Sender<HelperResult>,
    waker: Arc<Waker>,
}

impl ResultSender {
    /// Wakes the loop with a result.
    pub(super) fn tell(&self, result: HelperResult) {
        // The loop ends before its helpers: then nobody listens, and that is right.
        let _ = self.sender.send(result);
        let _ = self.waker.wake();
    }
}

/// Starts helpers and takes their results.
#[derive(Debug)]
pub(super) struct Helpers {
    waker: Arc<Waker>,
    results: (Sender<HelperResult>, Receiver<HelperResult>),
    running: Arc<AtomicUsize>,
    sync: Option<Sender<()>>,
}

impl Helpers {
    /// No helper runs yet.
    pub(super) fn new(waker: Waker) -> Self {
        Self { waker: Arc::new(waker), results: unbounded(), running: Arc::default(), sync: None }
    }

    /// A sender for threads that are not started here.
    pub(super) fn result_sender(&self) -> ResultSender {
        ResultSender { sender: self.results.0.clone(), waker: Arc::clone(&self.waker) }
    }

    /// Sends a result as if a helper had.
    pub(super) fn tell(&self, result: HelperResult) {
        self.result_sender().tell(result);
    }

    /// What came from helpers since the last call.
    pub(super) fn results(&self) -> Vec<HelperResult> {
        self.results.1.try_iter().collect()
    }

    /// Looks a host's name up.
    pub(super) fn resolve(&self, host: HostName, address: String) {
        let text = address.clone();
        let failed = HelperResult::Address { host: host.clone(), text, address: Err(too_many()) };
        self.spawn("isectd-resolve", failed, move || {
            let found = look_up(&address).map_err(|e| format!("{address}: {e}"));
            HelperResult::Address { host, text: address, address: found }
        });
    }

    /// Reads a script for an operator.
    pub(super) fn read_script(&self, link: LinkId, head: Header, path: String) {
        let failed =
            HelperResult::Script { link, head, path: path.clone(), script: Err(too_many()) };
        self.spawn("isectd-source", failed, move || {
            let script = script::read(&path);
            HelperResult::Script { link, head, path, script }
        });
    }

    /// Writes a long answer.
    pub(super) fn write(&self, link: LinkId, head: Header, reply: Box<OpReply>, format: Format) {
        let error = ErrorBody::new(ErrorCode::Refused, too_many());
        let failed = HelperResult::Answer { link, frame: Frame::Error { head, error } };
        self.spawn("isectd-write", failed, move || HelperResult::Answer {
            link,
            frame: outbound::answer(head, &reply, format),
        });
    }

    /// Reads the certificates.
    pub(super) fn read_certificates(&self, asker: Asker, files: TlsFiles) {
        let loaded = Box::new(Loaded::failed(&files, &too_many()));
        self.spawn("isectd-certs", HelperResult::Certificates { asker, loaded }, move || {
            HelperResult::Certificates { asker, loaded: Box::new(Loaded::read(&files)) }
        });
    }

    /// Reads the token file.
    pub(super) fn read_tokens(&self, asker: Asker, path: PathBuf) {
        let failed = HelperResult::Tokens { asker, list: Err(too_many()) };
        self.spawn("isectd-tokens", failed, move || {
            let list = tokens::read(&path);
            HelperResult::Tokens { asker, list }
        });
    }

    /// Finds the token to say hello to a host with.
    pub(super) fn greet(&self, link: LinkId, hello: ExecHello, authenticator: &Authenticator) {
        let Some(file) = authenticator.host_file.clone() else {
            let _ = self.results.0.send(HelperResult::Greeting { link, hello, prover: Ok(None) });
            let _ = self.waker.wake();
            return;
        };
        let failed = HelperResult::Greeting { link, hello: hello.clone(), prover: Err(too_many()) };
        self.spawn("isectd-greet", failed, move || {
            let prover = tokens::of_host(&file, &hello.host).and_then(|token| {
                let begin = |token| Prover::begin(&token, Role::Broker, hello.host.as_str());
                token.map(begin).transpose()
            });
            HelperResult::Greeting { link, hello, prover }
        });
    }

    /// Answers an execd's challenge: that is dear.
    pub(super) fn prove(
        &self,
        link: LinkId,
        mut prover: Prover,
        challenge: Challenge,
        channel: Option<Channel>,
    ) {
        let failed = HelperResult::Proof { link, prover: prover.clone(), proof: Err(too_many()) };
        self.spawn("isectd-prove", failed, move || {
            let proof = prover.answer(&challenge, channel.as_ref());
            HelperResult::Proof { link, prover, proof }
        });
    }

    fn spawn(
        &self,
        name: &str,
        failed: HelperResult,
        work: impl FnOnce() -> HelperResult + Send + 'static,
    ) {
        let (sender, waker) = (self.results.0.clone(), Arc::clone(&self.waker));
        let running = Arc::clone(&self.running);
        if self.running.fetch_add(1, Ordering::Relaxed) < THREADS_MAX {
            let work = move || {
                let result = work();
                running.fetch_sub(1, Ordering::Relaxed);
                // The loop ends before its helpers: then nobody listens, and that is right.
                let _ = sender.send(result);
                let _ = waker.wake();
            };
            if thread::Builder::new().name(name.to_owned()).spawn(work).is_ok() {
                return;
            }
        }
        self.running.fetch_sub(1, Ordering::Relaxed);
        let _ = self.results.0.send(failed);
        let _ = self.waker.wake();
    }

    /// Brings the saved configuration to the disk, some time soon. Calls that come while it is busy
    /// become one.
    pub(super) fn sync(&mut self, paths: &Paths) {
        let sync = self.sync.get_or_insert_with(|| {
            let (jobs, work) = bounded(1);
            let (sender, waker) = (self.results.0.clone(), Arc::clone(&self.waker));
            let paths = paths.clone();
            // Without the thread the file is written all the same, only later to the disk.
            let _ = thread::Builder::new().name("isectd-sync".to_owned()).spawn(move || {
                for () in work {
                    if let Err(why) = sync_paths(&paths) {
                        let _ = sender.send(HelperResult::NotSynced(why));
                        let _ = waker.wake();
                    }
                }
            });
            jobs
        });
        match sync.try_send(()) {
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }
}

/// The first address of a host.
fn look_up(address: &str) -> Result<SocketAddr, String> {
    let (ParsedAddress::Tcp(host_port) | ParsedAddress::Tls(host_port)) =
        ParsedAddress::parse(address)?
    else {
        return Err("is no host".to_owned());
    };
    let port = host_port.port.unwrap_or(EXECD_PORT);
    let found = (host_port.host.bare().as_str(), port).to_socket_addrs();
    found.map_err(|e| e.to_string())?.next().ok_or_else(|| "no address".to_owned())
}

fn too_many() -> String {
    format!("{THREADS_MAX} helper threads are busy already; try again")
}

fn sync_paths(paths: &Paths) -> Result<(), String> {
    for path in [paths.config(), paths.dir.clone()] {
        let synced = File::open(&path).and_then(|file| file.sync_all());
        match synced {
            // Written anew and renamed meanwhile: the next round syncs it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(()) => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    Ok(())
}
