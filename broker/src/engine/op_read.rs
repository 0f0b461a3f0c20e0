//! Commands that only show: the status page, services, clients, the queue, and the values and
//! columns that all tables use. Workers, hosts and latency are in `op_show`, settings in
//! `op_settings`.

use super::catalog::Service;
use super::dispatch::stage::Stage;
use super::dispatch::transaction::Transaction;
use super::hub::Engine;
use super::keys::{ClientKey, ServiceKey, TransactionKey};
use super::listing::{Rows, WaitingCount};
use super::op_run::{OpResult, not_found, refused};
use super::states::StateValues;
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
        self.dispatch.buckets_mut().turn(self.now);
        let listening = &self.listening;
        let (idle, busy) = self.dispatch.counts();
        let (buckets, totals) = (self.dispatch.buckets(), self.dispatch.totals());
        let recent = self.facts.recent();
        let mut fields = vec![
            ("configfile", text("")),
            ("host", text(&listening.host)),
            ("ServiceList", number(self.catalog.count())),
            ("PriList", number(self.sessions.client_counts().0)),
            ("LazyWorkers", number(self.supervision.worker_count() - idle - busy)),
            ("IdleWorkers", number(idle)),
            ("BusyWorkers", number(busy)),
            ("socket", number(listening.worker_fd)),
            ("port", number(listening.worker_port)),
            ("req_socket", number(listening.client_fd)),
            ("req_port", number(listening.client_port)),
            ("NextClientID", number(self.sessions.client_counts().1)),
            ("MaxUsers", number(self.settings.get(Setting::ConnectionsMax))),
            ("command_worker", text("op")),
            ("Events", number(recent.count())),
            ("NumEvents", number(recent.max())),
            ("NumBuckets", number(buckets.count())),
            ("BucketSecs", number(buckets.secs())),
            ("PeakBucket", number(buckets.peak())),
            ("Buckets", Value::Numbers(buckets.counts())),
            ("EventKinds", self.event_kinds()),
            ("preempt", Value::on_off(self.dispatch.is_preempt())),
            ("reject", Value::on_off(self.sessions.is_rejecting())),
            (
                "Waiting",
                number(self.dispatch.transactions().filter(|(_, t)| t.stage.waits()).count()),
            ),
            ("WaitingBytes", number(self.dispatch.queue_bytes())),
            ("Accepted", number(totals.accepted)),
            ("Completed", number(totals.completed)),
            ("Refused", number(totals.refused)),
            ("Orphaned", number(totals.orphaned)),
            ("Poisoned", number(totals.poisoned)),
            ("pid", number(listening.pid)),
            ("version", text(&listening.version)),
            ("Uptime", Value::Micros(self.now.0)),
        ];
        fields.push(("unsaved", self.unsaved.as_ref().map_or(Value::Unsaid, text)));
        OpReply::block(Block::Record { name: "status", prefix: "isdData.", width: 24, fields })
    }

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
        let row = |(key, s): (ServiceKey, &Service)| {
            let StateValues { state, since, reason, .. } =
                self.state_values(self.service_state(key), String::new());
            vec![text(&s.name), number(s.id.0), state, blank(since), blank(reason)]
        };
        let mut rows: Vec<_> = self.catalog.by_id().into_iter().map(row).collect();
        rows.reverse();
        table("services", columns, rows)
    }

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

    pub(crate) fn client_row(&self, key: ClientKey) -> Vec<Value> {
        let StateValues { state, since, reason, .. } =
            self.state_values(self.client_state(key), String::new());
        let (c, caller) = (self.sessions.client(key), self.dispatch.caller(key));
        vec![
            text(&self.catalog[caller.service].name),
            number(c.id.0),
            number(caller.priority),
            yes(caller.is_blocked),
            text(&c.loghost),
            Value::maybe(c.hostpid),
            number(caller.in_flight.len()),
            number(caller.requests),
            number(caller.answered),
            number(caller.failed),
            self.ago(c.since),
            number(self.sessions.peer(key).fd),
            state,
            blank(since),
            blank(reason),
        ]
    }

    pub(crate) fn show_client(&self, id: ClientId) -> OpResult {
        let key = self.client_named(id)?;
        let (c, caller) = (self.sessions.client(key), self.dispatch.caller(key));
        let state = self.client_state(key);
        let words = state.words(self.now);
        let state = self.state_values(state, words);
        let workers: Vec<u64> =
            caller.in_flight.keys().filter_map(|t| self.holder(t)).map(u64::from).collect();
        let fields = vec![
            ("id", number(c.id.0)),
            ("service_id", number(self.catalog[caller.service].id.0)),
            ("service", text(&self.catalog[caller.service].name)),
            ("priority", number(caller.priority)),
            ("hostpid", Value::maybe(c.hostpid)),
            ("loghost", text(&c.loghost)),
            ("name", c.name.as_ref().map_or(Value::None, text)),
            ("address", text(&self.sessions.peer(key).address)),
            ("uid", self.sessions.peer(key).uid.map_or(Value::None, number)),
            ("blocked", flag(caller.is_blocked)),
            ("UnderWay", number(caller.in_flight.len())),
            ("Workers", Value::Numbers(workers)),
            ("Requests", number(caller.requests)),
            ("Answered", number(caller.answered)),
            ("Failed", number(caller.failed)),
            ("connected", self.clock(c.since)),
            ("fd", number(self.sessions.peer(key).fd)),
            ("state", state.state),
            ("since", state.since),
            ("reason", state.reason),
        ];
        Ok(OpReply::block(Block::Record { name: "client", prefix: "client->", width: 0, fields }))
    }

    /// The id of the worker that has or holds a transaction.
    fn holder(&self, transaction: TransactionKey) -> Option<u32> {
        let worker = self.dispatch.transaction(transaction)?.stage.worker()?;
        Some(self.dispatch.seat(worker).id.0)
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

    pub(crate) fn queue_row(&self, at: TransactionKey, t: &Transaction) -> Vec<Value> {
        let place = match t.stage {
            Stage::Waiting => "queue",
            Stage::Blocked => "blocked",
            Stage::Held(_) | Stage::HeldEnded(_) => "held",
            Stage::Bound(_) | Stage::Ended(_) | Stage::Gone => "worker",
        };
        vec![
            text(&self.catalog[t.service].name),
            number(t.id.0),
            t.client.map_or(Value::None, |client| number(self.sessions.client(client).id.0)),
            number(t.priority),
            Value::Word(place),
            self.holder(at).map_or(Value::None, number),
            Value::Micros(self.now.since(t.arrived).0),
            Value::Micros(t.deadline.since(self.now).0),
            number(t.attempt),
            number(t.kept),
        ]
    }

    /// Why a request of a service waits, in words.
    pub(crate) fn why_waiting(&self, service: ServiceKey, stage: Stage) -> String {
        let entry = &self.catalog[service];
        let mine = || self.supervision.workers().filter(move |(_, w)| w.service == service);
        let all = self.supervision.count_of(service);
        let failed = mine().filter(|(_, w)| w.failed.is_some()).count();
        let first = || mine().map(|(_, w)| w.id).next().unwrap_or_default();
        let busy = self.dispatch.queue(service).busy;
        if stage == Stage::Blocked {
            "its client is blocked ('unblock' lets it go on)".into()
        } else if entry.is_paused {
            format!("the service is paused ('ready {}' lets it go on)", entry.name)
        } else if all == 0 {
            format!("no worker is configured ('config worker {} HOST PATH')", entry.name)
        } else if failed == all {
            format!("{} failed ('worker {}' says why)", all_are(failed), first())
        } else if busy == all {
            format!("{} busy", all_are(busy))
        } else if busy > 0 {
            format!("{busy} of {all} workers are busy, the others are not ready")
        } else {
            let first = mine().map(|(key, w)| (w.id, self.worker_state(key))).next();
            let state = first.map_or_else(String::new, |(id, state)| {
                format!(": worker {id} is {}", state.sentence(self.now))
            });
            format!("{} not ready ('workers lazy' says why){state}", all_are(all))
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
        self.catalog
            .find(name.as_str())
            .ok_or_else(|| not_found(self.catalog.unknown(name.as_str())))
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
        self.sessions
            .find_client(id)
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
