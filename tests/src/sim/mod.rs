//! The simulation: the broker's engine, the engines of execds and client sessions in one world,
//! where time is a number and all random numbers come from a seed. A run injects faults, waits for
//! quiescence, and then requires that everything works.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`plan`] | what a seed switches on |
//! | [`world`] | what happens next; connections between all |
//! | [`net`] | the broker's net, simulated; the laws after every step |
//! | [`hosts`], [`procs`] | execd's loop, played; worker programs |
//! | [`daemons`] | programs that are no workers |
//! | [`clients`], [`operator`] | who asks, who commands |
//! | [`bus`], [`programs`], [`listings`] | topics; instances; what operators see of them |
//! | [`faults`] | what goes wrong |
//! | [`access`], [`tokens`] | who may do what; how tokens are changed, held and proved |
//! | [`model`], [`body`] | what was promised; what frames carry |
//! | [`links`], [`rng`], [`trace`] | bytes in order; numbers from a seed; what happened |

pub mod access;
pub mod body;
pub mod bus;
pub mod clients;
pub mod daemons;
mod deaths;
pub mod faults;
pub mod hosts;
pub mod links;
pub mod listings;
pub mod model;
pub mod net;
pub mod operator;
pub mod plan;
pub mod procs;
pub mod programs;
pub mod rng;
pub mod tokens;
pub mod trace;
pub mod world;

use crate::shell::Player;
use plan::Plan;
use protocol::errors::ErrorCode;
use protocol::time::Tick;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::{Event, World};

/// The result of a simulation.
#[derive(Clone, Debug)]
pub struct Report {
    /// The law that was broken, with the seed, if one was.
    pub broken: Option<String>,
    /// Hash over all events; equal for two runs of one seed.
    pub hash: u64,
    /// Steps of the broker's engine.
    pub steps: u64,
    /// Requests that were asked.
    pub asked: usize,
    /// Processes that were started.
    pub started: u32,
    /// Counts of outcomes and other events, by name.
    pub figures: BTreeMap<String, u64>,
    /// The trace, if it was kept.
    pub trace: String,
}

/// How long faults last at most, in simulated milliseconds.
const FAULTS_MS: u64 = 90_000;
/// How long everything may take to be well once the faults are over; the operator looks once a
/// round.
const QUIESCENCE_ROUND_MS: u64 = 30_000;
/// See [`QUIESCENCE_ROUND_MS`].
const QUIESCENCE_ROUNDS: u32 = 8;
/// How long an orderly end may take.
const END_MS: u64 = 120_000;

/// Runs the plan of a seed; see [`run_plan`].
pub fn run(seed: u64, is_kept: bool) -> Report {
    run_plan(Plan::of(seed), is_kept)
}

/// Runs a plan until it ends or a law is broken; `is_kept` keeps the trace as text.
pub fn run_plan(plan: Plan, is_kept: bool) -> Report {
    let shown = format!("{plan:?}");
    let mut world = World::new(plan, is_kept);
    let ended = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.broken = Some(format!("panic: {}", text.unwrap_or_default()));
    }
    world.count_states();
    let seed = world.plan.seed;
    let now = world.now.as_millis();
    Report {
        broken: world.broken.take().map(|broken| {
            format!("seed {seed} at {now} ms: {broken}\nSIM_SEED={seed} replays it\n{shown}")
        }),
        hash: world.trace.hash(),
        steps: world.steps,
        asked: world.model.count_asked(),
        started: world.started,
        figures: std::mem::take(&mut world.model.figures),
        trace: world.trace.text().to_owned(),
    }
}

fn live(world: &mut World) {
    world.make_tokens();
    for host in 0..world.hosts.len() {
        world.at(Tick(0), Event::StartExecd(host));
    }
    world.at(Tick(1), Event::StartBroker);
    let self_started = world.plan.services.iter();
    let self_started: Vec<_> =
        self_started.flat_map(|s| s.self_started.iter().map(|host| (*host, s.name))).collect();
    for (host, service) in self_started {
        world.new_self_started(host, service);
    }
    for client in 0..world.clients.len() {
        let wait = world.rng.between(1000, 500_000);
        world.later(wait, Event::Client(client));
    }
    for index in 0..world.buses.len() {
        world.later(1000, Event::Bus(index));
    }
    for index in 0..world.programs.len() {
        world.later(2000, Event::Program(index));
    }
    world.later(1_000_000, Event::Operator);
    world.later(1_000_000, Event::Fault);
    world.wait_for(FAULTS_MS, |world| world.requests_left == 0);
    world.requests_left = 0;
    end_faults(world);
    for _ in 0..QUIESCENCE_ROUNDS {
        if world.wait_for(QUIESCENCE_ROUND_MS, |world| ailing(world).is_none()) {
            break;
        }
        start_failed(world);
    }
    if let Some(ailing) = ailing(world) {
        world.hold(Err(format!(
            "not well after {QUIESCENCE_ROUNDS} rounds without faults: {ailing}"
        )));
    }
    world.check_listings(true);
    probe(world);
    end(world);
}

/// Faults are over; an operator sets everything to work again.
fn end_faults(world: &mut World) {
    if world.broken.is_some() {
        return;
    }
    world.note(format_args!("quiescence"));
    world.is_quiescent = true;
    world.persist_fails = false;
    for host in 0..world.hosts.len() {
        world.hosts[host].partitioned_until = Tick(0);
        world.later(100_000, Event::StartExecd(host));
    }
    for conn in world.conns.values_mut() {
        conn.frozen = Tick(0);
    }
    let conns: Vec<u64> = world.conns.keys().copied().collect();
    for conn in conns {
        world.at(world.now, Event::Up(conn));
        world.at(world.now, Event::Down(conn));
    }
    world.soothe_tokens();
    world.soothe_procs();
    world.soothe_clients();
    world.soothe_bus();
    world.later(3_000_000, Event::StartBroker);
    world.run_until(world.now.plus_millis(15_000));
    let mut commands: Vec<String> = Vec::new();
    for host in &world.hosts[1..] {
        commands.push(format!("config host {} {}", host.name, host.address));
    }
    for (index, service) in world.plan.services.iter().enumerate() {
        commands.push(world.service_command(index));
        let name = service.name;
        commands.push(format!("config service {name} queue_max=1000 kill_after_ms=0"));
        if world.plan.operator_ms > 0 {
            commands.push(format!("config worker {name} localhost /sim/echo"));
        }
    }
    let latest = world.broker.as_ref().map_or(0, |broker| broker.client_port_conns);
    commands.extend((0..latest + 20).map(|id| format!("unblock {id}")));
    let room = ["set queue_bytes_max 1000000", "set requests_max 1000"];
    let again = ["reject off", "ready all", "start all"];
    let again = again.into_iter().filter(|_| world.plan.operator_ms > 0);
    commands.extend(world.hosts.iter().map(|host| format!("undrain host {}", host.name)));
    commands.extend(room.into_iter().chain(again).map(str::to_owned));
    for command in commands {
        // Each leaves a fact, and what one reader may be sent at one moment is limited; one of them
        // must get all.
        if world.plan.bus.is_on() {
            world.run_until(Tick(world.now.0 + 1));
        }
        world.operate(&command);
    }
    world.run_until(world.now.plus_millis(15_000));
    if world.plan.operator_ms > 0 {
        world.operate("start all");
    }
}

/// What has ended too often is started by hand, as an operator would. What nobody stopped and has
/// not failed must come back by itself.
fn start_failed(world: &mut World) {
    for page in world.worker_pages() {
        if !page.failed.is_empty() {
            world.operate(&format!("start {}", page.id));
        } else if page.queue == "BUSY" && world.is_isolated(&page.pid) {
            // Only its operator can know that it will never answer, nor what was sent ahead to it.
            for _ in 0..20 {
                world.operate(&format!("idle {}", page.id));
            }
        } else if page.queue == "IDLE" && world.is_stuck(&page.pid) {
            // It owes no sign of life until its late reply comes, which never will.
            for verb in ["stop", "stop", "start"] {
                world.operate(&format!("{verb} {}", page.id));
            }
        }
    }
}

/// What is not well yet.
fn ailing(world: &mut World) -> Option<String> {
    if world.broker.is_none() {
        return Some("the broker does not run".into());
    }
    if let Some((uid, asked)) = world.model.open().next() {
        return Some(format!("request {uid} has no outcome: {asked:?}"));
    }
    let pages = world.worker_pages();
    let tired = pages.iter().find(|page| !page.is_well());
    if let Some(page) = tired {
        return Some(format!("{page:?}"));
    }
    let is_known = |pid: &u32| pages.iter().any(|page| page.pid == pid.to_string());
    if let Some((pid, proc)) = world.procs.iter().find(|(pid, _)| !is_known(pid)) {
        return Some(format!("nobody knows process {pid}: {proc:?}"));
    }
    if let Some((pid, proc)) = world.procs.iter().find(|(_, proc)| proc.is_isolated) {
        return Some(format!("process {pid} still hides: {proc:?}"));
    }
    if let Some(ailing) = world.ailing_bus().or_else(|| world.ailing_programs()) {
        return Some(ailing);
    }
    let broker = world.broker.as_ref()?;
    if let Some(sequence) = broker.asked.iter().next() {
        return Some(format!("the operator's command {sequence} has no answer"));
    }
    let totals = broker.shell.engine.totals();
    if totals.accepted != totals.ended {
        return Some(format!("requests are under way: {totals:?}"));
    }
    let is_unread = |conn: &&links::Conn| conn.at_broker && broker.shell.is_unread(conn.link);
    let paused = world.conns.values().find(is_unread);
    paused.map(|conn| format!("link {} is not read", conn.link))
}

/// When all is well, what is asked is answered.
fn probe(world: &mut World) {
    let before = world.model.count_asked() as u64;
    world.requests_left = world.clients.len() as u64 * 3;
    let is_done = world
        .wait_for(60_000, |world| world.requests_left == 0 && world.model.open().next().is_none());
    if !is_done {
        let open: Vec<_> = world.model.open().map(|(uid, _)| uid).collect();
        let text = format!("requests {open:?} asked after the faults have no outcome");
        world.hold(Err(text));
    }
    let failed = (before..world.model.count_asked() as u64).find_map(|uid| {
        let asked = world.model.get(uid)?;
        let is_error = match &asked.outcome {
            // Not every client may have a conversation without a deadline.
            Some(model::Outcome::Error(ErrorCode::ConversationRefused, _)) => false,
            // Nobody knows how long one lasts, so a worker that is recycled does not wait for it.
            Some(model::Outcome::Error(ErrorCode::ConversationEnded, _)) => {
                !world.model.was_recycled(asked)
            }
            Some(model::Outcome::Error(..)) => true,
            Some(_) | None => false,
        };
        (is_error && !asked.is_left)
            .then(|| format!("request {uid} asked after the faults: {asked:?}"))
    });
    if let Some(failed) = failed {
        world.hold(Err(failed));
    }
}

/// The broker ends in order, and leaves nothing behind.
fn end(world: &mut World) {
    if world.broken.is_some() {
        return;
    }
    world.is_closing = true;
    world.feed(broker::engine::input::Input::Terminate { signal: "TERM" });
    let is_gone = world.wait_for(END_MS, |world| world.broker.is_none());
    if !is_gone {
        world.hold(Err("the broker does not end".into()));
    }
    let is_alone = world.wait_for(10_000, |world| world.hosts[0].is_gone());
    if !is_alone {
        world.hold(Err("the built-in execd stays when the broker has ended in order".into()));
    }
    let is_empty = world.wait_for(END_MS, |world| world.procs.is_empty());
    if !is_empty {
        let left: Vec<_> = world.procs.keys().collect();
        let text = format!("processes are left behind: {left:?}");
        world.hold(Err(text));
    }
}
