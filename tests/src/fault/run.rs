//! One fault run from start to end: rounds of faults and quiescence, the checker after each round,
//! and the report.

use super::canary;
use super::checker::{self, Case, Cause, Excuse, Rules, Verdict};
use super::clock::Clock;
use super::injector::FaultInjector;
use super::library_client::LibraryClient;
use super::load::{Load, Phase, SERVICES};
use super::raw_client::RawClient;
use super::watch::{Slow, Watch};
use super::world::World;
use crate::proc::within;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Of a thousand connections through a proxy so many are impaired.
const IMPAIRED_PERMILLE: u64 = 350;
/// How long clients may take to have nothing under way.
const DRAIN: Duration = Duration::from_secs(20);
/// What ended so long before a round, microseconds, can excuse nothing in it.
const BEFORE_US: u64 = 60_000_000;

/// The parameters of a fault run.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The seed of all that is chosen.
    pub seed: u64,
    /// How long faults are injected in all.
    pub length: Duration,
    /// Length of one round of faults, before quiescence.
    pub round: Duration,
    /// Clients that speak the protocol themselves and see every frame.
    pub raw_clients: u64,
    /// Clients that use the client library.
    pub library_clients: u64,
    /// Whether the run uses tokens and TLS, which change meanwhile.
    pub secured: bool,
}

impl Order {
    /// What the environment says: `FAULT_SEED` and `FAULT_SECONDS`; else the short form.
    ///
    /// # Panics
    /// If one of them is no number.
    pub fn from_environment(secured: bool) -> Self {
        Self {
            seed: number("FAULT_SEED").unwrap_or(1),
            length: Duration::from_secs(number("FAULT_SECONDS").unwrap_or(8)),
            round: Duration::from_secs(20),
            raw_clients: 24,
            library_clients: 8,
            secured,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the length and the seed of a run are given by hand")]
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{name} is '{text}': {e}")))
}

/// The result of a fault run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Violations in words; empty = success.
    pub violations: Vec<String>,
    /// Figures, line by line.
    pub text: String,
    /// Faults by name.
    pub faults: BTreeMap<String, u64>,
    /// Requests checked.
    pub checked: u64,
    /// Number of requests by the name of their outcome.
    pub outcomes: BTreeMap<String, u64>,
}

impl Report {
    /// Shows the figures, and fails if anything was broken.
    ///
    /// # Panics
    /// If anything was broken.
    #[expect(clippy::print_stderr, reason = "the figures of a run are for whoever runs it")]
    pub fn assert_good(&self) {
        eprintln!("{}", self.text);
        let first: Vec<&str> = self.violations.iter().take(8).map(String::as_str).collect();
        let (count, first) = (self.violations.len(), first.join("\n\n"));
        assert!(count == 0, "{count} violations; the first ones:\n{first}");
    }
}

/// A run under way.
struct Run<'a> {
    order: Order,
    world: &'a mut World,
    load: &'a Load,
    watch: &'a Watch,
    injector: FaultInjector,
    rounds: u64,
    /// Start of the round, in microseconds of the run.
    begun: u64,
    /// What was found in all rounds.
    verdict: Verdict,
    /// Requests that workers began in all rounds.
    started: usize,
    report: Report,
}

/// Runs a whole fault run and reports what it found; it does not fail itself.
pub fn run(order: Order) -> Report {
    let clock = Clock::start();
    let mut world = World::build(clock, order.seed, order.secured);
    let load = Load::new(clock, world.endpoints(), world.secrets.clone());
    let watch = Arc::clone(&world.watch);
    let socket = world.client_socket();
    let mut report = std::thread::scope(|scope| {
        let stop_load = StopLoad(&load, &watch);
        scope.spawn(|| watch.look());
        scope.spawn(|| watch.ping(socket, SERVICES[0].name));
        for index in 0..order.raw_clients {
            let client = RawClient::new(&load, order.seed.wrapping_mul(1000) + index);
            scope.spawn(move || client.run());
        }
        for index in 0..order.library_clients {
            let client = LibraryClient::new(&load, order.seed.wrapping_mul(1000) + 500 + index);
            scope.spawn(move || client.run());
        }
        let mut run = Run {
            order,
            world: &mut world,
            load: &load,
            watch: &watch,
            injector: FaultInjector::new(order.seed),
            rounds: 0,
            begun: 0,
            verdict: Verdict::default(),
            started: 0,
            report: Report::default(),
        };
        let mut left = order.length;
        while !left.is_zero() && run.report.violations.is_empty() {
            let span = left.min(order.round);
            left -= span;
            run.round(span);
            run.check();
        }
        drop(stop_load);
        run.report
    });
    if report.violations.is_empty() {
        report.violations.extend(world.end());
    } else {
        let folder = world.keep_logs(order.seed);
        let _ = writeln!(report.text, "the logs are kept in {}", folder.display());
    }
    report
}

/// Stops the clients and the watch, also when the run fails.
struct StopLoad<'a>(&'a Load, &'a Watch);

impl Drop for StopLoad<'_> {
    fn drop(&mut self) {
        self.0.set_phase(Phase::Stop);
        self.1.end();
    }
}

impl Run<'_> {
    /// Faults under load, then quiescence.
    fn round(&mut self, span: Duration) {
        self.rounds += 1;
        self.begun = self.world.clock.now();
        self.world.set_impaired(IMPAIRED_PERMILLE);
        self.load.drained.store(0, Ordering::Release);
        self.load.set_phase(Phase::Ask);
        self.injector.inject_for(self.world, span);
        self.injector.end(self.world);
        self.load.set_phase(Phase::Drain);
        let clients = self.order.raw_clients + self.order.library_clients;
        let count = || self.load.drained.load(Ordering::Acquire);
        if within(DRAIN, || (count() == clients).then_some(())).is_none() {
            let text = format!("of {clients} clients only {} came to an end", count());
            self.report.violations.push(text);
        }
        self.world.heal();
        let mut complaints = self.world.await_quiescence();
        if complaints.is_empty() {
            complaints = canary::fly(self.world, self.load);
            complaints.extend(self.world.await_quiescence());
        }
        if !complaints.is_empty() {
            let text = format!("after the faults:\n{}", complaints.join("\n"));
            self.report.violations.push(text);
        }
    }

    /// Checks what was written down in this round, in which all that it asked has ended. To check
    /// all of them again after each would take longer and longer.
    fn check(&mut self) {
        self.world.histories.read();
        let proxy = self.world.clients.stood().into_iter();
        let proxy = proxy.map(|(from, until)| Excuse { cause: Cause::Proxy, from, until });
        let mut excuses = [self.injector.excuses.clone(), self.watch.excuses()].concat();
        excuses.extend(proxy);
        let slow = self.watch.slow();
        // The canaries' own service is one as it comes.
        let fresh = SERVICES[0].rules;
        let rules: Vec<Rules> = SERVICES.iter().map(|s| s.rules).chain([fresh]).collect();
        let incidents = self.world.clients.incidents();
        let asked = std::mem::take(&mut *self.load.asked.lock().expect("no panic"));
        let begun = std::mem::take(&mut self.world.histories.begun);
        self.started += begun.len();
        let since = self.begun.saturating_sub(BEFORE_US);
        let recent: Vec<Excuse> = excuses.iter().filter(|e| e.until >= since).copied().collect();
        let round = checker::check(&Case {
            asked: &asked,
            begun: &begun,
            rules: &rules,
            excuses: &recent,
            incidents: &incidents,
            slow: &slow,
        });
        self.verdict.add(round);
        let verdict = self.verdict.clone();
        let report = &mut self.report;
        report.checked = verdict.checked;
        report.outcomes = verdict.outcomes.clone();
        // A round with a violation is the last one.
        report.violations.extend(verdict.violations.iter().map(ToString::to_string));
        report.violations.extend(self.injector.wrong.iter().cloned());
        report.violations.extend(self.load.strays.lock().expect("no panic").drain(..));
        report.faults = faults(self.world, &self.injector);
        self.report.text = self.text(&verdict, &excuses, &slow);
    }

    /// The figures.
    fn text(&self, verdict: &Verdict, excuses: &[Excuse], slow: &[Slow]) -> String {
        let mut text = String::new();
        let mut line = |words: String| text.push_str(&format!("{words}\n"));
        let order = &self.order;
        line(format!(
            "seed {}, {:?} of faults in {} rounds, {} raw clients, {} by the library",
            order.seed, order.length, self.rounds, order.raw_clients, order.library_clients
        ));
        let how = if order.secured { "with" } else { "without" };
        line(format!("{how} tokens and TLS"));
        line(format!("state directory on {}", self.world.disk.how()));
        let wall = if self.world.wall.is_some() { "is stepped" } else { "is not: no libfaketime" };
        line(format!("the wall clock {wall}"));
        line("faults:".to_owned());
        for (name, count) in &self.report.faults {
            line(format!("{count:>9}  {name}"));
        }
        let logins = self.load.logins.each_ref().map(|count| count.load(Ordering::Relaxed));
        line(format!("logins: {} let in, {} not", logins[0], logins[1]));
        let histories = &self.world.histories;
        let (begun, processes) = (self.started, histories.witnesses.len());
        line(format!("workers: {processes} processes began {begun} requests"));
        line(format!("requests checked: {}; how they ended:", verdict.checked));
        for (name, count) in &verdict.outcomes {
            line(format!("{count:>9}  {name}"));
        }
        for words in lateness(verdict, excuses, slow) {
            line(words);
        }
        let names = ["broker", "built-in execd", "far execd"];
        for (name, (before, now)) in names.iter().zip(self.world.usages()) {
            line(format!(
                "{name}: {} descriptors and {} KiB before, {} and {} KiB after",
                before.descriptors, before.rss_kib, now.descriptors, now.rss_kib
            ));
        }
        line(format!("violations: {}", self.report.violations.len()));
        text
    }
}

/// Who was late, and how often; who stood still, and for how long.
fn lateness(verdict: &Verdict, excuses: &[Excuse], slow: &[Slow]) -> Vec<String> {
    let excused = verdict.excused;
    let mut lines =
        vec![format!("late or without an outcome for a cause that is known: {excused}")];
    lines.extend(verdict.causes.iter().map(|(name, count)| format!("{count:>9}  {name}")));
    lines.extend(verdict.latest.iter().map(|(_, text)| format!("the latest: {text}")));
    let mut told = |what: &str, spans: &mut dyn Iterator<Item = u64>| {
        let (mut count, mut all, mut most) = (0, 0, 0);
        for span in spans {
            (count, all, most) = (count + 1, all + span, most.max(span));
        }
        let (all, most) = (all / 1000, most / 1000);
        lines.push(format!("{what}: {count} times, {all} ms in all, {most} ms at most"));
    };
    for cause in [Cause::Machine, Cause::Starved, Cause::Proxy] {
        let its = excuses.iter().filter(|excuse| excuse.cause == cause);
        told(cause.name(), &mut its.map(|excuse| excuse.until - excuse.from));
    }
    let spans = &mut slow.iter().map(|slow| slow.until - slow.from);
    told("the broker's loop answered a ping after more than 50 ms", spans);
    let worst = slow.iter().max_by_key(|slow| slow.until - slow.from);
    lines.extend(worst.map(|slow| format!("its longest: it answered no ping {slow}")));
    lines
}

fn faults(world: &World, injector: &FaultInjector) -> BTreeMap<String, u64> {
    let mut faults: BTreeMap<String, u64> =
        injector.counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    let proxies =
        [("clients", &world.clients), ("far workers", &world.workers), ("far execd", &world.hosts)];
    for (whose, proxy) in proxies {
        for incident in proxy.incidents() {
            let name = format!("at the proxy of {whose}: {}", incident.kind.name());
            *faults.entry(name).or_default() += 1;
        }
    }
    faults
}
