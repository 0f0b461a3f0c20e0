//! The states of workers, hosts, services and clients as operators see them: a word, since when,
//! until when, and why. What they are made of is in `Worker`, `Host`, `Service`, `Client` and
//! `Caller`.

use crate::engine::dispatch::seat::WorkerList;
use crate::engine::hub::Engine;
use crate::engine::keys::{ClientKey, ServiceKey, WorkerKey};
use crate::engine::operator_act::OperatorAct;
use crate::engine::origin::Origin;
use crate::engine::quotas::TEXT_BYTES_MAX;
use crate::engine::supervision::host::Host;
use crate::engine::supervision::host_state::HostState;
use crate::engine::supervision::process_state::ProcessState;
use crate::engine::supervision::workers::{Standing, Worker};
use crate::engine::timers::Timer;
use crate::engine::wall_clock::short;
use protocol::{HostName, Tick, Value, show};

/// A state, ready to be shown.
#[derive(Debug)]
pub(crate) struct State {
    /// One word, for programs.
    word: &'static str,
    /// The word and the notes, for people.
    words: String,
    /// Further properties, as in `paused` or `host lost`.
    notes: Vec<&'static str>,
    /// When the state began.
    since: Tick,
    /// When it ends by itself, and what comes then, as in `starts in`.
    until: Option<(Tick, &'static str)>,
    /// Why it is so; `None` = there is no reason to show.
    reason: Option<String>,
}

impl State {
    /// The text for a field that has since when and why in fields beside it.
    pub(crate) fn words(&self, now: Tick) -> String {
        match self.until {
            None => self.words.clone(),
            Some((until, what)) => {
                let left = short(until.since(now));
                format!("{}, {what} {left}{}", self.words, self.because())
            }
        }
    }

    /// The text for a column of a table that has since when and why in other columns.
    pub(crate) fn short(&self, now: Tick) -> String {
        match self.until {
            None => self.words.clone(),
            Some((until, what)) => format!("{}, {what} {}", self.words, short(until.since(now))),
        }
    }

    /// The text for the only column of a table: all that is known, in short.
    pub(crate) fn sentence(&self, now: Tick) -> String {
        match self.until {
            None => {
                let since = short(now.since(self.since));
                format!("{} for {since}{}", self.words, self.because())
            }
            Some(_) => self.words(now),
        }
    }

    /// The first clause of the reason in brackets; the page of the worker or host has all of it.
    fn because(&self) -> String {
        let Some(reason) = &self.reason else { return String::new() };
        let end = reason.find([';', '(']).unwrap_or(reason.len());
        format!(" ({})", show::brief(reason[..end].trim_end(), TEXT_BYTES_MAX))
    }
}

/// Notes a command, at this tick, with its origin.
pub(crate) fn said(hub: &Engine, origin: &Origin, what: &str) -> OperatorAct {
    OperatorAct { at: hub.now, by: format!("{what} by {}", origin.who()) }
}

/// The state of a worker.
pub(crate) fn worker_state(hub: &Engine, key: WorkerKey) -> State {
    let worker = hub.supervision.worker(key);
    let service = &hub.catalog[worker.service];
    let is_overdue = hub.dispatch.current(key).is_some_and(|t| t.stage.is_ended());
    // It may finish the request that it has; after that, it is asked to end.
    let is_finishing =
        hub.supervision.is_to_end(key) && hub.dispatch.seat(key).list == WorkerList::Busy;
    let is_drained = hub.supervision.is_on_drained(worker);
    let is_host_lost = hub.supervision.host_link(&worker.host).is_none() && !worker.is_self_started;
    let notes: Vec<&'static str> = [
        (worker.failed.is_some(), "failed"),
        (worker.is_paused, "paused"),
        (service.is_paused, "service paused"),
        (!worker.is_wanted, "stopped"),
        (is_down_until_asked(hub, worker), "on demand"),
        (is_finishing, "finishing its request"),
        (is_overdue, "overdue"),
        (worker.is_self_started, "self-started"),
        (worker.standing == Standing::Temporary, "temporary"),
        (worker.standing == Standing::Draining, "draining"),
        (is_host_lost, "host lost"),
        (is_drained, "host drained"),
    ]
    .into_iter()
    .filter_map(|(holds, note)| holds.then_some(note))
    .collect();
    let words = [&[worker.state.word()], notes.as_slice()].concat().join(", ");
    let word = match worker.state {
        ProcessState::Down if worker.failed.is_some() => "failed",
        ProcessState::Down if !worker.is_wanted => "stopped",
        state => state.word(),
    };
    let until = until_of(hub, worker);
    let reason = reason_of(hub, worker, is_host_lost);
    let mut since = worker.since;
    if service.is_paused && worker.state == ProcessState::Ready {
        since = since.max(service.pause_act.at);
    }
    let is_down_for_itself = !worker.is_wanted || worker.failed.is_some();
    if is_host_lost
        && !is_down_for_itself
        && let Some(host) = hub.supervision.host_named(&worker.host)
    {
        since = since.max(host.since);
    }
    State { word, words, notes, since, until, reason }
}

/// Whether a worker is down because nobody asks for its service, which is started on demand.
fn is_down_until_asked(hub: &Engine, worker: &Worker) -> bool {
    hub.supervision.is_down_until_asked(worker.service)
        && worker.is_wanted
        && worker.failed.is_none()
        && worker.state == ProcessState::Down
}

/// When the present state of a worker ends at the latest, and what comes then.
fn until_of(hub: &Engine, worker: &Worker) -> Option<(Tick, &'static str)> {
    let (id, run) = (worker.id, worker.run.id);
    let (due, what) = match worker.state {
        ProcessState::Down if worker.failed.is_some() => (Timer::Restart(id, run), "again in"),
        ProcessState::Down | ProcessState::Ready => return None,
        ProcessState::Terminating => {
            let kill_due = worker.run.kill_due;
            return (kill_due > hub.now).then_some((kill_due, "killed in"));
        }
        ProcessState::Backoff => (Timer::Restart(id, run), "starts in"),
        ProcessState::Up if hub.catalog[worker.service].is_program() => return None,
        ProcessState::Starting if hub.catalog[worker.service].is_program() => {
            (Timer::WorkerLogin(id, run), "must be up within")
        }
        ProcessState::Starting | ProcessState::Up => {
            (Timer::WorkerLogin(id, run), "must log in within")
        }
        ProcessState::Returning => (Timer::Return(id, run), "must come back within"),
        ProcessState::Exiting => (Timer::StopAsk(id, run), "must end within"),
    };
    hub.timers.until(&due).map(|until| (until, what))
}

fn reason_of(hub: &Engine, worker: &Worker, is_host_lost: bool) -> Option<String> {
    let service = &hub.catalog[worker.service];
    if worker.state == ProcessState::Down
        && let Some(failed) = &worker.failed
    {
        return Some(failed.clone());
    }
    let is_down = worker.state == ProcessState::Down;
    if is_down && worker.is_wanted && hub.supervision.is_on_drained(worker) {
        return Some(format!("host {0} is drained; 'undrain host {0}' starts it", worker.host));
    }
    if is_down_until_asked(hub, worker) {
        return Some("the first request or login starts it (start=demand)".to_owned());
    }
    let is_quiet = matches!(worker.state, ProcessState::Down | ProcessState::Starting)
        || worker.state == ProcessState::Ready && worker.why.is_empty();
    if is_quiet && worker.is_wanted && is_host_lost {
        return Some(why_lost(hub, &worker.host));
    }
    if worker.why.is_empty() && service.is_paused {
        return Some(service.pause_act.by.clone());
    }
    (!worker.why.is_empty()).then(|| worker.why.clone())
}

fn why_lost(hub: &Engine, name: &HostName) -> String {
    let why =
        hub.supervision.host_named(name).map_or("it is not configured", |host| host.why.as_str());
    format!("host {name} is not linked: {why}")
}

/// The state of a host.
pub(crate) fn host_state(hub: &Engine, host: &Host) -> State {
    let word = host.state.word();
    let is_drained = hub.supervision.is_drained(&host.name);
    let until = hub.timers.until(&Timer::Dial(host.name.clone()));
    let until = until.filter(|_| host.state == HostState::Down);
    State {
        word,
        words: if is_drained { format!("{word}, drained") } else { word.to_owned() },
        notes: Vec::new(),
        since: host.since,
        until: until.map(|until| (until, "dialled in")),
        reason: (!host.why.is_empty()).then(|| host.why.clone()),
    }
}

/// The state of a service.
pub(crate) fn service_state(hub: &Engine, key: ServiceKey) -> State {
    let service = &hub.catalog[key];
    let (word, said) = if service.is_stopped {
        ("stopped", &service.stop_act)
    } else if service.is_paused {
        ("paused", &service.pause_act)
    } else {
        ("open", &service.open_act)
    };
    let (since, by) = (said.at, said.by.clone());
    let is_open = !service.is_stopped && !service.is_paused;
    let reason = if is_open && service.is_program() {
        Some("a program, which takes no requests (protocol=none)".to_owned())
    } else if is_open && hub.supervision.is_down_until_asked(key) {
        Some("its workers are down until they are asked for (start=demand)".to_owned())
    } else {
        (!by.is_empty()).then_some(by)
    };
    State { word, words: word.to_owned(), notes: Vec::new(), since, until: None, reason }
}

/// The state of a client.
pub(crate) fn client_state(hub: &Engine, key: ClientKey) -> State {
    let (client, is_blocked) = (hub.sessions.client(key), hub.dispatch.caller(key).is_blocked);
    let blocked = client.block_act.as_ref().filter(|_| is_blocked);
    let word = if is_blocked { "blocked" } else { "attached" };
    State {
        word,
        words: word.to_owned(),
        notes: Vec::new(),
        since: blocked.map_or(client.since, |said| said.at),
        until: None,
        reason: blocked.map(|said| said.by.clone()),
    }
}

/// A state as values of a table or page; text answers have `shown` in place of the word.
pub(crate) fn state_values(hub: &Engine, state: State, shown: String) -> StateValues {
    StateValues {
        state: Value::shown(shown, Value::Word(state.word)),
        since: hub.clock(state.since),
        until: state.until.map_or(Value::None, |(until, _)| hub.clock(until)),
        reason: state.reason.map_or(Value::None, Value::Text),
        notes: Value::Texts(state.notes.into_iter().map(str::to_owned).collect()),
    }
}

/// The values that [`state_values`] makes.
#[derive(Debug)]
pub(crate) struct StateValues {
    /// The word, for JSON; in text what the caller shows.
    pub(crate) state: Value,
    /// When the state began.
    pub(crate) since: Value,
    /// When it ends by itself, if it does.
    pub(crate) until: Value,
    /// Why it is so, if there is a reason.
    pub(crate) reason: Value,
    /// Further properties.
    pub(crate) notes: Value,
}
