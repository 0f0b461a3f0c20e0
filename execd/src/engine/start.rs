//! How children begin: admission, the answer of `os`, adoption, and the effects of a child's
//! states. `child` has the states themselves.

use super::action::{Action, Note, Signal};
use super::child::{Child, ChildId, Effect, Event, State};
use super::input::{ProcessEnd, RecordedProcess, Watched};
use super::memory::MemoryWatch;
use super::output::{Bucket, Line, Output};
use super::{Engine, Shutdown};
use protocol::bodies::{ExecExited, ExecFailed, ExecOutput, ExecStarted};
use protocol::{ExecStart, ExitCause, Frame, Tick};
use std::sync::Arc;

impl Engine {
    pub(super) fn start(&mut self, broker: &Arc<str>, start: ExecStart) {
        if let Err((again_ms, text)) = self.admit(broker, &start) {
            self.fail(broker, &start, again_ms, text);
            return;
        }
        let watched = Watched::of(&start);
        let child = self.enter(Child {
            broker: Arc::clone(broker),
            worker: start.worker,
            run: start.run,
            digest: start.digest,
            pid: 0,
            is_older: false,
            stop_signal: start.process.as_ref().and_then(|process| process.stop_signal),
            state: State::START,
            due: None,
            end: None,
            output: self.new_output(watched),
            memory: self.new_memory(watched),
        });
        self.out.push(Action::Spawn { child, broker: Arc::clone(broker), start });
    }

    /// Checks whether there is room to start this and watch it to its end. If not, returns why, and
    /// after how many milliseconds to ask again (0 = the request itself is wrong).
    fn admit(&mut self, broker: &Arc<str>, start: &ExecStart) -> Result<(), (u64, String)> {
        let limits = &self.config.limits;
        if let Some(known) = self.runs.get(&(Arc::clone(broker), start.worker, start.run)) {
            let pid = self.children.get(known).map_or(0, |child| child.pid);
            return Err((
                0,
                format!(
                    "worker {} run {} is here already as process {pid}; give each start a run of \
                     its own",
                    start.worker, start.run
                ),
            ));
        }
        let is_shutting_down = self.brokers.get(broker).is_some_and(|known| known.is_shutting_down);
        if self.shutdown != Shutdown::None || is_shutting_down {
            let text = "execd is ending its processes; start it again later".to_owned();
            return Err((limits.full_again_ms, text));
        }
        if self.children.len() >= limits.children_max {
            return Err((
                limits.full_again_ms,
                format!(
                    "execd has {} processes, as many as it may; stop some, raise its --children \
                     and descriptor limit, or use another host",
                    self.children.len()
                ),
            ));
        }
        if !self.starts.take(self.now) {
            // Each start that is put off gets its own time, so that they don't all come back at
            // once and are refused again.
            let every = 1_000_000_u64.div_ceil(u64::from(limits.starts_per_second.max(1)));
            self.start_slot = Tick(self.start_slot.0.max(self.now.0).saturating_add(every));
            return Err((
                self.start_slot.since(self.now).0.div_ceil(1000),
                format!(
                    "more than {} starts a second after a burst of {} (--start-rate, \
                     --start-burst)",
                    limits.starts_per_second, limits.starts_burst
                ),
            ));
        }
        Ok(())
    }

    fn fail(&mut self, broker: &Arc<str>, start: &ExecStart, again_ms: u64, text: String) {
        let who = super::Who { broker: Arc::clone(broker), worker: start.worker, run: start.run };
        self.out.push(Action::Note(Note::Failed { who, text: text.clone() }));
        let (worker, run) = (start.worker, start.run);
        let body = ExecFailed { worker, run, permanent: false, again_ms, text };
        self.report(broker, Frame::ExecFailed(body));
    }

    fn new_output(&self, watched: Watched) -> Output {
        let is_kept = self.kept.0.is_some() && watched.output_bytes > 0;
        Output::new(&self.config.limits, is_kept, self.now)
    }

    fn new_memory(&self, watched: Watched) -> MemoryWatch {
        MemoryWatch::new(watched.memory_max, self.children_ever, self.now)
    }

    fn enter(&mut self, child: Child) -> ChildId {
        let id = ChildId(self.children_ever);
        self.children_ever += 1;
        self.runs.insert((Arc::clone(&child.broker), child.worker, child.run), id);
        self.children.insert(id, child);
        id
    }

    /// Takes over a process of an earlier execd: watches it, or reports that it has ended.
    pub(super) fn recorded(&mut self, recorded: RecordedProcess) {
        let name: Arc<str> = Arc::from(recorded.broker.as_str());
        let key = (Arc::clone(&name), recorded.worker, recorded.run);
        if self.runs.contains_key(&key) {
            return;
        }
        self.brokers.entry(Arc::clone(&name)).or_default();
        if !recorded.alive {
            let body = ExecExited {
                worker: recorded.worker,
                run: recorded.run,
                pid: recorded.pid,
                exit_cause: ExitCause::Unknown,
                cpu_ms: 0,
                rss_kib_max: 0,
                core: false,
                oom: false,
                tail: Vec::new(),
            };
            self.report(&name, Frame::ExecExited(body));
            return;
        }
        let child = self.enter(Child {
            broker: name,
            worker: recorded.worker,
            run: recorded.run,
            digest: recorded.digest,
            pid: recorded.pid,
            is_older: recorded.is_older,
            stop_signal: (recorded.watched.stop_signal != 0)
                .then_some(recorded.watched.stop_signal),
            state: State::Up,
            due: None,
            end: None,
            output: self.new_output(recorded.watched),
            memory: self.new_memory(recorded.watched),
        });
        self.out.push(Action::Adopt { child, pid: recorded.pid });
        if let Some(known) = self.children.get(&child) {
            self.out.push(Action::Note(Note::Adopted { who: known.who(), pid: known.pid }));
        }
    }

    pub(super) fn spawn_failed(&mut self, id: ChildId, (permanent, text): (bool, String)) {
        let Some(child) = self.children.get(&id) else { return };
        let who = child.who();
        let (worker, run) = (child.worker, child.run);
        let body = ExecFailed { worker, run, permanent, again_ms: 0, text: text.clone() };
        self.out.push(Action::Note(Note::Failed { who: who.clone(), text }));
        self.report(&who.broker, Frame::ExecFailed(body));
        self.happens(id, Event::Refused);
    }

    /// Keeps lines that a child wrote, and sends them to its broker.
    pub(super) fn output(
        &mut self,
        id: ChildId,
        feed: impl FnOnce(&mut Output, Option<&mut Bucket>) -> Vec<Line>,
    ) {
        let Some(child) = self.children.get_mut(&id) else { return };
        // A broker that has not asked for its list does not know the worker and run of the lines.
        let known = self.brokers.get(&child.broker).filter(|broker| broker.has_list);
        let link = known.and_then(|broker| broker.link);
        let shared = link.map(|_| &mut self.lines);
        let lines = if child.output.is_kept
            && let Some(last) = self.kept.last_mut(&child.broker, child.worker)
        {
            child.output.last = *last;
            let lines = feed(&mut child.output, shared);
            *last = child.output.last;
            if let Some(kept) = child.output.kept.take() {
                self.out.push(Action::Keep { child: id, lines: kept });
            }
            lines
        } else {
            feed(&mut child.output, shared)
        };
        for line in lines {
            if let Some(link) = link {
                self.out.push(Action::Send { link, frame: line.frame(child) });
            }
        }
    }

    pub(super) fn note_output_end(&mut self, id: ChildId) {
        if self.children.get(&id).is_some_and(|child| child.output.has_ended()) {
            self.happens(id, Event::OutputEnded);
        }
    }

    /// Moves a child to its next state and carries out the effects.
    pub(super) fn happens(&mut self, id: ChildId, event: Event) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let (next, effects) = child.state.on(event);
        if next != child.state {
            child.state = next;
            child.due = None;
        }
        for effect in effects {
            self.carry_out(id, effect);
        }
        if next == State::Gone {
            if let Some(child) = self.children.remove(&id) {
                self.runs.remove(&(child.broker, child.worker, child.run));
            }
            self.out.push(Action::Forget { child: id });
        }
    }

    fn carry_out(&mut self, id: ChildId, effect: Effect) {
        let limits = self.config.limits;
        let Some(child) = self.children.get_mut(&id) else { return };
        let (who, pid) = (child.who(), child.pid);
        match effect {
            Effect::Announce => {
                let body = ExecStarted { worker: child.worker, run: child.run, pid };
                self.out.push(Action::Note(Note::Started { who: who.clone(), pid }));
                self.report(&who.broker, Frame::ExecStarted(body));
            }
            // `spawn_failed` reports it, because it has the text.
            Effect::Fail => {}
            Effect::GiveUp => self.out.push(Action::GiveUp { child: id }),
            Effect::Term { grace_ms } => {
                child.due = Some(self.now.plus_millis(grace_ms.min(limits.grace_ms_max)));
                let stop_signal = child.stop_signal;
                self.out.push(Action::Note(Note::Terminating {
                    who,
                    pid,
                    kill: false,
                    stop_signal,
                }));
                let signal = stop_signal.map_or(Signal::TermGroup, Signal::AskGroup);
                self.out.push(Action::Signal { child: id, signal });
            }
            Effect::Hurry { grace_ms } => {
                let due = self.now.plus_millis(grace_ms.min(limits.grace_ms_max));
                child.due = Some(child.due.map_or(due, |old| old.min(due)));
            }
            Effect::Kill => {
                self.out.push(Action::Note(Note::Terminating {
                    who,
                    pid,
                    kill: true,
                    stop_signal: None,
                }));
                self.out.push(Action::Signal { child: id, signal: Signal::KillGroup });
            }
            Effect::Await => child.due = Some(self.now.plus_millis(limits.output_wait_ms)),
            Effect::Report => self.report_end(id),
        }
    }

    fn report_end(&mut self, id: ChildId) {
        self.output(id, |output, shared| shared.map_or_else(Vec::new, |_| output.last_words()));
        let Some(child) = self.children.get_mut(&id) else { return };
        let end = child.end.unwrap_or(ProcessEnd::of(ExitCause::Unknown));
        let ProcessEnd { exit_cause, cpu_ms, rss_kib_max, core, oom } = end;
        let who = child.who();
        let body = ExecExited {
            worker: child.worker,
            run: child.run,
            pid: child.pid,
            exit_cause,
            cpu_ms,
            rss_kib_max,
            core,
            oom,
            tail: child.output.tail(),
        };
        self.out.push(Action::Note(Note::Exited { who: who.clone(), pid: child.pid, exit_cause }));
        self.report(&who.broker, Frame::ExecExited(body));
    }
}

impl Line {
    fn frame(self, child: &Child) -> Frame {
        Frame::ExecOutput(ExecOutput {
            worker: child.worker,
            run: child.run,
            stream: self.stream,
            line: self.text,
            dropped: self.dropped,
            number: self.number,
        })
    }
}
