//! The frames of the hex files as values, one or more of each kind. `tests/wire` has their bytes.

use bytes::Bytes;
use protocol::bodies::{ErrorBody, Login, WorkerLogin};
use protocol::encode;
use protocol::errors::{ErrorCode, Ran};
use protocol::frame::Frame;
use protocol::header::{FLAG_IDEMPOTENT, Header};
use protocol::ids::WorkerId;
use protocol::kinds::KINDS;
use protocol::messages::{MessageOf, Removed, Retain};
use protocol::names::{HostName, ServiceName};

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
        concurrency: 1,
        cancel: false,
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

/// TABLE of hex files of frames whose bodies are not made from the table of kinds: file name and
/// the frame in it.
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
        retry_after_ms: 0,
        newer: None,
    };
    let text = "service 'echo' has no worker: 1 worker failed";
    let later = ErrorBody { retry_after_ms: 8000, ..ErrorBody::new(ErrorCode::NoWorker, text) };
    let idle = ErrorBody::new(ErrorCode::Intervention, ErrorCode::Intervention.row().text);
    let (application, sorry) = reply(12, "no such colour");
    let over = Header {
        transaction: 12,
        workerid: 3,
        error: ErrorCode::Cancelled.number(),
        ..Header::default()
    };
    let kept =
        MessageOf { retain: Retain::Yes, ..MessageOf::new("orders.eu.created", b"order 4711") };
    let gone = Some(Removed::Expired);
    let removed = MessageOf { removed: gone, ..MessageOf::new("orders.eu.created", b"") };
    let of = Header { sequence: 7, transaction: 46, attempt: 2, ..Header::default() };
    let in_reply =
        |error| Frame::Error { head: Header { sequence: 7, ..Header::default() }, error };
    vec![
        ("data", data(request(7, "hello"))),
        ("data-every-field", Frame::data(full, hello)),
        ("data-application-error", Frame::data(Header { error: 42, ..application }, sorry)),
        ("error", in_reply(deadline)),
        ("error-retry-after", in_reply(later)),
        ("error-intervention", in_reply(idle)),
        ("ping", Frame::Ping { sequence: 8 }),
        ("pong", Frame::Pong { sequence: 8 }),
        ("cancel", Frame::Cancel { head: over, text: "its client gave it up".into() }),
        ("flush", Frame::Flush { sequence: 7 }),
        (
            "publish",
            Frame::Publish {
                head: Header { sequence: 9, reply: 1, ..Header::default() },
                body: kept.body(),
            },
        ),
        ("message", Frame::Message { head: of, body: kept.body() }),
        ("message-removed", Frame::Message { head: of, body: removed.body() }),
        ("end", Frame::End),
        ("reinit", Frame::Reinit),
        ("exec-list", Frame::ExecList),
        ("status", Frame::Status { sequence: 9 }),
        ("status-reply", Frame::StatusReply { sequence: 9, text: "12 colours known\n".into() }),
    ]
}

/// The frames of the table above, and the examples of the table of kinds.
pub(crate) fn all_frames() -> Vec<(&'static str, Frame)> {
    let mut all = frames();
    all.extend(KINDS.iter().filter_map(|row| Some((row.name, Frame::example(row.kind)?))));
    all
}

/// The frame as it arrives: with `len`, `command` and `version` in its header.
pub(crate) fn arrived(frame: &Frame) -> Frame {
    let head = Header::read(&encode::encode(frame.clone()).head);
    match frame.clone() {
        Frame::Data { body, .. } => Frame::Data { head, body },
        Frame::Publish { body, .. } => Frame::Publish { head, body },
        Frame::Message { body, .. } => Frame::Message { head, body },
        Frame::Error { error, .. } => Frame::Error { head, error },
        Frame::Cancel { text, .. } => Frame::Cancel { head, text },
        other => other,
    }
}
