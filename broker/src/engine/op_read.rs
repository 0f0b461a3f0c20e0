//! Commands that only show: the status page, services, clients, the queue, and the values and
//! columns that all tables use. Workers, hosts and latency are in `op_show`, settings in
//! `op_settings`.

use super::Engine;
use super::clients::Client;
use super::keys::{ClientKey, ServiceKey, TransactionKey};
use super::listing::{Rows, WaitingCount};
use super::op_run::{OpResult, not_found, refused};
use super::states::StateValues;
use super::transaction::Stage;
use super::workers::WorkerList;
use protocol::ids::ClientId;
use protocol::names::ServiceName;
use protocol::op::reply::{Align, Block, Column, OpReply, Value, span};
use protocol::settings::Setting;
use protocol::time::Tick;

/// A right-aligned column: its title in text, its key in JSON, its width.
pub(crate) const fn column(title: &'static str, key: &'static str, width: usize) -> Column {
    Column { title, key, width, align: Align::Right }
}

/// A left-aligned column.
pub(crate) const fn left(title: &'static str, key: &'static str, width: usize) -> Column {
    Column { title, key, width, align: Align::Left }
}

/// A column that only JSON has; its values are blank in text.
pub(crate) const fn unseen(key: &'static str) -> Column {
    Column { title: "", key, width: 0, align: Align::Left }
}

/// A number as a value.
pub(crate) fn number(count: impl TryInto<i128>) -> Value {
    count.try_into().map_or(Value::None, Value::Number)
}

/// A name or text as a value.
pub(crate) fn text(name: impl ToString) -> Value {
    Value::Text(name.to_string())
}

/// A switch as the manual's pages show it, `0` or `1`.
pub(crate) fn flag(is_set: bool) -> Value {
    Value::bit(is_set)
}

/// A switch as tables show it, `yes` or `no`.
pub(crate) const fn yes(is_so: bool) -> Value {
    Value::Flag(is_so)
}

/// An answer that is one table without a heading.
pub(crate) fn table(name: &'static str, columns: Vec<Column>, rows: Vec<Vec<Value>>) -> OpReply {
    OpReply::block(Block::Table { name, title: String::new(), columns, rows })
}

impl Engine {
    /// A tick: in a table as the time since then, in JSON as the time of day.
    pub(crate) fn ago(&self, at: Tick) -> Value {
        Value::shown(span(self.now.since(at).0), self.clock(at))
    }

    /// An empty command: the manual's status page, followed by fields that the manual does not
    /// have.
    pub(crate) fn show_status(&mut self) -> OpReply {
        self.buckets.turn(self.now);
        let listening = &self.listening;
        let mut fields = vec![
            ("configfile", text("")),
            ("host", text(&listening.host)),
            ("ServiceList", number(self.registry.count())),
            ("PriList", number(self.clients.count())),
            ("LazyWorkers", number(self.workers.count(WorkerList::Lazy))),
            ("IdleWorkers", number(self.workers.count(WorkerList::Idle))),
            ("BusyWorkers", number(self.workers.count(WorkerList::Busy))),
            ("socket", number(listening.worker_fd)),
            ("port", number(listening.worker_port)),
            ("req_socket", number(listening.client_fd)),
            ("req_port", number(listening.client_port)),
            ("NextClientID", number(self.clients.next_id)),
            ("MaxUsers", number(self.settings.get(Setting::ConnectionsMax))),
            ("command_worker", text("op")),
            ("Events", number(self.recent.count())),
            ("NumEvents", number(self.recent.max())),
            ("NumBuckets", number(self.buckets.count())),
            ("BucketSecs", number(self.buckets.secs())),
            ("PeakBucket", number(self.buckets.peak())),
            ("Buckets", Value::Numbers(self.buckets.counts())),
            ("EventKinds", self.event_kinds()),
            ("preempt", Value::on_off(self.is_strict_priority)),
            ("reject", Value::on_off(self.is_rejecting)),
            (
                "Waiting",
                number(
                    self.transactions
                        .iter()
                        .filter(|(_, t)| matches!(t.stage, Stage::Waiting | Stage::Blocked))
                        .count(),
                ),
            ),
            ("WaitingBytes", number(self.queue_bytes)),
            ("Accepted", number(self.totals.accepted)),
            ("Completed", number(self.totals.completed)),
            ("Refused", number(self.totals.refused)),
            ("Orphaned", number(self.totals.orphaned)),
            ("Poisoned", number(self.totals.poisoned)),
            ("pid", number(listening.pid)),
            ("version", text(&listening.version)),
            ("Uptime", Value::Micros(self.now.0)),
        ];
        fields.push(("unsaved", self.unsaved.as_ref().map_or(Value::Unsaid, text)));
        OpReply::block(Block::Record { name: "status", prefix: "isdData.", width: 24, fields })
    }

    /// `version`: version of isectd and of the protocol.
    pub(crate) fn show_version(&self) -> OpReply {
        let version = &self.listening.version;
        let fields =
            vec![("version", text(version)), ("protocol", number(protocol::limits::VERSION))];
        OpReply::line(
            "version",
            format!("isectd {version}, protocol {}", protocol::limits::VERSION),
            fields,
        )
    }

    /// `services`: the manual's table, newest first, with the names of columns that the manual
    /// prints.
    pub(crate) fn show_services(&self) -> OpReply {
        let columns = vec![
            column("service", "service", 32),
            column("id", "service_id", 12),
            unseen("state"),
            unseen("since"),
            unseen("reason"),
        ];
        let row = |(key, s): (ServiceKey, &super::registry::Service)| {
            let StateValues { state, since, reason, .. } =
                self.state_values(self.service_state(key), String::new());
            vec![text(&s.name), number(s.id.0), state, blank(since), blank(reason)]
        };
        let mut rows: Vec<_> = self.registry.by_id().into_iter().map(row).collect();
        rows.reverse();
        table("services", columns, rows)
    }

    /// `clients`: the table made of the rows of a listing.
    pub(crate) fn clients_table(rows: Rows) -> OpReply {
        let columns = vec![
            column("service", "service", 12),
            column("client id", "client", 10),
            column("pri", "priority", 4),
            column("blocked?", "blocked", 9),
            column("hostname", "host", 12),
            column("host pid", "pid", 9),
            column("under way", "under_way", 10),
            column("requests", "requests", 9),
            column("answered", "answered", 9),
            column("failed", "failed", 7),
            column("connected", "connected", 12),
            column("fd", "fd", 4),
            unseen("state"),
            unseen("since"),
            unseen("reason"),
        ];
        table("clients", columns, rows)
    }

    /// The row of one client.
    pub(crate) fn client_row(&self, c: &Client) -> Vec<Value> {
        let StateValues { state, since, reason, .. } =
            self.state_values(self.client_state(c), String::new());
        vec![
            text(&self.registry[c.service].name),
            number(c.id.0),
            number(c.priority),
            yes(c.is_blocked),
            text(&c.loghost),
            Value::maybe(c.hostpid),
            number(c.in_flight.len()),
            number(c.requests),
            number(c.answered),
            number(c.failed),
            self.ago(c.since),
            number(c.peer.fd),
            state,
            blank(since),
            blank(reason),
        ]
    }

    /// `client ID`: the manual's page of one client.
    pub(crate) fn show_client(&self, id: ClientId) -> OpResult {
        let key = self.client_named(id)?;
        let c = &self.clients[key];
        let state = self.client_state(c);
        let words = state.words(self.now);
        let state = self.state_values(state, words);
        let workers: Vec<u64> =
            c.in_flight.keys().filter_map(|t| self.holder(t)).map(u64::from).collect();
        let fields = vec![
            ("id", number(c.id.0)),
            ("service_id", number(self.registry[c.service].id.0)),
            ("service", text(&self.registry[c.service].name)),
            ("priority", number(c.priority)),
            ("hostpid", Value::maybe(c.hostpid)),
            ("loghost", text(&c.loghost)),
            ("name", c.name.as_ref().map_or(Value::None, text)),
            ("address", text(&c.peer.address)),
            ("uid", c.peer.uid.map_or(Value::None, number)),
            ("blocked", flag(c.is_blocked)),
            ("UnderWay", number(c.in_flight.len())),
            ("Workers", Value::Numbers(workers)),
            ("Requests", number(c.requests)),
            ("Answered", number(c.answered)),
            ("Failed", number(c.failed)),
            ("connected", self.clock(c.since)),
            ("fd", number(c.peer.fd)),
            ("state", state.state),
            ("since", state.since),
            ("reason", state.reason),
        ];
        Ok(OpReply::block(Block::Record { name: "client", prefix: "client->", width: 0, fields }))
    }

    /// The id of the worker that has or holds a transaction.
    fn holder(&self, transaction: TransactionKey) -> Option<u32> {
        match self.transactions[transaction].stage {
            Stage::Bound(worker) | Stage::Held(worker) => Some(self.workers[worker].id.0),
            Stage::Waiting | Stage::Blocked => None,
        }
    }

    /// `queue`: the table of waiting requests, and a line for each service that says why they wait.
    pub(crate) fn queue_tables(rows: Rows, services: Vec<WaitingCount>) -> OpReply {
        let columns = vec![
            column("service", "service", 12),
            column("transaction", "transaction", 12),
            column("client id", "client", 10),
            column("pri", "priority", 4),
            column("where", "where", 10),
            column("worker", "worker", 7),
            column("waited", "waited_us", 12),
            column("left", "left_us", 12),
            column("attempt", "attempt", 8),
            column("bytes", "bytes", 9),
        ];
        let mut blocks = vec![Block::Table { name: "queue", title: String::new(), columns, rows }];
        blocks.extend(services.into_iter().map(|WaitingCount { name, count, why, .. }| {
            let line = format!("{name}: {count} wait; {why}");
            let fields =
                vec![("service", text(&name)), ("waiting", number(count)), ("why", text(why))];
            Block::Line { name: "why", text: line, fields }
        }));
        OpReply { blocks }
    }

    /// The row of one waiting request.
    pub(crate) fn queue_row(&self, at: TransactionKey) -> Vec<Value> {
        let t = &self.transactions[at];
        let held_by = match t.stage {
            Stage::Waiting => "queue",
            Stage::Blocked => "blocked",
            Stage::Held(_) => "held",
            Stage::Bound(_) => "worker",
        };
        vec![
            text(&self.registry[t.service].name),
            number(t.id.0),
            t.client.map_or(Value::None, |client| number(self.clients[client].id.0)),
            number(t.priority),
            Value::Word(held_by),
            self.holder(at).map_or(Value::None, number),
            Value::Micros(self.now.since(t.arrived).0),
            Value::Micros(t.deadline.since(self.now).0),
            number(t.attempt),
            number(t.kept_bytes),
        ]
    }

    /// Why a request of a service waits, in words.
    pub(crate) fn why_waiting(&self, service: ServiceKey, stage: Stage) -> String {
        let entry = &self.registry[service];
        let mine = || self.workers.by_id().filter(move |(_, w)| w.service == service);
        let failed = mine().filter(|(_, w)| w.failed.is_some()).count();
        let first = || mine().map(|(_, w)| w.id).next().unwrap_or_default();
        let busy = mine().filter(|(_, w)| w.list == WorkerList::Busy).count();
        if stage == Stage::Blocked {
            "its client is blocked ('unblock' lets it go on)".into()
        } else if entry.is_paused {
            format!("the service is paused ('ready {}' lets it go on)", entry.name)
        } else if entry.workers == 0 {
            format!("no worker is configured ('config worker {} HOST PATH')", entry.name)
        } else if failed == entry.workers {
            format!("{} failed ('worker {}' says why)", all_are(failed), first())
        } else if busy == entry.workers {
            format!("{} busy", all_are(busy))
        } else if busy > 0 {
            format!("{busy} of {} workers are busy, the others are not ready", entry.workers)
        } else {
            let first = mine().map(|(key, w)| (w.id, self.worker_state(key))).next();
            let state = first.map_or_else(String::new, |(id, state)| {
                format!(": worker {id} is {}", state.sentence(self.now))
            });
            format!("{} not ready ('workers lazy' says why){state}", all_are(entry.workers))
        }
    }

    /// The service with this name.
    ///
    /// # Errors
    /// There is none; the error suggests a similar name.
    pub(crate) fn service_named(
        &self,
        name: &ServiceName,
    ) -> Result<ServiceKey, protocol::op::parse::OpError> {
        self.registry
            .find(name.as_str())
            .ok_or_else(|| not_found(self.unknown_service(name.as_str())))
    }

    /// The service with this name, if it is not `op`.
    ///
    /// # Errors
    /// There is none, or it is `op`, whose requests the broker handles itself.
    pub(crate) fn plain_service(
        &self,
        name: &ServiceName,
    ) -> Result<ServiceKey, protocol::op::parse::OpError> {
        if name.is_op() {
            return Err(refused(
                "service 'op' is the broker's own; it has no workers and no settings",
            ));
        }
        self.service_named(name)
    }

    /// The client with this id.
    ///
    /// # Errors
    /// It is not attached.
    pub(crate) fn client_named(
        &self,
        id: ClientId,
    ) -> Result<ClientKey, protocol::op::parse::OpError> {
        self.clients
            .find(id)
            .ok_or_else(|| not_found(format!("client {id} is not attached; 'clients' lists them")))
    }
}

/// A value that text leaves blank and JSON has.
pub(crate) fn blank(value: Value) -> Value {
    Value::shown("", value)
}

/// `its only worker is`, `all 3 workers are`.
fn all_are(count: usize) -> String {
    if count == 1 { "its only worker is".into() } else { format!("all {count} workers are") }
}

/// `1 worker`, `2 workers`.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}
