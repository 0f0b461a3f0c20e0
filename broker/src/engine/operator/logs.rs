//! `logs`: asks hosts for the last lines of workers, and shows them together. The answer waits for
//! the hosts. With `-f` lines follow as they come: those that were in the answer are known by their
//! numbers.

use super::log_queries::{Follower, LogLine, LogQuery};
use super::result::{OpResult, refused};
use super::{answer, names, targets};
use crate::engine::action::Action;
use crate::engine::hub::Engine;
use crate::engine::input::Report;
use crate::engine::keys::{ClientKey, WorkerKey};
use crate::engine::timers::Timer;
use protocol::bodies::{ExecLines, ExecOutput, ExecRead, Stream};
use protocol::op::spec::LogsWanted;
use protocol::process::KeptLine;
use protocol::time::Wall;
use protocol::{
    Block, ClientId, Command, Frame, Header, LinkId, OpError, OpReply, Setting, Target, Value,
    WorkerId, show,
};
use std::collections::{BTreeMap, VecDeque};

/// Most workers that are asked about at once.
const WORKERS_MAX: usize = 100;
/// Most commands that wait for hosts at once.
const QUERIES_MAX: usize = 8;
/// Most bytes of lines in an answer.
const BYTES_MAX: usize = 2 << 20;
/// Milliseconds that a host has for its answer.
const WAIT_MS: u64 = 3000;
/// Most lines that are held for one who follows and has no answer yet.
const EARLY_MAX: usize = 1000;

/// `logs`. `None` = the answer comes when all hosts have answered, or after some seconds.
pub(crate) fn begin(
    hub: &mut Engine,
    client: ClientKey,
    head: Header,
    wanted: LogsWanted,
) -> Option<OpResult> {
    match ask(hub, client, head, wanted) {
        Ok(number) if hub.logs.queries[&number].waiting.is_empty() => {
            // What is there now is the answer, and the lines after it come later.
            finish(hub, number);
            None
        }
        Ok(number) => {
            hub.timers.add(hub.now.plus_millis(WAIT_MS), Timer::LogsAnswer(number));
            None
        }
        Err(error) => Some(Err(error)),
    }
}

fn ask(hub: &mut Engine, key: ClientKey, head: Header, wanted: LogsWanted) -> Result<u64, OpError> {
    let mut workers = match &wanted.target {
        // Also one that is to go soon, which no command may change.
        Target::Worker(id) => vec![names::worker_named(hub, *id)?],
        Target::All | Target::Service(_) | Target::Host(_) => {
            targets::targets(hub, &wanted.target)?
        }
    };
    if hub.logs.queries.len() >= QUERIES_MAX {
        let text = format!("{QUERIES_MAX} others wait for lines already; try again");
        return Err(refused(text));
    }
    let client = hub.sessions.client(key).id;
    if wanted.follow {
        check_follow(hub, client, &head)?;
    }
    let mut query = LogQuery {
        client,
        head,
        lines: BTreeMap::new(),
        lines_max: wanted.lines as usize,
        bytes: 0,
        is_truncated: false,
        waiting: BTreeMap::new(),
        notes: Vec::new(),
        lost: BTreeMap::new(),
        is_one: matches!(wanted.target, Target::Worker(_)),
    };
    if workers.len() > WORKERS_MAX {
        let left = workers.len() - WORKERS_MAX;
        let text = format!(
            "{left} further workers are not shown: at most {WORKERS_MAX} are asked about at once; \
             name a service or a worker"
        );
        query.notes.push((None, text));
        workers.truncate(WORKERS_MAX);
    }
    if workers.is_empty() {
        query.notes.push((None, "there are no workers".to_owned()));
    }
    for worker in workers {
        ask_host(hub, &mut query, worker, wanted.lines);
    }
    if wanted.follow {
        let entry = hub.sessions.client(key);
        let follower = Follower {
            link: entry.link,
            sequence: head.sequence,
            format: entry.format,
            target: wanted.target,
            last: BTreeMap::new(),
            missing: BTreeMap::new(),
            early: Some(VecDeque::new()),
        };
        hub.logs.followers.insert(client, follower);
    }
    hub.next_query += 1;
    hub.logs.queries.insert(hub.next_query, query);
    Ok(hub.next_query)
}

fn check_follow(hub: &Engine, client: ClientId, head: &Header) -> Result<(), OpError> {
    let max = hub.settings.get(Setting::WatchersMax);
    if hub.logs.follows(client).is_some() || hub.facts.watch_of(client).is_some() {
        return Err(refused("this connection watches already; end it and begin again"));
    }
    if head.reply == 0 {
        return Err(refused("logs needs a reply; set 'reply' to 1 in its header"));
    }
    if watchers(hub) as u64 >= max {
        return Err(refused(format!(
            "{max} operators watch already (watchers_max); one of them is to end, or 'set \
             watchers_max=N' allows more"
        )));
    }
    Ok(())
}

/// How many operators watch or follow.
pub(super) fn watchers(hub: &Engine) -> usize {
    let followers = hub.logs.followers.keys();
    let there = followers.filter(|client| hub.sessions.find_client(**client).is_some());
    hub.facts.watchers() + there.count()
}

/// Asks the host of one worker, or says why that is of no use.
fn ask_host(hub: &mut Engine, query: &mut LogQuery, key: WorkerKey, lines: u32) {
    let worker = hub.supervision.worker(key);
    let (id, host) = (worker.id, worker.host.clone());
    let why = if worker.is_self_started {
        "it started itself, so no host keeps its output".to_owned()
    } else {
        match (hub.supervision.host_link(&host), hub.supervision.keeps_output(&host)) {
            (Some(_), Ok(())) if lines == 0 => return,
            (Some(link), Ok(())) => {
                hub.logs.requests = hub.logs.requests.wrapping_add(1);
                let request = hub.logs.requests;
                let read = ExecRead { request, worker: id, lines };
                hub.out.push(Action::Send { link, frame: Frame::ExecRead(read) });
                hub.supervision.output_asked(&host);
                query.waiting.insert(request, (id, link));
                return;
            }
            (None, _) => format!("host {host} is away: what it keeps can't be had now"),
            (_, Err(version)) => {
                format!("the execd of host {host} (version {version}) is too old to keep output")
            }
        }
    };
    query.notes.push((Some(id), why));
}

/// Lines that workers wrote, if that is what a host reports.
pub(crate) fn on_report(hub: &mut Engine, link: LinkId, report: &Report) {
    match report {
        Report::Lines(lines) => on_lines(hub, link, lines),
        Report::Output(output) if !hub.logs.followers.is_empty() => on_output(hub, link, output),
        Report::Welcome(..)
        | Report::Started(_)
        | Report::Failed(_)
        | Report::Exited(_)
        | Report::Output(_)
        | Report::Memory(_)
        | Report::Listed(_) => {}
    }
}

/// Handles `exec-lines`. One that nobody asked for, or that another host was asked, is passed over.
fn on_lines(hub: &mut Engine, link: LinkId, answer: &ExecLines) {
    let asked = (answer.worker, link);
    let query = hub
        .logs
        .queries
        .iter_mut()
        .find(|(_, query)| query.waiting.get(&answer.request) == Some(&asked));
    let Some((&number, query)) = query else { return };
    for line in &answer.lines {
        let (worker, text) = (answer.worker, line.text.clone());
        let (number, at_ms, stream) = (line.number, line.at_ms, line.stream);
        query.add(LogLine { worker, number, at_ms, stream, text }, BYTES_MAX);
    }
    if answer.lost > 0 {
        *query.lost.entry(answer.worker).or_default() += answer.lost;
    }
    if let (Some(follower), Some(KeptLine { number: last, .. })) =
        (hub.logs.followers.get_mut(&query.client), answer.lines.last())
    {
        let last = *last;
        follower.last.insert(answer.worker, (link, last));
    }
    if answer.more {
        return;
    }
    if !answer.text.is_empty() {
        query.notes.push((Some(answer.worker), answer.text.clone()));
    }
    query.waiting.remove(&answer.request);
    if query.waiting.is_empty() {
        finish(hub, number);
    }
}

/// Answers a `logs` with what has come.
pub(crate) fn finish(hub: &mut Engine, number: u64) {
    let Some(mut query) = hub.logs.queries.remove(&number) else { return };
    // The operator may be gone by now.
    let Some(client) = hub.sessions.find_client(query.client) else {
        hub.logs.followers.remove(&query.client);
        return;
    };
    for (worker, _) in std::mem::take(&mut query.waiting).into_values() {
        let text = format!("its host did not answer within {WAIT_MS} ms");
        query.notes.push((Some(worker), text));
    }
    if query.is_truncated {
        let text = format!("older lines are not shown: an answer has at most {BYTES_MAX} bytes");
        query.notes.push((None, text));
    }
    let offset = hub.wall_clock.wall(hub.now).offset_secs;
    let mut blocks: Vec<Block> = query.notes.iter().map(note_block).collect();
    for (worker, count) in &query.lost {
        blocks.push(missing_block(*worker, *count, "could not be kept by its host"));
    }
    let is_alone = query.is_one;
    blocks.extend(query.lines.values().map(|line| line_block(line, is_alone, offset)));
    let follower = hub.logs.followers.get_mut(&query.client);
    let early = follower.and_then(|follower| follower.early.take());
    if early.is_some() {
        let text = "following; end with Ctrl-C".to_owned();
        blocks.push(Block::Line { name: "following", text, fields: Vec::new() });
    }
    let answer: OpResult = Ok(OpReply { blocks }.complete(Command::Logs));
    answer::answer(hub, client, &query.head, answer);
    for (link, line, dropped) in early.into_iter().flatten() {
        pass_on(hub, query.client, (link, &line, dropped));
    }
}

/// A worker wrote a line: those who follow it get it.
fn on_output(hub: &mut Engine, link: LinkId, output: &ExecOutput) {
    let Some(key) = hub.supervision.find_worker(output.worker) else { return };
    let worker = hub.supervision.worker(key);
    if hub.supervision.host_link(&worker.host) != Some(link) {
        return;
    }
    let service = hub.catalog[worker.service].name.clone();
    let host = worker.host.clone();
    let line = LogLine {
        worker: output.worker,
        number: output.number,
        at_ms: hub.wall_clock.wall(hub.now).epoch_ms,
        stream: output.stream,
        text: output.line.clone(),
    };
    let sessions = &hub.sessions;
    hub.logs.followers.retain(|client, _| sessions.find_client(*client).is_some());
    let is_meant = |target: &Target| match target {
        // Who wants to see those of built-in services names one.
        Target::All => !output.worker.is_builtin(),
        Target::Service(name) => *name == service,
        Target::Worker(id) => *id == output.worker,
        Target::Host(name) => *name == host && !output.worker.is_builtin(),
    };
    let meant = hub.logs.followers.iter().filter(|(_, follower)| is_meant(&follower.target));
    let clients: Vec<ClientId> = meant.map(|(client, _)| *client).collect();
    for client in clients {
        let Some(follower) = hub.logs.followers.get_mut(&client) else { continue };
        match &mut follower.early {
            None => pass_on(hub, client, (link, &line, output.dropped)),
            Some(early) if early.len() < EARLY_MAX => {
                early.push_back((link, line.clone(), output.dropped));
            }
            // The numbers of later lines show what is missing, if there are numbers.
            Some(_) if line.number > 0 => {}
            Some(_) => *follower.missing.entry(line.worker).or_default() += 1,
        }
    }
}

/// Sends a line to one who follows, unless it had it; with how many are missing before it.
fn pass_on(hub: &mut Engine, client: ClientId, (link, line, dropped): (LinkId, &LogLine, u64)) {
    let offset = hub.wall_clock.wall(hub.now).offset_secs;
    let Some(follower) = hub.logs.followers.get_mut(&client) else { return };
    let missing = follower.missing_before((link, line, dropped));
    let Some(missing) = missing else { return };
    if line.number > 0 {
        follower.last.insert(line.worker, (link, line.number));
    }
    let all = missing + follower.missing.remove(&line.worker).unwrap_or(0);
    if hub.dispatch.flow().is_congested(follower.link) {
        follower.missing.insert(line.worker, all + 1);
        return;
    }
    let mut blocks = Vec::new();
    if all > 0 {
        let is_kept = line.number > 0;
        let why =
            if is_kept { "were not passed on; its host keeps them" } else { "were not passed on" };
        blocks.push(missing_block(line.worker, all, why));
    }
    let is_alone = matches!(follower.target, Target::Worker(_));
    blocks.push(line_block(line, is_alone, offset));
    let head = Header { sequence: follower.sequence, more: 1, ..Header::default() };
    let (link, format) = (follower.link, follower.format);
    hub.out.push(Action::Answer { link, head, reply: Box::new(OpReply { blocks }), format });
}

impl Follower {
    /// How many lines are missing between the last one and this one; `None` = it had this one.
    fn missing_before(&self, (link, line, dropped): (LinkId, &LogLine, u64)) -> Option<u64> {
        match self.last.get(&line.worker) {
            Some((on, last)) if *on == link && line.number > 0 => {
                (line.number > *last).then(|| line.number - last - 1)
            }
            Some(_) | None => Some(dropped),
        }
    }
}

fn note_block((worker, text): &(Option<WorkerId>, String)) -> Block {
    let said = worker.map_or_else(|| text.clone(), |id| format!("worker {id}: {text}"));
    let fields = vec![
        ("worker", worker.map_or(Value::None, |id| Value::Number(id.0.into()))),
        ("text", Value::Text(text.clone())),
    ];
    Block::Line { name: "log_notes", text: format!("({})", show::one_line(said)), fields }
}

fn missing_block(worker: WorkerId, count: u64, why: &str) -> Block {
    let fields =
        vec![("worker", Value::Number(worker.0.into())), ("missing", Value::Number(count.into()))];
    let lines = if count == 1 { "line" } else { "lines" };
    Block::Line {
        name: "missing",
        text: format!("({count} {lines} of worker {worker} {why})"),
        fields,
    }
}

const fn stream_word(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

/// A line with its time, and the id of its worker unless that is the only one.
fn line_block(line: &LogLine, is_alone: bool, offset_secs: i32) -> Block {
    let at = Wall { epoch_ms: line.at_ms, offset_secs };
    let worker = if is_alone { String::new() } else { format!("{} ", line.worker) };
    let shown = show::one_line(line.text.clone());
    let text = format!("{worker}{} {} {shown}", at.local(), line.stream);
    let number = if line.number > 0 { Value::Number(line.number.into()) } else { Value::None };
    let fields = vec![
        ("worker", Value::Number(line.worker.0.into())),
        ("number", number),
        ("at", Value::Time(at)),
        ("stream", Value::Word(stream_word(line.stream))),
        ("line", Value::Text(line.text.clone())),
    ];
    Block::Line { name: "lines", text, fields }
}
