//! Bytes and frames: one commented hex file a kind, both ways and cut at every byte, and one whole
//! conversation with a real broker. `UPDATE=1` writes the files. Not bad bytes: the codec's unit
//! tests and the scripts of garbage have those.

use bytes::{Bytes, BytesMut};
use isect_tests::docs;
use isect_tests::proc::Broker;
use isect_tests::wire::Wire;
use protocol::bodies::{
    Badge, BadgeOk, Child, Ending, ErrorBody, ExecEnd, ExecExited, ExecFailed, ExecHello,
    ExecListed, ExecOutput, ExecSignal, ExecStart, ExecStarted, ExecStop, ExecWelcome, Login,
    LoginOk, Stream,
};
use protocol::errors::{ErrorCode, Ran};
use protocol::frame::Frame;
use protocol::header::{FIELDS, FLAG_IDEMPOTENT, Field, Header};
use protocol::ids::{ClientId, RunId, WorkerId};
use protocol::kinds::{KINDS, Kind};
use protocol::limits::{BODY_BYTES_DEFAULT, HEADER_BYTES};
use protocol::names::{HostName, ServiceName};
use protocol::{decode, encode, show};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Bytes in one line of a hex file.
const ROW_BYTES: usize = 16;
/// The file of the conversation.
const CONVERSATION: &str = "conversation";
/// Where the header says how much time is left: it depends on the moment.
const DEADLINE: std::ops::Range<usize> = 32..36;

fn file(name: &str) -> PathBuf {
    docs::root().join("tests/wire").join(format!("{name}.hex"))
}

/// A file's text; with `UPDATE=1` it is made first.
fn read(name: &str, make: impl FnOnce() -> String) -> String {
    let path = file(name);
    if is_update() {
        std::fs::write(&path, make()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; run: UPDATE=1 cargo test --test wire", path.display()))
}

#[expect(clippy::disallowed_methods, reason = "the one switch of these tests")]
fn is_update() -> bool {
    std::env::var("UPDATE").is_ok()
}

// Frames, by value.

fn echo() -> ServiceName {
    ServiceName::new("echo").expect("a service name")
}

fn desk() -> HostName {
    HostName::new("desk").expect("a host name")
}

fn login() -> Login {
    Login { loghost: "desk".into(), hostpid: 4711, name: Some("tour".into()), ..Login::to(echo()) }
}

fn badge(worker: u32, secret: &str) -> Badge {
    Badge {
        worker: WorkerId(worker),
        service: echo(),
        host: desk(),
        hostpid: 4712,
        secret: secret.into(),
    }
}

/// A client's request.
fn request(sequence: u32, body: &'static str) -> (Header, Bytes) {
    (Header { sequence, reply: 1, ..Header::default() }, Bytes::from_static(body.as_bytes()))
}

/// A worker's reply.
fn reply(transaction: u64, body: &'static str) -> (Header, Bytes) {
    (Header { transaction, ..Header::default() }, Bytes::from_static(body.as_bytes()))
}

fn data((head, body): (Header, Bytes)) -> Frame {
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
        ("badge", Frame::Badge(badge(3, "3.1.5f2d"))),
        ("badge-ok", Frame::BadgeOk(badge_ok())),
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

fn login_ok() -> LoginOk {
    LoginOk {
        client: ClientId(0),
        body_bytes_max: BODY_BYTES_DEFAULT as u64,
        requests_max: 64,
        deadline_ms: 60_000,
        heartbeat_ms: 10_000,
        version: "0.1.0".into(),
    }
}

fn badge_ok() -> BadgeOk {
    BadgeOk {
        worker: WorkerId(3),
        body_bytes_max: BODY_BYTES_DEFAULT as u64,
        heartbeat_ms: 10_000,
        reconnect_ms: 30_000,
    }
}

/// TABLE of hex files between broker and execd.
fn exec_frames() -> Vec<(&'static str, Frame)> {
    let (worker, run, pid) = (WorkerId(3), RunId(17), 4712);
    vec![
        ("exec-hello", Frame::ExecHello(ExecHello { host: desk(), broker: "5f2d9c".into() })),
        (
            "exec-welcome",
            Frame::ExecWelcome(ExecWelcome {
                hostpid: 4000,
                version: "0.1.0".into(),
                children_max: 1000,
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
            }),
        ),
        ("exec-stop", Frame::ExecStop(ExecStop { worker, run, grace_ms: 5000 })),
        ("exec-signal", Frame::ExecSignal(ExecSignal { worker, run, signal: 10 })),
        ("exec-list", Frame::ExecList),
        (
            "exec-listed",
            Frame::ExecListed(ExecListed {
                children: vec![
                    Child { worker, run, pid },
                    Child { worker: WorkerId(4), run: RunId(18), pid: 4713 },
                ],
            }),
        ),
        ("exec-started", Frame::ExecStarted(ExecStarted { worker, run, pid })),
        (
            "exec-failed",
            Frame::ExecFailed(ExecFailed {
                worker,
                run,
                lasting: true,
                text: "/usr/bin/isdecho: no such file".into(),
            }),
        ),
        (
            "exec-exited",
            Frame::ExecExited(ExecExited {
                worker,
                run,
                pid,
                ending: Ending::Signal(9),
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
        ("exec-end", Frame::ExecEnd(ExecEnd { grace_ms: 5000 })),
    ]
}

fn all_frames() -> Vec<(&'static str, Frame)> {
    let mut all = frames();
    all.extend(exec_frames());
    all
}

/// The frame as it arrives: with `len`, `command` and `version` in its header.
fn arrived(frame: &Frame) -> Frame {
    let head = Header::read(&encode::parts(frame.clone()).head);
    match frame.clone() {
        Frame::Data { body, .. } => Frame::Data { head, body },
        Frame::Error { error, .. } => Frame::Error { head, error },
        other => other,
    }
}

// Hex text: bytes by value are `None` where they depend on the moment.

fn fixed(bytes: &[u8]) -> Vec<Option<u8>> {
    bytes.iter().copied().map(Some).collect()
}

fn row(prefix: &str, bytes: &[Option<u8>], comment: &str, out: &mut String) {
    let words: Vec<String> =
        bytes.iter().map(|b| b.map_or_else(|| "..".to_owned(), |b| format!("{b:02x}"))).collect();
    let _ = writeln!(out, "{prefix}{:<47}  # {comment}", words.join(" "));
}

/// What a field says: its value, and what the value is called.
fn value(field: &Field, bytes: &[Option<u8>]) -> String {
    let Some(bytes) = bytes.iter().copied().collect::<Option<Vec<u8>>>() else {
        return "depends on the moment".into();
    };
    if bytes.iter().all(|byte| *byte == 0) && field.name != "command" {
        return "0".into();
    }
    if field.kind == "bytes" {
        return show::digits(&bytes);
    }
    let number = bytes.iter().fold(0_u64, |n, byte| (n << 8) | u64::from(*byte));
    match (field.name, u16::try_from(number)) {
        ("command", Ok(short)) => {
            format!("{number} {}", Kind::of(short).map_or("?", |kind| kind.row().name))
        }
        ("error", Ok(short)) => {
            let code = short.cast_signed();
            format!("{code} {}", ErrorCode::of(code).map_or("application", ErrorCode::name))
        }
        ("span_id", _) => show::digits(&bytes),
        _ => number.to_string(),
    }
}

/// The lines of a frame. `is_short`: fields that are zero share a line.
fn render(prefix: &str, bytes: &[Option<u8>], is_short: bool, out: &mut String) {
    let (head, body) = bytes.split_at(HEADER_BYTES);
    let mut index = 0;
    while index < FIELDS.len() {
        let first = &FIELDS[index];
        let at = |field: &Field| field.offset..field.offset + field.width;
        let is_zero = |field: &Field| value(field, &head[at(field)]) == "0";
        let mut names = vec![first.name];
        let mut end = at(first).end;
        index += 1;
        while is_short && is_zero(first) && index < FIELDS.len() {
            let next = &FIELDS[index];
            if !is_zero(next) || at(next).end - first.offset > ROW_BYTES {
                break;
            }
            names.push(next.name);
            end = at(next).end;
            index += 1;
        }
        let comment =
            format!("{:2} {} = {}", first.offset, names.join(", "), value(first, &head[at(first)]));
        row(prefix, &head[first.offset..end], &comment, out);
    }
    for line in body.split_inclusive(|byte| *byte == Some(b'\n')) {
        for part in line.chunks(ROW_BYTES) {
            let text: Vec<u8> = part.iter().copied().flatten().collect();
            row(prefix, part, &format!("   \"{}\"", text.escape_ascii()), out);
        }
    }
}

/// The bytes of a line without its prefix and comment.
fn parse_row(line: &str) -> Vec<Option<u8>> {
    let code = line.split('#').next().unwrap_or(line);
    let byte = |word: &str| match word {
        ".." => None,
        word => {
            assert!(word.len() == 2, "'{word}' in '{line}' is not two digits");
            Some(u8::from_str_radix(word, 16).unwrap_or_else(|e| panic!("'{line}': {e}")))
        }
    };
    code.split_whitespace().map(byte).collect()
}

fn parse(text: &str) -> BytesMut {
    let bytes = text.lines().flat_map(parse_row).map(|byte| byte.expect("a fixed byte"));
    bytes.collect()
}

fn render_file(name: &str, frame: &Frame) -> String {
    let kind = frame.kind().row();
    let senders: Vec<String> = kind.senders.iter().map(ToString::to_string).collect();
    let mut out =
        format!("# {name}: a frame of kind {}, sent by {}\n", kind.name, senders.join(", "));
    let _ = writeln!(out, "# {}\n#\n# bytes, then: offset field = value", kind.text);
    render("", &fixed(&encode::to_bytes(frame.clone())), false, &mut out);
    out
}

/// The bytes of a frame's file.
fn bytes_of(name: &str, frame: &Frame) -> BytesMut {
    parse(&read(name, || render_file(name, frame)))
}

#[test]
fn each_file_is_its_frame_and_each_frame_its_file() {
    for (name, frame) in all_frames() {
        let bytes = bytes_of(name, &frame);
        let read = decode::next(&mut bytes.clone(), BODY_BYTES_DEFAULT);
        assert_eq!(read, Ok(Some(arrived(&frame))), "{name}.hex as a frame");
        assert_eq!(encode::to_bytes(frame), bytes.freeze(), "the frame of {name}.hex as bytes");
    }
}

#[test]
fn a_cut_frame_waits_for_the_rest() {
    for (name, frame) in all_frames() {
        let whole = bytes_of(name, &frame);
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert_eq!(
                decode::next(&mut part, BODY_BYTES_DEFAULT),
                Ok(None),
                "{name} cut at {cut}"
            );
            part.extend_from_slice(&whole[cut..]);
            let rest = decode::next(&mut part, BODY_BYTES_DEFAULT);
            assert_eq!(rest, Ok(Some(arrived(&frame))), "{name} after a cut at {cut}");
            assert!(part.is_empty(), "{name}: bytes are left");
        }
    }
}

#[test]
fn each_kind_has_a_file_and_each_file_a_frame() {
    let all = all_frames();
    for kind in KINDS {
        let named = all.iter().find(|(name, _)| *name == kind.name);
        let (_, frame) =
            named.unwrap_or_else(|| panic!("no {}.hex; add it to frames()", kind.name));
        assert_eq!(frame.kind(), kind.kind, "{}.hex", kind.name);
    }
    if is_update() {
        return;
    }
    let known: BTreeSet<String> = all
        .iter()
        .map(|(name, _)| *name)
        .chain([CONVERSATION])
        .map(|n| format!("{n}.hex"))
        .collect();
    let folder = std::fs::read_dir(docs::root().join("tests/wire")).expect("tests/wire");
    let there: BTreeSet<String> = folder
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(there, known, "files of tests/wire and the tables of this test");
}

// The conversation.

/// Who talks with the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Worker,
}

/// One frame of the conversation.
enum Step {
    Say(Side, &'static str, Frame),
    Hear(Side, &'static str),
}

/// TABLE of the conversation: what is said and where an answer is awaited.
fn steps() -> Vec<Step> {
    let say = |note, frame| Step::Say(Side::Client, note, frame);
    let work = |note, frame| Step::Say(Side::Worker, note, frame);
    let hear = |note| Step::Hear(Side::Client, note);
    let task = |note| Step::Hear(Side::Worker, note);
    let (head, hello) = request(1, "hello");
    let timed = Header { deadline_ms: 30_000, ..head };
    let (second, half) = request(2, "first half, ");
    let (more, which) = reply(3, "which colour?");
    let (third, red) = request(3, "red");
    let (wrong, sorry) = reply(4, "no such colour");
    let (lost, late) = request(6, "too late");
    let piece = Header { more: 1, ..second };
    let answer = Header { workerid: 1, ..third };
    vec![
        say("the client logs in to the service echo", Frame::Login(login())),
        hear("it is client 0"),
        work(
            "the worker shows its badge; it starts itself: worker 0, no secret",
            Frame::Badge(badge(0, "")),
        ),
        task("it is worker 1"),
        say("a request, worth 30 s of waiting", Frame::data(timed, hello)),
        task("the worker gets it as transaction 1"),
        work("the reply needs the transaction, nothing else", data(reply(1, "hello"))),
        hear("the reply, with the sequence of the request"),
        say("a request in two pieces: the first says that more follows", Frame::data(piece, half)),
        task("the worker gets each piece as it comes"),
        say("the last piece: the same sequence, more = 0", data(request(2, "second half"))),
        task("and is bound to it until then"),
        work("one reply", data(reply(2, "both halves"))),
        hear("one reply"),
        say("the beginning of a conversation", data(request(3, "paint it"))),
        task("as transaction 3"),
        work("the worker has a question: more = 1", Frame::data(Header { more: 1, ..more }, which)),
        hear("its question comes with the worker's id"),
        say("the answer goes to that worker, under the same sequence", Frame::data(answer, red)),
        task("in the same transaction"),
        work("more = 0 ends the conversation", data(reply(3, "painted"))),
        hear("the client may use sequence 3 again"),
        say(
            "a request that will fail in the worker's own terms",
            data(request(4, "paint it ultra")),
        ),
        task("as transaction 4"),
        work("error > 0 is the worker's own", Frame::data(Header { error: 42, ..wrong }, sorry)),
        hear("and is passed through"),
        say(
            "a frame for a conversation that is over",
            Frame::data(Header { sequence: 5, ..answer }, Bytes::from_static(b"red")),
        ),
        hear("an error of the broker: negative, with its reasons in the body"),
        say("is the broker there?", Frame::Ping { sequence: 99 }),
        hear("it is"),
        work("and for the worker?", Frame::Ping { sequence: 7 }),
        task("it is"),
        say("a request that its client will not wait for", Frame::data(lost, late)),
        task("the worker has it"),
        say("the client goes", Frame::Logout),
        work("the worker is not disturbed; its reply is dropped", data(reply(5, ""))),
        work("the worker goes", Frame::Logout),
    ]
}

/// A broker that was told `config service echo selfstart=1` and a connection for each side.
struct Talk {
    broker: Broker,
    client: Wire,
    worker: Wire,
}

impl Talk {
    fn begin() -> Self {
        let folder = tempfile::TempDir::with_prefix("isect-").expect("temporary folder");
        let script = folder.path().join("echo.op");
        std::fs::write(&script, "config service echo selfstart=1\n").expect("a script");
        // Not by a client, so that the client of the conversation is the first.
        let script = script.to_string_lossy().into_owned();
        let broker =
            Broker::start_in(folder, &["--source", &script, "--set", "heartbeat_ms=60000"]);
        let client = Wire::connect(&broker.port("client"));
        let worker = Wire::connect(&broker.port("worker"));
        Self { broker, client, worker }
    }

    fn wire(&mut self, side: Side) -> &mut Wire {
        match side {
            Side::Client => &mut self.client,
            Side::Worker => &mut self.worker,
        }
    }

    /// Sends a frame. After a logout its sender closes, and nothing more comes to it.
    fn say(&mut self, side: Side, bytes: &[u8]) {
        let wire = self.wire(side);
        wire.write(bytes).expect("sent");
        if bytes[12..14] == Kind::Logout.number().to_be_bytes() {
            wire.shut();
            assert_eq!(wire.read(1), b"", "more came to the {side:?} after its logout");
        }
    }
}

/// Holds the conversation and writes down what is said.
fn record() -> String {
    let mut talk = Talk::begin();
    let mut out = String::from(
        "# One conversation, every byte. C> and W>: client and worker send; C< and W<: the broker does.\n\
         # Bytes, then: offset field = value; after the header the body. Fields that are 0 share a line.\n",
    );
    for step in steps() {
        let (prefix, note, bytes) = match step {
            Step::Say(side, note, frame) => {
                let bytes = encode::to_bytes(frame);
                talk.say(side, &bytes);
                (if side == Side::Client { "C> " } else { "W> " }, note, fixed(&bytes))
            }
            Step::Hear(side, note) => {
                let wire = talk.wire(side);
                let head: [u8; HEADER_BYTES] = wire.read(HEADER_BYTES).try_into().expect(note);
                let head_read = Header::read(&head);
                let mut bytes = fixed(&head);
                bytes.extend(fixed(&wire.read(head_read.len as usize)));
                if side == Side::Worker && head_read.deadline_ms != 0 {
                    bytes[DEADLINE].fill(None);
                }
                (if side == Side::Client { "C< " } else { "W< " }, note, bytes)
            }
        };
        let _ = writeln!(out, "\n# {note}");
        render(prefix, &bytes, true, &mut out);
    }
    assert_eq!(talk.broker.end(), 0);
    out
}

/// The text of the conversation's file; held and written once if it is to be made.
fn conversation() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| read(CONVERSATION, record))
}

/// The file as turns: who, whether it is sent, the bytes.
fn turns(text: &str) -> Vec<(Side, bool, Vec<Option<u8>>)> {
    let mut turns: Vec<(Side, bool, Vec<Option<u8>>)> = Vec::new();
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            // A comment ends a frame, so that two frames of one side stay two.
            turns.push((Side::Client, true, Vec::new()));
            continue;
        }
        let (prefix, code) = line.split_at(2);
        let (side, is_sent) = match prefix {
            "C>" => (Side::Client, true),
            "C<" => (Side::Client, false),
            "W>" => (Side::Worker, true),
            "W<" => (Side::Worker, false),
            other => panic!("'{other}' begins '{line}'"),
        };
        match turns.last_mut() {
            Some(turn) if !turn.2.is_empty() => turn.2.extend(parse_row(code)),
            Some(turn) => *turn = (side, is_sent, parse_row(code)),
            None => panic!("'{line}' comes before the first comment"),
        }
    }
    turns.retain(|turn| !turn.2.is_empty());
    turns
}

#[test]
fn the_conversation_of_the_document_happens_byte_by_byte() {
    let mut talk = Talk::begin();
    for (index, (side, is_sent, bytes)) in turns(conversation()).into_iter().enumerate() {
        if is_sent {
            let sent: Vec<u8> = bytes.iter().map(|byte| byte.expect("a fixed byte")).collect();
            talk.say(side, &sent);
            continue;
        }
        let came = talk.wire(side).read(bytes.len());
        let masked: Vec<Option<u8>> =
            came.iter().zip(&bytes).map(|(byte, wanted)| wanted.map(|_| *byte)).collect();
        let show = |bytes: &[Option<u8>]| {
            let mut out = String::new();
            render("", bytes, true, &mut out);
            out
        };
        assert!(masked == bytes, "frame {index} is\n{}not\n{}", show(&masked), show(&bytes));
    }
    assert_eq!(talk.broker.end(), 0);
}

#[test]
fn the_conversation_is_what_the_table_says() {
    let turns = turns(conversation());
    let steps = steps();
    assert_eq!(turns.len(), steps.len(), "frames of the file and of the table; UPDATE=1 writes it");
    for (index, (step, (side, is_sent, bytes))) in steps.into_iter().zip(turns).enumerate() {
        match step {
            Step::Say(who, _, frame) => {
                assert_eq!((who, true), (side, is_sent), "frame {index}");
                assert_eq!(fixed(&encode::to_bytes(frame)), bytes, "frame {index}");
            }
            Step::Hear(who, _) => assert_eq!((who, false), (side, is_sent), "frame {index}"),
        }
    }
}
