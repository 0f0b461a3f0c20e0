//! What a seed switches on of topics and instances: two of five seeds have them. It is drawn from
//! numbers of its own, so that the others draw what they always drew.

use crate::sim::rng::Rng;
use protocol::settings::Setting;

/// Topics and instances in a simulation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BusPlan {
    /// How many clients publish and subscribe.
    pub clients: usize,
    /// How many programs announce instances.
    pub programs: usize,
    /// Time between two acts of one of them, at most.
    pub think_ms: u64,
    /// Most subscriptions that a client wants at a time.
    pub subscriptions: usize,
    /// Messages that all of them publish together.
    pub messages: u64,
    /// Most messages that a client publishes at once.
    pub burst: u64,
    /// Most bytes of a payload.
    pub bytes_max: u64,
    /// Of a thousand messages, how many are kept.
    pub retain: u64,
    /// Of a thousand acts of a client, how many make it read slowly for a while.
    pub slow_reader: u64,
    /// Of a thousand acts, how many close the connection.
    pub close: u64,
    /// Of a thousand acts of a client, how many must be refused.
    pub wrong: u64,
    /// Of a thousand acts of a program, how many make it hang for a while.
    pub hang: u64,
    /// Settings of the broker, besides those of the plan.
    pub settings: Vec<(Setting, u64)>,
}

impl BusPlan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed.rotate_left(43) ^ 0x7f4a_7c38);
        if !rng.hits(400) {
            return Self::default();
        }
        Self::drawn(&mut rng)
    }

    /// Topics and instances for certain.
    pub fn lively(seed: u64) -> Self {
        Self::drawn(&mut Rng::new(seed.rotate_left(29) ^ 0x27d4_eb2f))
    }

    /// Whether there is anything of it.
    pub const fn is_on(&self) -> bool {
        self.clients + self.programs > 0
    }

    fn drawn(rng: &mut Rng) -> Self {
        let mut settings = Vec::new();
        let mut maybe = |rng: &mut Rng, setting: Setting, values: &[u64]| {
            if rng.hits(400) {
                settings.push((setting, rng.pick(values)));
            }
        };
        maybe(rng, Setting::SubscriptionQueueMax, &[1, 3, 20]);
        maybe(rng, Setting::SubscriptionQueueBytesMax, &[1024, 10_000]);
        maybe(rng, Setting::SubscriptionsMax, &[2, 5]);
        maybe(rng, Setting::TopicRingMax, &[0, 5, 50]);
        maybe(rng, Setting::TopicRingBytesMax, &[0, 5000]);
        maybe(rng, Setting::RetainedMax, &[0, 3, 10]);
        maybe(rng, Setting::InstancesMax, &[2, 5]);
        maybe(rng, Setting::ConnectionInstancesMax, &[1, 2]);
        maybe(rng, Setting::InstanceHistoryMax, &[0, 3]);
        maybe(rng, Setting::ActivityTimeoutMs, &[300, 1000]);
        maybe(rng, Setting::BeatMs, &[100, 300]);
        Self {
            clients: 1 + rng.index(5),
            programs: rng.index(5),
            think_ms: rng.pick(&[20, 100, 500]),
            subscriptions: rng.pick(&[1, 4, 12]),
            messages: rng.pick(&[300, 1000, 3000]),
            burst: rng.pick(&[1, 5, 30]),
            bytes_max: rng.pick(&[10, 300, 3000]),
            retain: rng.pick(&[0, 100, 600]),
            slow_reader: rng.pick(&[0, 20, 100]),
            close: rng.pick(&[0, 5, 30]),
            wrong: rng.pick(&[0, 50, 200]),
            hang: rng.pick(&[0, 10, 100]),
            settings,
        }
    }
}
