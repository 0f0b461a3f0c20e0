//! What a seed selects: numbers of peers, settings, faults and their rates. As in swarm testing,
//! most faults are off in one seed and extreme in another, so that no fault hides the effect of
//! another.

mod bus;

pub use bus::BusPlan;

use super::daemons::{DaemonPlan, choose_demand};
use super::rng::Rng;
use protocol::settings::{ServiceSetting, Setting};

/// Microseconds of a way in which a loss is noticed before its worker can come back.
const WAY_SHORT_US: u64 = 40_000;

/// A rule that is broken on purpose, to see that the model notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    /// Nothing is broken.
    #[default]
    None,
    /// One reply never leaves the broker.
    DropReply,
    /// One request is given to a second worker too.
    RunTwice,
    /// One error says that the request did not run, though it did.
    LieAboutRan,
    /// One reply goes to another client with the same sequence under way.
    WrongClient,
    /// Every proof of a token is taken for a good one.
    LetIn,
    /// Tokens that are gone stay in force.
    KeepRevoked,
    /// A flush is answered before anything else is done.
    FlushEarly,
    /// A request that was given up is said not to have run, though it did.
    LieAboutCancel,
    /// Workers are given requests though they have as many as they can take.
    Overfill,
    /// A request that wants no reply is lost.
    LoseOneWay,
    /// A live message does not go to one of its subscribers.
    LoseMessage,
    /// A value that is kept does not go to a new subscriber.
    LoseKept,
    /// A subscriber is not told how many messages were dropped.
    HideDrops,
    /// A message goes to a subscriber twice.
    MessageTwice,
    /// A message goes to a subscription of another pattern.
    WrongSubscription,
    /// A subscriber that comes back is not told what is missing.
    HideMissing,
    /// The message of a change of state is lost.
    LoseState,
    /// Beats do not reach the broker.
    LoseBeats,
    /// A timed out instance is said to run again.
    HideTimeout,
    /// Everybody has the same user.
    OneUser,
}

/// How a worker's program behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers at once.
    Echo,
    /// Takes its time, sometimes longer than the deadline.
    Slow,
    /// Dies in any moment.
    Crash,
    /// Answers with what is no answer.
    Garbage,
    /// Starts, and never logs in.
    Mute,
    /// Ends by itself when it has nothing to do.
    Quitter,
    /// Takes no notice of `end` and TERM.
    Stubborn,
    /// Sometimes never answers.
    Hang,
}

impl Behaviour {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Echo,
        Self::Slow,
        Self::Crash,
        Self::Garbage,
        Self::Mute,
        Self::Quitter,
        Self::Stubborn,
        Self::Hang,
    ];

    /// The program's path.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Echo => "/sim/echo",
            Self::Slow => "/sim/slow",
            Self::Crash => "/sim/crash",
            Self::Garbage => "/sim/garbage",
            Self::Mute => "/sim/mute",
            Self::Quitter => "/sim/quitter",
            Self::Stubborn => "/sim/stubborn",
            Self::Hang => "/sim/hang",
        }
    }

    /// The behaviour of the program at a path.
    pub fn of(path: &str) -> Self {
        Self::ALL.into_iter().find(|behaviour| behaviour.path() == path).unwrap_or(Self::Echo)
    }
}

/// A kind of fault that happens from time to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A worker's process is killed.
    KillWorker,
    /// A connection breaks.
    DropLink,
    /// A worker's connection breaks; the broker may notice late.
    DropWorkerLink,
    /// A connection is silent for a while.
    FreezeLink,
    /// A worker's process is stopped for a while.
    FreezeWorker,
    /// A far machine is unreachable, longer than it takes to notice and shorter than its workers
    /// try to come back. Only for tests of their own: it happens to seeds as `PartitionHost`.
    PartitionFar,
    /// A host is partitioned from the others for a while.
    PartitionHost,
    /// A host starts anew: all its processes are gone.
    Reboot,
    /// execd is killed and started again; its children go on.
    RestartExecd,
    /// The same, and it has forgotten its children.
    ForgetfulExecd,
    /// The broker is killed and started again.
    KillBroker,
    /// The broker ends in order and is started again.
    EndBroker,
    /// The broker ends with `halt keep` and is started again. Only for tests of their own, as the
    /// next two.
    KeepBroker,
    /// An operator drains a host, or ends that.
    DrainHost,
    /// execd is asked to end, and is started again.
    EndExecd,
    /// The clock leaps forward.
    Leap,
    /// The configuration can't be written.
    PersistFails,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::KillWorker,
        Self::DropLink,
        Self::DropWorkerLink,
        Self::FreezeLink,
        Self::FreezeWorker,
        Self::PartitionHost,
        Self::Reboot,
        Self::RestartExecd,
        Self::ForgetfulExecd,
        Self::KillBroker,
        Self::EndBroker,
        Self::Leap,
        Self::PersistFails,
    ];
}

/// A service and what it starts with.
#[derive(Clone, Debug)]
pub struct ServicePlan {
    /// Name of the service.
    pub name: &'static str,
    /// Settings that differ from the default.
    pub settings: Vec<(ServiceSetting, u64)>,
    /// Its workers: host and behaviour.
    pub workers: Vec<(usize, Behaviour)>,
    /// Workers that start themselves: on which host.
    pub self_started: Vec<usize>,
    /// How many requests at a time its programs say that they take.
    pub announces: u32,
    /// Its programs understand `cancel`.
    pub hears_cancel: bool,
}

/// All choices that a seed makes for a simulation.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed, also used for the random numbers during the run.
    pub seed: u64,
    /// How many hosts there are; the first is built in.
    pub hosts: usize,
    /// Services, configured at the start.
    pub services: Vec<ServicePlan>,
    /// How many clients there are.
    pub clients: usize,
    /// Requests that all of them send together before the faults end.
    pub requests: u64,
    /// Most requests under way of one client.
    pub window: usize,
    /// Of a thousand requests, how many are in pieces, conversations, idempotent, without a reply.
    pub pieces: u64,
    /// See `pieces`.
    pub turns: u64,
    /// See `pieces`.
    pub idempotent: u64,
    /// See `pieces`.
    pub silent: u64,
    /// Of a thousand requests that want a reply, how many let their worker put the deadline off.
    pub extendable: u64,
    /// Of a thousand acts of a client, how many cancel a request.
    pub cancel: u64,
    /// Of a thousand acts of a client, how many ask whether all was taken.
    pub flush: u64,
    /// Of a thousand requests without a reply, after how many their client leaves at once.
    pub hurry: u64,
    /// Of a thousand acts of a client, how many close its side and wait for what is to come.
    pub half_close: u64,
    /// Most bytes of a piece.
    pub bytes_max: u64,
    /// Shortest and longest deadline asked for; a quarter ask for none.
    pub deadline_ms: (u64, u64),
    /// Time between two acts of a client (its think time), at most.
    pub think_ms: u64,
    /// Settings of the broker.
    pub settings: Vec<(Setting, u64)>,
    /// Shortest and longest transit time of bytes in microseconds.
    pub way_micros: (u64, u64),
    /// Of a thousand writes, how many arrive in two pieces.
    pub split: u64,
    /// Bytes that a simulated socket accepts before the broker's outbox fills.
    pub socket_bytes: u64,
    /// Of a thousand acts of a client, how many make it read slowly for a while.
    pub slow_reader: u64,
    /// Of a thousand acts of a client, how many make it close its connection.
    pub close: u64,
    /// Of a thousand acts of a client, how many make it wait no longer for a request.
    pub give_up: u64,
    /// Of a thousand frames of a client, how many are nonsense.
    pub nonsense: u64,
    /// Of a thousand starts, how many fail.
    pub start_fails: u64,
    /// Of a thousand starts, how many run the program late or not at all.
    pub start_waits: u64,
    /// Time between two operator commands, at most; 0 = none are given.
    pub operator_ms: u64,
    /// Time between two faults, at most; 0 = none happen.
    pub fault_ms: u64,
    /// The faults and their weights.
    pub faults: Vec<(Fault, u64)>,
    /// Of a thousand steps, how many handle the deadline before the input.
    pub deadline_first: u64,
    /// How late the broker's clock may wake it, in microseconds.
    pub lag_micros: u64,
    /// Time between two changes of the tokens, at most; 0 = there are none.
    pub tokens_ms: u64,
    /// Programs that are no workers.
    pub daemons: DaemonPlan,
    /// Topics and instances.
    pub bus: BusPlan,
    /// A rule that is broken on purpose.
    pub sabotage: Sabotage,
}

/// The names of services; a plan has some of them.
pub const SERVICES: [&str; 3] = ["alpha", "beta", "gamma"];

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        // What was added later is drawn from numbers of its own.
        let mut news = Rng::new(seed.rotate_left(17) ^ 0x5bd1_e995);
        let hosts = 1 + rng.index(3);
        let behaviours: Vec<Behaviour> = if rng.hits(300) {
            vec![Behaviour::Echo]
        } else {
            (0..1 + rng.index(4)).map(|_| rng.pick(&Behaviour::ALL)).collect()
        };
        let services = SERVICES[..1 + rng.index(3)].iter();
        let services =
            services.map(|name| service(name, (&mut rng, &mut news), hosts, &behaviours)).collect();
        let rare = |rng: &mut Rng| rng.pick(&[0, 0, 0, 10, 50, 300]);
        let faults = Fault::ALL.into_iter().map(|fault| (fault, rng.pick(&[0, 0, 1, 5, 20])));
        let tokens_ms = Rng::new(!seed).pick(&[0, 0, 0, 500, 5000]);
        let mut plan = Self {
            seed,
            hosts,
            services,
            faults: faults.collect(),
            clients: 1 + rng.index(8),
            requests: rng.pick(&[100, 300, 1000]),
            window: rng.pick(&[1, 1, 4, 20]),
            pieces: rare(&mut rng),
            turns: rare(&mut rng),
            idempotent: rng.pick(&[0, 200, 1000]),
            silent: rare(&mut rng),
            extendable: news.pick(&[0, 0, 100, 500]),
            cancel: news.pick(&[0, 0, 10, 100]),
            flush: news.pick(&[0, 0, 10, 100]),
            hurry: news.pick(&[0, 0, 100, 500]),
            half_close: news.pick(&[0, 0, 5, 40]),
            bytes_max: rng.pick(&[40, 200, 3000, 9000]),
            deadline_ms: rng.pick(&[(5, 500), (200, 5000), (2000, 20_000)]),
            think_ms: rng.pick(&[5, 50, 500]),
            settings: settings(&mut rng),
            way_micros: rng.pick(&[(0, 50), (20, 2000), (100, 40_000), (0, 400_000)]),
            split: rng.pick(&[0, 50, 500]),
            socket_bytes: rng.pick(&[0, 2000, 1 << 20]),
            slow_reader: rng.pick(&[0, 0, 10, 60]),
            close: rng.pick(&[0, 0, 5, 40]),
            give_up: rng.pick(&[0, 0, 0, 20]),
            nonsense: rng.pick(&[0, 0, 5, 40]),
            start_fails: rng.pick(&[0, 0, 50, 400]),
            start_waits: Rng::new(seed.rotate_left(32)).pick(&[0, 0, 0, 50, 400]),
            operator_ms: rng.pick(&[0, 100, 1000, 5000]),
            fault_ms: rng.pick(&[0, 500, 3000, 10_000]),
            deadline_first: rng.pick(&[0, 500, 1000]),
            lag_micros: rng.pick(&[0, 1500]),
            tokens_ms,
            daemons: DaemonPlan::of(seed, hosts),
            // Who is let in is another matter.
            bus: if tokens_ms == 0 { BusPlan::of(seed) } else { BusPlan::default() },
            sabotage: Sabotage::None,
        };
        choose_demand(&mut plan);
        plan
    }

    /// Whether a service is started on demand.
    pub fn has_demand(&self) -> bool {
        self.services.iter().any(|service| service.value(ServiceSetting::Start) == 1)
    }

    /// Whether `body_bytes_max` is set to little.
    pub fn has_small_bodies(&self) -> bool {
        self.settings.iter().any(|(setting, _)| *setting == Setting::BodyBytesMax)
    }

    /// How often a request may be begun by workers: what the settings of this seed allow. `alive`:
    /// so many of those that began it announced their end meanwhile, and did not die of it.
    pub fn begins_max(&self, service: usize, is_idempotent: bool, alive: u64) -> u64 {
        let value = ServicePlan::value;
        let of = |service: &ServicePlan| {
            let retry = value(service, ServiceSetting::Retry);
            let idempotent = value(service, ServiceSetting::RetryIdempotent);
            1 + if is_idempotent { retry.max(idempotent) } else { retry }
        };
        if self.operator_ms == 0 {
            let service = &self.services[service];
            // What is sent ahead may be lost without a worker dying of it. A loss is no death if
            // the worker's machine is not reached, something else ended it, or it came back before
            // the broker noticed the loss, which takes a slow network.
            // Nor is it known of which of several requests a worker died. Who announces its end is
            // no crash, whatever it leaves unanswered.
            let is_held = value(service, ServiceSetting::Prefetch) > 0 || service.announces > 1;
            let is_excused = self.fault_ms > 0 || self.way_micros.1 > WAY_SHORT_US;
            return if is_held || is_excused {
                of(service)
            } else {
                of(service).min(value(service, ServiceSetting::PoisonDeaths) + alive)
            };
        }
        // The operator may have moved the client to another service.
        self.services.iter().map(of).max().unwrap_or(1)
    }
}

impl ServicePlan {
    /// Whether a program of it may have several requests under way.
    pub fn has_many(&self) -> bool {
        self.announces > 1 || self.is_open_ended()
    }

    /// Whether its conversations have no deadline.
    pub fn is_open_ended(&self) -> bool {
        self.value(ServiceSetting::OpenEnded) > 0
    }

    /// Most requests that one of its workers may have at a time.
    pub fn capacity(&self) -> usize {
        let announced = u64::from(self.announces);
        let most = match self.value(ServiceSetting::Concurrency) {
            0 => announced,
            most => announced.min(most),
        };
        let held = if announced > 1 { 0 } else { self.value(ServiceSetting::Prefetch) };
        (most + held) as usize
    }

    /// The value of a setting at the start.
    pub fn value(&self, wanted: ServiceSetting) -> u64 {
        let found = self.settings.iter().find(|(setting, _)| *setting == wanted);
        found.map_or_else(|| wanted.row().default, |(_, value)| *value)
    }
}

fn service(
    name: &'static str,
    (rng, news): (&mut Rng, &mut Rng),
    hosts: usize,
    behaviours: &[Behaviour],
) -> ServicePlan {
    let mut settings = Vec::new();
    let mut maybe = |setting: ServiceSetting, values: &[u64]| {
        if rng.hits(300) {
            settings.push((setting, rng.pick(values)));
        }
    };
    maybe(ServiceSetting::DeadlineMs, &[50, 2000, 10_000]);
    maybe(ServiceSetting::QueueMax, &[0, 1, 5, 50]);
    maybe(ServiceSetting::Retry, &[1, 2]);
    maybe(ServiceSetting::RetryIdempotent, &[0, 1, 6]);
    maybe(ServiceSetting::RetryPercent, &[0, 100]);
    maybe(ServiceSetting::RetryMin, &[0, 1, 100]);
    maybe(ServiceSetting::PoisonDeaths, &[1, 3, 10]);
    maybe(ServiceSetting::KillAfterMs, &[100, 1000, 5000]);
    maybe(ServiceSetting::Prefetch, &[1, 3, 16]);
    let workers = (0..1 + rng.index(4)).map(|_| (rng.index(hosts), rng.pick(behaviours))).collect();
    let self_started = if rng.hits(150) {
        (0..1 + rng.index(2)).map(|_| rng.index(hosts)).collect()
    } else {
        Vec::new()
    };
    if news.hits(250) {
        settings.push((ServiceSetting::Concurrency, news.pick(&[1, 2, 3])));
    }
    if news.hits(250) {
        settings.push((ServiceSetting::OpenEnded, 1));
        // A program can't know that its conversation is refused before it begins what it holds.
        settings.retain(|(setting, _)| *setting != ServiceSetting::Prefetch);
        if news.hits(200) {
            settings.push((ServiceSetting::ConversationsMax, news.pick(&[1, 3])));
        }
    }
    let announces = news.pick(&[1, 1, 1, 2, 4, 8]);
    let hears_cancel = news.hits(500);
    ServicePlan { name, settings, workers, self_started, announces, hears_cancel }
}

fn settings(rng: &mut Rng) -> Vec<(Setting, u64)> {
    let mut settings = Vec::new();
    let mut maybe = |setting: Setting, values: &[u64]| {
        if rng.hits(200) {
            settings.push((setting, rng.pick(values)));
        }
    };
    maybe(Setting::RequestsMax, &[1, 3, 10]);
    maybe(Setting::BodyBytesMax, &[2048, 5000]);
    maybe(Setting::QueueBytesMax, &[4096, 20_000]);
    maybe(Setting::OutboxBytesMax, &[65_536]);
    maybe(Setting::OutboxBytesHigh, &[4096, 10_000]);
    maybe(Setting::StallMs, &[100, 1000]);
    maybe(Setting::LoginMs, &[1000, 10_000]);
    maybe(Setting::HeartbeatMs, &[500, 5000]);
    maybe(Setting::WorkerLoginMs, &[1500, 3000]);
    maybe(Setting::ReturnMs, &[10, 1000, 20_000]);
    maybe(Setting::ReconnectMs, &[0, 1000]);
    maybe(Setting::StopAskMs, &[0, 100]);
    maybe(Setting::StopTermMs, &[0, 100]);
    maybe(Setting::RestartMinMs, &[1, 100]);
    maybe(Setting::RestartMaxMs, &[1, 1000]);
    maybe(Setting::RestartQuietMs, &[10, 1000]);
    maybe(Setting::RestartEarlyMax, &[1, 2, 50]);
    maybe(Setting::RestartMinuteMax, &[1, 3, 100]);
    maybe(Setting::HostRetryMs, &[10, 500]);
    maybe(Setting::EventsMax, &[5, 100]);
    maybe(Setting::PoisonMax, &[0, 1]);
    maybe(Setting::LastBytesMax, &[0, 10]);
    settings
}
