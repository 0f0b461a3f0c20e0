//! Does long work (`work`) part by part, and runs the commands that wait for it.

use super::context::context;
use super::heartbeat;
use super::hub::Engine;
use super::keep;
use super::keys::{ServiceKey, WorkerKey};
use super::operator::{run, save, script, seek, targets, tokens};
use super::sessions::access::Access;
use super::timers::Timer;
use super::topic_frames;
use super::work::{Waiting, Work};
use protocol::{ErrorBody, ErrorCode, LinkId, Tick, WorkerId};
use std::collections::VecDeque;

/// How many requests fail in one step, or what takes as long.
const PART: usize = 192;
/// Peers that are looked at instead of one request that fails.
const LOOKS: usize = 4;
/// Requests that fail instead of one peer that is closed, which may have some.
const CLOSED_EACH: usize = 8;
/// Lines of a script that are written instead of one request that fails.
const LINES: usize = 2;
/// Slots of the table of requests that are looked at instead of one request that fails.
const SLOTS: usize = 64;
/// Requests that fail instead of one worker that is started or stopped.
const WORKER_EACH: usize = 2;

/// Does all that was begun, at the start of the broker, when nobody is served yet.
pub(super) fn finish(hub: &mut Engine) {
    hub.settle();
    while hub.works.is_busy() {
        hub.works.left = PART;
        go_on(hub);
    }
}

/// `Timer::Work`: does the next part, or runs the next command that waits.
pub(super) fn on_due(hub: &mut Engine) {
    if hub.works.is_busy() {
        begin_part(hub);
    } else if let Some(Waiting { client, head, body }) = hub.works.commands.pop_front()
        && let Some(key) = hub.sessions.find_client(client)
    {
        run::on_op(hub, key, head, &body);
        hub.settle();
    }
    if hub.works.holds_commands() {
        set_timer(hub);
    }
}

fn set_timer(hub: &mut Engine) {
    // At the next tick, so after everything that can be done now.
    hub.timers.add(Tick(hub.now.0 + 1), Timer::Work);
}

/// Work was begun, or goes on.
pub(super) fn begin_part(hub: &mut Engine) {
    if !hub.works.is_going {
        hub.works.left = PART;
        go_on(hub);
    }
}

fn go_on(hub: &mut Engine) {
    hub.works.is_going = true;
    while hub.works.left > 0 {
        let Some(mut work) = hub.works.queue.pop_front() else { break };
        let mut behind = std::mem::take(&mut hub.works.queue);
        let done = part(hub, &mut work, hub.works.left).max(1);
        hub.works.left = hub.works.left.saturating_sub(done);
        hub.settle();
        // What it began itself comes before the rest of it.
        if !work.is_done() {
            behind.push_front(work);
        }
        while let Some(begun) = hub.works.queue.pop_back() {
            behind.push_front(begun);
        }
        hub.works.queue = behind;
    }
    hub.works.is_going = false;
    if hub.works.is_busy() {
        set_timer(hub);
    }
}

/// Does up to `most` of some work. Returns how much it was.
fn part(hub: &mut Engine, work: &mut Work, most: usize) -> usize {
    match work {
        Work::FailWaiting { services, error } => fail_waiting(hub, services, error, most),
        Work::FailWith { workers, error } => each(hub, workers, most, |hub, key| {
            hub.dispatch.fail_with(key, error, context!(hub));
        }),
        Work::Workers { workers, verb, said } => each(hub, workers, most, |hub, key| {
            targets::one_worker(hub, key, *verb, said);
        }),
        Work::AskToEnd { workers } => each(hub, workers, most, |hub, key| {
            hub.supervision.ask_one_to_end(key, context!(hub));
        }),
        Work::EndWithBroker { workers } => each(hub, workers, most, keep::end_one),
        Work::EndHosts { grace_ms } => {
            hub.supervision.end_hosts(*grace_ms, context!(hub));
            most
        }
        Work::Serve { service } => {
            if hub.catalog.get(*service).is_some() {
                hub.dispatch.serve_next(*service, context!(hub));
            }
            most
        }
        Work::Reset { services } => {
            let count = services.len().min(most);
            services.drain(..count).for_each(|service| hub.dispatch.reset_service(service));
            count
        }
        Work::Beat { links, look } => {
            let count = links.len().min(most.saturating_mul(LOOKS));
            for link in links.drain(..count) {
                heartbeat::look_at(hub, link, *look);
            }
            count.div_ceil(LOOKS)
        }
        Work::ShutOut { links, old } => shut_out(hub, links, old, most),
        Work::Revoke { links, error } => {
            let count = links.len().min(most.div_ceil(CLOSED_EACH));
            for link in links.drain(..count) {
                hub.send_link_away(link, error.clone());
            }
            count * CLOSED_EACH
        }
        Work::Save { link, head, script } => {
            let count = save::go_on_script(hub, script, most.saturating_mul(LINES));
            if script.is_done() {
                let text = std::mem::take(&mut script.text);
                run::answer_save(hub, *link, head, text);
            }
            count.div_ceil(LINES)
        }
        Work::Seek(seek) => {
            let slots = seek::go_on(hub, seek, most.saturating_mul(SLOTS));
            slots.div_ceil(SLOTS)
        }
        Work::Script(running) => script::go_on_script(hub, running, most),
    }
}

fn shut_out(hub: &mut Engine, links: &mut VecDeque<LinkId>, old: &Access, most: usize) -> usize {
    let mut looks = 0;
    while looks < most * LOOKS {
        let Some(link) = links.pop_front() else { break };
        looks += 1;
        if let Some(error) = tokens::shut_out(hub, link, old) {
            hub.send_link_away(link, error);
            looks += CLOSED_EACH * LOOKS;
        } else {
            looks += topic_frames::on_rights_changed(hub, link);
        }
    }
    looks.div_ceil(LOOKS)
}

fn each(
    hub: &mut Engine,
    workers: &mut VecDeque<WorkerId>,
    most: usize,
    mut act: impl FnMut(&mut Engine, WorkerKey),
) -> usize {
    let count = workers.len().min(most.div_ceil(WORKER_EACH));
    for id in workers.drain(..count) {
        if let Some(key) = hub.supervision.find_worker(id) {
            act(hub, key);
        }
    }
    count * WORKER_EACH
}

fn fail_waiting(
    hub: &mut Engine,
    services: &mut VecDeque<ServiceKey>,
    error: &ErrorBody,
    most: usize,
) -> usize {
    let mut left = most;
    while left > 0 {
        let Some(&service) = services.front() else { break };
        if error.code == ErrorCode::NoWorker && hub.dispatch.no_worker(service).is_none() {
            // One may come after all.
            services.pop_front();
            continue;
        }
        let before = left;
        left = hub.dispatch.fail_waiting(service, error, left, context!(hub));
        if left == 0 && before > 0 {
            break;
        }
        services.pop_front();
        // A service for which nothing waits is no work, but is looked at.
        left -= usize::from(before == left);
    }
    most - left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineOptions;
    use crate::engine::action::Action;
    use crate::engine::input::{Close, Input, Peer};
    use crate::engine::origin::Origin;
    use bytes::Bytes;
    use protocol::bodies::Login;
    use protocol::frame::Frame;
    use protocol::header::Header;
    use protocol::names::ServiceName;

    const CLIENT: LinkId = LinkId { index: 1, generation: 0 };
    const OPERATOR: LinkId = LinkId { index: 2, generation: 0 };

    fn step(engine: &mut Engine, now: u64, input: Input) -> Vec<Action> {
        let mut out = Vec::new();
        engine.step(Tick(now), input, &mut out);
        engine.check_all().unwrap();
        out
    }

    fn asks(link: LinkId, sequence: u32, body: &'static str) -> Input {
        let head = Header { sequence, reply: 1, len: body.len() as u32, ..Header::default() };
        Input::Request { link, head, body: Bytes::from_static(body.as_bytes()) }
    }

    fn crowded(count: u32) -> Engine {
        let mut engine = Engine::new(EngineOptions::default());
        // Requests wait for a service that is paused.
        let (origin, text) = (Origin::Broker, "config service echo\npause echo\n".to_owned());
        step(&mut engine, 0, Input::Script { origin, text });
        step(&mut engine, 0, Input::Started);
        for (link, name) in [(CLIENT, "echo"), (OPERATOR, "op")] {
            let peer = Peer { is_owner: true, ..Peer::default() };
            step(&mut engine, 0, Input::ClientOpened { link, peer });
            let login = Box::new(Login::to(ServiceName::new(name).unwrap()));
            step(&mut engine, 0, Input::Login { link, login });
        }
        (1..=count).for_each(|sequence| {
            step(&mut engine, 0, asks(CLIENT, sequence, "hi"));
        });
        engine
    }

    fn errors(out: &[Action]) -> usize {
        let is_error = |action: &&Action| {
            matches!(action, Action::Send { link: CLIENT, frame: Frame::Error { .. } })
        };
        out.iter().filter(is_error).count()
    }

    fn answers(out: &[Action]) -> usize {
        out.iter().filter(|action| matches!(action, Action::Answer { link: OPERATOR, .. })).count()
    }

    #[test]
    fn many_requests_fail_in_parts_and_later_commands_wait_for_that() {
        let mut engine = crowded(1000);
        let out = step(&mut engine, 1, asks(OPERATOR, 1, "stop echo"));
        assert_eq!(errors(&out), PART);
        // It would be answered at once, if nothing were under way.
        let out = step(&mut engine, 1, asks(OPERATOR, 2, "version"));
        assert_eq!((errors(&out), answers(&out)), (0, 0));
        let (mut failed, mut answered, mut now) = (PART, 0, 1);
        while engine.next_deadline().is_some_and(|due| due.0 <= now + 1) {
            now += 1;
            let out = step(&mut engine, now, Input::Deadline);
            assert!(errors(&out) <= PART, "{} in one step", errors(&out));
            failed += errors(&out);
            answered += answers(&out);
            assert!(answered == 0 || failed == 1000, "answered after {failed}");
        }
        assert_eq!((failed, answered), (1000, 1));
    }

    #[test]
    fn a_long_file_is_answered_when_its_changes_are_on_the_disk() {
        for is_early in [false, true] {
            let mut engine = crowded(0);
            step(&mut engine, 1, asks(OPERATOR, 1, "source /x"));
            let head = Header { sequence: 1, reply: 1, ..Header::default() };
            let script = Ok(format!("config service s\n{}", "config service echo\n".repeat(500)));
            let input = Input::Sourced { link: OPERATOR, head, path: "/x".into(), script };
            let mut out = step(&mut engine, 2, input);
            assert!(matches!(out.last(), Some(Action::Store { number: 1, .. })), "{out:?}");
            let stored = || Input::Stored { number: 1, result: Ok(()) };
            if is_early {
                out.extend(step(&mut engine, 2, stored()));
            }
            assert!(engine.is_working(), "all in one step");
            let mut now = 2;
            while engine.is_working() {
                now += 1;
                out.extend(step(&mut engine, now, Input::Deadline));
            }
            // The last of its changes was made long before its last line.
            assert_eq!(answers(&out), usize::from(is_early));
            out.extend(step(&mut engine, now, stored()));
            assert_eq!(answers(&out), 1);
        }
    }

    #[test]
    fn a_script_ends_with_its_operator_or_the_broker_and_others_see_what_they_ask_for() {
        const OTHER: LinkId = LinkId { index: 3, generation: 0 };
        let ends: [fn() -> Input; 2] =
            [|| Input::Closed { link: OPERATOR, how: Close::Reset }, || asks(OTHER, 3, "halt")];
        for end in ends {
            let mut engine = crowded(0);
            let peer = Peer { is_owner: true, ..Peer::default() };
            step(&mut engine, 1, Input::ClientOpened { link: OTHER, peer });
            let login = Box::new(Login::to(ServiceName::op()));
            step(&mut engine, 1, Input::Login { link: OTHER, login });
            step(&mut engine, 1, asks(OPERATOR, 1, "source /x"));
            let head = Header { sequence: 1, reply: 1, ..Header::default() };
            let script = Ok("config service echo\n".repeat(5000));
            let input = Input::Sourced { link: OPERATOR, head, path: "/x".into(), script };
            step(&mut engine, 2, input);
            assert!(engine.is_working(), "all in one step");
            let shown = step(&mut engine, 2, asks(OTHER, 1, "version"));
            assert!(matches!(shown[..], [Action::Answer { link: OTHER, .. }]), "{shown:?}");
            // What the operator of the script asks for, and what changes something, waits.
            for (link, body) in [(OPERATOR, "version"), (OTHER, "config service eat")] {
                assert_eq!(step(&mut engine, 2, asks(link, 2, body)).len(), 0, "{body}");
            }
            step(&mut engine, 2, end());
            assert!(engine.is_working());
            (3..6).for_each(|now| drop(step(&mut engine, now, Input::Deadline)));
            assert!(!engine.is_working(), "the script goes on");
        }
    }

    #[test]
    fn an_answer_has_room_for_the_failures_of_any_script() {
        let mut engine = crowded(0);
        step(&mut engine, 1, asks(OPERATOR, 1, "source /x"));
        let head = Header { sequence: 1, reply: 1, ..Header::default() };
        let line = format!("config service {}\n", "\u{1f600}".repeat(3000));
        let script = Ok(line.repeat(300));
        let input = Input::Sourced { link: OPERATOR, head, path: "/x".into(), script };
        let mut out = step(&mut engine, 2, input);
        let mut now = 2;
        while engine.is_working() {
            now += 1;
            out.extend(step(&mut engine, now, Input::Deadline));
        }
        let text = out.iter().find_map(|action| match action {
            Action::Send { frame: Frame::Error { error, .. }, .. } => Some(&error.text),
            _ => None,
        });
        let text = text.expect("an answer");
        assert!(text.starts_with("0 commands done, 0 unchanged, 300 failed:\nline 1: "), "{text}");
        assert!(text.ends_with("\nand 100 more") && text.len() < 250_000, "{}", text.len());
    }

    #[test]
    fn commands_that_wait_take_little_memory() {
        let mut engine = crowded(0);
        step(&mut engine, 1, asks(OPERATOR, 1, "source /x"));
        let head = Header { sequence: 1, reply: 1, ..Header::default() };
        let script = Ok("config service echo\n".repeat(5000));
        let input = Input::Sourced { link: OPERATOR, head, path: "/x".into(), script };
        step(&mut engine, 2, input);
        let refused = |out: &[Action]| {
            matches!(out, [Action::Send { link: OPERATOR, frame: Frame::Error { .. } }])
        };
        // What is no command does not wait, however long it is.
        let long: &'static str = "x".repeat(100_000).leak();
        assert!(refused(&step(&mut engine, 2, asks(OPERATOR, 2, long))));
        for sequence in 3..=103 {
            let out = step(&mut engine, 2, asks(OPERATOR, sequence, "version"));
            assert_eq!(refused(&out), sequence == 103, "{sequence}: {out:?}");
        }
    }

    #[test]
    fn many_requests_are_late_in_parts_and_none_twice() {
        let mut engine = crowded(1000);
        let late = 31_000_000;
        let mut failed = errors(&step(&mut engine, late, Input::Deadline));
        assert!(failed < 1000, "all in one step");
        // A piece of one that is late and still waits for its turn finds it ended.
        let out = step(&mut engine, late, asks(CLIENT, 1000, "again"));
        failed += errors(&out);
        for now in late + 1..late + 20 {
            failed += errors(&step(&mut engine, now, Input::Deadline));
        }
        // The one that used the sequence again is a new request, and waits.
        assert_eq!(failed, 1000);
        assert_eq!(engine.totals().accepted - engine.totals().ended, 1);
    }
}
