//! Makes frames and operator commands from the fuzzer's bytes. Names, ids and numbers come from
//! small sets, so that they often refer to something that exists.

use super::tokens;
use crate::fuzz::source::Source;
use protocol::bodies::{
    Child, ErrorBody, ExecExited, ExecFailed, ExecListed, ExecOutput, ExecStarted, ExecWelcome,
    ExitCause, Format, Login, Stream, WorkerLogin,
};
use protocol::errors::{ERRORS, ErrorCode};
use protocol::frame::Frame;
use protocol::header::{FLAG_EXTENDABLE, FLAG_IDEMPOTENT, Header};
use protocol::ids::{RunId, WorkerId};
use protocol::names::{HostName, ServiceName};
use protocol::op::table::COMMANDS;
use protocol::settings::{ServiceSetting, Setting};

/// Services that there may be.
const SERVICES: &[&str] = &["echo", "pipe", "op", "x", "nobody"];
/// Hosts that there may be.
const HOSTS: &[&str] = &["localhost", "h1", "h2"];
/// Deadlines, in milliseconds; 0 = the service's.
const DEADLINES: &[u32] = &[0, 0, 1, 50, 1000, 20_000, 3_600_000, u32::MAX];

/// The name of a service, seldom of one that is not configured at the start.
pub fn service(source: &mut Source<'_>) -> ServiceName {
    let name = source.pick(SERVICES);
    ServiceName::new(name).expect("a name")
}

/// The name of a host.
pub fn host(source: &mut Source<'_>) -> HostName {
    HostName::new(source.pick(HOSTS)).expect("a name")
}

/// A small id.
pub fn worker(source: &mut Source<'_>) -> WorkerId {
    WorkerId(source.below(8) as u32)
}

fn run(source: &mut Source<'_>) -> RunId {
    RunId(source.below(12) as u64)
}

/// A client's login.
pub fn login(source: &mut Source<'_>) -> Login {
    let flags = source.byte();
    let name = (flags & 4 != 0).then(|| source.text());
    Login {
        priority: flags | 1,
        loghost: if flags & 8 == 0 { "here".into() } else { source.text() },
        hostpid: 7,
        name,
        format: if flags & 1 == 0 { Format::Text } else { Format::Json },
        heartbeat: flags & 2 != 0,
        script: flags & 16 != 0,
        half_close: flags & 32 != 0,
        token: tokens::claim(source),
        ..Login::to(service(source))
    }
}

/// The head and body of a request.
pub fn request(source: &mut Source<'_>) -> Frame {
    let flags = source.byte();
    let head = Header {
        sequence: source.below(6) as u32,
        reply: u16::from(flags & 1 == 0),
        more: u16::from(flags & 6 == 6),
        flags: match flags & 24 {
            8 => FLAG_IDEMPOTENT,
            24 => FLAG_EXTENDABLE,
            _ => 0,
        },
        priority: if flags & 16 == 0 { 0 } else { source.byte() },
        workerid: if flags & 96 == 96 { source.below(8) as u32 } else { 0 },
        deadline_ms: source.pick(DEADLINES),
        ..Header::default()
    };
    let body = if flags & 128 == 0 { b"hi" } else { source.bytes(2048, 16) };
    Frame::data(head, bytes::Bytes::copy_from_slice(body))
}

/// A reply to a request that a worker was given, or to any.
pub fn reply(source: &mut Source<'_>, given: Option<&Header>) -> Frame {
    let flags = source.byte();
    let transaction = match given {
        Some(head) if flags & 7 != 7 => head.transaction,
        _ => source.below(16) as u64,
    };
    let head = Header {
        transaction,
        more: u16::from(flags & 24 == 24),
        error: if flags & 96 == 96 { i16::from(source.byte() as i8) } else { 0 },
        deadline_ms: if flags & 128 == 0 { 0 } else { DEADLINES[usize::from(flags & 7)] },
        ..Header::default()
    };
    Frame::data(head, bytes::Bytes::copy_from_slice(source.bytes(512, 4)))
}

/// How many requests at a time a worker says that it takes, and whether it understands `cancel`.
pub fn promise(number: u8) -> (u32, bool) {
    ([1, 1, 2, 8][usize::from(number & 3)], number & 4 != 0)
}

/// The login of a worker that the broker did not start.
pub fn worker_login(source: &mut Source<'_>) -> WorkerLogin {
    let number = source.byte();
    let (worker, promise) = (WorkerId(u32::from(number & 7)), promise(number >> 3));
    let secret = match source.below(3) {
        0 => String::new(),
        1 => format!("s.{worker}.{}.5", run(source)),
        _ => source.text(),
    };
    WorkerLogin {
        worker,
        service: service(source),
        host: host(source),
        hostpid: 9,
        secret,
        concurrency: promise.0,
        cancel: promise.1,
        token: None,
    }
}

/// An error frame, of anybody.
pub fn error(source: &mut Source<'_>) -> Frame {
    let row = ERRORS[source.below(ERRORS.len())];
    let code = ErrorCode::of(row.number).unwrap_or(ErrorCode::Internal);
    let head = Header {
        sequence: source.below(6) as u32,
        workerid: source.below(8) as u32,
        ..Header::default()
    };
    Frame::Error { head, error: ErrorBody::new(code, source.text()) }
}

/// What an execd may report of a start.
pub fn report(source: &mut Source<'_>, known: Option<(WorkerId, RunId)>) -> Frame {
    let (worker, run) = match known {
        Some(known) => known,
        None => (worker(source), run(source)),
    };
    let pid = 100 + worker.0;
    match source.below(7) {
        0 | 1 => Frame::ExecStarted(ExecStarted { worker, run, pid }),
        2 => Frame::ExecFailed(ExecFailed {
            worker,
            run,
            permanent: source.is_yes(),
            again_ms: u64::from(source.byte()) * 100,
            text: source.text(),
        }),
        3 => Frame::ExecExited(ExecExited {
            worker,
            run,
            pid,
            exit_cause: source.pick(&[
                ExitCause::Exit(0),
                ExitCause::Exit(1),
                ExitCause::Signal(9),
            ]),
            cpu_ms: 1,
            rss_kib_max: u64::from(source.byte()) << 56,
            core: false,
            oom: false,
            tail: (0..source.below(3)).map(|_| source.text()).collect(),
        }),
        4 => Frame::ExecOutput(ExecOutput {
            worker,
            run,
            stream: source.pick(&[Stream::Stdout, Stream::Stderr]),
            line: source.text(),
            dropped: u64::from(source.byte()),
            number: 0,
        }),
        5 => welcome(),
        _ => {
            let count = source.below(4);
            let child = |_| Child { worker, run, pid, digest: 0 };
            Frame::ExecListed(ExecListed { children: (0..count).map(child).collect() })
        }
    }
}

/// An execd's first frame.
pub fn welcome() -> Frame {
    Frame::ExecWelcome(ExecWelcome {
        hostpid: 50,
        version: "0".into(),
        children_max: 100,
        signature: None,
        ..ExecWelcome::default()
    })
}

/// An operator's command: a row of the table with arguments that may fit.
pub fn command(source: &mut Source<'_>) -> String {
    let row = &COMMANDS[source.below(COMMANDS.len())];
    let mut text = row.name.to_owned();
    for _ in 0..source.below(6) {
        text.push(' ');
        text.push_str(&word(source));
    }
    text
}

fn word(source: &mut Source<'_>) -> String {
    let number = source.below(8);
    match source.below(16) {
        0 | 1 => service(source).to_string(),
        2 | 3 => number.to_string(),
        4 => host(source).to_string(),
        5 => "all".into(),
        6 => ["on", "off", "clear", "reinit", "status", "idle", "busy", "lazy"][number].into(),
        7 => format!("#{number}"),
        8 => "/bin/x".into(),
        9 => {
            let row = ServiceSetting::ALL[source.below(ServiceSetting::ALL.len())].row();
            format!("{}={}", row.name, value(source, row.min, row.max))
        }
        10 => {
            let row = Setting::ALL[source.below(Setting::ALL.len())].row();
            format!("{} {}", row.name, value(source, row.min, row.max))
        }
        11 => "127.0.0.1:5502".into(),
        12 => format!("'{}'", source.text().replace(['\'', '\n'], " ")),
        13 => source.word().to_string(),
        14 => source.text(),
        _ => COMMANDS[source.below(COMMANDS.len())].name.into(),
    }
}

fn value(source: &mut Source<'_>, min: u64, max: u64) -> u64 {
    match source.below(4) {
        0 => min,
        1 => max,
        2 => max.saturating_add(1),
        _ => min.saturating_add(u64::from(source.byte())),
    }
}
