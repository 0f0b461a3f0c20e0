//! Helper threads for work that may block (resolving a name, reading a file), and the channel that
//! brings their results to the loop. `pre_login` has threads of its own for TLS handshakes, `store`
//! for the configuration.

use super::tls_config::Loaded;
use crate::config::tls::TlsFiles;
use crate::config::{script, tokens};
use crate::engine::origin::Requester;
use crate::translate::outbound;
use auth::list::TokenList;
use auth::prover::Prover;
use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::Waker;
use protocol::limits::EXECD_PORT;
use protocol::{
    Challenge, Channel, ErrorBody, ErrorCode, Format, Frame, Header, HostName, LinkId, OpReply,
    ParsedAddress, Proof, Role,
};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use transport::session::Session;

/// Most helper threads at once; further jobs are refused.
const THREADS_MAX: usize = 16;
/// What a helper thread hands back to the loop.
#[derive(Debug)]
pub(super) enum HelperResult {
    /// The address of a host to dial, or why there is none.
    Address {
        /// The host to dial.
        host: HostName,
        /// Its address as the operator wrote it.
        text: String,
        /// The resolved address, or the text of the error.
        address: Result<SocketAddr, String>,
    },
    /// The file of the operator's command `source` was read.
    Script {
        /// The link of the operator, who may have left meanwhile.
        link: LinkId,
        /// The header of the command, for the answer.
        head: Header,
        /// The path as the operator wrote it.
        path: String,
        /// Its text, or why it can't be read.
        script: Result<String, String>,
    },
    /// The certificates and keys were read again.
    Certificates {
        /// The source of the reload: an operator's command or SIGHUP.
        requester: Requester,
        /// For each side the files' contents, or an error.
        loaded: Box<Loaded>,
    },
    /// The token file was read again.
    Tokens {
        /// The source of the reload: an operator's command or SIGHUP.
        requester: Requester,
        /// Its tokens, or the text of the error.
        list: Result<TokenList, String>,
    },
    /// The broker's token for a host was looked up.
    HostToken {
        /// The link of the host's execd.
        link: LinkId,
        /// The prover of the token; `Ok(None)` = no token is configured for this host.
        prover: Result<Option<Prover>, String>,
    },
    /// The answer to an execd's challenge, or why there is none.
    Proof {
        /// The execd's link.
        link: LinkId,
        /// Checks the proof that the execd sends in return.
        prover: Prover,
        /// The answer.
        proof: Result<Proof, String>,
    },
    /// A long answer to an operator is formatted.
    Answer {
        /// The operator's link.
        link: LinkId,
        /// The answer.
        frames: Vec<Frame>,
    },
    /// One step of a TLS handshake is done.
    Handshake {
        /// The connection that the session belongs to.
        link: LinkId,
        /// The session, which the connection lent to the helper.
        session: Box<Session>,
    },
    /// A write of the configuration has ended.
    Stored {
        /// The number of its `Action::Store`.
        number: u64,
        /// The path and the error of the system, if it failed.
        result: Result<(), String>,
    },
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
        // The send fails only when the loop has ended; then the result is not needed.
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
}

impl Helpers {
    /// Makes the channel; no helper runs yet.
    pub(super) fn new(waker: Waker) -> Self {
        Self { waker: Arc::new(waker), results: unbounded(), running: Arc::default() }
    }

    /// A sender for threads that are not started here.
    pub(super) fn result_sender(&self) -> ResultSender {
        ResultSender { sender: self.results.0.clone(), waker: Arc::clone(&self.waker) }
    }

    /// Sends a result as if a helper had.
    pub(super) fn tell(&self, result: HelperResult) {
        self.result_sender().tell(result);
    }

    /// Takes the results that arrived since the last call.
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

    /// Formats a long answer on a helper thread.
    pub(super) fn write(
        &self,
        link: LinkId,
        (head, reply, format): (Header, Box<OpReply>, Format),
        body_max: usize,
    ) {
        let error = ErrorBody::new(ErrorCode::Refused, too_many());
        let failed = HelperResult::Answer { link, frames: vec![Frame::Error { head, error }] };
        self.spawn("isectd-write", failed, move || HelperResult::Answer {
            link,
            frames: outbound::answer(head, &reply, format, body_max),
        });
    }

    /// Reads all certificate and key files on a helper thread; the result is
    /// [`HelperResult::Certificates`].
    pub(super) fn read_certificates(&self, requester: Requester, files: TlsFiles) {
        let loaded = Box::new(Loaded::failed(&files, &too_many()));
        self.spawn("isectd-certs", HelperResult::Certificates { requester, loaded }, move || {
            HelperResult::Certificates { requester, loaded: Box::new(Loaded::read(&files)) }
        });
    }

    /// Reads the token file.
    pub(super) fn read_tokens(&self, requester: Requester, path: PathBuf) {
        let failed = HelperResult::Tokens { requester, list: Err(too_many()) };
        self.spawn("isectd-tokens", failed, move || {
            let list = tokens::read(&path);
            HelperResult::Tokens { requester, list }
        });
    }

    /// Looks up the token that a host wants proved.
    pub(super) fn find_host_token(&self, link: LinkId, host: HostName, file: PathBuf) {
        let failed = HelperResult::HostToken { link, prover: Err(too_many()) };
        self.spawn("isectd-greet", failed, move || {
            let prover = tokens::of_host(&file, &host).and_then(|token| {
                let begin = |token| Prover::begin(&token, Role::Broker, host.as_str());
                token.map(begin).transpose()
            });
            HelperResult::HostToken { link, prover }
        });
    }

    /// Computes the answer to an execd's challenge on a helper thread, because it takes long
    /// (Argon2).
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
                // The send fails only when the loop has ended; then the result is not needed.
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
