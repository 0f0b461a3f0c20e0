//! The operator's verbs: what they change, and the answers that the manual prints for them. Each
//! change leaves a fact that names who asked. `config` makes and deletes services, workers and
//! hosts.

use super::lines::unless;
use super::settings::setting_value;
use super::targets::{for_each, target_word, targets};
use super::{config, names, states};
use crate::engine::action::{Action, BrokerExit};
use crate::engine::context::context;
use crate::engine::counted::counted;
use crate::engine::dispatch::buckets::{self, Buckets};
use crate::engine::dispatch::seat::WorkerList;
use crate::engine::fact::{About, FactKind};
use crate::engine::hub::Engine;
use crate::engine::operator::cells::{number, text};
use crate::engine::operator::result::{OpResult, not_found, refused};
use crate::engine::operator_act::OperatorAct;
use crate::engine::origin::Origin;
use crate::engine::sessions::connection::End;
use crate::engine::supervision::process_state::ProcessState;
use crate::engine::work::{Work, WorkerVerb};
use crate::engine::{heartbeat, outlook, shutdown};
use protocol::op::spec::ShutdownWhat;
use protocol::{
    Block, ClientId, Frame, OpReply, ServiceName, Setting, Target, TransactionId, Value, WorkerId,
};

pub(crate) fn idle(
    hub: &mut Engine,
    origin: &Origin,
    id: WorkerId,
    only: Option<TransactionId>,
) -> OpResult {
    let key = names::worker_named(hub, id)?;
    let is_parked = |only: TransactionId| {
        let mut keys = hub.dispatch.seat(key).parked();
        keys.any(|at| hub.dispatch.transaction(at).is_some_and(|t| t.id == only))
    };
    if let Some(only) = only.filter(|&only| is_parked(only)) {
        return Err(refused(format!(
            "transaction {only} is a conversation without a deadline, which keeps worker {id} from \
             nothing; 'cancel {only}' ends it"
        )));
    }
    if hub.dispatch.seat(key).list != WorkerList::Busy {
        return Err(refused(format!(
            "worker {id} is not busy; idle is for busy workers ('workers busy')"
        )));
    }
    let is_its = |only: TransactionId| {
        let mut keys = hub.dispatch.seat(key).works_on();
        keys.any(|at| hub.dispatch.transaction(at).is_some_and(|t| t.id == only))
    };
    if let Some(only) = only.filter(|&only| !is_its(only)) {
        return Err(not_found(format!(
            "worker {id} does not work on transaction {only} ('requests worker {id}' lists what it \
             has)"
        )));
    }
    let about = About {
        who: Some(origin.who()),
        transaction: only,
        ..hub.supervision.about_worker(key, &hub.catalog)
    };
    hub.record(FactKind::Intervention, about, format!("worker {id} was idled while it was busy"));
    hub.dispatch.intervene(key, only, context!(hub));
    let (of, transaction) = match only {
        Some(only) => (format!(" of transaction {only}"), number(only.0)),
        None => (String::new(), Value::None),
    };
    let fields = vec![("worker", number(id.0)), ("transaction", transaction)];
    Ok(OpReply::line("idled", format!("idled worker {id}{of}"), fields))
}

pub(crate) fn change_blocked(
    hub: &mut Engine,
    origin: &Origin,
    id: ClientId,
    blocked: bool,
) -> OpResult {
    let key = names::client_named(hub, id)?;
    let verb = if blocked { "blocked" } else { "unblocked" };
    hub.noted(origin, format!("{verb} client {id}"));
    let act = blocked.then(|| states::said(hub, origin, "'block'"));
    hub.sessions.set_block_act(key, act);
    hub.dispatch.set_blocked(key, blocked, context!(hub));
    Ok(client_line(verb, id))
}

pub(crate) fn delete_client_command(hub: &mut Engine, origin: &Origin, id: ClientId) -> OpResult {
    let key = names::client_named(hub, id)?;
    hub.noted(origin, format!("delete client {id}"));
    hub.delete_client(key);
    Ok(OpReply::line("deleted", format!("client {id} deleted"), vec![("client", number(id.0))]))
}

pub(crate) fn pri(hub: &mut Engine, origin: &Origin, id: ClientId, priority: u8) -> OpResult {
    let key = names::client_named(hub, id)?;
    hub.noted(origin, format!("pri {id} {priority}"));
    hub.dispatch.set_priority(key, priority, context!(hub));
    let fields = vec![("client", number(id.0)), ("priority", number(priority))];
    Ok(OpReply::line("pri", format!("client->id = {id}, client->priority = {priority}"), fields))
}

pub(crate) fn change_service(
    hub: &mut Engine,
    origin: &Origin,
    id: ClientId,
    name: &ServiceName,
) -> OpResult {
    let key = names::client_named(hub, id)?;
    let service = names::plain_service(hub, name)?;
    if hub.dispatch.caller(key).service == hub.catalog.op() {
        return Err(refused(format!(
            "client {id} is an operator; operators can't be moved, only deleted ('delete client {id}')"
        )));
    }
    hub.noted(origin, format!("service {id} {name}"));
    hub.dispatch.move_client(key, service, context!(hub));
    outlook::fail_waiting(hub, service);
    let fields = vec![("client", number(id.0)), ("service", text(name))];
    Ok(OpReply::line("moved", format!("client->id = {id}, client->service = {name}"), fields))
}

pub(crate) fn change_buckets(
    hub: &mut Engine,
    origin: &Origin,
    size: Option<(u32, u32)>,
) -> OpReply {
    if let Some((count, secs)) = size {
        let (count, secs) = (count.clamp(1, buckets::COUNT_MAX), secs.clamp(1, buckets::SECS_MAX));
        let command = format!("buckets {count} {secs}");
        let before = hub.dispatch.buckets();
        let is_same = (before.count(), before.secs()) == (count, secs);
        *hub.dispatch.buckets_mut() = Buckets::new(count, secs, hub.now);
        hub.changed(origin, command.clone(), unless(is_same, command));
    }
    hub.dispatch.buckets_mut().turn(hub.now);
    let buckets = hub.dispatch.buckets();
    let fields = vec![
        ("NumBuckets", number(buckets.count())),
        ("BucketSecs", number(buckets.secs())),
        ("PeakBucket", number(buckets.peak())),
        ("Buckets", Value::Numbers(buckets.counts())),
    ];
    OpReply::block(Block::Record { name: "buckets", prefix: "isdData.", width: 24, fields })
}

pub(crate) fn preempt(hub: &mut Engine, origin: &Origin, on: Option<bool>) -> OpReply {
    if let Some(on) = on {
        let command = format!("preempt {}", switch(on));
        let is_same = hub.dispatch.is_strict_priority() == on;
        hub.dispatch.set_strict_priority(on);
        hub.changed(origin, command.clone(), unless(is_same, command));
    }
    let is_strict_priority = hub.dispatch.is_strict_priority();
    let word = switch(is_strict_priority);
    let fields = vec![("preempt", Value::Flag(is_strict_priority))];
    OpReply::line("preempt", format!("preempt is {word}"), fields)
}

pub(crate) fn reject(hub: &mut Engine, origin: &Origin, on: bool) -> OpReply {
    let command = format!("reject {}", switch(on));
    let is_same = hub.sessions.is_rejecting() == on;
    hub.sessions.reject(on);
    hub.changed(origin, command.clone(), unless(is_same, command));
    let text = if on { "rejecting new client logins" } else { "accepting new client logins" };
    OpReply::line("reject", text, vec![("reject", Value::Flag(on))])
}

pub(crate) fn reset(hub: &mut Engine, origin: &Origin) -> OpReply {
    let services = hub.catalog.keys().into();
    hub.works.begin(Work::Reset { services }, &mut hub.effects);
    hub.dispatch.reset();
    hub.supervision.reset();
    hub.noted(origin, "reset".into());
    OpReply::ok()
}

pub(crate) fn change_setting(
    hub: &mut Engine,
    origin: &Origin,
    setting: Setting,
    value: u64,
) -> OpResult {
    let row = setting.row();
    if !row.live {
        return Err(refused(format!(
            "{} can't change while the broker runs; start it with --set {0}={}",
            row.name,
            row.written(value)
        )));
    }
    if setting == Setting::EventsMax {
        return config::config_events(hub, origin, value, &[]);
    }
    let written = row.written(value);
    let command = format!("set {} {written}", row.name);
    let is_same = hub.settings.get(setting) == value && !hub.given.is_changed(setting);
    hub.settings.set(setting, value);
    if matches!(setting, Setting::HeartbeatMs | Setting::SilenceMs) {
        heartbeat::heartbeat_changed(hub);
    }
    hub.dispatch.drop_poison(hub.settings.get(Setting::PoisonMax));
    hub.black_box.drop_oldest(&hub.settings);
    hub.facts.recent_mut().set_bytes_max(hub.settings.get(Setting::EventsBytesMax));
    let most_bytes = hub.settings.get(Setting::TracesBytesMax);
    hub.dispatch.traces_mut().drop_oldest(hub.settings.get(Setting::TracesMax), most_bytes);
    hub.topics.limits_set(context!(hub));
    hub.changed(origin, command.clone(), unless(is_same, command));
    let fields = vec![
        ("setting", text(row.name)),
        ("value", setting_value(row, value)),
        ("unit", Value::Word(row.unit.word())),
    ];
    Ok(OpReply::line("set", format!("{} = {}", row.name, row.with_unit(value)), fields))
}

pub(crate) fn send_reinit(hub: &mut Engine, origin: &Origin, target: &Target) -> OpResult {
    let keys = targets(hub, target)?;
    let mut count = 0;
    for key in keys {
        let is_ready = hub.supervision.worker(key).state == ProcessState::Ready;
        if let Some(link) = hub.dispatch.seat(key).link.filter(|_| is_ready) {
            hub.dispatch.count_sent(key);
            count += 1;
            hub.out.push(Action::Send { link, frame: Frame::Reinit });
        }
    }
    let (target, workers) = (target_word(target), counted(count, "worker"));
    hub.noted(origin, format!("send {target} reinit: to {workers}"));
    if count == 0 {
        return Err(refused(format!(
            "none of the workers of '{target}' is connected; 'workers lazy' says why"
        )));
    }
    let fields = vec![("workers", number(count))];
    Ok(OpReply::line("sent", format!("reinit sent to {workers}"), fields))
}

pub(crate) fn shutdown(hub: &mut Engine, origin: &Origin, what: ShutdownWhat) -> OpResult {
    let mut workers = Vec::new();
    match what {
        ShutdownWhat::All => {
            let all = hub.supervision.workers_by(false).map(|(key, _)| key);
            workers.extend(all.filter(|&key| hub.dispatch.seat(key).link.is_some()));
        }
        ShutdownWhat::Fd(fd) => {
            let link = hub.sessions.link_with_fd(fd).ok_or_else(|| {
                not_found(format!(
                    "no connection has fd {fd}; 'workers' and 'clients' show the column fd"
                ))
            })?;
            match hub.sessions.end(link) {
                Some(End::Worker(worker)) => workers.push(worker),
                Some(_) | None => hub.out.push(Action::ShutWrite { link }),
            }
        }
    }
    let count = workers.len().max(usize::from(matches!(what, ShutdownWhat::Fd(_))));
    let sockets = counted(count, "socket");
    hub.noted(origin, format!("shutdown of {sockets} for writing"));
    for_each(hub, &workers, (WorkerVerb::Shut, OperatorAct::default()));
    let fields = vec![("sockets", number(count))];
    Ok(OpReply::line("shutdown", format!("{sockets} shut for writing"), fields))
}

pub(crate) fn halt(hub: &mut Engine, origin: &Origin) -> OpReply {
    hub.noted(origin, "halt".into());
    shutdown::begin_shutdown(hub, 1, &format!("halt by {}", origin.who()), false);
    OpReply::line("halt", "isectd ends", vec![])
}

pub(crate) fn abort(hub: &mut Engine, origin: &Origin) -> OpReply {
    hub.noted(origin, "abort".into());
    hub.out.push(Action::End(BrokerExit::Abort));
    OpReply::line("abort", "isectd aborts", vec![])
}

const fn switch(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn client_line(verb: &'static str, id: ClientId) -> OpReply {
    OpReply::line(verb, format!("{verb} client->id = {id}"), vec![("client", number(id.0))])
}
