//! Concludes by what a broker says of itself whether it can do its work. Pure: answers in, verdict
//! out.

use protocol::limits::OP_SERVICE;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Most reasons in an answer; the others are counted.
const REASONS_MAX: usize = 100;
/// A queue is full enough to be told from this share of `queue_max` on, in per cent.
const QUEUE_PERCENT: u64 = 80;
/// The same for connections and `connections_max`.
const CONNECTIONS_PERCENT: u64 = 90;

/// How a broker, or what was asked of it, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// It can do its work.
    Ok,
    /// It can do some of it, or not for long.
    Degraded,
    /// It can't.
    Down,
}

impl State {
    /// The first word of an answer.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// Why something is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    /// Which kind of trouble it is, in one word.
    pub(super) kind: &'static str,
    /// What has it: a host, a service, a worker, a group, or the broker.
    pub(super) what: String,
    /// Since when, where the broker knows it.
    pub(super) since: Option<String>,
    /// For people.
    pub(super) text: String,
}

impl Reason {
    fn json(&self) -> String {
        format!(
            "{{\"kind\":\"{}\",\"what\":{},\"since\":{},\"text\":{}}}",
            self.kind,
            json!(self.what),
            json!(self.since),
            json!(self.text)
        )
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) state: State,
    pub(super) reasons: Vec<Reason>,
    /// How many more reasons there are.
    pub(super) left_out: usize,
}

/// What the broker answered to its commands, as JSON.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    pub(super) status: Value,
    pub(super) services: Value,
    /// The workers that can take no request.
    pub(super) lazy: Value,
    pub(super) hosts: Value,
    pub(super) load: Value,
    pub(super) groups: Value,
    /// The page of each service of which more must be known.
    pub(super) pages: Vec<(String, Value)>,
}

fn rows<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of[name].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn since(row: &Value) -> Option<String> {
    row["since"].as_str().map(str::to_owned)
}

/// States of a worker that nobody wanted, or that are over in a moment.
fn is_missing(row: &Value) -> bool {
    matches!(
        row["state"].as_str(),
        Some("down" | "backoff" | "starting" | "up" | "returning" | "failed")
    )
}

impl Answers {
    /// The services whose page is needed: those that are named, and those for which much waits.
    pub(super) fn pages_needed(&self, names: &[String]) -> Vec<String> {
        // The broker's own has no page.
        let known = |name: &str| self.service(name).is_some() && name != OP_SERVICE;
        let mut needed: Vec<String> = names.iter().filter(|name| known(name)).cloned().collect();
        for row in rows(&self.load, "load") {
            let name = text(&row["service"]);
            if count(&row["waiting"]) > 0 && !needed.contains(&name) {
                needed.push(name);
            }
        }
        needed.truncate(REASONS_MAX);
        needed
    }

    fn service(&self, name: &str) -> Option<&Value> {
        rows(&self.services, "services").iter().find(|row| row["service"] == *name)
    }

    fn setting(&self, service: &str, setting: &str) -> Option<&Value> {
        let page = self.pages.iter().find(|(name, _)| name == service)?;
        let row = rows(&page.1, "settings").iter().find(|row| row["setting"] == *setting)?;
        Some(&row["value"])
    }

    fn load_of(&self, service: &str) -> Option<&Value> {
        rows(&self.load, "load").iter().find(|row| row["service"] == *service)
    }

    /// Whether a worker of this service takes requests now.
    fn is_served(&self, service: &str) -> bool {
        self.load_of(service).is_some_and(|row| count(&row["idle"]) + count(&row["busy"]) > 0)
    }

    /// The workers of a service that should take requests and can't.
    fn missing(&self, service: &str) -> Vec<&Value> {
        let lazy = rows(&self.lazy, "lazy").iter();
        lazy.filter(|row| row["service"] == *service && is_missing(row)).collect()
    }
}

/// Concludes by these answers: of the services that are named, or of the whole broker.
pub(super) fn conclude(answers: &Answers, names: &[String]) -> Verdict {
    let mut reasons: Vec<(State, Reason)> = Vec::new();
    if names.is_empty() {
        broker(answers, &mut reasons);
        hosts(answers, &mut reasons);
        services(answers, &mut reasons);
        groups(answers, &mut reasons);
    } else {
        names.iter().for_each(|name| named(answers, name, &mut reasons));
    }
    let is_meant = |service: &str| names.is_empty() || names.iter().any(|name| name == service);
    workers(answers, is_meant, &mut reasons);
    queues(answers, is_meant, &mut reasons);
    // The worst first.
    reasons.sort_by(|(a, _), (b, _)| b.cmp(a));
    let state = reasons.first().map_or(State::Ok, |(state, _)| *state);
    let left_out = reasons.len().saturating_sub(REASONS_MAX);
    let reasons = reasons.into_iter().take(REASONS_MAX).map(|(_, reason)| reason).collect();
    Verdict { state, reasons, left_out }
}

fn reason(kind: &'static str, what: &str, since: Option<String>, text: String) -> Reason {
    Reason { kind, what: what.to_owned(), since, text }
}

/// What the broker says of itself.
fn broker(answers: &Answers, reasons: &mut Vec<(State, Reason)>) {
    let status = &answers.status["status"];
    let mut add = |kind, text| reasons.push((State::Degraded, reason(kind, "broker", None, text)));
    if let Some(why) = status["unsaved"].as_str() {
        add("store", format!("the configuration can't be saved: {why}"));
    }
    if status["reject"] == true {
        add("rejecting", "the operator lets no new clients in ('reject off' ends it)".to_owned());
    }
    let most = count(&status["connections_max"]);
    let ready = count(&status["idle_workers"]) + count(&status["busy_workers"]);
    let used = count(&status["clients"]) + ready;
    if most > 0 && used * 100 >= most * CONNECTIONS_PERCENT {
        add("connections", format!("{used} of {most} connections are used (connections_max)"));
    }
}

fn hosts(answers: &Answers, reasons: &mut Vec<(State, Reason)>) {
    for row in rows(&answers.hosts, "hosts").iter().filter(|row| row["state"] != "up") {
        let name = text(&row["host"]);
        let words = format!("host {name} is {}: {}", text(&row["state"]), text(&row["reason"]));
        reasons.push((State::Degraded, reason("host_down", &name, since(row), words)));
    }
}

/// Services that should be served and are not: the broker is down if there is no other one.
fn services(answers: &Answers, reasons: &mut Vec<(State, Reason)>) {
    let mut unserved = Vec::new();
    let mut is_any_served = false;
    for row in rows(&answers.services, "services") {
        let name = text(&row["service"]);
        if row["state"] != "open" {
            continue;
        }
        let missing = answers.missing(&name);
        is_any_served |= answers.is_served(&name);
        if !answers.is_served(&name) && !missing.is_empty() {
            unserved.push((name, missing));
        }
    }
    let state = if is_any_served { State::Degraded } else { State::Down };
    for (name, missing) in unserved {
        reasons.push((state, no_worker(&name, &missing)));
    }
}

fn no_worker(name: &str, missing: &[&Value]) -> Reason {
    let one = |row: &&Value| format!("worker {} is {}", row["worker"], text(&row["state"]));
    let states: Vec<String> = missing.iter().take(3).map(one).collect();
    let since = missing.iter().filter_map(|row| since(row)).max();
    let why = if states.is_empty() { "it has none".to_owned() } else { states.join(", ") };
    let words = format!("no worker of service '{name}' takes requests: {why}");
    reason("no_worker", name, since, words)
}

/// A service that was asked for.
fn named(answers: &Answers, name: &str, reasons: &mut Vec<(State, Reason)>) {
    let Some(row) = answers.service(name) else {
        let words = format!("service '{name}' is not configured");
        reasons.push((State::Down, reason("unknown_service", name, None, words)));
        return;
    };
    let state = text(&row["state"]);
    // Nobody needs to run for it until a request comes.
    let is_asleep = answers.setting(name, "start").is_some_and(|value| value == "demand")
        && answers.missing(name).iter().all(|row| row["state"] != "failed");
    if state != "open" {
        let words = format!("service '{name}' is {state}: {}", text(&row["reason"]));
        reasons.push((State::Down, reason("not_open", name, since(row), words)));
    } else if !answers.is_served(name) && !is_asleep && name != OP_SERVICE {
        reasons.push((State::Down, no_worker(name, &answers.missing(name))));
    }
}

fn groups(answers: &Answers, reasons: &mut Vec<(State, Reason)>) {
    // What is missing of services is told by their workers.
    let configured = rows(&answers.groups, "groups").iter().filter(|row| row["configured"] == true);
    for row in configured.filter(|row| row["state"] != "running" || count(&row["error"]) > 0) {
        let name = text(&row["group"]);
        let words = format!(
            "group {name} is {}: {} of {} have joined, {} in error",
            text(&row["state"]),
            row["joined"],
            row["expected"],
            row["error"]
        );
        reasons.push((State::Degraded, reason("group_error", &name, since(row), words)));
    }
}

fn workers(answers: &Answers, is_meant: impl Fn(&str) -> bool, reasons: &mut Vec<(State, Reason)>) {
    for row in rows(&answers.lazy, "lazy").iter().filter(|row| row["state"] == "failed") {
        let service = text(&row["service"]);
        if is_meant(&service) {
            let what = format!("worker {} of {service}", row["worker"]);
            let words = format!("{what} has failed: {}", text(&row["reason"]));
            reasons.push((State::Degraded, reason("worker_failed", &what, since(row), words)));
        }
    }
}

fn queues(answers: &Answers, is_meant: impl Fn(&str) -> bool, reasons: &mut Vec<(State, Reason)>) {
    for (name, _) in answers.pages.iter().filter(|(name, _)| is_meant(name)) {
        let most = answers.setting(name, "queue_max").map_or(0, count);
        let waiting = answers.load_of(name).map_or(0, |row| count(&row["waiting"]));
        if most > 0 && waiting * 100 >= most * QUEUE_PERCENT {
            let words = format!(
                "{waiting} requests wait for service '{name}', at most {most} may (queue_max)"
            );
            reasons.push((State::Degraded, reason("queue_full", name, None, words)));
        }
    }
}

impl Verdict {
    /// One JSON object, with the state first.
    pub(super) fn json(&self) -> String {
        let reasons: Vec<String> = self.reasons.iter().map(Reason::json).collect();
        format!(
            "{{\"state\":\"{}\",\"reasons\":[{}],\"left_out\":{}}}",
            self.state.word(),
            reasons.join(","),
            self.left_out
        )
    }

    /// A line for each reason.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        for reason in &self.reasons {
            let since = reason.since.as_ref().map_or_else(String::new, |at| format!(" since {at}"));
            let _ = writeln!(out, "{}{since}: {}", reason.kind, reason.text);
        }
        if self.left_out > 0 {
            let _ = writeln!(out, "and {} more", self.left_out);
        }
        out.truncate(out.trim_end().len());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(service: &str, id: u32, state: &str) -> Value {
        json!({"service": service, "worker": id, "state": state, "since": "2026", "reason": "so"})
    }

    fn load(service: &str, waiting: u32, idle: u32) -> Value {
        json!({"service": service, "waiting": waiting, "idle": idle, "busy": 0})
    }

    /// A broker with `echo` and `sum`, both served.
    fn well() -> Answers {
        let open = |name: &str| json!({"service": name, "state": "open", "since": "2026"});
        Answers {
            status: json!({"status": {"unsaved": null, "reject": false, "connections_max": 0}}),
            services: json!({"services": [open("sum"), open("echo"), open("op")]}),
            lazy: json!({"lazy": []}),
            hosts: json!({"hosts": [{"host": "localhost", "state": "up"}]}),
            load: json!({"load": [load("echo", 0, 1), load("sum", 0, 1)]}),
            groups: json!({"groups": []}),
            pages: Vec::new(),
        }
    }

    fn kinds(verdict: &Verdict) -> Vec<&str> {
        verdict.reasons.iter().map(|reason| reason.kind).collect()
    }

    #[test]
    fn a_broker_that_can_do_all_is_ok() {
        let verdict = conclude(&well(), &[]);
        assert_eq!(verdict.json(), r#"{"state":"ok","reasons":[],"left_out":0}"#);
        assert_eq!(verdict.text(), "");
        // A broker without services can do what is asked of it.
        assert_eq!(conclude(&Answers::default(), &[]).state, State::Ok);
        assert!(well().pages_needed(&["op".into()]).is_empty());
        assert_eq!(conclude(&well(), &["op".into()]).state, State::Ok);
    }

    #[test]
    fn a_failed_worker_degrades_and_a_service_without_others_is_not_served() {
        let mut answers = well();
        answers.lazy = json!({"lazy": [worker("echo", 7, "failed")]});
        let verdict = conclude(&answers, &[]);
        assert_eq!((verdict.state, kinds(&verdict)), (State::Degraded, vec!["worker_failed"]));
        assert!(verdict.json().contains(r#""what":"worker 7 of echo","since":"2026","text":"#));
        answers.load = json!({"load": [load("echo", 0, 0), load("sum", 0, 1)]});
        let verdict = conclude(&answers, &[]);
        assert_eq!(kinds(&verdict), ["no_worker", "worker_failed"]);
        assert_eq!(verdict.state, State::Degraded, "sum is served");
        answers.load = json!({"load": [load("echo", 0, 0), load("sum", 0, 0)]});
        assert_eq!(conclude(&answers, &[]).state, State::Down, "nothing is");
    }

    #[test]
    fn what_operators_stopped_is_as_they_want_it() {
        let mut answers = well();
        answers.lazy = json!({"lazy": [worker("echo", 7, "stopped"), worker("sum", 8, "ready")]});
        answers.load = json!({"load": [load("echo", 0, 0), load("sum", 0, 0)]});
        assert_eq!(conclude(&answers, &[]).state, State::Ok);
        // Whoever asks for it needs it all the same.
        assert_eq!(conclude(&answers, &["echo".into()]).state, State::Down);
    }

    #[test]
    fn only_what_is_named_counts() {
        let mut answers = well();
        answers.lazy = json!({"lazy": [worker("sum", 8, "failed")]});
        answers.load = json!({"load": [load("echo", 0, 1), load("sum", 0, 0)]});
        answers.hosts = json!({"hosts": [{"host": "h", "state": "dialing", "reason": "refused"}]});
        assert_eq!(conclude(&answers, &["echo".into()]).state, State::Ok);
        let verdict = conclude(&answers, &["echo".into(), "none".into(), "sum".into()]);
        let told = ["unknown_service", "no_worker", "worker_failed"];
        assert_eq!((verdict.state, kinds(&verdict)), (State::Down, told.to_vec()));
        let verdict = conclude(&answers, &[]);
        assert_eq!(kinds(&verdict), ["host_down", "no_worker", "worker_failed"]);
        assert!(verdict.text().starts_with("host_down: host h is dialing: refused\n"));
    }

    #[test]
    fn a_service_on_demand_may_sleep_but_not_fail() {
        let mut answers = well();
        answers.load = json!({"load": [load("echo", 0, 0)]});
        let settings = json!({"settings": [{"setting": "start", "value": "demand"}]});
        answers.pages = vec![("echo".into(), settings)];
        assert_eq!(answers.pages_needed(&["echo".into(), "none".into()]), ["echo"]);
        assert_eq!(conclude(&answers, &["echo".into()]).state, State::Ok);
        answers.lazy = json!({"lazy": [worker("echo", 7, "failed")]});
        assert_eq!(conclude(&answers, &["echo".into()]).state, State::Down);
    }

    #[test]
    fn a_queue_counts_from_four_fifths_on() {
        let mut answers = well();
        let settings = json!({"settings": [{"setting": "queue_max", "value": 10}]});
        answers.pages = vec![("echo".into(), settings)];
        for (waiting, state) in [(7, State::Ok), (8, State::Degraded), (10, State::Degraded)] {
            answers.load = json!({"load": [load("echo", waiting, 1)]});
            assert_eq!(answers.pages_needed(&[]), ["echo"]);
            assert_eq!(conclude(&answers, &[]).state, state, "{waiting}");
        }
    }

    #[test]
    fn the_broker_itself_and_its_groups_count() {
        let mut answers = well();
        answers.status = json!({"status": {"unsaved": "disk full", "reject": true,
            "connections_max": 10, "clients": 7, "idle_workers": 2, "busy_workers": 0}});
        let group = |state, error| {
            json!({"group": "night", "state": state, "joined": 1, "expected": 2, "error": error,
                   "configured": true})
        };
        answers.groups = json!({"groups": [group("running", 0), group("starting", 0)]});
        let told = ["store", "rejecting", "connections", "group_error"];
        assert_eq!(kinds(&conclude(&answers, &[])), told);
        answers.status["status"]["clients"] = json!(6);
        answers.groups = json!({"groups": [group("running", 1)]});
        assert_eq!(kinds(&conclude(&answers, &[])), ["store", "rejecting", "group_error"]);
    }

    #[test]
    fn an_answer_has_an_end() {
        let mut answers = well();
        let all: Vec<Value> = (0..150).map(|id| worker("echo", id, "failed")).collect();
        answers.lazy = json!({"lazy": all});
        let verdict = conclude(&answers, &[]);
        assert_eq!((verdict.reasons.len(), verdict.left_out), (REASONS_MAX, 50));
        assert!(verdict.text().ends_with("\nand 50 more"));
    }
}
