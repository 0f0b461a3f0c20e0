//! Turns a received frame into an input of the engine, and refuses kinds that this side may not
//! send. The engine judges whether a frame may come at this moment.

use crate::engine::input::{Input, Report, Signature, Start};
use bytes::Bytes;
use protocol::decode::{self, WireError};
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::kinds::{Kind, Role};
use protocol::show;

/// Most bytes kept of a line of a program's output, or of a text from a host.
const LINE_BYTES_MAX: usize = 2048;
/// Most lines kept of the end of a program's output.
const TAIL_LINES_MAX: usize = 20;

/// A whole frame as it came from a link.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// The link it arrived on.
    pub link: LinkId,
    /// The role of the peer.
    pub role: Role,
    /// The frame's kind, as `decode::head` found it.
    pub kind: Kind,
    /// The frame's header, already validated.
    pub head: Header,
    /// The frame's whole body; pieces are separate frames.
    pub body: Bytes,
}

/// Makes an input of a frame. `prove` returns the start of a worker that its secret proves, if any;
/// `check_signature` says what the signature of an execd's welcome is worth on this link.
///
/// # Errors
/// This side may not send this kind, or the body makes no sense; both are fatal to the link.
pub fn input(
    arrived: Arrived,
    prove: impl FnOnce(WorkerId, &str) -> Option<Start>,
    check_signature: impl FnOnce(Option<&str>) -> Signature,
) -> Result<Input, WireError> {
    let Arrived { link, role, kind, head, body } = arrived;
    if !kind.may_send(role) {
        return Err(misplaced(role, kind, &head));
    }
    if kind == Kind::Data {
        return Ok(match role {
            Role::Worker => Input::Reply { link, head, body },
            Role::Client | Role::Host | Role::Broker => Input::Request { link, head, body },
        });
    }
    if kind == Kind::Publish {
        return Ok(Input::Publish { link, head, body });
    }
    let report = |report| Input::Report { link, report: Box::new(report) };
    Ok(match decode::frame(kind, head, body)? {
        Frame::Data { head, body } => Input::Request { link, head, body },
        Frame::Login(login) => match &login.start {
            Some(claim) => {
                let proof = prove(claim.worker, &claim.secret);
                Input::StartLogin { link, login: Box::new(login), proof }
            }
            None => Input::Login { link, login: Box::new(login) },
        },
        Frame::WorkerLogin(login) => {
            let proof = prove(login.worker, &login.secret);
            Input::WorkerLogin { link, login: Box::new(login), proof }
        }
        Frame::Challenge(challenge) => Input::Challenged { link, challenge: Box::new(challenge) },
        Frame::Proof(proof) => Input::Proof { link, proof: Box::new(proof) },
        Frame::Logout(body) => Input::Logout { link, received: body.received },
        Frame::Cancel { head, .. } => Input::Cancel { link, sequence: head.sequence },
        Frame::Flush { sequence } => Input::Flush { link, sequence },
        Frame::Subscribe(body) => Input::Subscribe { link, subscribe: Box::new(body) },
        Frame::Unsubscribe(body) => Input::Unsubscribe { link, subscription: body.subscription },
        Frame::Publish { head, body } => Input::Publish { link, head, body },
        Frame::Announce(body) => Input::Announce { link, announce: Box::new(body) },
        Frame::StateChange(body) => Input::StateChange { link, change: Box::new(body) },
        Frame::Beat(beat) => Input::Beat { link, beat },
        Frame::Withdraw(body) => Input::Withdraw { link, withdraw: Box::new(body) },
        Frame::Error { head, error } => {
            let (worker, run) = (WorkerId(head.workerid), RunId(head.transaction));
            Input::PeerError { link, worker, run, error }
        }
        Frame::Ping { sequence } => Input::Ping { link, sequence },
        Frame::Pong { .. } => Input::Pong { link },
        Frame::StatusReply { sequence, text } => Input::StatusReply { link, sequence, text },
        Frame::ExecWelcome(body) => {
            let signature = check_signature(body.signature.as_deref());
            report(Report::Welcome(body, signature))
        }
        Frame::ExecStarted(body) => report(Report::Started(body)),
        Frame::ExecFailed(mut body) => {
            body.text = show::brief(&body.text, LINE_BYTES_MAX);
            report(Report::Failed(body))
        }
        Frame::ExecExited(mut body) => {
            let more = body.tail.len().saturating_sub(TAIL_LINES_MAX);
            body.tail.drain(..more);
            body.tail.iter_mut().for_each(|line| *line = show::brief(line, LINE_BYTES_MAX));
            report(Report::Exited(body))
        }
        Frame::ExecOutput(mut body) => {
            body.line = show::brief(&body.line, LINE_BYTES_MAX);
            report(Report::Output(body))
        }
        Frame::ExecLines(mut body) => {
            body.text = show::brief(&body.text, LINE_BYTES_MAX);
            report(Report::Lines(body))
        }
        Frame::ExecMemory(body) => report(Report::Memory(body)),
        Frame::ExecListed(body) => report(Report::Listed(body)),
        // Only the broker sends these; the check against the table of kinds above refuses them, so
        // this arm is for the compiler.
        Frame::LoginOk(_)
        | Frame::WorkerLoginOk(_)
        | Frame::End
        | Frame::Flushed(_)
        | Frame::Subscribed(_)
        | Frame::Unsubscribed(_)
        | Frame::Published(_)
        | Frame::Message { .. }
        | Frame::CaughtUp(_)
        | Frame::Announced(_)
        | Frame::BeatOk(_)
        | Frame::Reinit
        | Frame::Status { .. }
        | Frame::ExecHello(_)
        | Frame::ExecStart(_)
        | Frame::ExecStop(_)
        | Frame::ExecSignal(_)
        | Frame::ExecList
        | Frame::ExecRead(_)
        | Frame::ExecEnd(_) => return Err(misplaced(role, kind, &head)),
    })
}

fn misplaced(role: Role, kind: Kind, head: &Header) -> WireError {
    let text = format!("a {role} may not send a {kind} frame to the broker");
    WireError::fatal(ErrorCode::BadState, text, head.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::bodies::{ExecWelcome, Login, WorkerLogin};
    use protocol::kinds::KINDS;
    use protocol::names::{HostName, ServiceName};

    fn arrived(role: Role, kind: Kind, body: &Bytes) -> Arrived {
        let head = Header { command: kind.number(), sequence: 7, ..Header::default() };
        Arrived { link: LinkId::default(), role, kind, head, body: body.clone() }
    }

    /// The input of a frame that proves nothing.
    fn read(arrived: Arrived) -> Result<Input, WireError> {
        input(arrived, |_, _| None, |_| Signature::Missing)
    }

    #[test]
    fn each_side_may_send_what_the_table_says_and_nothing_else() {
        for row in KINDS {
            for role in [Role::Client, Role::Worker, Role::Host] {
                let result = read(arrived(role, row.kind, &Bytes::new()));
                let is_misplaced =
                    matches!(&result, Err(e) if e.code == ErrorCode::BadState && e.skip.is_none());
                assert_eq!(is_misplaced, !row.kind.may_send(role), "{role} {}", row.name);
            }
        }
    }

    #[test]
    fn data_is_a_request_from_a_client_and_a_reply_from_a_worker() {
        let body = Bytes::from_static(b"hi");
        let from = |role| read(arrived(role, Kind::Data, &body));
        assert!(matches!(from(Role::Client), Ok(Input::Request { .. })));
        assert!(matches!(from(Role::Worker), Ok(Input::Reply { .. })));
    }

    #[test]
    fn a_worker_login_carries_what_its_secret_proves() {
        let login = WorkerLogin {
            worker: WorkerId(3),
            service: ServiceName::new("echo").unwrap(),
            host: HostName::new("localhost").unwrap(),
            hostpid: 1,
            secret: "5.ab".into(),
            concurrency: 1,
            cancel: false,
            token: None,
        };
        let arrived = arrived(Role::Worker, Kind::WorkerLogin, &login.render());
        let prove = |worker, secret: &str| {
            assert_eq!((worker, secret), (WorkerId(3), "5.ab"));
            Some(Start { run: RunId(5), digest: 6 })
        };
        let input = input(arrived, prove, |_| Signature::Missing);
        let Ok(Input::WorkerLogin { proof, .. }) = input else {
            panic!("a worker-login becomes its own input");
        };
        assert_eq!(proof, Some(Start { run: RunId(5), digest: 6 }));
    }

    #[test]
    fn a_welcome_carries_what_its_signature_is_worth() {
        for (given, worth) in
            [(None, Signature::Missing), (Some("0f".repeat(32)), Signature::Right)]
        {
            let welcome = ExecWelcome { signature: given.clone(), ..ExecWelcome::default() };
            let arrived = arrived(Role::Host, Kind::ExecWelcome, &welcome.render());
            let check = |signature: Option<&str>| {
                assert_eq!(signature, given.as_deref());
                worth
            };
            let Ok(Input::Report { report, .. }) = input(arrived, |_, _| None, check) else {
                panic!("a welcome becomes a report");
            };
            assert!(matches!(*report, Report::Welcome(_, signature) if signature == worth));
        }
    }

    #[test]
    fn a_login_that_makes_no_sense_says_so() {
        let error = read(arrived(Role::Client, Kind::Login, &Bytes::new())).unwrap_err();
        assert_eq!((error.code, error.skip), (ErrorCode::BadLogin, None));
        let login = Login::to(ServiceName::new("echo").unwrap());
        let ok = read(arrived(Role::Client, Kind::Login, &login.render()));
        assert!(matches!(ok, Ok(Input::Login { .. })));
    }
}
