//! The simulated operator: sends commands of every kind at any moment, and the simulation's own
//! questions at the end. Each command must get exactly one answer.

use super::daemons::DAEMON;
use super::plan::Behaviour;
use super::world::{Event, World};
use crate::shell::Player;
use broker::engine::input::Input;
use bytes::Bytes;
use protocol::bodies::ErrorBody;
use protocol::header::Header;
use protocol::op::reply::{Block, OpReply, Value};

/// What shows what happened; they take turns.
const WHAT_HAPPENED: &[&str] = &[
    "listevents",
    "deaths 5",
    "listevents 9 kind=worker_died since=1m",
    "death 1",
    "deaths clear",
];

/// Commands that are counted, by how they begin.
const SAID: &[&str] = &["drain host", "halt keep", "scale", "undrain host"];

impl World {
    /// An operator says something, and will again.
    pub fn operator_acts(&mut self) {
        if self.is_quiescent || self.plan.operator_ms == 0 {
            return;
        }
        let wait = self.rng.between(1, self.plan.operator_ms * 1000);
        self.later(wait, Event::Operator);
        if self.rng.hits(30) {
            self.note(format_args!("operator leaves"));
            self.close_operator();
        }
        if self.plan.bus.is_on() && self.rng.hits(100) {
            self.check_listings(false);
        }
        let command = self.some_command();
        self.note(format_args!("operator: {command}"));
        match self.operate(&command) {
            Some(Err(error)) => self.note(format_args!("operator is told: {error}")),
            // A broker that has ended says nothing more.
            Some(Ok(_)) | None => {
                let said = SAID.iter().find(|said| command.starts_with(*said));
                said.into_iter().for_each(|said| self.model.count(said));
            }
        }
    }

    /// Says a command to the broker, if there is one, and takes the answer.
    pub fn operate(&mut self, command: &str) -> Option<Result<OpReply, ErrorBody>> {
        let link = self.operator_link()?;
        self.next_sequence += 1;
        let sequence = self.next_sequence;
        let body = Bytes::copy_from_slice(command.as_bytes());
        let head = Header { sequence, reply: 1, len: body.len() as u32, ..Header::default() };
        let epoch = self.epoch;
        let broker = self.broker.as_mut()?;
        broker.asked.insert(sequence);
        let was_working = broker.shell.engine.is_working();
        self.feed(Input::Request { link, head, body });
        let broker = self.broker.as_mut()?;
        // It waits for what is done in parts: at a shutdown there is much of that.
        let is_held = was_working || broker.shell.engine.is_working();
        let answers: Vec<_> = broker.answers.drain(..).collect();
        if epoch != self.epoch || broker.operator != Some(link) || self.broken.is_some() {
            return None;
        }
        // The first four wait for others; the lists do if there is much to list.
        let lists = [
            "queue",
            "clients",
            "workers",
            "requests",
            "topics",
            "subscriptions",
            "instances",
            "listevents",
        ];
        let comes_later = ["send", "source", "reload", "restart"]
            .iter()
            .chain(&lists)
            .any(|word| command.starts_with(word));
        let count = answers.iter().filter(|(of, _)| *of == sequence).count();
        if count != 1 && !(count == 0 && (comes_later || is_held)) {
            self.hold(Err(format!("'{command}' has {count} answers: {answers:?}")));
        }
        answers.into_iter().find(|(of, _)| *of == sequence).map(|(_, answer)| answer)
    }

    fn some_command(&mut self) -> String {
        let worker = self.rng.between(1, 12);
        // Ids count up with the logins; most of the last ones are attached.
        let latest = self.broker.as_ref().map_or(0, |broker| broker.client_port_conns);
        let client = latest.saturating_sub(self.rng.below(12));
        // Nobody ends the one that sees all messages, who logs in first.
        let client = if self.plan.bus.is_on() { client.max(2) } else { client };
        let service = self.rng.index(self.plan.services.len());
        let name = self.plan.services[service].name;
        let target = match self.rng.below(4) {
            0 => "all".to_owned(),
            1 => name.to_owned(),
            _ => worker.to_string(),
        };
        let host = self.rng.index(self.hosts.len());
        let host = self.hosts[host].name.clone();
        let number = self.rng.below(300);
        match self.rng.below(42) {
            0 if number < 60 => format!("pause host {host}"),
            0 => format!("pause {target}"),
            1 if number < 100 => format!("ready host {host}"),
            1..=5 => format!("ready {target}"),
            6 if number < 60 => format!("stop host {host}"),
            6 => format!("stop {target}"),
            7 => format!("stop {worker}"),
            // What is drawn already decides among these, so that a seed draws what it always drew.
            8..=14 if number.is_multiple_of(5) => format!("restart {target}"),
            8..=14 if number % 25 == 1 => format!("restart {target} min {}", number % 4),
            8 if number < 100 => format!("start host {host}"),
            8..=14 => format!("start {target}"),
            15 if number < 80 => format!("clone {worker} {}", number % 3 + 1),
            15 if number < 220 => format!("scale {name} {}", number % 5 + 1),
            15 => format!("clone {worker}"),
            16 => format!("delete worker {worker}"),
            17 | 18 => format!("idle {worker}"),
            19 => format!("cancel {}", self.some_transaction(number)),
            20 => format!("block {client}"),
            21 | 22 => format!("unblock {client}"),
            23 => format!("pri {client} {}", number.clamp(1, 255)),
            24 => format!("service {client} {name}"),
            25 => format!("preempt {}", if number < 150 { "on" } else { "off" }),
            // It is kept over a restart, and the one that sees all messages would be kept out.
            26 if self.plan.bus.is_on() => "reject off".to_owned(),
            26 => format!("reject {}", if number < 50 { "on" } else { "off" }),
            27 => "reset".to_owned(),
            28 => format!("send {target} status"),
            29 => format!("send {target} reinit"),
            30 => format!("delete client {client}"),
            31 => {
                format!("shutdown {}", if number < 30 { "all".into() } else { worker.to_string() })
            }
            32 if number >= 200 && self.plan.has_demand() => {
                let start = if number < 250 { "always" } else { "demand" };
                format!("config service {name} start={start} idle_stop_ms={}", number % 20 * 50)
            }
            32 => format!("config service {name} prefetch={}", number % 5),
            33 if number < 60 => format!("config service {name} recycle_requests={}", number % 30),
            33 if number < 100 => {
                format!("config service {name} recycle_age_ms={}", number % 4 * 5000)
            }
            33 if number < 130 => format!("config service {name} stable_ms={}", number * 10),
            33 => format!("config service {name} queue_max={number}"),
            34 => format!("config service {name} kill_after_ms={}", number * 10),
            35 => {
                let behaviour = self.rng.pick(&Behaviour::ALL);
                format!("config worker {name} {host} {}", behaviour.path())
            }
            36 => format!("delete service {name}"),
            37 => self.service_command(service),
            38 if host.as_str() != "localhost" => {
                format!("config host {host} 10.0.0.9:{}", number + 1)
            }
            39 if host.as_str() != "localhost" => {
                let there = self.hosts.iter().find(|known| known.name == host);
                format!("config host {host} {}", there.map_or("", |known| known.address.as_str()))
            }
            40 if number < 20 => "halt".to_owned(),
            40 if number < 40 => "abort".to_owned(),
            // A question is drawn all the same, so that a seed draws what it always drew.
            kind => {
                let question = self.some_question(worker, client, name);
                match (kind, number) {
                    (40, 40..60) => "halt keep".to_owned(),
                    (41, 0..60) => format!("drain host {host}"),
                    (41, 60..150) => format!("undrain host {host}"),
                    _ => question,
                }
            }
        }
    }

    /// The number of one of the last requests; after a `reset`, that of an earlier one.
    fn some_transaction(&self, drawn: u64) -> u64 {
        let accepted = self.broker.as_ref().map_or(0, |b| b.shell.engine.totals().accepted);
        accepted.saturating_sub(drawn % 10).max(1)
    }

    fn some_question(&mut self, worker: u64, client: u64, name: &str) -> String {
        // `requests` is asked by what is drawn already, so that a seed draws what it always drew.
        let is_requests = worker.is_multiple_of(2);
        match self.rng.below(14) {
            0 => "workers".into(),
            1 => "services".into(),
            2 if is_requests => "requests".into(),
            2 => "clients".into(),
            3 if is_requests => format!("requests client {client}"),
            3 => format!("client {client}"),
            4 if is_requests => format!("requests worker {worker}"),
            4 => format!("worker {worker}"),
            5 if is_requests => format!("why {}", self.some_transaction(worker)),
            5 => format!("last {worker}"),
            6 if is_requests => format!("requests {name}"),
            6 => format!("queue {name}"),
            7 => format!("latency {name}"),
            8 if is_requests => "why".into(),
            8 => "poison".into(),
            9 => WHAT_HAPPENED[self.next_sequence as usize % WHAT_HAPPENED.len()].into(),
            10 => "hosts".into(),
            11 => "save".into(),
            12 => "source /nowhere".into(),
            _ => String::new(),
        }
    }

    /// What the page of a worker says: its list, its process state, its pid, why it is failed.
    pub fn worker_page(&mut self, id: u64) -> Option<WorkerPage> {
        let reply = self.operate(&format!("worker {id}"))?.ok()?;
        let Some(Block::Record { fields, .. }) = reply.blocks.first() else { return None };
        let text = |wanted: &str| {
            fields.iter().find(|(key, _)| *key == wanted).map_or(String::new(), |(_, value)| {
                match value {
                    Value::Text(text) => text.clone(),
                    Value::Number(number) => number.to_string(),
                    Value::Word(word) => (*word).to_owned(),
                    Value::As { shown, .. } => shown.trim_matches('"').to_owned(),
                    _ => String::new(),
                }
            })
        };
        Some(WorkerPage {
            id,
            name: text("name"),
            queue: text("node.queue"),
            state: text("state"),
            pid: text("hostpid"),
            failed: text("failed"),
        })
    }

    /// The pages of all workers.
    pub fn worker_pages(&mut self) -> Vec<WorkerPage> {
        let Some(Ok(reply)) = self.operate("workers all") else { return Vec::new() };
        let ids: Vec<u64> = reply.blocks.iter().flat_map(ids).collect();
        ids.into_iter().filter_map(|id| self.worker_page(id)).collect()
    }
}

/// The ids in a table of workers.
fn ids(block: &Block) -> Vec<u64> {
    let Block::Table { columns, rows, .. } = block else { return Vec::new() };
    let Some(at) = columns.iter().position(|column| column.key == "worker") else {
        return Vec::new();
    };
    let number = |row: &Vec<Value>| match row.get(at) {
        Some(Value::Number(id)) => u64::try_from(*id).ok(),
        _ => None,
    };
    rows.iter().filter_map(number).collect()
}

/// What the operator sees of a worker.
#[derive(Clone, Debug)]
pub struct WorkerPage {
    /// Id of the worker.
    pub id: u64,
    /// Its service.
    pub name: String,
    /// LAZY, IDLE or BUSY.
    pub queue: String,
    /// Process state, as the page prints it.
    pub state: String,
    /// Process id, as the page prints it.
    pub pid: String,
    /// Why it is failed.
    pub failed: String,
}

impl WorkerPage {
    /// Whether it stands ready for work, or would be if it were asked for.
    pub fn is_well(&self) -> bool {
        match self.state.as_str() {
            "up" => self.name == DAEMON,
            "down, on demand" => true,
            state => self.queue == "IDLE" && matches!(state, "ready" | "ready, self-started"),
        }
    }
}
