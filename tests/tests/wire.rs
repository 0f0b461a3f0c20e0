//! Tests bytes and frames: one commented hex file for each kind, encoded, decoded and split at
//! every byte; and one whole conversation with a real broker. `UPDATE=1` writes the files. Bad
//! bytes are in the codec's unit tests and in the scripts about garbage.

#[path = "wire/frames.rs"]
mod frames;
#[path = "wire/hex.rs"]
mod hex;

use bytes::{Bytes, BytesMut};
use frames::{all_frames, arrived, data, login, reply, request, worker_login};
use hex::{fixed, parse, parse_row, render};
use isect_tests::docs;
use isect_tests::proc::Broker;
use isect_tests::wire::Wire;
use protocol::decode::Limits;
use protocol::encode;
use protocol::frame::Frame;
use protocol::frame_reader::Inbox;
use protocol::header::Header;
use protocol::kinds::{KINDS, Kind};
use protocol::limits::HEADER_BYTES;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Name of the file with the conversation.
const CONVERSATION: &str = "conversation";
/// Bytes of the header that hold the time left, which differs each time.
const DEADLINE: std::ops::Range<usize> = 32..36;
/// The bytes of `transaction` in a header.
const TRANSACTION: std::ops::Range<usize> = 24..32;

fn file(name: &str) -> PathBuf {
    docs::root().join("tests/wire").join(format!("{name}.hex"))
}

/// The text of a file; with `UPDATE=1` it is written first.
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

fn render_file(name: &str, frame: &Frame) -> String {
    let kind = frame.kind().row();
    let senders: Vec<String> = kind.senders.iter().map(ToString::to_string).collect();
    let mut out =
        format!("# {name}: a frame of kind {}, sent by {}\n", kind.name, senders.join(", "));
    let _ = writeln!(out, "# {}\n#\n# bytes, then: offset field = value", kind.text);
    render("", &fixed(&encode::to_bytes(frame.clone())), false, &mut out);
    out
}

/// The bytes in the file of a frame.
fn bytes_of(name: &str, frame: &Frame) -> BytesMut {
    parse(&read(name, || render_file(name, frame)))
}

#[test]
fn each_file_is_its_frame_and_each_frame_its_file() {
    for (name, frame) in all_frames() {
        let bytes = bytes_of(name, &frame);
        let read = Inbox::of(Limits::default(), &bytes).next_frame();
        assert_eq!(read, Ok(Some(arrived(&frame))), "{name}.hex as a frame");
        assert_eq!(encode::to_bytes(frame), bytes.freeze(), "the frame of {name}.hex as bytes");
    }
}

#[test]
fn a_partial_frame_waits_for_the_rest() {
    for (name, frame) in all_frames() {
        let whole = bytes_of(name, &frame);
        for at in 0..whole.len() {
            let mut inbox = Inbox::of(Limits::default(), &whole[..at]);
            assert_eq!(inbox.next_frame(), Ok(None), "{name} split at {at}");
            inbox.push(&whole[at..]);
            let rest = inbox.next_frame();
            assert_eq!(rest, Ok(Some(arrived(&frame))), "{name} after a split at {at}");
            assert!(!inbox.has_bytes(), "{name}: bytes are left");
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

/// The peer that talks with the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Worker,
}

/// One frame of the conversation, sent or awaited.
enum Step {
    Say(Side, &'static str, Frame),
    Hear(Side, &'static str),
}

/// TABLE of the conversation: the frames that are sent, and where one is awaited.
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
            "the worker logs in; it starts itself: worker 0, no secret",
            Frame::WorkerLogin(worker_login(0, "")),
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
        say("the client goes", Frame::Logout(protocol::bodies::Logout::default())),
        work("the worker is not disturbed; its reply is dropped", data(reply(5, ""))),
        work(
            "the worker goes: it got five requests",
            Frame::Logout(protocol::bodies::Logout { received: Some(5) }),
        ),
        task("none follows; it closes"),
    ]
}

/// A broker that was started with `config service echo selfstart=1`, and a connection for each
/// side.
struct Talk {
    broker: Broker,
    client: Wire,
    worker: Wire,
    /// The number from which the broker counts transactions; `None` = not known yet.
    base: Option<u64>,
}

impl Talk {
    fn begin() -> Self {
        let folder = tempfile::TempDir::with_prefix("isect-").expect("temporary folder");
        let script = folder.path().join("echo.op");
        std::fs::write(&script, "config service echo selfstart=1\n").expect("a script");
        // By a script and not by an operator, so that the client of the conversation is client 0.
        let script = script.to_string_lossy().into_owned();
        let broker =
            Broker::start_in(folder, &["--source", &script, "--set", "heartbeat_ms=60000"]);
        let client = Wire::connect(&broker.port("client"));
        let worker = Wire::connect(&broker.port("worker"));
        Self { broker, client, worker, base: None }
    }

    fn wire(&mut self, side: Side) -> &mut Wire {
        match side {
            Side::Client => &mut self.client,
            Side::Worker => &mut self.worker,
        }
    }

    /// Sends a frame. After its `logout` the client closes, and must receive nothing more.
    fn say(&mut self, side: Side, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let head = Header::read(bytes.first_chunk().expect("a header"));
        if head.transaction != 0 {
            let transaction = head.transaction + self.base.expect("the worker has a request");
            bytes[TRANSACTION].copy_from_slice(&transaction.to_be_bytes());
        }
        let wire = self.wire(side);
        wire.write(&bytes).expect("sent");
        if side == Side::Client && head.command == Kind::Logout.number() {
            wire.shut();
            assert_eq!(wire.read(1), b"", "more came to the {side:?} after its logout");
        }
    }
}

/// The broker takes the number from which it counts transactions from the clock; in the file they
/// are counted from 0.
impl Talk {
    /// A header that came, with its transaction as in the file.
    fn counted(&mut self, head: &mut [u8]) {
        let read = Header::read(head.first_chunk().expect("a header"));
        if read.transaction != 0 {
            let base = *self.base.get_or_insert(read.transaction - 1);
            head[TRANSACTION].copy_from_slice(&(read.transaction - base).to_be_bytes());
        }
    }
}

/// Runs the conversation and writes down all frames.
fn record() -> String {
    let mut talk = Talk::begin();
    let mut out = String::from(
        "# One conversation, every byte. C> and W>: sent by client and worker; C< and W<: by broker.\n\
         # Bytes, then: offset field = value; after the header the body.\n\
         # Fields that are 0 share a line. The broker counts transactions from a number that it takes\n\
         # from the clock at its start; here that is 0.\n",
    );
    for step in steps() {
        let (prefix, note, bytes) = match step {
            Step::Say(side, note, frame) => {
                let bytes = encode::to_bytes(frame);
                talk.say(side, &bytes);
                (if side == Side::Client { "C> " } else { "W> " }, note, fixed(&bytes))
            }
            Step::Hear(side, note) => {
                let mut head: [u8; HEADER_BYTES] =
                    talk.wire(side).read(HEADER_BYTES).try_into().expect(note);
                talk.counted(&mut head);
                let head_read = Header::read(&head);
                let mut bytes = fixed(&head);
                bytes.extend(fixed(&talk.wire(side).read(head_read.len as usize)));
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

/// The text of the conversation's file; with `UPDATE=1` the conversation is run first, once.
fn conversation() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| read(CONVERSATION, record))
}

/// The frames in the file: the side, whether it sent the frame, and the bytes.
fn turns(text: &str) -> Vec<(Side, bool, Vec<Option<u8>>)> {
    let mut turns: Vec<(Side, bool, Vec<Option<u8>>)> = Vec::new();
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            // A comment ends a frame, so that two frames of one side in a row stay two.
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
        let mut came = talk.wire(side).read(bytes.len());
        talk.counted(&mut came);
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
