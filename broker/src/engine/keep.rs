//! An end of the broker that leaves the workers to the next one: `halt keep`, and signals under
//! `on_term keep`. Requests that wait fail; those that workers have may finish within `halt_ms`.
//! Then the connections are closed, as if the broker had died: workers look for their broker, hosts
//! keep their processes, and the next broker on the state directory adopts both.

use super::context::context;
use super::hub::Engine;
use super::keys::WorkerKey;
use super::shutdown_begin::{self, MARGIN_MS};
use super::timers::Timer;
use super::work::Work;
use crate::engine::shutdown_step::{Shutdown, Step};
use protocol::{ErrorBody, ErrorCode, Ran, Setting};
use std::collections::VecDeque;

/// The value of `on_term` that means this end.
pub(super) const ON_TERM_KEEP: u64 = 1;

/// Why no later broker could adopt the workers; `None` = one can.
pub(crate) fn obstacle(hub: &Engine) -> Option<&'static str> {
    (!hub.listening.is_state_kept).then_some(
        "no later broker knows the workers of one without a state directory (--state none)",
    )
}

/// Begins the end: nobody logs in any more, operators excepted, and no request is accepted.
pub(crate) fn begin(hub: &mut Engine, why: &str) {
    let wait = hub.settings.get(Setting::HaltMs);
    let until = hub.now.plus_millis(wait);
    hub.sessions.turn_away();
    let why = format!("{why}; workers stay for the next one");
    let shutdown = Shutdown { status: 0, step: Step::Draining, until, keeps: true };
    shutdown_begin::begin(hub, shutdown, &why);
    if wait == 0 {
        keep_workers(hub);
    }
}

/// Leaves the workers as they are. Each request that one of them still has gets its outcome; the
/// worker is not told of it, and works on.
pub(super) fn keep_workers(hub: &mut Engine) {
    let text = "the broker ends, and leaves the worker that has the request to the next one";
    let error = ErrorBody { ran: Ran::Maybe, ..ErrorBody::new(ErrorCode::ShuttingDown, text) };
    let keys = hub.supervision.worker_keys();
    keys.iter().for_each(|&key| hub.dispatch.say_no_more(key));
    let id_of = |&key: &_| hub.supervision.worker(key).id;
    let workers: VecDeque<_> = keys.iter().map(id_of).collect();
    let not_kept = hub.supervision.not_kept();
    let own: VecDeque<_> = not_kept.iter().map(id_of).collect();
    hub.works.begin(Work::FailWith { workers, error }, &mut hub.effects);
    let mut wait = MARGIN_MS;
    if !own.is_empty() {
        hub.works.begin(Work::EndWithBroker { workers: own }, &mut hub.effects);
        wait += hub.settings.get(Setting::StopAskMs) + hub.settings.get(Setting::StopTermMs);
    }
    let until = hub.now.plus_millis(wait);
    if let Some(shutdown) = &mut hub.shutdown {
        (shutdown.step, shutdown.until) = (Step::KeepingOthers(not_kept), until);
    }
    hub.timers.add(until, Timer::End);
}

/// Goes on when the workers that are not kept have ended.
pub(super) fn check_not_kept(hub: &mut Engine) {
    let supervision = &hub.supervision;
    let Some(Shutdown { step, .. }) = &mut hub.shutdown else { return };
    let Step::KeepingOthers(own) = step else { return };
    own.retain(|&key| supervision.get_worker(key).is_some_and(|w| w.state.has_process()));
    if own.is_empty() {
        *step = Step::Stopping(Vec::new());
    }
}

/// Ends a worker that is not kept.
pub(super) fn end_one(hub: &mut Engine, key: WorkerKey) {
    hub.supervision.end_with_broker(key, context!(hub));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineOptions;
    use crate::engine::action::{Action, BrokerExit};
    use crate::engine::input::{Close, Input, Listening, Peer, Report, Signature, Start};
    use crate::engine::origin::Origin;
    use protocol::bodies::{ExecExited, ExecListed, ExecWelcome, ExitCause, WorkerLogin};
    use protocol::{Frame, HostName, LinkId, RunId, ServiceName, Settings, Tick, WorkerId};

    const HOST: LinkId = LinkId { index: 1, generation: 0 };

    fn step(engine: &mut Engine, now: u64, input: Input) -> Vec<Action> {
        let mut out = Vec::new();
        engine.step(Tick(now), input, &mut out);
        engine.check_all().unwrap();
        out
    }

    fn report(engine: &mut Engine, report: Report) -> Vec<Action> {
        step(engine, 1, Input::Report { link: HOST, report: Box::new(report) })
    }

    /// A broker whose host is up, with two ready workers; its own is the second one.
    fn with_two() -> Engine {
        let mut settings = Settings::default();
        settings.set(Setting::OnTerm, ON_TERM_KEEP);
        let mut engine = Engine::new(EngineOptions { settings, ..EngineOptions::default() });
        let execd = Some("unix:/x".to_owned());
        let listening = Listening { execd, is_state_kept: true, ..Listening::default() };
        step(&mut engine, 0, Input::Listening(Box::new(listening)));
        let worker = "config worker echo localhost /x\n";
        let text = format!("config service echo\n{worker}{worker}start all\n");
        step(&mut engine, 0, Input::Script { origin: Origin::Broker, text });
        step(&mut engine, 0, Input::Started);
        let host = HostName::new("localhost").unwrap();
        step(&mut engine, 0, Input::HostOpened { link: HOST, host, fd: 7, must: None });
        report(&mut engine, Report::Welcome(ExecWelcome::default(), Signature::Missing));
        let started = report(&mut engine, Report::Listed(ExecListed { children: Vec::new() }));
        for action in started {
            let Action::Start { start, .. } = action else { continue };
            let link = LinkId { index: 1 + start.worker.0, generation: 0 };
            step(&mut engine, 1, Input::WorkerOpened { link, peer: Peer::default() });
            let login = WorkerLogin {
                worker: start.worker,
                service: ServiceName::new("echo").unwrap(),
                secret: "secret".into(),
                ..WorkerLogin::example().unwrap()
            };
            let proof = Some(Start { run: start.run, digest: start.digest });
            step(&mut engine, 1, Input::WorkerLogin { link, login: Box::new(login), proof });
        }
        let own = engine.supervision.find_worker(WorkerId(2)).unwrap();
        engine.supervision.keep_not(own);
        engine
    }

    #[test]
    fn what_a_broker_brings_along_ends_with_it_and_the_others_stay() {
        let mut engine = with_two();
        let out = step(&mut engine, 2, Input::Terminate { signal: "TERM" });
        let told: Vec<u32> = out
            .iter()
            .filter_map(|action| match action {
                Action::Send { link, frame: Frame::End } => Some(link.index),
                _ => None,
            })
            .collect();
        assert_eq!(told, [3], "{out:?}");
        assert!(!engine.has_shut_down());
        let key = engine.supervision.find_worker(WorkerId(2)).unwrap();
        let run: RunId = engine.supervision.worker(key).run.id;
        let link = LinkId { index: 3, generation: 0 };
        step(&mut engine, 3, Input::Closed { link, how: Close::Eof });
        let exited = ExecExited {
            worker: WorkerId(2),
            run,
            pid: 9,
            exit_cause: ExitCause::Exit(0),
            cpu_ms: 0,
            rss_kib_max: 0,
            core: false,
            oom: false,
            tail: Vec::new(),
        };
        let out = report(&mut engine, Report::Exited(exited));
        assert!(matches!(out.last(), Some(Action::End(BrokerExit::Exit(0)))), "{out:?}");
        let told_host = out
            .iter()
            .any(|action| matches!(action, Action::Send { link: HOST, frame: Frame::ExecEnd(_) }));
        assert!(!told_host);
    }
}
