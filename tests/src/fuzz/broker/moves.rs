//! Decodes the fuzzer's bytes to moves: each is one byte and then its parameters.

use super::player::{BrokerPlayer, Conn, Start};
use super::{bus, tokens, words};
use crate::fuzz::source::Source;
use crate::shell::{Ask, Player};
use broker::engine::input::{Close, Input};
use protocol::bodies::{Format, Login, Logout, WorkerLogin};
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::LinkId;
use protocol::kinds::Role;
use protocol::names::{HostName, ServiceName};
use protocol::time::Tick;

/// Steps of the clock in milliseconds.
const WAITS_MS: &[u64] = &[0, 1, 10, 100, 999, 1000, 3000, 10_000, 31_000, 3_600_000];
/// Most connections at once.
pub(super) const CONNS_MAX: usize = 24;

/// One move.
pub fn next(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let number = source.byte();
    match number & 31 {
        _ if player.has_bus && number >= 128 => bus::next(player, source),
        3..=7 if number >= 192 => gives_up_or_flushes(player, source),
        27 if number >= 128 => half_close(player, source),
        0..=2 => new_client(player, source),
        3..=7 => request(player, source),
        8 | 9 => host_answers(player, source),
        10..=13 => start_goes_well(player, source),
        14..=17 => reply(player, source),
        18 => report(player, source),
        19 => any_frame(player, source),
        20 => raw(player, source),
        21..=23 => wait(player, source),
        24..=26 => command(player, source),
        27 => close(player, source),
        28 => outbox(player, source),
        29 => file(player, source),
        30 => self_started(player, source),
        _ => seldom(player, source),
    }
}

/// One of the connections for which this holds.
pub(super) fn pick(
    player: &BrokerPlayer,
    source: &mut Source<'_>,
    is_meant: impl Fn(&Conn) -> bool,
) -> Option<LinkId> {
    let ends = player.shell.ends.iter();
    let all: Vec<LinkId> = ends.filter(|(_, conn)| is_meant(conn)).map(|(link, _)| *link).collect();
    let index = source.below(256);
    (!all.is_empty()).then(|| all[index % all.len()])
}

fn new_client(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    if player.shell.ends.len() >= CONNS_MAX {
        return;
    }
    let link = player.connect(Role::Client, source.is_yes());
    let login = match source.below(4) {
        0 => return,
        1 => words::login(source),
        _ => Login::to(ServiceName::new(source.pick(&["echo", "pipe"])).expect("a name")),
    };
    log_in(player, link, login);
}

fn log_in(player: &mut BrokerPlayer, link: LinkId, login: Login) {
    player.frame(link, Frame::Login(login));
}

fn request(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let link = pick(player, source, |conn| {
        conn.role == Role::Client && conn.is_known && !conn.is_operator
    });
    let frame = words::request(source);
    if let Some(link) = link {
        player.frame(link, frame);
    }
}

/// A client gives up a request, or wants to know whether all was taken.
fn gives_up_or_flushes(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let link = pick(player, source, |conn| conn.role == Role::Client && conn.is_known);
    let number = source.byte();
    let sequence = u32::from(number >> 1) % 6;
    let frame = if number & 1 == 0 {
        Frame::Cancel { head: Header { sequence, ..Header::default() }, text: source.text() }
    } else {
        Frame::Flush { sequence }
    };
    if let Some(link) = link {
        player.frame(link, frame);
    }
}

/// A client that may closes its side.
fn half_close(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    if let Some(link) = pick(player, source, |conn| conn.may_half_close) {
        player.half_close(link);
    }
}

/// A dial succeeds, and all that follows; or it does not.
fn host_answers(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let dial = player.shell.take_asked(|ask| matches!(ask, Ask::Dial(..)));
    let Some(Ask::Dial(host, _)) = dial else { return };
    let how = source.below(8);
    if how == 0 || player.shell.ends.len() >= CONNS_MAX {
        player.feed(Input::HostRefused { host, why: source.text().replace('\n', " ") });
        return;
    }
    let link = player.open(Role::Host);
    player.feed(Input::HostOpened { link, host, fd: link.index as i32 + 5, must: None });
    if how > 1 {
        tokens::claim_none(player);
        player.frame(link, words::welcome());
        let known = player.starts.front().map(|start| (start.start.worker, start.start.run));
        let listed = if how > 5 { words::report(source, known) } else { words_listed() };
        player.frame(link, listed);
    }
}

fn words_listed() -> Frame {
    Frame::ExecListed(protocol::bodies::ExecListed::default())
}

fn start(player: &BrokerPlayer, source: &mut Source<'_>) -> Option<Start> {
    let index = source.below(4);
    player.starts.get(index).or_else(|| player.starts.front()).cloned()
}

/// A process runs and logs in.
fn start_goes_well(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let Some(Start { link, start }) = start(player, source) else { return };
    let number = source.byte();
    let (how, (concurrency, cancel)) = (number & 7, words::promise(number >> 3));
    if how != 1 {
        let pid = 100 + start.worker.0;
        let (worker, run) = (start.worker, start.run);
        let started = protocol::bodies::ExecStarted { worker, run, pid };
        player.frame(link, Frame::ExecStarted(started));
    }
    if how != 2 && player.shell.ends.len() < CONNS_MAX {
        let host = HostName::new("localhost").expect("a name");
        let login = WorkerLogin {
            worker: start.worker,
            service: start.service,
            host,
            hostpid: 100 + start.worker.0,
            secret: start.secret,
            concurrency,
            cancel,
            token: None,
        };
        let link = player.connect(Role::Worker, true);
        player.frame(link, Frame::WorkerLogin(login));
    }
}

fn reply(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let Some(link) = pick(player, source, |conn| conn.role == Role::Worker && conn.is_known) else {
        return;
    };
    let how = source.below(16);
    let conn = player.shell.ends.get_mut(&link);
    let given = match (conn, how) {
        (None, _) | (Some(_), 0) => None,
        (Some(conn), 1) => conn.given.back().copied(),
        (Some(conn), 2) => conn.given.front().copied(),
        (Some(conn), _) => conn.given.pop_front(),
    };
    let frame = words::reply(source, given.as_ref());
    player.frame(link, frame);
}

fn report(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let known = start(player, source).filter(|_| source.byte() & 3 != 3);
    let link = match &known {
        Some(known) => Some(known.link),
        None => pick(player, source, |conn| conn.role == Role::Host),
    };
    let frame = words::report(source, known.map(|known| (known.start.worker, known.start.run)));
    if let Some(link) = link {
        player.frame(link, frame);
    }
}

/// A frame that may be out of place.
fn any_frame(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let Some(link) = pick(player, source, |_| true) else { return };
    let sequence = source.word();
    let frame = match source.below(16) {
        0 => return log_in(player, link, words::login(source)),
        1 => Frame::WorkerLogin(words::worker_login(source)),
        2 => words::request(source),
        3 => words::reply(source, None),
        4 => words::report(source, None),
        5 => words::error(source),
        6 => Frame::Ping { sequence },
        7..=9 => Frame::Pong { sequence },
        10 => {
            let received = (sequence & 1 == 1).then_some(sequence >> 8 & 7);
            Frame::Logout(Logout { received })
        }
        11 => Frame::StatusReply { sequence, text: source.text() },
        12 | 13 => {
            let status = player.shell.ends.get(&link).map_or(0, |conn| conn.status);
            Frame::StatusReply { sequence: status, text: source.text() }
        }
        14 => Frame::Reinit,
        _ => Frame::End,
    };
    player.frame(link, frame);
}

/// Bytes that may be no frame at all, or a frame with one byte that is wrong.
fn raw(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let Some(link) = pick(player, source, |_| true) else { return };
    if source.is_yes() {
        player.receive(link, source.bytes(512, 2));
        return;
    }
    let mut bytes = protocol::encode::to_bytes(words::request(source)).to_vec();
    let at = source.below(64);
    bytes[at] = source.byte();
    let tail = source.below(bytes.len().min(256));
    player.receive(link, &bytes[..bytes.len() - tail]);
    player.receive(link, &bytes[bytes.len() - tail..]);
}

fn wait(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let shell = &mut player.shell;
    shell.now = match source.below(3) {
        0 => shell.engine.next_deadline().map_or(shell.now, |due| due.max(shell.now)),
        1 => Tick(shell.now.0 + u64::from(source.byte())),
        _ => shell.now.plus_millis(source.pick(WAITS_MS)),
    };
    player.pass_time();
}

/// A command of an operator, who is there if need be.
fn command(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let flags = source.byte();
    let link = pick(player, source, |conn| conn.is_operator);
    let link = match link {
        Some(link) => link,
        None => {
            let link = player.connect(Role::Client, true);
            let format = if flags & 1 == 0 { Format::Text } else { Format::Json };
            log_in(player, link, Login { format, ..Login::to(ServiceName::op()) });
            link
        }
    };
    let text = if flags & 14 == 14 { source.text() } else { words::command(source) };
    let head = Header {
        sequence: u32::from(flags >> 4),
        reply: u16::from(flags & 112 != 112),
        ..Header::default()
    };
    player.command(link, head, text.as_bytes());
}

fn close(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let how = source.pick(&[Close::Eof, Close::Torn, Close::Reset]);
    if let Some(link) = pick(player, source, |_| true) {
        player.close(link, how);
    }
}

/// Gives the engine an input about bytes that wait to be sent.
fn outbox(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let Some(link) = pick(player, source, |_| true) else { return };
    let bytes = u64::from(source.word());
    player.feed(match source.below(8) {
        0..=2 => Input::Congested { link },
        3..=5 => Input::Uncongested { link },
        6 => Input::OutboxFull { link, bytes },
        _ => Input::Stalled { link, bytes },
    });
}

/// A file that an operator named was read, or not.
fn file(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let ask = player.shell.take_asked(|ask| matches!(ask, Ask::File(..)));
    let Some(Ask::File(link, head, path)) = ask else { return };
    let script = match source.below(4) {
        0 => Err("no such file".to_owned()),
        1 => Ok(source.text()),
        _ => {
            let lines = (0..source.below(4)).map(|_| words::command(source) + "\n");
            Ok(lines.collect::<String>())
        }
    };
    if let Ok(script) = &script {
        player.checker.said(script);
    }
    if player.shell.ends.contains_key(&link) {
        player.feed(Input::Sourced { link, head, path, script });
    }
}

/// A worker that starts itself.
fn self_started(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    if player.shell.ends.len() >= CONNS_MAX {
        return;
    }
    let number = source.byte();
    let (concurrency, cancel) = words::promise(number >> 1);
    let link = player.connect(Role::Worker, number & 1 == 1);
    let login = WorkerLogin {
        worker: protocol::ids::WorkerId(0),
        service: ServiceName::new("echo").expect("a name"),
        host: words::host(source),
        hostpid: 77,
        secret: String::new(),
        concurrency,
        cancel,
        token: tokens::claim(source),
    };
    player.frame(link, Frame::WorkerLogin(login));
}

/// A write of the configuration has ended.
fn stored(player: &mut BrokerPlayer, result: Result<(), String>) {
    if let Some(Ask::Store(number)) = player.shell.take_asked(|ask| matches!(ask, Ask::Store(_))) {
        player.feed(Input::Stored { number, result });
    }
}

fn seldom(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let how = source.byte();
    match how & 7 {
        0 => stored(player, Err("no room".to_owned())),
        1 => stored(player, Ok(())),
        2 => player.feed(Input::Terminate { signal: "TERM" }),
        3 => {
            if let Some(link) = pick(player, source, |conn| conn.role == Role::Client) {
                let is_owner = source.is_yes();
                player.feed(Input::Known { link, uid: Some(7), is_owner });
            }
        }
        4 => player.restart(),
        5 => tokens::reload(player, source),
        6 => tokens::proof(player, source),
        7 if how >= 128 => tokens::certificates(player, source),
        7 if how < 32 => tokens::execd(player, source),
        _ => player.feed(Input::Deadline),
    }
}
