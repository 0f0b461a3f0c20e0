//! Runs scripts: of the state directory, of the command line, and of `source`. A script may be run
//! again; what is as it says stays as it is.

use super::answer::{self, origin_of};
use super::result::{OpResult, refused};
use super::run::run;
use super::tokens::rights_of;
use crate::engine::action::{Action, Summary};
use crate::engine::fact::{About, FactKind};
use crate::engine::hub::Engine;
use crate::engine::origin::Origin;
use crate::engine::store::{Difference, set_unsaved};
use crate::engine::work::{RunningScript, Work};
use protocol::op::parse;
use protocol::op::spec::Target;
use protocol::{Command, ErrorBody, ErrorCode, Header, LinkId, OpReply, OpRequest, Ran, Value};

/// How much a line of a script counts in a part of long work.
const LINE: usize = 4;
/// Services, workers, clients or facts instead of one request that fails, for a line that may
/// concern all of them.
const THINGS: usize = 16;
/// How much a line counts that is no command: its error may list all commands.
const ERROR: usize = 24;

/// Most lines whose failure the answer tells; it has room for them in a control frame.
const FAILURES_MAX: usize = 200;
/// Most characters of each.
const FAILURE_CHARS_MAX: usize = 250;

/// Begins a script of the state directory or the command line.
pub(crate) fn on_script(hub: &mut Engine, origin: Origin, text: String) {
    let script = RunningScript::new(None, origin, text);
    hub.works.begin(Work::Script(Box::new(script)), &mut hub.effects);
}

/// Runs the next lines of a script in order; one that fails does not stop the rest. Returns how
/// much work that was.
pub(crate) fn go_on_script(hub: &mut Engine, script: &mut RunningScript, most: usize) -> usize {
    let mut count = 0;
    hub.script_workers = Some(std::mem::take(&mut script.workers));
    while script.at < script.text.len() && count < most && !hub.works.is_busy() {
        if let Some(why) = reason_to_stop(hub, script) {
            script.at = script.text.len();
            script.number += 1;
            failed(script, &format!("{why}; it was not run, nor any line after it"));
            script.summary.failed += 1;
            break;
        }
        let rest = &script.text[script.at..];
        let end = rest.find('\n').map_or(rest.len(), |at| at + 1);
        let line = rest[..end].to_owned();
        script.at += end;
        script.number += 1;
        // A comment or a blank line is none.
        let line = parse::parse_script(&line).first().copied();
        count += line.map_or(LINE, |(_, line)| run_line(hub, script, line));
    }
    script.workers = hub.script_workers.take().unwrap_or_default();
    if script.at >= script.text.len() && !hub.works.is_busy() {
        end_script(hub, script);
    }
    count
}

/// Why the rest of a script is not run; `None` = it goes on.
fn reason_to_stop(hub: &Engine, script: &RunningScript) -> Option<&'static str> {
    if hub.shutdown.is_some() {
        return Some("the broker ends");
    }
    let (link, _) = script.requester?;
    match hub.sessions.client_at(link) {
        None => Some("the operator who gave it is gone"),
        Some(client) if !rights_of(hub, client).may(Command::Source.row().effect) => {
            Some("the operator who gave it may do that no more")
        }
        Some(_) => None,
    }
}

/// Whether a command concerns one thing, so that many of them fit into a part.
const fn is_short(request: &OpRequest) -> bool {
    use OpRequest as Is;
    match request {
        Is::Block(_) | Is::Unblock(_) | Is::Clone(_, None) | Is::DeleteWorker(_) | Is::Idle(..) => {
            true
        }
        Is::ConfigHost { .. } | Is::ConfigService { .. } | Is::ConfigWorker { .. } => true,
        Is::Pause(to) | Is::Ready(to) | Is::Start(to) | Is::Stop(to) | Is::Send(to, _) => {
            matches!(to, Target::Worker(_))
        }
        _ => false,
    }
}

/// How many things there are that a line may concern.
fn size(hub: &Engine) -> usize {
    let peers = hub.supervision.worker_count() + hub.sessions.client_counts().0;
    hub.catalog.count() + peers + hub.facts.recent().count()
}

/// Runs one line. Returns how much it counts in a part.
fn run_line(hub: &mut Engine, script: &mut RunningScript, line: &str) -> usize {
    let origin = script.origin.clone();
    let request = parse::parse(line);
    let count = match &request {
        Ok(request) if is_short(request) => LINE,
        Ok(_) => LINE + size(hub) / THINGS,
        Err(_) => ERROR,
    };
    let answer = request.and_then(|request| run(hub, &origin, request));
    // The next command finds done what follows from this one.
    hub.settle();
    script.stored = hub.store.number().unwrap_or(script.stored);
    hub.store.count(answer.is_ok(), &mut script.summary);
    if let Err(error) = answer {
        // The help that follows an unknown command would hide the other failures.
        let first = error.text.lines().next().unwrap_or_default();
        failed(script, first);
    }
    count
}

/// Notes why a line failed, of the first ones.
fn failed(script: &mut RunningScript, why: &str) {
    if script.failures.len() < FAILURES_MAX {
        let why: String = why.chars().take(FAILURE_CHARS_MAX).collect();
        script.failures.push(format!("line {}: {why}", script.number));
    }
}

/// All lines ran: whoever gave the script is told.
fn end_script(hub: &mut Engine, script: &mut RunningScript) {
    script.is_done = true;
    let (summary, mut failures) = (script.summary, std::mem::take(&mut script.failures));
    if summary.failed > failures.len() {
        failures.push(format!("and {} more", summary.failed - failures.len()));
    }
    let origin = script.origin.clone();
    if let Some(first) = failures.first() {
        let failed = summary.failed;
        let all = failed + summary.done + summary.unchanged;
        let text = format!("{failed} of {all} commands failed; first: {first}");
        let about = About { who: Some(origin.who()), ..About::default() };
        hub.record(FactKind::ScriptFailed, about, text);
    }
    let Some((link, head)) = script.requester else {
        hub.out.push(Action::ScriptDone { origin, summary, failures });
        return;
    };
    if let Some(client) = hub.sessions.client_at(link) {
        let is_same = summary.done == 0;
        hub.store.did(if is_same { Difference::Unchanged } else { Difference::Changed });
        let mut answer = sourced(summary, &failures);
        if let (Ok(reply), Some(why)) = (&mut answer, hub.store.unsaved()) {
            set_unsaved(reply, Some(why));
        }
        answer::answer_stored(hub, client, &head, answer, script.stored);
    }
}

/// Runs the file of a `source` that was read, and answers the operator.
pub(crate) fn on_sourced(
    hub: &mut Engine,
    link: LinkId,
    head: Header,
    path: String,
    script: Result<String, String>,
) {
    let Some(client) = hub.sessions.client_at(link) else { return };
    let answer: OpResult = match script {
        Err(why) => Err(refused(format!(
            "file {path} can't be read: {}; isectd reads it on its machine, 'isdclient < FILE' on yours",
            why.strip_prefix(&format!("{path}: ")).unwrap_or(&why)
        ))),
        Ok(text) => {
            let origin = origin_of(hub, client);
            let script = RunningScript::new(Some((link, head)), origin, text);
            hub.works.begin(Work::Script(Box::new(script)), &mut hub.effects);
            return;
        }
    };
    answer::answer(hub, client, &head, answer);
}

fn sourced(summary: Summary, failures: &[String]) -> Result<OpReply, ErrorBody> {
    if !failures.is_empty() {
        let text = format!("{summary}:\n{}", failures.join("\n"));
        let ran = if summary.done > 0 { Ran::Maybe } else { Ran::No };
        return Err(ErrorBody { ran, ..ErrorBody::new(ErrorCode::Refused, text) });
    }
    let fields = vec![
        ("commands", Value::Number(summary.done as i128)),
        ("unchanged", Value::Number(summary.unchanged as i128)),
    ];
    Ok(OpReply::line("sourced", summary.to_string(), fields))
}
