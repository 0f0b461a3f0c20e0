//! [`Action`]: everything the engine can ask the reactor to do, as one closed list.

use super::fact::Fact;
use super::input::Requester;
use protocol::bodies::{ExecHello, ExecStart, Format};
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::{ClientId, LinkId};
use protocol::kinds::Role;
use protocol::names::{HostName, ServiceName, TokenName};
use protocol::op::reply::OpReply;
use protocol::proof::{Challenge, Claim, Proof};

/// Who asked for a change; named in its fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The saved configuration, at the start.
    State,
    /// A file given with `--source` or `source`.
    File(String),
    /// An operator.
    Operator {
        /// Its client id.
        client: ClientId,
        /// Where it is: host and process as it says, address as the kernel says.
        from: String,
        /// Its user, where the kernel tells it.
        uid: Option<u32>,
        /// The token that it proved.
        token: Option<TokenName>,
    },
    /// The broker itself.
    Broker,
}

/// How the broker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerExit {
    /// In order, with this exit status.
    Exit(u8),
    /// `abort()`: with a core file.
    Abort,
}

/// Everything the broker can do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a frame.
    Send {
        /// To whom.
        link: LinkId,
        /// What.
        frame: Frame,
    },
    /// Send an operator an answer: the reactor makes text or JSON of it.
    Answer {
        /// To whom.
        link: LinkId,
        /// `sequence`, `transaction` and `more` of the reply.
        head: Header,
        /// What.
        reply: Box<OpReply>,
        /// In which form.
        format: Format,
    },
    /// Send the challenge to a token; `Input::Proof` follows.
    Challenge {
        /// To whom.
        link: LinkId,
        /// Who logs in: a client or a worker.
        role: Role,
        /// To which service.
        target: ServiceName,
        /// With which token.
        claim: Claim,
    },
    /// Check the answer to a challenge; `Input::Proven` follows.
    Verify {
        /// Whose.
        link: LinkId,
        /// The answer.
        proof: Box<Proof>,
    },
    /// Say hello to an execd, naming the host's token if there is one.
    Greet {
        /// To which execd.
        link: LinkId,
        /// The hello without a token.
        hello: Box<ExecHello>,
    },
    /// Answer an execd's challenge; if that can't be done, `Input::Unproven` follows.
    Prove {
        /// To which execd.
        link: LinkId,
        /// What it asks.
        challenge: Box<Challenge>,
    },
    /// Read the certificates and the token file, whichever there are; `Input::CertificatesRead` and
    /// `Input::TokensRead` follow.
    ReadTokens {
        /// Who wants to know.
        requester: Requester,
    },
    /// Start a program: an `exec-start` frame to a host, whose `secret` the reactor fills in.
    Start {
        /// To which execd.
        link: LinkId,
        /// What.
        start: Box<ExecStart>,
    },
    /// Close a connection once what waits for it is sent, or `stall_ms` have passed. No input of
    /// this link follows, `Closed` included.
    Close {
        /// Which.
        link: LinkId,
    },
    /// Shut a connection for writing once what waits for it is sent; go on reading.
    ShutWrite {
        /// Which.
        link: LinkId,
    },
    /// Read no more from a connection for now.
    StopReading {
        /// Which.
        link: LinkId,
    },
    /// Read from it again.
    ResumeReading {
        /// Which.
        link: LinkId,
    },
    /// Connect to a host's execd.
    Dial {
        /// Which host.
        host: HostName,
        /// `ADDR:PORT` or `unix:PATH`.
        address: String,
    },
    /// The configuration changed: write `Engine::save_script` to the state directory before this
    /// turn's replies leave.
    Persist,
    /// Read a file of commands for an operator; `Input::Sourced` follows.
    Source {
        /// The operator's link.
        link: LinkId,
        /// The header of its command.
        head: Header,
        /// The file.
        path: String,
    },
    /// Remember something: log it, show it to watchers.
    Record(Box<Fact>),
    /// An `Input::Script` is done; these commands failed (line and text).
    ScriptDone {
        /// Whose script.
        origin: Origin,
        /// What failed.
        failures: Vec<String>,
    },
    /// End the process, when what waits is sent or a second has passed.
    End(BrokerExit),
}
