//! Bytes → what happens next. Each move is one byte, then what it needs.

use super::shell::{Conn, Shell, Start};
use super::{tokens, words};
use crate::fuzz::source::Source;
use broker::engine::input::{Close, Input};
use protocol::bodies::{Format, Login, WorkerLogin};
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::LinkId;
use protocol::kinds::Role;
use protocol::names::{HostName, ServiceName};
use protocol::time::Tick;

/// Steps of the clock in milliseconds.
const WAITS_MS: &[u64] = &[0, 1, 10, 100, 999, 1000, 3000, 10_000, 31_000, 3_600_000];
/// Most connections at once.
const CONNS_MAX: usize = 24;

/// One move.
pub fn next(shell: &mut Shell, source: &mut Source<'_>) {
    match source.below(32) {
        0..=2 => new_client(shell, source),
        3..=7 => request(shell, source),
        8 | 9 => host_answers(shell, source),
        10..=13 => start_goes_well(shell, source),
        14..=17 => reply(shell, source),
        18 => report(shell, source),
        19 => any_frame(shell, source),
        20 => raw(shell, source),
        21..=23 => wait(shell, source),
        24..=26 => command(shell, source),
        27 => close(shell, source),
        28 => outbox(shell, source),
        29 => file(shell, source),
        30 => self_started(shell, source),
        _ => seldom(shell, source),
    }
}

/// One of the connections for which this holds.
fn pick(
    shell: &Shell,
    source: &mut Source<'_>,
    is_meant: impl Fn(&Conn) -> bool,
) -> Option<LinkId> {
    let all: Vec<LinkId> =
        shell.conns.iter().filter(|(_, conn)| is_meant(conn)).map(|(link, _)| *link).collect();
    let index = source.below(256);
    (!all.is_empty()).then(|| all[index % all.len()])
}

fn new_client(shell: &mut Shell, source: &mut Source<'_>) {
    if shell.conns.len() >= CONNS_MAX {
        return;
    }
    let link = shell.connect(Role::Client, source.is_yes());
    let login = match source.below(4) {
        0 => return,
        1 => words::login(source),
        _ => Login::to(ServiceName::new(source.pick(&["echo", "pipe"])).expect("a name")),
    };
    log_in(shell, link, login);
}

fn log_in(shell: &mut Shell, link: LinkId, login: Login) {
    shell.frame(link, Frame::Login(login));
}

fn request(shell: &mut Shell, source: &mut Source<'_>) {
    let link =
        pick(shell, source, |conn| conn.role == Role::Client && conn.is_known && !conn.is_operator);
    let frame = words::request(source);
    if let Some(link) = link {
        shell.frame(link, frame);
    }
}

/// A dial succeeds, and all that follows; or it does not.
fn host_answers(shell: &mut Shell, source: &mut Source<'_>) {
    let Some(host) = shell.dials.pop_front() else { return };
    let how = source.below(8);
    if how == 0 || shell.conns.len() >= CONNS_MAX {
        shell.step(Input::HostRefused { host, why: source.text().replace('\n', " ") });
        return;
    }
    let link = shell.open(Role::Host);
    shell.step(Input::HostOpened { link, host, fd: link.index as i32 + 5, must: None });
    if how > 1 {
        shell.frame(link, words::welcome());
        let known = shell.starts.front().map(|start| (start.start.worker, start.start.run));
        let listed = if how > 5 { words::report(source, known) } else { words_listed() };
        shell.frame(link, listed);
    }
}

fn words_listed() -> Frame {
    Frame::ExecListed(protocol::bodies::ExecListed::default())
}

fn start(shell: &Shell, source: &mut Source<'_>) -> Option<Start> {
    let index = source.below(4);
    shell.starts.get(index).or_else(|| shell.starts.front()).cloned()
}

/// A process runs and logs in.
fn start_goes_well(shell: &mut Shell, source: &mut Source<'_>) {
    let Some(Start { link, start }) = start(shell, source) else { return };
    let how = source.below(8);
    if how != 1 {
        let pid = 100 + start.worker.0;
        let (worker, run) = (start.worker, start.run);
        let started = protocol::bodies::ExecStarted { worker, run, pid };
        shell.frame(link, Frame::ExecStarted(started));
    }
    if how != 2 && shell.conns.len() < CONNS_MAX {
        let host = HostName::new("localhost").expect("a name");
        let login = WorkerLogin {
            worker: start.worker,
            service: start.service,
            host,
            hostpid: 100 + start.worker.0,
            secret: start.secret,
            token: None,
        };
        let link = shell.connect(Role::Worker, true);
        shell.frame(link, Frame::WorkerLogin(login));
    }
}

fn reply(shell: &mut Shell, source: &mut Source<'_>) {
    let Some(link) = pick(shell, source, |conn| conn.role == Role::Worker && conn.is_known) else {
        return;
    };
    let how = source.below(16);
    let conn = shell.conns.get_mut(&link);
    let given = match (conn, how) {
        (None, _) | (Some(_), 0) => None,
        (Some(conn), 1) => conn.given.back().copied(),
        (Some(conn), 2) => conn.given.front().copied(),
        (Some(conn), _) => conn.given.pop_front(),
    };
    let frame = words::reply(source, given.as_ref());
    shell.frame(link, frame);
}

fn report(shell: &mut Shell, source: &mut Source<'_>) {
    let known = start(shell, source).filter(|_| source.byte() & 3 != 3);
    let link = match &known {
        Some(known) => Some(known.link),
        None => pick(shell, source, |conn| conn.role == Role::Host),
    };
    let frame = words::report(source, known.map(|known| (known.start.worker, known.start.run)));
    if let Some(link) = link {
        shell.frame(link, frame);
    }
}

/// A frame that may be out of place.
fn any_frame(shell: &mut Shell, source: &mut Source<'_>) {
    let Some(link) = pick(shell, source, |_| true) else { return };
    let sequence = source.word();
    let frame = match source.below(16) {
        0 => return log_in(shell, link, words::login(source)),
        1 => Frame::WorkerLogin(words::worker_login(source)),
        2 => words::request(source),
        3 => words::reply(source, None),
        4 => words::report(source, None),
        5 => words::error(source),
        6 => Frame::Ping { sequence },
        7..=9 => Frame::Pong { sequence },
        10 => Frame::Logout,
        11 => Frame::StatusReply { sequence, text: source.text() },
        12 | 13 => {
            let status = shell.conns.get(&link).map_or(0, |conn| conn.status);
            Frame::StatusReply { sequence: status, text: source.text() }
        }
        14 => Frame::Reinit,
        _ => Frame::End,
    };
    shell.frame(link, frame);
}

/// Bytes that may be no frame at all, or a frame with one byte that is wrong.
fn raw(shell: &mut Shell, source: &mut Source<'_>) {
    let Some(link) = pick(shell, source, |_| true) else { return };
    if source.is_yes() {
        shell.receive(link, source.bytes(512, 2));
        return;
    }
    let mut bytes = protocol::encode::to_bytes(words::request(source)).to_vec();
    let at = source.below(64);
    bytes[at] = source.byte();
    let cut = source.below(bytes.len().min(256));
    shell.receive(link, &bytes[..bytes.len() - cut]);
    shell.receive(link, &bytes[bytes.len() - cut..]);
}

fn wait(shell: &mut Shell, source: &mut Source<'_>) {
    match source.below(3) {
        0 => {
            let due = shell.engine.next_deadline();
            shell.now = shell.now.max(due.unwrap_or(shell.now));
        }
        1 => shell.now = Tick(shell.now.0 + u64::from(source.byte())),
        _ => shell.now = shell.now.plus_millis(source.pick(WAITS_MS)),
    }
    shell.look_at_clock();
}

/// A command of an operator, who is there if need be.
fn command(shell: &mut Shell, source: &mut Source<'_>) {
    let flags = source.byte();
    let link = pick(shell, source, |conn| conn.is_operator);
    let link = match link {
        Some(link) => link,
        None => {
            let link = shell.connect(Role::Client, true);
            let format = if flags & 1 == 0 { Format::Text } else { Format::Json };
            log_in(shell, link, Login { format, ..Login::to(ServiceName::op()) });
            link
        }
    };
    let text = if flags & 14 == 14 { source.text() } else { words::command(source) };
    let head = Header {
        sequence: u32::from(flags >> 4),
        reply: u16::from(flags & 112 != 112),
        ..Header::default()
    };
    shell.command(link, head, text.as_bytes());
}

fn close(shell: &mut Shell, source: &mut Source<'_>) {
    let how = source.pick(&[Close::Eof, Close::Torn, Close::Reset]);
    if let Some(link) = pick(shell, source, |_| true) {
        shell.close(link, how);
    }
}

/// What the shell tells of bytes that wait to be sent.
fn outbox(shell: &mut Shell, source: &mut Source<'_>) {
    let Some(link) = pick(shell, source, |_| true) else { return };
    let bytes = u64::from(source.word());
    shell.step(match source.below(8) {
        0..=2 => Input::Congested { link },
        3..=5 => Input::Drained { link },
        6 => Input::OutboxFull { link, bytes },
        _ => Input::Stalled { link, bytes },
    });
}

/// A file that an operator named was read, or not.
fn file(shell: &mut Shell, source: &mut Source<'_>) {
    let Some((link, head, path)) = shell.sources.pop_front() else { return };
    let script = match source.below(4) {
        0 => Err("no such file".to_owned()),
        1 => Ok(source.text()),
        _ => {
            let lines = (0..source.below(4)).map(|_| words::command(source) + "\n");
            Ok(lines.collect::<String>())
        }
    };
    if let Ok(script) = &script {
        shell.checker.may_repeat |= script.contains("retry");
    }
    if shell.conns.contains_key(&link) {
        shell.step(Input::Sourced { link, head, path, script });
    }
}

/// A worker that starts itself.
fn self_started(shell: &mut Shell, source: &mut Source<'_>) {
    if shell.conns.len() >= CONNS_MAX {
        return;
    }
    let link = shell.connect(Role::Worker, source.is_yes());
    let login = WorkerLogin {
        worker: protocol::ids::WorkerId(0),
        service: ServiceName::new("echo").expect("a name"),
        host: words::host(source),
        hostpid: 77,
        secret: String::new(),
        token: tokens::claim(source),
    };
    shell.frame(link, Frame::WorkerLogin(login));
}

fn seldom(shell: &mut Shell, source: &mut Source<'_>) {
    let how = source.byte();
    match how & 7 {
        0 => shell.step(Input::PersistFailed { why: "no room".into() }),
        1 => shell.step(Input::Persisted),
        2 => shell.step(Input::Terminate { signal: "TERM" }),
        3 => {
            if let Some(link) = pick(shell, source, |conn| conn.role == Role::Client) {
                let is_owner = source.is_yes();
                shell.step(Input::Known { link, uid: Some(7), is_owner });
            }
        }
        4 => shell.restart(),
        5 => tokens::reload(shell, source),
        6 => tokens::proof(shell, source),
        7 if how >= 128 => tokens::certificates(shell, source),
        _ => shell.step(Input::Deadline),
    }
}
