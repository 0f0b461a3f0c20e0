//! Tests of the real `isdclient` against a played broker: the frames, the output, and the exit
//! status.

#![expect(
    clippy::disallowed_methods,
    reason = "the test is the broker: it has a thread, and it starts the program"
)]
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use bytes::Bytes;
use protocol::bodies::{ErrorBody, Login, LoginOk};
use protocol::encode;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::frame_reader::Inbox;
use protocol::header::Header;
use protocol::ids::ClientId;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const BODY_BYTES_MAX: u64 = 1 << 20;
/// A test that takes this long has failed.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What the played broker does with a data frame.
enum Do {
    Answer(Vec<Frame>),
    Nothing,
    Close,
}

/// What the played broker received.
enum Heard {
    Login(Login),
    Data(Header, Bytes),
}

struct Broker {
    dir: tempfile::TempDir,
    heard: mpsc::Receiver<Heard>,
}

impl Broker {
    /// Plays a broker that accepts or refuses one client, and then does what `act` says.
    fn start(
        refuse: Option<ErrorCode>,
        act: impl Fn(&Header, &Bytes) -> Do + Send + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let (tell, heard) = mpsc::channel();
        thread::spawn(move || {
            if let Ok((stream, _)) = listener.accept() {
                // The client may end at any time; a broken connection ends the thread.
                let _ = serve(stream, refuse, &act, &tell);
            }
        });
        Self { dir, heard }
    }

    fn echo() -> Self {
        Self::start(None, |head, body| Do::Answer(vec![reply(head, body.clone())]))
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Ended {
        let host = format!("unix:{}", self.socket().display());
        run(&[&["-h", host.as_str()], args].concat(), &[], input)
    }

    fn data(&self) -> Vec<(Header, String)> {
        let data = |heard| match heard {
            Heard::Data(head, body) => Some((head, String::from_utf8_lossy(&body).into_owned())),
            Heard::Login(_) => None,
        };
        self.heard.try_iter().filter_map(data).collect()
    }

    fn login(&self) -> Login {
        match self.heard.recv_timeout(TIMEOUT) {
            Ok(Heard::Login(login)) => login,
            Ok(Heard::Data(..)) | Err(_) => panic!("no login"),
        }
    }
}

fn serve(
    mut stream: UnixStream,
    refuse: Option<ErrorCode>,
    act: &impl Fn(&Header, &Bytes) -> Do,
    tell: &mpsc::Sender<Heard>,
) -> std::io::Result<()> {
    let mut inbox = Inbox::default();
    let mut chunk = vec![0; 65_536];
    loop {
        while let Some(frame) = inbox.next_frame().unwrap() {
            let answer = match frame {
                Frame::Login(login) => {
                    let _ = tell.send(Heard::Login(login));
                    Do::Answer(vec![welcome(refuse)])
                }
                Frame::Data { head, body } => {
                    let answer = act(&head, &body);
                    let _ = tell.send(Heard::Data(head, body));
                    answer
                }
                _ => Do::Nothing,
            };
            match answer {
                Do::Answer(frames) => {
                    for frame in frames {
                        stream.write_all(&encode::to_bytes(frame))?;
                    }
                }
                Do::Nothing => {}
                Do::Close => return Ok(()),
            }
        }
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            size => inbox.push(&chunk[..size]),
        }
    }
}

fn welcome(refuse: Option<ErrorCode>) -> Frame {
    match refuse {
        Some(code) => Frame::refusal(ErrorBody::new(code, "not you")),
        None => Frame::LoginOk(LoginOk {
            client: ClientId(4),
            body_bytes_max: BODY_BYTES_MAX,
            requests_max: 10,
            deadline_ms: 30_000,
            heartbeat_ms: 1000,
            silence_ms: 3000,
            version: "test".into(),
            signature: None,
        }),
    }
}

fn reply(head: &Header, body: impl Into<Bytes>) -> Frame {
    Frame::data(Header { sequence: head.sequence, ..Header::default() }, body.into())
}

fn piece(head: &Header, body: impl Into<Bytes>) -> Frame {
    let head = Header { sequence: head.sequence, more: 1, workerid: 3, ..Header::default() };
    Frame::data(head, body.into())
}

fn error(head: &Header, code: ErrorCode, text: &str) -> Frame {
    let head = Header { sequence: head.sequence, ..Header::default() };
    Frame::Error { head, error: ErrorBody::new(code, text) }
}

struct Ended {
    status: Option<i32>,
    out: String,
    err: String,
}

/// Runs `isdclient` with a limit on its time.
fn run(args: &[&str], env: &[(&str, &str)], input: &[u8]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isdclient"));
    command.args(args).env_remove("ISECT_HOST").env("XDG_STATE_HOME", "/nonexistent");
    command.envs(env.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let id = child.id().to_string();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    thread::spawn(move || {
        // The program may end without reading everything.
        let _ = stdin.write_all(&input);
    });
    let (tell, ended) = mpsc::channel();
    thread::spawn(move || tell.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(TIMEOUT) else {
        let _ = Command::new("kill").arg(id).status();
        panic!("isdclient {args:?} hangs");
    };
    let output = output.unwrap();
    Ended {
        status: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn all_of_several_commands_are_done_and_the_first_failure_is_the_status() {
    let broker = Broker::start(None, |head, body| {
        Do::Answer(vec![match &body[..] {
            b"two" => error(head, ErrorCode::NotFound, "there is no two"),
            b"three" => error(head, ErrorCode::Deadline, "too late"),
            other => reply(head, [other, b"!"].concat()),
        }])
    });
    let ended = broker.run(&["-c", "one", "-c", "two", "-c", "three", "-c", ""], b"unread");
    assert_eq!((ended.status, ended.out.as_str()), (Some(1), "one!\n!\n"));
    assert!(ended.err.starts_with("isdclient: -c two: there is no two\n"), "{}", ended.err);
    assert!(ended.err.contains("isdclient: -c three: too late\n"), "{}", ended.err);
    assert!(broker.login().service.is_op());
    let sent: Vec<String> = broker.data().into_iter().map(|(_, body)| body).collect();
    assert_eq!(sent, ["one", "two", "three", ""]);
}

#[test]
fn each_end_has_its_exit_status() {
    let closes = Broker::start(None, |_, _| Do::Close).run(&["-c", "x", "-c", "y"], b"");
    assert_eq!(closes.status, Some(3), "{}", closes.err);
    assert!(closes.err.contains("broker_lost") && !closes.err.contains("-c y"), "{}", closes.err);

    let silent = Broker::start(None, |_, _| Do::Nothing).run(&["--timeout", "20", "-c", "x"], b"");
    assert_eq!(silent.status, Some(4), "{}", silent.err);
    assert!(silent.err.contains("service 'op' came in 20 ms"), "{}", silent.err);

    let late = Broker::start(None, |head, _| {
        Do::Answer(vec![error(head, ErrorCode::Deadline, "it waited")])
    });
    assert_eq!(late.run(&["--timeout", "20", "-c", "x"], b"").status, Some(4));

    let refused = Broker::start(Some(ErrorCode::UnknownService), |_, _| Do::Nothing);
    let refused = refused.run(&["nosuch", "-c", "x"], b"");
    assert_eq!((refused.status, refused.out.as_str()), (Some(1), ""));
    assert!(refused.err.contains("not you\n  unknown_service -8"), "{}", refused.err);

    let dir = tempfile::tempdir().unwrap();
    let nobody = format!("unix:{}", dir.path().join("none").display());
    let nobody = run(&["-h", &nobody, "-c", "x"], &[], b"");
    assert_eq!(nobody.status, Some(3), "{}", nobody.err);
    assert!(nobody.err.contains("unreachable -35"), "{}", nobody.err);

    assert_eq!(run(&["--no-such-flag"], &[], b"").status, Some(2));
    assert_eq!(run(&["-h"], &[], b"").status, Some(2));
    let host = run(&["-c", "x"], &[("ISECT_HOST", "a:b")], b"");
    assert_eq!(host.status, Some(2), "{}", host.err);
    assert!(host.err.contains("ISECT_HOST: address 'a:b'"), "{}", host.err);
    assert_eq!(run(&["--help"], &[], b"").status, Some(0));
    assert_eq!(run(&["--generate", "bash"], &[], b"").status, Some(0));
}

#[test]
fn a_workers_own_error_is_passed_on() {
    let broker = Broker::start(None, |head, _| {
        let head = Header { sequence: head.sequence, error: 7, ..Header::default() };
        Do::Answer(vec![Frame::data(head, Bytes::from_static(b"no such account"))])
    });
    let ended = broker.run(&["--json", "-c", "x", "bank"], b"");
    assert_eq!(ended.status, Some(1));
    assert!(ended.err.starts_with("isdclient: no such account\n"), "{}", ended.err);
    let answer: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    let error = &answer["error"];
    assert_eq!((&error["number"], &error["name"]), (&7.into(), &"application".into()));
    assert_eq!((&error["ran"], &error["text"]), (&"yes".into(), &"no such account".into()));
}

#[test]
fn flags_are_seen_on_the_wire() {
    let broker = Broker::echo();
    let flags = ["--priority", "7", "--idempotent", "--timeout", "5000", "--json", "-d"];
    let ended = broker.run(&[&flags[..], &["-c", "hi", "echo"]].concat(), b"");
    assert_eq!((ended.status, ended.out.as_str()), (Some(0), "hi"));
    let login = broker.login();
    assert_eq!((login.service.as_str(), login.priority), ("echo", 7));
    assert_eq!(login.format, protocol::bodies::Format::Json);
    let (head, _) = broker.data().remove(0);
    assert!(head.is_idempotent() && head.reply == 1 && head.more == 0);
    assert_eq!(head.deadline_ms, 5000);
    assert!(ended.err.contains("> data seq=1 deadline_ms=5000 len=2 reply idempotent \"hi\"\n"));
    assert!(ended.err.contains("< data seq=1 len=2 \"hi\"\n"), "{}", ended.err);
}

#[test]
fn the_environment_names_the_broker_and_h_wins() {
    let broker = Broker::echo();
    let host = format!("unix:{}", broker.socket().display());
    let ended = run(&["-c", "hi", "echo"], &[("ISECT_HOST", &host)], b"");
    assert_eq!((ended.status, ended.out.as_str()), (Some(0), "hi"), "{}", ended.err);
    let broker = Broker::echo();
    let host = format!("unix:{}", broker.socket().display());
    let ended = run(&["-h", &host, "-c", "hi", "echo"], &[("ISECT_HOST", "unix:/none")], b"");
    assert_eq!((ended.status, ended.out.as_str()), (Some(0), "hi"), "{}", ended.err);
}

#[test]
fn lines_up_to_go_are_a_message_and_so_is_the_rest() {
    let broker = Broker::echo();
    let ended = broker.run(&["echo"], b"a\nb\ngo\ngo\n\xff\0\nrest");
    assert_eq!(ended.status, Some(0), "{}", ended.err);
    assert_eq!(ended.out, "a\nb\n\u{fffd}\0\nrest");
    let sent: Vec<String> = broker.data().into_iter().map(|(_, body)| body).collect();
    assert_eq!(sent, ["a\nb\n", "", "\u{fffd}\0\nrest"]);
    let broker = Broker::echo();
    assert_eq!(broker.run(&["echo"], b"a\ngo\n \n").out, "a\n");
    assert_eq!(broker.data().len(), 1, "a blank rest is not sent");
    let broker = Broker::echo();
    let long = vec![b'x'; BODY_BYTES_MAX as usize + 1];
    let ended = broker.run(&["echo"], &long);
    assert_eq!((ended.status, broker.data().len()), (Some(2), 0));
    assert!(ended.err.contains("more than the 1048576 bytes"), "{}", ended.err);
    let ended = Broker::echo().run(&["echo"], &long[1..]);
    assert_eq!((ended.status, ended.out.len()), (Some(0), BODY_BYTES_MAX as usize));
}

#[test]
fn op_takes_commands_with_go_and_scripts_without() {
    let act = |head: &Header, body: &Bytes| {
        Do::Answer(vec![if body.starts_with(b"bad") {
            error(head, ErrorCode::Usage, "'bad' is no command\n\nabort   and the whole help")
        } else {
            reply(head, [b"did ", &body[..]].concat())
        }])
    };
    let script = b"# setup\n\none\r\nbad line\n  two\n";
    let ended = Broker::start(None, act).run(&[], script);
    assert_eq!((ended.status, ended.out.as_str()), (Some(1), "did one\ndid two\ndid summary\n"));
    assert!(ended.err.starts_with("isdclient: line 4: 'bad' is no command\n"), "{}", ended.err);
    assert!(!ended.err.contains("whole help"), "{}", ended.err);
    let broker = Broker::start(None, act);
    let ended = broker.run(&["op"], b"one\ngo\ntwo\ngo\nthree\n");
    assert_eq!((ended.status, ended.out.as_str()), (Some(0), "did one\ndid two\ndid three\n"));
    assert!(!broker.login().script);
    let broker = Broker::start(None, act);
    let ended = broker.run(&[], b"one\n\xff\n");
    assert_eq!((ended.status, broker.data().len()), (Some(2), 0));
    assert!(ended.err.contains("line 2 of standard input is not UTF-8"), "{}", ended.err);
    assert_eq!(Broker::start(None, act).run(&[], b"").status, Some(0));
}

#[test]
fn a_script_that_is_to_change_something_ends_with_a_summary() {
    for (script, is_summed) in [
        ("start echo\n", true),
        ("# a comment\nservices\nreject off\n", true),
        ("services\npreempt\nsend echo status\n", false),
        ("services\nworker 9\n", true),
        ("", false),
    ] {
        let broker = Broker::start(None, |head, body| {
            Do::Answer(vec![match &body[..] {
                b"worker 9" => error(head, ErrorCode::NotFound, "there is no worker 9"),
                _ => reply(head, body.clone()),
            }])
        });
        let ended = broker.run(&[], script.as_bytes());
        assert_eq!(ended.out.ends_with("\nsummary\n"), is_summed, "{script}: {}", ended.out);
        assert!(broker.login().script, "{script}");
    }
    let broker = Broker::echo();
    assert_eq!(broker.run(&["-c", "start echo"], b"").out, "start echo\n");
    assert!(!broker.login().script);
    let broker = Broker::echo();
    assert_eq!(broker.run(&["echo"], b"start echo").out, "start echo");
    assert!(!broker.login().script);
}

#[test]
fn a_script_without_a_summary_has_the_status_of_its_commands() {
    let older = |head: &Header, body: &Bytes| {
        Do::Answer(vec![match &body[..] {
            b"summary" => error(head, ErrorCode::Usage, "'summary' is no command\n\nabort  …"),
            _ => reply(head, "Ok."),
        }])
    };
    let ended = Broker::start(None, older).run(&["--json"], b"start echo\n");
    assert_eq!((ended.status, ended.out.as_str()), (Some(0), "Ok.\n"));
    assert!(ended.err.starts_with("isdclient: the broker is of an older version"), "{}", ended.err);
    assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);

    let ends = |head: &Header, body: &Bytes| match &body[..] {
        b"summary" => Do::Close,
        _ => Do::Answer(vec![reply(head, "isectd ends")]),
    };
    let ended = Broker::start(None, ends).run(&[], b"halt\n");
    assert_eq!((ended.status, ended.out.as_str()), (Some(0), "isectd ends\n"));
    let told = "isdclient: all commands were answered; no summary: ";
    assert!(ended.err.starts_with(told), "{}", ended.err);

    let closes = |head: &Header, body: &Bytes| match &body[..] {
        b"start c" => Do::Close,
        _ => Do::Answer(vec![reply(head, "Ok.")]),
    };
    let script = b"start a\n\nstart b\nstart c\nstart d\n";
    let ended = Broker::start(None, closes).run(&[], script);
    assert_eq!((ended.status, ended.out.as_str()), (Some(3), "Ok.\nOk.\n"));
    let told = "isdclient: 2 of 4 commands were answered before line 4\nisdclient: ";
    assert!(ended.err.starts_with(told) && ended.err.contains("broker_lost"), "{}", ended.err);
}

#[test]
fn k_makes_one_conversation_of_all_messages() {
    let echo = |head: &Header, body: &Bytes| {
        let answer = if head.more == 0 { reply } else { piece };
        Do::Answer(vec![answer(head, body.clone())])
    };
    for (args, input, bodies) in [
        (&["-k", "-c", "a", "-c", "b", "-c", "c", "echo"][..], "", ["a", "b", "c"]),
        (&["-k", "echo"], "a\ngo\nb\ngo\nc\ngo\n", ["a\n", "b\n", "c\n"]),
        (&["-k", "echo"], "a\ngo\nb\ngo\nc", ["a\n", "b\n", "c"]),
    ] {
        let broker = Broker::start(None, echo);
        let ended = broker.run(args, input.as_bytes());
        assert_eq!((ended.status, ended.out), (Some(0), bodies.concat()), "{}", ended.err);
        let frames = broker.data();
        let sent: Vec<(&str, u16)> =
            frames.iter().map(|(head, body)| (body.as_str(), head.more)).collect();
        assert_eq!(sent, [(bodies[0], 1), (bodies[1], 1), (bodies[2], 0)]);
        assert!(frames.iter().all(|(head, _)| head.sequence == frames[0].0.sequence));
        assert_eq!(frames[0].0.workerid, 0);
    }
    // The worker answers only after the last frame, so only there the answer is awaited.
    let broker = Broker::start(None, |head, _| match head.more {
        0 => Do::Answer(vec![piece(head, "al"), reply(head, "l")]),
        _ => Do::Nothing,
    });
    let ended = broker.run(&["-k", "-c", "a", "-c", "b", "print"], b"");
    assert_eq!((ended.status, ended.out.as_str()), (Some(0), "all"));
}

#[test]
fn pieces_of_an_answer_are_printed_as_they_are_and_events_a_line_each() {
    let act = |head: &Header, _: &Bytes| {
        Do::Answer(vec![piece(head, "{1}"), piece(head, "{2}"), reply(head, "{3}")])
    };
    assert_eq!(Broker::start(None, act).run(&["-c", "x", "echo"], b"").out, "{1}{2}{3}");
    assert_eq!(Broker::start(None, act).run(&["-c", "workers"], b"").out, "{1}{2}{3}\n");
    assert_eq!(Broker::start(None, act).run(&["-c", "watch"], b"").out, "{1}\n{2}\n{3}\n");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let broker = Broker::start(None, |head, _| {
        Do::Answer((0..64).map(|_| piece(head, vec![b'x'; 65_536])).collect())
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_isdclient"));
    command
        .args(["-c", "x", "echo"])
        .env("ISECT_HOST", format!("unix:{}", broker.socket().display()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let (tell, ended) = mpsc::channel();
    let id = child.id().to_string();
    thread::spawn(move || tell.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(TIMEOUT) else {
        let _ = Command::new("kill").arg(id).status();
        panic!("isdclient goes on without a reader");
    };
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
