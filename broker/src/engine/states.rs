//! The states of workers, hosts, services and clients as operators see them: a word, since when,
//! until when, and why. The states themselves are in `workers`, `hosts`, `registry` and `clients`.

use super::Engine;
use super::action::Origin;
use super::clients::Client;
use super::due::Due;
use super::hosts::{Host, HostState};
use super::keys::{ServiceKey, WorkerKey};
use super::quotas::TEXT_BYTES_MAX;
use super::registry::Service;
use super::workers::{ProcessState, Worker, WorkerList};
use protocol::names::HostName;
use protocol::op::reply::Value;
use protocol::show;
use protocol::time::{Micros, Tick};

/// A command that changed a state: when it came, and from whom.
#[derive(Clone, Debug, Default)]
pub(crate) struct OperatorAct {
    /// When it came.
    pub(crate) at: Tick,
    /// The command and its origin, as in `'pause echo' by client 3 (…)`; empty = there was none.
    pub(crate) by: String,
}

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

/// A span in few characters: `213 ms`, `2.1 s`, `2m 05s`, `3h 07m`.
pub(crate) fn short(span: Micros) -> String {
    let ms = span.as_millis();
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000.. => protocol::op::reply::span(span.0),
    }
}

impl Engine {
    /// Notes a command, at this tick, with its origin.
    pub(crate) fn said(&self, origin: &Origin, what: &str) -> OperatorAct {
        OperatorAct { at: self.now, by: format!("{what} by {}", Self::who(origin)) }
    }

    /// The error text for a request to a stopped service. It does not name the operator who stopped
    /// it.
    pub(crate) fn stopped_text(&self, service: &Service) -> String {
        let since = short(self.now.since(service.stop_act.at));
        let name = &service.name;
        format!(
            "service '{name}' is stopped; 'start {name}' starts it (an operator stopped it {since} ago)"
        )
    }

    /// The state of a worker.
    pub(crate) fn worker_state(&self, key: WorkerKey) -> State {
        let worker = &self.workers[key];
        let service = &self.registry[worker.service];
        let is_overdue = worker.current.is_some_and(|at| self.transactions[at].is_ended);
        // It may finish the request that it has; after that, it is asked to end.
        let is_finishing = !worker.is_wanted && worker.list == WorkerList::Busy;
        let is_host_lost = self.host_link(&worker.host).is_none() && !worker.is_self_started;
        let notes: Vec<&'static str> = [
            (worker.failed.is_some(), "failed"),
            (worker.is_paused, "paused"),
            (service.is_paused, "service paused"),
            (!worker.is_wanted, "stopped"),
            (is_finishing, "finishing its request"),
            (is_overdue, "overdue"),
            (worker.is_self_started, "self-started"),
            (is_host_lost, "host lost"),
        ]
        .into_iter()
        .filter_map(|(holds, note)| holds.then_some(note))
        .collect();
        let words = [&[worker.state.word()], notes.as_slice()].concat().join(", ");
        let word = match worker.state {
            ProcessState::Down if worker.failed.is_some() => "failed",
            ProcessState::Down if !worker.is_wanted => "stopped",
            ProcessState::Down
            | ProcessState::Backoff
            | ProcessState::Starting
            | ProcessState::Up
            | ProcessState::Ready
            | ProcessState::Returning
            | ProcessState::Exiting
            | ProcessState::Terminating => worker.state.word(),
        };
        let until = self.until_of(worker);
        let reason = self.reason_of(worker, is_host_lost);
        let mut since = worker.since;
        if service.is_paused && worker.state == ProcessState::Ready {
            since = since.max(service.pause_act.at);
        }
        let is_down_for_itself = !worker.is_wanted || worker.failed.is_some();
        if is_host_lost
            && !is_down_for_itself
            && let Some(host) = self.hosts.named(&worker.host)
        {
            since = since.max(host.since);
        }
        State { word, words, notes, since, until, reason }
    }

    /// When the present state of a worker ends at the latest, and what comes then.
    fn until_of(&self, worker: &Worker) -> Option<(Tick, &'static str)> {
        let (id, run) = (worker.id, worker.run);
        let (due, what) = match worker.state {
            ProcessState::Down | ProcessState::Ready => return None,
            ProcessState::Terminating => {
                let is_coming = worker.kill_due > self.now;
                return is_coming.then_some((worker.kill_due, "killed in"));
            }
            ProcessState::Backoff => (Due::Restart(id, run), "starts in"),
            ProcessState::Starting | ProcessState::Up => {
                (Due::WorkerLogin(id, run), "must log in within")
            }
            ProcessState::Returning => (Due::Return(id, run), "must come back within"),
            ProcessState::Exiting => (Due::StopAsk(id, run), "must end within"),
        };
        self.due.until(&due).map(|until| (until, what))
    }

    /// Why a worker is in its state: the reason of its failure, of its host, of its service, or its
    /// own.
    fn reason_of(&self, worker: &Worker, is_host_lost: bool) -> Option<String> {
        let service = &self.registry[worker.service];
        if worker.state == ProcessState::Down
            && let Some(failed) = &worker.failed
        {
            return Some(failed.clone());
        }
        let is_quiet = matches!(worker.state, ProcessState::Down | ProcessState::Starting)
            || worker.state == ProcessState::Ready && worker.why.is_empty();
        if is_quiet && worker.is_wanted && is_host_lost {
            return Some(self.why_lost(&worker.host));
        }
        if worker.why.is_empty() && service.is_paused {
            return Some(service.pause_act.by.clone());
        }
        (!worker.why.is_empty()).then(|| worker.why.clone())
    }

    /// Why a host has no link, in words.
    fn why_lost(&self, name: &HostName) -> String {
        let why = self.hosts.named(name).map_or("it is not configured", |host| host.why.as_str());
        format!("host {name} is not linked: {why}")
    }

    /// The state of a host.
    pub(crate) fn host_state(&self, host: &Host) -> State {
        let word = host.state.word();
        let until = self.due.until(&Due::Dial(host.name.clone()));
        let until = until.filter(|_| host.state == HostState::Down);
        State {
            word,
            words: word.to_owned(),
            notes: Vec::new(),
            since: host.since,
            until: until.map(|until| (until, "dialled in")),
            reason: (!host.why.is_empty()).then(|| host.why.clone()),
        }
    }

    /// The state of a service.
    pub(crate) fn service_state(&self, key: ServiceKey) -> State {
        let service = &self.registry[key];
        let (word, said) = if service.is_stopped {
            ("stopped", &service.stop_act)
        } else if service.is_paused {
            ("paused", &service.pause_act)
        } else {
            ("open", &service.open_act)
        };
        let (since, by) = (said.at, said.by.clone());
        State {
            word,
            words: word.to_owned(),
            notes: Vec::new(),
            since,
            until: None,
            reason: (!by.is_empty()).then_some(by),
        }
    }

    /// The state of a client.
    pub(crate) fn client_state(&self, client: &Client) -> State {
        let blocked = client.block_act.as_ref().filter(|_| client.is_blocked);
        let word = if client.is_blocked { "blocked" } else { "attached" };
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
    pub(crate) fn state_values(&self, state: State, shown: String) -> StateValues {
        StateValues {
            state: Value::shown(shown, Value::Word(state.word)),
            since: self.clock(state.since),
            until: state.until.map_or(Value::None, |(until, _)| self.clock(until)),
            reason: state.reason.map_or(Value::None, Value::Text),
            notes: Value::Texts(state.notes.into_iter().map(str::to_owned).collect()),
        }
    }
}

/// The values that [`Engine::state_values`] makes.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (micros, text) in [
            (0, "0 ms"),
            (999_999, "999 ms"),
            (1_000_000, "1.0 s"),
            (2_149_000, "2.1 s"),
            (59_999_000, "59.9 s"),
            (60_000_000, "1m 00s"),
        ] {
            assert_eq!(short(Micros(micros)), text);
        }
    }
}
