//! Runs scripts: of the state directory, of the command line, and of `source`. A script may be run
//! again; what is as it says stays as it is.

use super::answer::{self, origin_of};
use super::result::{OpResult, refused};
use super::run::run;
use crate::engine::action::{Action, Summary};
use crate::engine::fact::{About, FactKind};
use crate::engine::hub::Engine;
use crate::engine::origin::Origin;
use crate::engine::store::Difference;
use crate::engine::work::{RunningScript, Work};
use protocol::op::parse;
use protocol::{Header, LinkId, OpReply, Value};

/// How much a line of a script counts in a part of long work.
const LINE: usize = 4;

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
        let rest = &script.text[script.at..];
        let end = rest.find('\n').map_or(rest.len(), |at| at + 1);
        let line = rest[..end].to_owned();
        script.at += end;
        script.number += 1;
        // A comment or a blank line is none.
        if let Some((_, line)) = parse::parse_script(&line).first().copied() {
            run_line(hub, script, line);
        }
        count += LINE;
    }
    script.workers = hub.script_workers.take().unwrap_or_default();
    if script.at >= script.text.len() && !hub.works.is_busy() {
        end_script(hub, script);
    }
    count
}

fn run_line(hub: &mut Engine, script: &mut RunningScript, line: &str) {
    let origin = script.origin.clone();
    let answer = parse::parse(line).and_then(|request| run(hub, &origin, request));
    // The next command finds done what follows from this one.
    hub.settle();
    script.stored = hub.store.number().unwrap_or(script.stored);
    hub.store.count(answer.is_ok(), &mut script.summary);
    if let Err(error) = answer {
        // The help that follows an unknown command would hide the other failures.
        let first = error.text.lines().next().unwrap_or_default();
        script.failures.push(format!("line {}: {first}", script.number));
    }
}

/// All lines ran: whoever gave the script is told.
fn end_script(hub: &mut Engine, script: &mut RunningScript) {
    script.is_done = true;
    let (summary, failures) = (script.summary, std::mem::take(&mut script.failures));
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
        let answer = sourced(summary, &failures);
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

fn sourced(summary: Summary, failures: &[String]) -> OpResult {
    if !failures.is_empty() {
        return Err(refused(format!("{summary}:\n{}", failures.join("\n"))));
    }
    let fields = vec![
        ("commands", Value::Number(summary.done as i128)),
        ("unchanged", Value::Number(summary.unchanged as i128)),
    ];
    Ok(OpReply::line("sourced", summary.to_string(), fields))
}
