//! Runs scripts: of the state directory, of the command line, and of `source`. A script may be run
//! again; what is as it says stays as it is.

use super::answer::{self, origin_of};
use super::result::{OpResult, refused};
use super::run::run;
use crate::engine::action::{Action, Summary};
use crate::engine::fact::{About, FactKind};
use crate::engine::hub::{Engine, Out};
use crate::engine::operator::script_workers::ScriptWorkers;
use crate::engine::origin::Origin;
use crate::engine::store::Difference;
use protocol::header::Header;
use protocol::ids::LinkId;
use protocol::op::parse;
use protocol::op::reply::{OpReply, Value};

/// Runs a script of the state directory or the command line.
pub(crate) fn on_script(hub: &mut Engine, origin: Origin, text: &str, out: Out<'_>) {
    let summary = run_script(hub, &origin, text, out);
    out.push(Action::ScriptDone { origin, summary });
}

/// Runs the commands of a script in order; one that fails does not stop the rest.
fn run_script(hub: &mut Engine, origin: &Origin, text: &str, out: Out<'_>) -> Summary {
    let mut summary = Summary::default();
    hub.script_workers = Some(ScriptWorkers::default());
    for (number, line) in parse::parse_script(text) {
        hub.store.take_difference();
        let answer = parse::parse(line).and_then(|request| run(hub, origin, request, out));
        // The next command finds done what follows from this one.
        hub.settle(out);
        match answer {
            Ok(_) if hub.store.take_difference() == Difference::Unchanged => summary.unchanged += 1,
            Ok(_) => summary.done += 1,
            Err(error) => {
                // The help that follows an unknown command would hide the other failures.
                let first = error.text.lines().next().unwrap_or_default();
                summary.failures.push(format!("line {number}: {first}"));
            }
        }
    }
    hub.script_workers = None;
    if let Some(first) = summary.failures.first() {
        let failed = summary.failures.len();
        let all = failed + summary.done + summary.unchanged;
        let text = format!("{failed} of {all} commands failed; first: {first}");
        let about = About { who: Some(origin.who()), ..About::default() };
        hub.record(FactKind::ScriptFailed, about, text, out);
    }
    summary
}

/// Runs the file of a `source` that was read, and answers the operator.
pub(crate) fn on_sourced(
    hub: &mut Engine,
    link: LinkId,
    head: Header,
    path: String,
    script: Result<String, String>,
    out: Out<'_>,
) {
    let Some(client) = hub.sessions.client_at(link) else {
        return;
    };
    let answer = match script {
        Err(why) => Err(refused(format!(
            "file {path} can't be read: {}; isectd reads it on its machine, 'isdclient < FILE' on yours",
            why.strip_prefix(&format!("{path}: ")).unwrap_or(&why)
        ))),
        Ok(text) => {
            let origin = origin_of(hub, client);
            sourced(&run_script(hub, &origin, &text, out))
        }
    };
    if hub.sessions.end(link).is_some() {
        answer::answer(hub, client, &head, answer, out);
    }
}

fn sourced(summary: &Summary) -> OpResult {
    if !summary.failures.is_empty() {
        return Err(refused(format!("{summary}:\n{}", summary.failures.join("\n"))));
    }
    let fields = vec![
        ("commands", Value::Number(summary.done as i128)),
        ("unchanged", Value::Number(summary.unchanged as i128)),
    ];
    Ok(OpReply::line("sourced", summary.to_string(), fields))
}
