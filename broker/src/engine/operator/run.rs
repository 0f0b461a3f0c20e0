//! Runs the commands of operators, from clients of `op` and from scripts, and answers them.
//! `read` and `show` make what commands show; `change` and `config` carry out changes.

use super::listing::{self, Listed};
use super::result::fact_kinds;
use super::{
    answer, change, config, deaths, drain, facts, groups, instances, keep, logs, read, restart,
    save, scale, seek, settings, show, start_stop, status, tokens, worker_settings,
};
use crate::engine::action::Action;
use crate::engine::context::context;
use crate::engine::fact::{About, FactKind};
use crate::engine::fact_filter::FactFilter;
use crate::engine::fact_log::Watch;
use crate::engine::hub::Engine;
use crate::engine::keys::ClientKey;
use crate::engine::operator::answer::origin_of;
use crate::engine::operator::result::{OpResult, refused};
use crate::engine::origin::Origin;
use crate::engine::store::{Difference, set_unsaved};
use crate::engine::work::{COMMANDS_EACH_MAX, COMMANDS_MAX, Waiting, Work};
use bytes::Bytes;
use protocol::op::events::EventFilter;
use protocol::op::spec::{SendWhat, ServiceWhat};
use protocol::op::{help, parse};
use protocol::{
    Block, Command, Effect, ErrorCode, Header, LinkId, OpError, OpReply, OpRequest, Setting,
};

/// Handles a data frame for `op`. A command is one frame: a command in pieces is refused,
/// because a part of it may read as another command.
pub(crate) fn on_command(hub: &mut Engine, client: ClientKey, head: Header, body: &Bytes) {
    // The broker gives these two itself and never sends back what a client wrote there.
    let head = Header { transaction: 0, attempt: 0, ..head };
    if hub.dispatch.is_command(client, &head, context!(hub)) && !postpone(hub, client, &head, body)
    {
        on_op(hub, client, head, body);
    }
}

/// Has a command wait that comes while long work is under way. Returns false if none is, or if the
/// command may pass.
fn postpone(hub: &mut Engine, key: ClientKey, head: &Header, body: &Bytes) -> bool {
    if !hub.works.holds_commands() || may_pass(hub, key, body) {
        return false;
    }
    let client = hub.sessions.client(key).id;
    let all = hub.works.commands.len();
    let own = hub.works.commands.iter().filter(|waiting| waiting.client == client).count();
    if all >= COMMANDS_MAX || own >= COMMANDS_EACH_MAX {
        let text = format!(
            "{all} commands wait for the ones before them, {own} of this connection (at most \
             {COMMANDS_MAX} and {COMMANDS_EACH_MAX}); try again"
        );
        answer::answer(hub, key, head, Err(refused(text)));
    } else {
        // A copy: what was read with it need not stay.
        let body = Bytes::copy_from_slice(body);
        hub.works.commands.push_back(Waiting { client, head: *head, body });
    }
    true
}

/// Whether a command does not wait for the work under way: it ends the broker, it is none, or it
/// only shows something and a script of another operator is under way, which may take long.
fn may_pass(hub: &Engine, key: ClientKey, body: &Bytes) -> bool {
    let client = hub.sessions.client(key);
    match parse::parse_bytes(body) {
        Err(_) | Ok(OpRequest::Halt(_) | OpRequest::Abort) => true,
        Ok(request) => {
            request.effect() == Effect::Read
                && hub.works.has_script()
                && !hub.works.owes_answer(client.id, client.link)
        }
    }
}

/// Runs one command of a client, if the client has the rights for it, and answers it now or
/// later.
pub(crate) fn on_op(hub: &mut Engine, client: ClientKey, head: Header, body: &Bytes) {
    let link = hub.sessions.client(client).link;
    let origin = origin_of(hub, client);
    let request = parse::parse_bytes(body);
    let asked = request.as_ref().ok().map(OpRequest::command);
    let answer = match request {
        Err(error) => Err(error),
        Ok(request) if !tokens::rights_of(hub, client).may_command(&request) => {
            tokens::not_allowed(hub, client, &request)
        }
        Ok(OpRequest::Whoami) => Ok(tokens::show_whoami(hub, client)),
        Ok(OpRequest::Summary) => Ok(read::show_summary(hub, client)),
        Ok(OpRequest::Reload) => {
            hub.out.push(Action::ReadTokens { requester: Some((link, head)) });
            return;
        }
        Ok(OpRequest::Why(of)) => match seek::begin_why(hub, client, head, of) {
            Some(answer) => answer,
            None => return,
        },
        Ok(OpRequest::Cancel(name)) => match seek::begin_cancel(hub, client, head, name) {
            Some(answer) => answer,
            None => return,
        },
        Ok(OpRequest::Logs(wanted)) => match logs::begin(hub, client, head, wanted) {
            Some(answer) => answer,
            None => return,
        },
        Ok(OpRequest::Restart { target, min }) => {
            match restart::begin_restart(hub, client, head, &target, min) {
                Ok(()) => return,
                Err(error) => Err(error),
            }
        }
        Ok(OpRequest::Watch(filter)) => watch(hub, client, &head, &filter),
        Ok(OpRequest::Save) => {
            let is_shown = worker_settings::sees_values(hub, &origin);
            let script = Box::new(save::begin_script(hub, is_shown));
            hub.works.begin(Work::Save { link, head, script }, &mut hub.effects);
            return;
        }
        Ok(OpRequest::Source(path)) => {
            hub.out.push(Action::Source { link, head, path });
            return;
        }
        Ok(OpRequest::Send(target, SendWhat::Status)) => {
            match status::ask_status(hub, client, head, &target) {
                Ok(None) => return,
                Ok(Some(reply)) => Ok(reply),
                Err(error) => Err(error),
            }
        }
        Ok(request) => match listing::list(hub, link, head, &request) {
            Listed::Now(answer) => answer,
            Listed::Later => return,
            Listed::No => run_recorded(hub, &origin, request),
        },
    };
    let answer = answer.map(|reply| match asked {
        Some(command) => reply.complete(command),
        None => reply,
    });
    // `halt` and `delete client` may have closed the client that asked.
    if hub.sessions.end(link).is_some() {
        answer::answer(hub, client, &head, answer);
    } else {
        // Nobody is left to count it for.
        hub.store.did(Difference::Shown);
    }
}

/// Runs one command; a change that is refused is recorded like one that is made. The answer
/// says if the configuration can't be saved.
fn run_recorded(hub: &mut Engine, origin: &Origin, request: OpRequest) -> OpResult {
    if request.effect() == Effect::Read {
        return run(hub, origin, request);
    }
    let command = request.to_string();
    let mut answer = run(hub, origin, request);
    // What follows from it is done before it is answered.
    hub.settle();
    if let (Ok(reply), Some(why)) = (&mut answer, hub.store.unsaved()) {
        set_unsaved(reply, Some(why));
    }
    if let Err(error) = &answer {
        let about = About { who: Some(origin.who()), ..About::default() };
        let first = error.text.lines().next().unwrap_or_default();
        hub.record(FactKind::Refused, about, format!("{command}: {first}"));
    }
    answer
}

/// Whether a command changes what is stored.
const fn is_stored(request: &OpRequest) -> bool {
    matches!(
        request,
        OpRequest::Buckets(Some(_))
            | OpRequest::Clone(..)
            | OpRequest::ConfigEvents { .. }
            | OpRequest::ConfigGroup { .. }
            | OpRequest::ConfigHost { .. }
            | OpRequest::ConfigService { .. }
            | OpRequest::ConfigWorker { .. }
            | OpRequest::DeleteGroup(_)
            | OpRequest::DeleteHost(_)
            | OpRequest::DeleteService(_)
            | OpRequest::DeleteWorker(_)
            | OpRequest::DrainHost(_)
            | OpRequest::Pause(_)
            | OpRequest::Preempt(Some(_))
            | OpRequest::Ready(_)
            | OpRequest::Reject(_)
            | OpRequest::Scale { .. }
            | OpRequest::Set(..)
            | OpRequest::Start(_)
            | OpRequest::Stop(_)
            | OpRequest::UndrainHost(_)
    )
}

/// Runs one command. Commands whose answer comes later or goes to one connection (`watch`,
/// `source`, `send … status`, `summary`, `whoami`, `reload`) are refused here, as no script may
/// have them; so are `why` and `cancel`, which look for a request that no script can know.
pub(crate) fn run(hub: &mut Engine, origin: &Origin, request: OpRequest) -> OpResult {
    if let Some(text) = hub.store.refusal().filter(|_| is_stored(&request)) {
        return Err(OpError { code: ErrorCode::StateFailed, text });
    }
    let is_read = request.effect() == Effect::Read;
    hub.store.did(if is_read { Difference::Shown } else { Difference::Changed });
    match request {
        OpRequest::Status => Ok(read::show_status(hub)),
        OpRequest::Help(topic) => Ok(help::answer(topic.as_deref())),
        OpRequest::Client(id) => read::show_client(hub, id),
        OpRequest::Clients(_)
        | OpRequest::Groups
        | OpRequest::Hosts
        | OpRequest::Instances(_)
        | OpRequest::Latency(_)
        | OpRequest::ListEvents(_)
        | OpRequest::Load(_)
        | OpRequest::Queue(_)
        | OpRequest::Requests(_)
        | OpRequest::Services(_)
        | OpRequest::Subscriptions(_)
        | OpRequest::Topics(_)
        // Nobody would see what a script lists. From an operator only `listevents` comes here.
        | OpRequest::Workers(_) => Ok(facts::no_events()),
        OpRequest::Death(id) => deaths::show_death(hub, id),
        OpRequest::Deaths(what) => deaths::run_deaths(hub, origin, what),
        OpRequest::Group(name) => groups::show_group(hub, &name),
        OpRequest::Instance(wanted) => instances::show_instance(hub, &wanted),
        OpRequest::Host(name) => show::show_host(hub, &name),
        OpRequest::Last(id) => show::show_last(hub, id),
        OpRequest::Poison(what) => facts::run_poison(hub, origin, what),
        OpRequest::Save => Ok(OpReply::ok()),
        OpRequest::Settings(of) => {
            settings::show_settings(hub, &of, worker_settings::sees_values(hub, origin))
        }
        OpRequest::Version => Ok(read::show_version(hub)),
        OpRequest::Worker(id) => {
            show::show_worker(hub, id, worker_settings::sees_values(hub, origin))
        }
        OpRequest::Abort => Ok(change::abort(hub, origin)),
        OpRequest::Halt(false) => Ok(change::halt(hub, origin)),
        OpRequest::Halt(true) => keep::halt_keep(hub, origin),
        OpRequest::Block(id) => change::change_blocked(hub, origin, id, true),
        OpRequest::Unblock(id) => change::change_blocked(hub, origin, id, false),
        OpRequest::Buckets(size) => Ok(change::change_buckets(hub, origin, size)),
        OpRequest::Clone(id, count) => config::clone_worker(hub, origin, id, count),
        OpRequest::ConfigGroup { name, members } => {
            groups::config_group(hub, origin, &name, members)
        }
        OpRequest::DeleteGroup(name) => groups::delete_group(hub, origin, &name),
        OpRequest::ConfigService { id, name, settings } => {
            config::config_service(hub, origin, (id, name), &settings)
        }
        OpRequest::ConfigWorker { id, config } => config::config_worker(hub, origin, id, config),
        OpRequest::ConfigHost { name, address } => {
            config::config_host(hub, origin, &name, &address)
        }
        OpRequest::ConfigEvents { count, kinds } => {
            config::config_events(hub, origin, count, &kinds)
        }
        OpRequest::DeleteWorker(id) => config::delete_worker(hub, origin, id),
        OpRequest::DeleteClient(id) => change::delete_client_command(hub, origin, id),
        OpRequest::DeleteService(name) => config::delete_service(hub, origin, &name),
        OpRequest::DeleteHost(name) => config::delete_host(hub, origin, &name),
        OpRequest::DrainHost(name) => drain::drain(hub, origin, &name, true),
        OpRequest::UndrainHost(name) => drain::drain(hub, origin, &name, false),
        OpRequest::Idle(id, only) => change::idle(hub, origin, id, only),
        OpRequest::Pause(target) => start_stop::pause(hub, origin, &target),
        OpRequest::Ready(target) => start_stop::ready(hub, origin, &target),
        OpRequest::Start(target) => start_stop::start(hub, origin, &target),
        OpRequest::Stop(target) => start_stop::stop(hub, origin, &target),
        OpRequest::Preempt(on) => Ok(change::preempt(hub, origin, on)),
        OpRequest::Pri(id, priority) => change::pri(hub, origin, id, priority),
        OpRequest::Reject(on) => Ok(change::reject(hub, origin, on)),
        OpRequest::Reset => Ok(change::reset(hub, origin)),
        OpRequest::Scale { service, count, hosts } => {
            scale::scale(hub, origin, &service, count, &hosts)
        }
        OpRequest::Send(target, SendWhat::Reinit) => change::send_reinit(hub, origin, &target),
        OpRequest::Service(ServiceWhat::Page(name)) => {
            settings::show_service(hub, &name, worker_settings::sees_values(hub, origin))
        }
        OpRequest::Service(ServiceWhat::Move(id, name)) => {
            change::change_service(hub, origin, id, &name)
        }
        OpRequest::Set((setting, value)) => change::change_setting(hub, origin, setting, value),
        OpRequest::Shutdown(what) => change::shutdown(hub, origin, what),
        request @ (OpRequest::Send(_, SendWhat::Status)
        | OpRequest::Cancel(_)
        | OpRequest::Logs(_)
        | OpRequest::Restart { .. }
        | OpRequest::Source(_)
        | OpRequest::Summary
        | OpRequest::Watch(_)
        | OpRequest::Whoami
        | OpRequest::Why(_)
        | OpRequest::Reload) => Err(refused(format!(
            "'{request}' answers one operator and can't stand in a script; leave it out, and \
             say it with isdclient"
        ))),
    }
}

/// The script that `save` asked for is written.
pub(crate) fn answer_save(hub: &mut Engine, link: LinkId, head: &Header, text: String) {
    if let Some(client) = hub.sessions.client_at(link) {
        let reply = OpReply::block(Block::Text { name: "script", text });
        answer::answer(hub, client, head, Ok(reply.complete(Command::Save)));
    }
}

/// `watch`: from now on, the facts that pass a filter are sent, each as a piece of this reply.
fn watch(hub: &mut Engine, client: ClientKey, head: &Header, filter: &EventFilter) -> OpResult {
    let filter = FactFilter::of(filter, fact_kinds(&filter.kinds)?, hub.wall(hub.now));
    let max = hub.settings.get(Setting::WatchersMax);
    let entry = hub.sessions.client(client);
    if hub.facts.watch_of(entry.id).is_some() || hub.logs.follows(entry.id).is_some() {
        return Err(refused("this connection watches already; end it and begin again"));
    }
    if head.reply == 0 {
        return Err(refused("watch needs a reply; set 'reply' to 1 in its header"));
    }
    if logs::watchers(hub) as u64 >= max {
        return Err(refused(format!(
            "{max} operators watch already (watchers_max); one of them is to end, or 'set watchers_max=N' allows more"
        )));
    }
    let (link, format) = (entry.link, entry.format);
    let is_congested = hub.dispatch.flow().is_congested(link);
    let watch = Watch { link, sequence: head.sequence, format, filter, is_congested };
    hub.facts.watch(entry.id, watch);
    Ok(OpReply::line("watching", "watching; end with Ctrl-C", vec![]))
}
