//! The frames of the hex files as values, one or more of each kind. `tests/wire` has their bytes.

use bytes::Bytes;
use protocol::bodies::{
    Child, ErrorBody, ExecEnd, ExecExited, ExecFailed, ExecHello, ExecListed, ExecOutput,
    ExecSignal, ExecStart, ExecStarted, ExecStop, ExecWelcome, ExitCause, Login, LoginOk, Stream,
    WorkerLogin, WorkerLoginOk,
};
use protocol::encode;
use protocol::errors::{ErrorCode, Ran};
use protocol::frame::Frame;
use protocol::header::{FLAG_IDEMPOTENT, Header};
use protocol::ids::{ClientId, RunId, WorkerId};
use protocol::limits::BODY_BYTES_DEFAULT;
use protocol::names::{HostName, ServiceName};
use protocol::proof::{Challenge, Proof};

fn echo() -> ServiceName {
    ServiceName::new("echo").expect("a service name")
}

fn desk() -> HostName {
    HostName::new("desk").expect("a host name")
}

pub(crate) fn login() -> Login {
    Login { loghost: "desk".into(), hostpid: 4711, name: Some("tour".into()), ..Login::to(echo()) }
}

pub(crate) fn worker_login(worker: u32, secret: &str) -> WorkerLogin {
    WorkerLogin {
        worker: WorkerId(worker),
        service: echo(),
        host: desk(),
        hostpid: 4712,
        secret: secret.into(),
        token: None,
    }
}

/// A client's request.
pub(crate) fn request(sequence: u32, body: &'static str) -> (Header, Bytes) {
    (Header { sequence, reply: 1, ..Header::default() }, Bytes::from_static(body.as_bytes()))
}

/// A worker's reply.
pub(crate) fn reply(transaction: u64, body: &'static str) -> (Header, Bytes) {
    (Header { transaction, ..Header::default() }, Bytes::from_static(body.as_bytes()))
}

pub(crate) fn data((head, body): (Header, Bytes)) -> Frame {
    Frame::data(head, body)
}

/// TABLE of hex files of clients and workers: file name and the frame in it.
fn frames() -> Vec<(&'static str, Frame)> {
    let (full, hello) = request(7, "hello");
    let trace_id =
        [0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 1, 2, 3, 4];
    let full = Header {
        workerid: 3,
        more: 1,
        priority: 20,
        flags: FLAG_IDEMPOTENT,
        transaction: 0x0102_0304_0506_0708,
        deadline_ms: 30_000,
        attempt: 2,
        trace_id,
        span_id: 0x00f0_67aa_0ba9_02b7,
        ..full
    };
    let deadline = ErrorBody {
        code: ErrorCode::Deadline,
        ran: Ran::No,
        text: "no worker was free within 500 ms".into(),
    };
    let idle = ErrorBody::new(ErrorCode::Intervention, ErrorCode::Intervention.row().text);
    let (application, sorry) = reply(12, "no such colour");
    let in_reply =
        |error| Frame::Error { head: Header { sequence: 7, ..Header::default() }, error };
    vec![
        ("data", data(request(7, "hello"))),
        ("data-every-field", Frame::data(full, hello)),
        ("data-application-error", Frame::data(Header { error: 42, ..application }, sorry)),
        ("login", Frame::Login(login())),
        ("login-ok", Frame::LoginOk(login_ok())),
        ("challenge", Frame::Challenge(challenge())),
        ("proof", Frame::Proof(Proof { proof: [0x5a; 32] })),
        ("worker-login", Frame::WorkerLogin(worker_login(3, "3.1.5f2d"))),
        ("worker-login-ok", Frame::WorkerLoginOk(worker_login_ok())),
        ("error", in_reply(deadline)),
        ("error-intervention", in_reply(idle)),
        ("ping", Frame::Ping { sequence: 8 }),
        ("pong", Frame::Pong { sequence: 8 }),
        ("logout", Frame::Logout),
        ("end", Frame::End),
        ("reinit", Frame::Reinit),
        ("status", Frame::Status { sequence: 9 }),
        ("status-reply", Frame::StatusReply { sequence: 9, text: "12 colours known\n".into() }),
    ]
}

fn challenge() -> Challenge {
    let (salt, nonce) = ((0xa0..0xb0).collect(), (0..48).collect());
    Challenge { salt, memory_kib: 19_456, passes: 2, lanes: 1, nonce }
}

fn login_ok() -> LoginOk {
    LoginOk {
        client: ClientId(0),
        body_bytes_max: BODY_BYTES_DEFAULT as u64,
        requests_max: 64,
        deadline_ms: 60_000,
        heartbeat_ms: 10_000,
        silence_ms: 30_000,
        version: "0.1.0".into(),
        signature: None,
    }
}

fn worker_login_ok() -> WorkerLoginOk {
    WorkerLoginOk {
        worker: WorkerId(3),
        body_bytes_max: BODY_BYTES_DEFAULT as u64,
        heartbeat_ms: 10_000,
        silence_ms: 30_000,
        reconnect_ms: 30_000,
        signature: None,
    }
}

/// TABLE of hex files between broker and execd.
fn exec_frames() -> Vec<(&'static str, Frame)> {
    let (worker, run, pid) = (WorkerId(3), RunId(17), 4712);
    vec![
        (
            "exec-hello",
            Frame::ExecHello(ExecHello { host: desk(), broker: "5f2d9c".into(), token: None }),
        ),
        (
            "exec-welcome",
            Frame::ExecWelcome(ExecWelcome {
                hostpid: 4000,
                version: "0.1.0".into(),
                children_max: 1000,
                signature: None,
                ..ExecWelcome::default()
            }),
        ),
        (
            "exec-start",
            Frame::ExecStart(ExecStart {
                worker,
                run,
                service: echo(),
                path: "/usr/bin/isdecho".into(),
                args: ["127.0.0.1", "5503", "3", "echo", "two\nlines"].map(str::to_owned).to_vec(),
                secret: "3.17.5f2d".into(),
                digest: 0,
            }),
        ),
        ("exec-stop", Frame::ExecStop(ExecStop { worker, run, grace_ms: 5000 })),
        ("exec-signal", Frame::ExecSignal(ExecSignal { worker, run, signal: 10 })),
        ("exec-list", Frame::ExecList),
        (
            "exec-listed",
            Frame::ExecListed(ExecListed {
                children: vec![
                    Child { worker, run, pid, digest: 0 },
                    Child { worker: WorkerId(4), run: RunId(18), pid: 4713, digest: 0 },
                ],
            }),
        ),
        ("exec-started", Frame::ExecStarted(ExecStarted { worker, run, pid })),
        (
            "exec-failed",
            Frame::ExecFailed(ExecFailed {
                worker,
                run,
                permanent: true,
                again_ms: 0,
                text: "/usr/bin/isdecho: no such file".into(),
            }),
        ),
        (
            "exec-exited",
            Frame::ExecExited(ExecExited {
                worker,
                run,
                pid,
                exit_cause: ExitCause::Signal(9),
                cpu_ms: 250,
                rss_kib_max: 2048,
                tail: vec!["reading colours".into(), "a \\ in a line".into()],
            }),
        ),
        (
            "exec-output",
            Frame::ExecOutput(ExecOutput {
                worker,
                run,
                stream: Stream::Stderr,
                line: "reading colours".into(),
                dropped: 0,
            }),
        ),
        ("exec-end", Frame::ExecEnd(ExecEnd { grace_ms: 5000, keep: false })),
    ]
}

pub(crate) fn all_frames() -> Vec<(&'static str, Frame)> {
    let mut all = frames();
    all.extend(exec_frames());
    all
}

/// The frame as it arrives: with `len`, `command` and `version` in its header.
pub(crate) fn arrived(frame: &Frame) -> Frame {
    let head = Header::read(&encode::encode(frame.clone()).head);
    match frame.clone() {
        Frame::Data { body, .. } => Frame::Data { head, body },
        Frame::Error { error, .. } => Frame::Error { head, error },
        other => other,
    }
}
