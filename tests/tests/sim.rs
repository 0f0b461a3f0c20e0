//! Runs the simulation `isect_tests::sim` over many seeds. `SIM_SEED=n` replays one seed and prints
//! its trace; `SIM_SEEDS=n` runs n seeds instead of the gate's number.

use isect_tests::sim::daemons::DaemonPlan;
use isect_tests::sim::plan::{Behaviour, BusPlan, Fault, Plan, Sabotage, ServicePlan};
use isect_tests::sim::{self, Report};
use protocol::settings::{ServiceSetting, Setting};
use std::collections::BTreeMap;

/// Seeds that `cargo test` runs.
const SEEDS: u64 = 256;

/// What many seeds together must have done.
const EXERCISED: &[&str] = &[
    "drain host",
    "halt keep",
    "restarts that ended",
    "scale",
    "starts of services on demand",
    "undrain host",
];

/// Seeds that found a mistake, and the mistake.
const NAMED: &[(u64, &str)] = &[
    (6636, "a worker that was stopped while it was busy, and came back, was never asked to end"),
    (4597, "a link that was gone stayed among those that another one holds back"),
    (
        1317,
        "a worker whose host had forgotten it came back on a new connection, and a second was \
         started",
    ),
    (
        1675,
        "a command that came at a shutdown waited for work, and was taken for one without answer",
    ),
    (1931, "a program was timed out whose beat was unread, because the broker stood still twice"),
    (
        3856,
        "what a process had whose login was found not to be valid was kept as that of the process \
         that was started in its place",
    ),
    (144, "a client that was read no further because it took no answers was not missed"),
    (
        1017,
        "a worker that was reserved for a request that must run alone was given nothing when \
         another one took that request",
    ),
];

#[expect(clippy::disallowed_methods, reason = "a seed to replay comes by the environment alone")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs seeds on all processors. The reports are in the order of the seeds.
fn sweep(seeds: &[u64]) -> Vec<Report> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let reports = std::sync::Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(&seed) = seeds.get(at) else { return };
                    let report = sim::run(seed, false);
                    reports.lock().expect("no thread panics").insert(at, report);
                }
            });
        }
    });
    reports.into_inner().expect("no thread panics").into_values().collect()
}

#[test]
fn every_seed_keeps_the_promises() {
    if let Some(seed) = number("SIM_SEED") {
        let report = sim::run(seed, true);
        println!("{}", report.trace);
        println!("{} steps, {} requests: {:?}", report.steps, report.asked, report.figures);
        assert_eq!(report.broken, None, "{}", report.broken.as_deref().unwrap_or_default());
        return;
    }
    let first = number("SIM_FIRST").unwrap_or(0);
    let seeds = first..first + number("SIM_SEEDS").unwrap_or(SEEDS);
    let seeds: Vec<u64> = seeds.collect();
    let reports = sweep(&seeds);
    let broken: Vec<&str> = reports.iter().filter_map(|r| r.broken.as_deref()).collect();
    let mut figures: BTreeMap<String, u64> = BTreeMap::new();
    for (name, count) in reports.iter().flat_map(|report| &report.figures) {
        *figures.entry(name.clone()).or_default() += count;
    }
    let (steps, asked) = reports.iter().fold((0, 0), |(s, a), r| (s + r.steps, a + r.asked));
    println!("{} seeds, {steps} steps, {asked} requests: {figures:#?}", seeds.len());
    for text in &broken {
        println!("{}", text.lines().next().unwrap_or_default());
    }
    if first == 0 && seeds.len() >= 40 {
        for what in EXERCISED {
            assert!(figures.get(*what).is_some_and(|n| *n > 0), "no {what} in {figures:#?}");
        }
    }
    let shown = broken.iter().take(5).copied().collect::<Vec<_>>().join("\n\n");
    assert!(broken.is_empty(), "{} of {} seeds:\n{shown}", broken.len(), seeds.len());
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let seeds: Vec<u64> = (1000..1008).collect();
    let hashes = |reports: Vec<Report>| reports.iter().map(|r| r.hash).collect::<Vec<_>>();
    let first = hashes(sweep(&seeds));
    assert_eq!(first, hashes(sweep(&seeds)));
    assert!(first.windows(2).all(|pair| pair[0] != pair[1]), "different seeds differ");
}

/// Each planted fault is found, by the law that it breaks.
#[test]
fn the_model_notices_what_is_broken_on_purpose() {
    for (sabotage, sign) in [
        (Sabotage::DropReply, "has no outcome"),
        (Sabotage::RunTwice, "was begun"),
        (Sabotage::LieAboutRan, "ran=no"),
        (Sabotage::WrongClient, "not under way"),
        (Sabotage::LetIn, "is let in"),
        (Sabotage::KeepRevoked, "in: SimLogin"),
        (Sabotage::FlushEarly, "no worker was given"),
        (Sabotage::LieAboutCancel, "cancelled ran=no"),
        (Sabotage::Overfill, "it takes"),
        (Sabotage::LoseOneWay, "neither accepted nor refused"),
    ] {
        let broken = (0..40).find_map(|seed| {
            let plan = Plan { sabotage, half_close: 0, ..Plan::of(seed) };
            sim::run_plan(plan, false).broken
        });
        let broken = broken.unwrap_or_else(|| panic!("{sabotage:?} goes unnoticed"));
        assert!(broken.contains(sign), "{sabotage:?} is noticed as: {broken}");
    }
}

/// Four good workers of one service, patient clients, and no faults.
fn fair(seed: u64) -> Plan {
    let workers = [0, 0, 1, 1].map(|host| (host, Behaviour::Echo)).to_vec();
    let service = ServicePlan {
        name: "alpha",
        settings: vec![],
        workers,
        self_started: vec![],
        announces: 1,
        hears_cancel: false,
    };
    Plan {
        hosts: 2,
        services: vec![service],
        clients: 5,
        requests: 400,
        silent: 0,
        extendable: 0,
        cancel: 0,
        flush: 0,
        hurry: 0,
        half_close: 0,
        deadline_ms: (60_000, 100_000),
        think_ms: 300,
        settings: vec![],
        way_micros: (20, 2000),
        socket_bytes: 1 << 20,
        slow_reader: 0,
        close: 0,
        give_up: 0,
        nonsense: 0,
        start_fails: 0,
        start_waits: 0,
        operator_ms: 0,
        fault_ms: 0,
        faults: vec![],
        tokens_ms: 0,
        bus: BusPlan::default(),
        daemons: DaemonPlan::default(),
        ..Plan::of(seed)
    }
}

/// Requests come at any moment of the end of idle workers and of their next start.
#[test]
fn each_request_of_a_service_on_demand_has_its_reply_whenever_it_comes() {
    let mut started = 0;
    for seed in 0..48 {
        let idle_stop_ms = [1, 5, 20, 80][seed as usize % 4];
        let mut plan = Plan { clients: 2, pieces: 0, turns: 0, ..fair(seed) };
        let settings = [(ServiceSetting::Start, 1), (ServiceSetting::IdleStopMs, idle_stop_ms)];
        plan.services[0].settings.extend(settings);
        let report = sim::run_plan(plan, false);
        assert_eq!(report.broken, None);
        let replies = report.figures.get("reply").copied().unwrap_or(0);
        assert_eq!(replies, report.asked as u64, "{:?}", report.figures);
        started += report.started;
    }
    assert!(started > 48 * 4 * 4, "only {started} starts: they did not end in between");
}

/// Programs that are no workers survive the broker and execd as workers do.
#[test]
fn programs_run_on_when_the_broker_and_execd_are_killed() {
    for seed in 0..10 {
        let faults = vec![(Fault::KillBroker, 2), (Fault::RestartExecd, 1)];
        let programs = vec![(0, Behaviour::Echo), (1, Behaviour::Echo)];
        let daemons = DaemonPlan { programs, stable_ms: 100 };
        let plan = Plan { faults, fault_ms: 6000, daemons, ..fair(seed) };
        let report = sim::run_plan(plan, false);
        assert_eq!(report.broken, None);
        assert_eq!(report.started, 6, "seed {seed}");
    }
}

#[test]
fn without_faults_every_request_has_its_reply() {
    for seed in 0..10 {
        let report = sim::run_plan(fair(seed), false);
        assert_eq!(report.broken, None);
        let replies = report.figures.get("reply").copied().unwrap_or(0);
        // Requests whose client never sends the last piece end with `deadline`.
        let late: u64 = report
            .figures
            .iter()
            .filter(|(name, _)| name.contains("deadline"))
            .map(|(_, n)| n)
            .sum();
        assert_eq!(replies + late, report.asked as u64, "{:?}", report.figures);
        assert!(late * 10 < replies, "{:?}", report.figures);
    }
}

/// Workers survive the broker and execd, and are adopted as they are.
#[test]
fn a_broker_and_an_execd_that_are_killed_start_no_worker_anew() {
    let mut lost = 0;
    for seed in 0..20 {
        let faults = vec![(Fault::KillBroker, 2), (Fault::RestartExecd, 1)];
        let plan = Plan { faults, fault_ms: 6000, pieces: 0, turns: 0, ..fair(seed) };
        let report = sim::run_plan(plan, false);
        assert_eq!(report.broken, None);
        lost += report.figures.get("broker_lost (maybe)").copied().unwrap_or(0);
        assert_eq!(report.started, 4, "seed {seed}");
    }
    assert!(lost > 10, "{lost} requests were under way when the broker was killed");
}

/// Workers go over from one broker to the next, whatever they have under way.
#[test]
fn a_broker_that_keeps_its_workers_starts_none_anew() {
    let (mut kept, mut refused) = (0, 0);
    for seed in 0..12 {
        let faults = vec![(Fault::KeepBroker, 1)];
        let settings = vec![(Setting::HaltMs, [0, 50, 30_000][seed as usize % 3])];
        let mut plan = fair(seed);
        plan.services[0].workers = [0, 0, 1, 1].map(|host| (host, Behaviour::Slow)).to_vec();
        let plan = Plan { faults, settings, fault_ms: 6000, pieces: 0, turns: 0, ..plan };
        let report = sim::run_plan(plan, false);
        assert_eq!(report.broken, None);
        kept += report.figures.get("brokers that kept their workers").copied().unwrap_or(0);
        refused += report.figures.get("shutting_down (no)").copied().unwrap_or(0);
        assert_eq!(report.started, 4, "seed {seed}: {:?}", report.figures);
    }
    assert!(kept > 20 && refused > 5, "{kept} brokers, {refused} requests refused");
}

/// A host that is drained, and an execd that is asked to end, lose no request.
#[test]
fn what_ends_in_order_loses_no_request() {
    let mut figures: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..16 {
        // An execd does not wait for the last piece of a request as long as a broker does.
        let is_execd = seed % 2 == 0;
        let faults = vec![(Fault::DrainHost, 1), (Fault::EndExecd, u64::from(is_execd))];
        let plan = fair(seed);
        let pieces = if is_execd { 0 } else { plan.pieces };
        let plan = Plan { faults, fault_ms: 4000, turns: 0, pieces, ..plan };
        let report = sim::run_plan(plan, false);
        assert_eq!(report.broken, None);
        report.figures.into_iter().for_each(|(k, n)| *figures.entry(k).or_default() += n);
    }
    for what in ["drain", "undrain", "execds asked to end", "reply", "no_worker (no)"] {
        assert!(figures.get(what).is_some_and(|n| *n > 5), "{what}: {figures:#?}");
    }
    let lost = figures.keys().filter(|name| name.ends_with("(maybe)"));
    let lost: Vec<_> = lost.filter(|name| !name.starts_with("deadline")).collect();
    assert!(lost.is_empty(), "{figures:#?}");
}

/// The same together with all other faults.
#[test]
fn ends_in_order_break_no_promise_among_other_faults() {
    for seed in 7100..7124 {
        let mut plan = Plan::of(seed);
        plan.hosts = plan.hosts.max(2);
        let more = [Fault::KeepBroker, Fault::DrainHost, Fault::EndExecd];
        plan.faults.extend(more.map(|fault| (fault, 20)));
        plan.fault_ms = 3000;
        assert_eq!(sim::run_plan(plan, false).broken, None);
    }
}

/// Whenever a far machine becomes unreachable, its workers are the same afterwards.
#[test]
fn a_machine_that_is_unreachable_keeps_its_workers_and_none_is_started_in_their_place() {
    let mut partitions = 0;
    for seed in 0..20 {
        let faults = vec![(Fault::PartitionFar, 1)];
        let plan = Plan { faults, fault_ms: 20_000, pieces: 0, turns: 0, ..fair(seed) };
        let report = sim::run_plan(plan, false);
        assert_eq!(report.broken, None);
        partitions += report.figures.get("machines partitioned").copied().unwrap_or(0);
        assert_eq!(report.started, 4, "seed {seed}");
    }
    assert!(partitions > 20, "{partitions} machines were unreachable");
}

/// The same together with all other faults.
#[test]
fn partitions_of_far_machines_break_no_promise_among_other_faults() {
    // The last two: a beat is unread when an instance is timed out, but not its own, or late.
    for seed in (7000..7024).chain([7144, 7154]) {
        let mut plan = Plan::of(seed);
        plan.hosts = plan.hosts.max(2);
        plan.faults.push((Fault::PartitionFar, 20));
        plan.fault_ms = 5000;
        assert_eq!(sim::run_plan(plan, false).broken, None);
    }
}

/// A client that gives up a conversation without a deadline, and tells nobody, keeps it until it
/// says so or goes: nothing is left in the end.
#[test]
fn conversations_without_a_deadline_that_are_given_up_end_when_the_broker_is_told() {
    let mut parked = 0;
    for seed in 0..8 {
        let mut plan = Plan { turns: 1000, give_up: 50, window: 4, ..fair(seed) };
        plan.services[0].settings.push((ServiceSetting::OpenEnded, 1));
        let report = sim::run_plan(plan, false);
        assert_eq!(report.broken, None);
        let figure = report.figures.get("conversations without a deadline");
        parked += figure.copied().unwrap_or(0);
    }
    assert!(parked > 100, "{parked} conversations");
}

/// The runs with tokens reach every outcome of a login and of a change of the tokens.
#[test]
fn with_tokens_people_are_let_in_refused_and_shut_out() {
    let mut figures: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 5000..5024 {
        let plan = Plan { tokens_ms: 1000, bus: BusPlan::default(), ..Plan::of(seed) };
        let report = sim::run_plan(plan, false);
        assert_eq!(report.broken, None);
        report.figures.into_iter().for_each(|(k, n)| *figures.entry(k).or_default() += n);
    }
    for what in [
        "reply",
        "the tokens were read",
        "logins with a token",
        "workers with a token",
        "not let in: bad_token",
        "not let in: denied",
        "not let in: needs_token",
        "shut out: bad_token",
        "shut out: denied",
        "shut out: needs_token",
    ] {
        assert!(figures.get(what).is_some_and(|n| *n > 5), "{what}: {figures:#?}");
    }
}

/// A worker that hung before it read its request, and was taken off it by `idle`, has to be ended
/// by an operator.
#[test]
fn a_worker_that_hung_before_it_read_its_request_is_ended_by_its_operator() {
    let plan = Plan { tokens_ms: 1000, ..Plan::of(5004) };
    assert_eq!(sim::run_plan(plan, false).broken, None);
}

/// Worlds in which clients publish and subscribe and programs announce, among all faults.
#[test]
fn messages_and_states_keep_their_promises_among_all_faults() {
    if let Some(seed) = number("SIM_SEED") {
        let report = sim::run_plan(busy_bus(seed), true);
        println!("{}", report.trace);
        assert_eq!(report.broken, None);
        return;
    }
    let mut figures: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 9000..9000 + number("SIM_SEEDS").unwrap_or(SEEDS) / 8 {
        let report = sim::run_plan(busy_bus(seed), false);
        assert_eq!(report.broken, None);
        report.figures.into_iter().for_each(|(k, n)| *figures.entry(k).or_default() += n);
    }
    for what in ["messages", "published", "changes of states", "programs that hang"] {
        assert!(figures.get(what).is_some_and(|n| *n > 2), "{what}: {figures:#?}");
    }
}

/// Slow readers, links that break, and a clock that leaps, with small limits.
fn narrow_bus(seed: u64) -> Plan {
    let bus = BusPlan {
        clients: 4,
        programs: 4,
        think_ms: 50,
        subscriptions: 6,
        burst: 20,
        bytes_max: 1500,
        retain: 300,
        slow_reader: 50,
        close: 10,
        hang: 30,
        settings: vec![(Setting::SubscriptionQueueMax, 5), (Setting::TopicRingMax, 20)],
        ..BusPlan::lively(seed)
    };
    let faults = vec![(Fault::DropLink, 3), (Fault::Leap, 1)];
    let settings = vec![(Setting::OutboxBytesHigh, 4096)];
    let plan = fair(seed);
    Plan { bus, faults, fault_ms: 2000, settings, socket_bytes: 0, requests: 200, ..plan }
}

/// Each planted fault of topics and instances is found, by the law that it breaks.
#[test]
fn the_model_notices_what_is_broken_on_purpose_of_topics_and_instances() {
    let mut figures: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..4 {
        let report = sim::run_plan(narrow_bus(seed), false);
        assert_eq!(report.broken, None);
        report.figures.into_iter().for_each(|(k, n)| *figures.entry(k).or_default() += n);
    }
    for what in [
        "messages",
        "dropped messages",
        "bus: denied",
        "changes of states",
        "timed out",
        "back after a time-out",
        "displaced",
        "program: instance_taken",
    ] {
        assert!(figures.get(what).is_some_and(|n| *n > 2), "{what}: {figures:#?}");
    }
    for (sabotage, sign) in [
        (Sabotage::LoseMessage, "is next"),
        (Sabotage::LoseKept, "CaughtUp"),
        (Sabotage::HideDrops, "is next"),
        (Sabotage::MessageTwice, "message"),
        (Sabotage::WrongSubscription, "subscription"),
        (Sabotage::HideMissing, "from before"),
        (Sabotage::LoseState, "told"),
        (Sabotage::LoseBeats, "timed out after"),
        (Sabotage::HideTimeout, "timed out"),
        (Sabotage::OneUser, "InstanceTaken"),
    ] {
        let broken = (0..40)
            .find_map(|seed| sim::run_plan(Plan { sabotage, ..narrow_bus(seed) }, false).broken);
        let broken = broken.unwrap_or_else(|| panic!("{sabotage:?} goes unnoticed"));
        assert!(broken.contains(sign), "{sabotage:?} is noticed as: {broken}");
    }
}

/// The plan of a seed with topics and instances for certain.
fn busy_bus(seed: u64) -> Plan {
    let plan = Plan { bus: BusPlan::lively(seed), tokens_ms: 0, ..Plan::of(seed) };
    Plan { requests: plan.requests.min(300), ..plan }
}

/// Seeds that once broke a law keep them all. With the mistake put back, each breaks it again.
#[test]
fn seeds_that_found_mistakes_stay_good() {
    for (seed, mistake) in NAMED {
        let report = sim::run(*seed, false);
        assert_eq!(report.broken, None, "once: {mistake}");
    }
}
