//! Topics and instances, with many of each: 10,000 subscribers of one topic, 10,000 subscriptions
//! of one client, 100,000 values that are kept, 100,000 instances.

use super::Case;
use super::commands::{self, When};
use super::crowd::Crowd;
use super::inputs::{case, one};
use broker::engine::input::{Close, Input};
use protocol::bodies::{Announce, Beat, StateChange, Subscribe, Withdraw};
use protocol::header::Header;
use protocol::ids::LinkId;
use protocol::instances::{BeatOf, InstanceState, InstanceType};
use protocol::messages::{MessageOf, Position, Retain};
use protocol::names::ServiceName;

/// Subscribers of one topic.
const SUBSCRIBERS: u32 = 10_000;
/// Subscriptions of one client.
const SUBSCRIPTIONS: u32 = 10_000;
/// Values that are kept.
const VALUES: u32 = 100_000;
/// Instances.
const INSTANCES: u64 = 100_000;
/// Instances of one connection.
const EACH: u64 = 10_000;
/// What the many subscribe to.
const TOPIC: &str = "bench.all";
/// The number of the subscription of each.
const NUMBER: u32 = 1_000_000;

fn bus(crowd: &mut Crowd) -> Result<LinkId, String> {
    crowd.attach(ServiceName::new("bus").map_err(|e| e.to_string())?)
}

fn subscribe(link: LinkId, subscription: u32, pattern: &str) -> Input {
    let pattern = pattern.to_owned();
    let subscribe = Subscribe { subscription, pattern, from: None, retained: true };
    Input::Subscribe { link, subscribe: Box::new(subscribe) }
}

fn publish(link: LinkId, message: &MessageOf<'_>) -> Input {
    Input::Publish { link, head: Header { sequence: 5, ..Header::default() }, body: message.body() }
}

/// Values that are kept, of topics that begin with this word.
fn keep(crowd: &mut Crowd, (link, word): (LinkId, &str), message: MessageOf<'_>) {
    for number in 0..VALUES {
        let topic = format!("{word}.area{}.item{number}", number % 97);
        crowd.give(publish(link, &MessageOf { topic: &topic, ..message }));
    }
}

/// A client whose link was noted by another case: the last that logged in to the bus.
fn last(crowd: &Crowd) -> Result<LinkId, String> {
    crowd.noted.ok_or_else(|| "no link was noted".to_owned())
}

/// An input to a link that was noted, with what follows.
fn noted(name: &'static str, make: impl Fn(LinkId) -> Input + 'static) -> Case {
    one(name, move |crowd| Ok(make(last(crowd)?)))
}

/// What is done before a case, unmeasured; the link that it gives is noted.
fn before(
    crowd: &mut Crowd,
    act: impl FnOnce(&mut Crowd) -> Result<LinkId, String>,
) -> Result<LinkId, String> {
    let mut link = Err(String::new());
    crowd.quietly(|crowd| {
        link = act(crowd);
        crowd.follow()
    })?;
    crowd.noted = link.as_ref().ok().copied();
    link
}

/// All cases, in order; they need a crowd of their own.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = subscribers();
    cases.extend(congestion());
    cases.extend(values());
    cases.extend(with(When::Topics, "100,000 values"));
    cases.extend(removals());
    cases.extend(instances());
    cases.extend(with(When::Instances, "100,000 instances"));
    cases.extend(instance_ends());
    cases
}

/// Commands, whose names say what there is.
fn with(when: When, what: &str) -> impl Iterator<Item = Case> {
    let named = move |case: Case| Case { name: format!("{}, with {what}", case.name), ..case };
    commands::cases(when).into_iter().map(named)
}

fn subscribers() -> Vec<Case> {
    let to_all = |crowd: &mut Crowd| -> Result<Input, String> {
        Ok(publish(bus(crowd)?, &MessageOf::new(TOPIC, b"a message")))
    };
    vec![
        case("Subscribe: 10,000 clients to one topic", |crowd| {
            let links = crowd.clients.clone();
            let missing = SUBSCRIBERS.saturating_sub(links.len() as u32);
            for link in links {
                crowd.give(subscribe(link, NUMBER, TOPIC));
            }
            for _ in 0..missing {
                let mut link = Err(String::new());
                crowd.quietly(|crowd| {
                    link = bus(crowd);
                    Ok(())
                })?;
                crowd.give(subscribe(link?, NUMBER, TOPIC));
            }
            crowd.follow()
        }),
        one("Publish: to 10,000 subscribers of one topic", to_all),
        case("Publish: ten to 10,000 subscribers before the first is sent to all", move |crowd| {
            let link = before(crowd, bus)?;
            for _ in 0..10 {
                crowd.give(publish(link, &MessageOf::new(TOPIC, b"a message")));
            }
            crowd.follow()
        }),
        case("Subscribe: 10,000 patterns of one client", |crowd| {
            let link = before(crowd, bus)?;
            for number in 0..SUBSCRIPTIONS {
                crowd.give(subscribe(link, number, &format!("many.*.item{number}")));
            }
            crowd.follow()
        }),
        noted("Subscribe: one more than may be", |link| subscribe(link, NUMBER, "one.more")),
        noted("Publish: beside 10,000 patterns", |link| {
            publish(link, &MessageOf::new("many.eu.item77", b"a message"))
        }),
        noted("Unsubscribe: one of 10,000", |link| Input::Unsubscribe { link, subscription: 77 }),
        noted("Closed: a client with 10,000 subscriptions", |link| Input::Closed {
            link,
            how: Close::Eof,
        }),
        case("Subscribe: a client 10,000 times to the same topic", |crowd| {
            let link = before(crowd, bus)?;
            for number in 0..SUBSCRIPTIONS {
                crowd.give(subscribe(link, number, "same.topic"));
            }
            crowd.follow()
        }),
        noted("Publish: to 10,000 subscriptions of one client", |link| {
            publish(link, &MessageOf::new("same.topic", b"a message"))
        }),
        noted("Closed: a client with 10,000 subscriptions to the same", |link| Input::Closed {
            link,
            how: Close::Eof,
        }),
    ]
}

fn congestion() -> Vec<Case> {
    let messages = |crowd: &mut Crowd, link: LinkId, topic: &str, count: u32| {
        for _ in 0..count {
            crowd.give(publish(link, &MessageOf::new(topic, &[7; 64])));
        }
    };
    vec![
        case("Congested: a client with 10,000 subscriptions", |crowd| {
            let link = before(crowd, |crowd| {
                let link = bus(crowd)?;
                for number in 0..SUBSCRIPTIONS {
                    crowd.give(subscribe(link, number, "slow.topic"));
                }
                Ok(link)
            })?;
            crowd.give(Input::Congested { link });
            crowd.follow()
        }),
        one("Publish: to 10,000 subscriptions of a congested client", |crowd| {
            Ok(publish(bus(crowd)?, &MessageOf::new("slow.topic", &[7; 64])))
        }),
        case("Uncongested: a client with 10,000 subscriptions that have 10 messages each", {
            move |crowd| {
                let link = last(crowd)?;
                crowd.quietly(|crowd| {
                    let publisher = bus(crowd)?;
                    messages(crowd, publisher, "slow.topic", 9);
                    crowd.follow()
                })?;
                crowd.give(Input::Uncongested { link });
                crowd.follow()
            }
        }),
        case("Uncongested: a client with 10,000 messages of one subscription", move |crowd| {
            let link = before(crowd, |crowd| {
                let (link, publisher) = (bus(crowd)?, bus(crowd)?);
                crowd.give(subscribe(link, 1, "full.topic"));
                crowd.give(Input::Congested { link });
                messages(crowd, publisher, "full.topic", 11_000);
                Ok(link)
            })?;
            crowd.give(Input::Uncongested { link });
            crowd.follow()
        }),
        case("Closed: a congested client with 10,000 subscriptions and 100,000 messages", {
            move |crowd| {
                let link = before(crowd, |crowd| {
                    let (link, publisher) = (bus(crowd)?, bus(crowd)?);
                    for number in 0..SUBSCRIPTIONS {
                        crowd.give(subscribe(link, number, "lost.topic"));
                    }
                    crowd.give(Input::Congested { link });
                    messages(crowd, publisher, "lost.topic", 10);
                    crowd.follow()?;
                    Ok(link)
                })?;
                crowd.give(Input::Closed { link, how: Close::Reset });
                crowd.follow()
            }
        }),
        lowered("set topic_queue_max 1", 1, 10_000),
        lowered("set topic_queues_bytes_max 1048576", 10_000, 10),
        lowered("set subscriptions_max 1", 10_000, 1),
    ]
}

/// A limit is lowered while a congested client has so many subscriptions to a topic, with so many
/// messages each.
fn lowered(command: &'static str, subscriptions: u32, count: u32) -> Case {
    let name = format!("{command}, with {subscriptions} subscriptions, {count} messages each");
    let act = move |crowd: &mut Crowd| {
        let link = before(crowd, |crowd| {
            crowd.command("set topic_queue_max 10000");
            crowd.follow()?;
            let (link, publisher) = (bus(crowd)?, bus(crowd)?);
            for number in 0..subscriptions {
                crowd.give(subscribe(link, number, "lowered.topic"));
            }
            crowd.give(Input::Congested { link });
            for _ in 0..count {
                crowd.give(publish(publisher, &MessageOf::new("lowered.topic", &[7; 64])));
            }
            Ok(link)
        })?;
        crowd.command(command);
        crowd.follow()?;
        crowd.quietly(|crowd| {
            crowd.close(link, Close::Eof);
            crowd.follow()
        })
    };
    Case { name, act: Box::new(act) }
}

fn values() -> Vec<Case> {
    vec![
        case("Publish: 100,000 values that are kept", |crowd| {
            let link = before(crowd, bus)?;
            let message = MessageOf { retain: Retain::Yes, ..MessageOf::new("", &[7; 64]) };
            keep(crowd, (link, "kept"), message);
            crowd.follow()
        }),
        one("Subscribe: to all topics, with 100,000 values that are kept", |crowd| {
            Ok(subscribe(bus(crowd)?, 1, ">"))
        }),
        one("Subscribe: to a pattern that no value matches, with 100,000", |crowd| {
            Ok(subscribe(bus(crowd)?, 1, "kept.*.nothing"))
        }),
        case("Subscribe: 100 clients to all topics at once, with 100,000 values", |crowd| {
            let mut links = Vec::new();
            crowd.quietly(|crowd| {
                for _ in 0..100 {
                    links.push(bus(crowd)?);
                }
                Ok(())
            })?;
            for &link in &links {
                crowd.give(subscribe(link, 1, ">"));
                crowd.give(Input::Congested { link });
            }
            crowd.follow()?;
            crowd.quietly(|crowd| {
                links.iter().for_each(|&link| crowd.close(link, Close::Eof));
                crowd.follow()
            })
        }),
        one("Subscribe: from a message that is long gone", |crowd| {
            let from = Some(Position { epoch: 1, number: 1 });
            let pattern = "bench.>".to_owned();
            let subscribe = Subscribe { subscription: 2, pattern, from, retained: false };
            Ok(Input::Subscribe { link: bus(crowd)?, subscribe: Box::new(subscribe) })
        }),
    ]
}

fn removals() -> Vec<Case> {
    vec![
        commands::case("set topic_ring_max 10"),
        commands::case("set retained_max 1000"),
        commands::case("set retained_max 200000"),
        case("Closed: a publisher with 100,000 values that end with it", |crowd| {
            let link = before(crowd, |crowd| {
                let link = bus(crowd)?;
                let retain = Retain::Connected;
                let message = MessageOf { retain, ..MessageOf::new("", &[7; 64]) };
                keep(crowd, (link, "mine"), message);
                Ok(link)
            })?;
            crowd.give(Input::Closed { link, how: Close::Eof });
            crowd.follow()
        }),
        case("Deadline: 100,000 values expire at once", |crowd| {
            before(crowd, |crowd| {
                let link = bus(crowd)?;
                let message = MessageOf {
                    retain: Retain::Yes,
                    expires_ms: Some(60_000),
                    ..MessageOf::new("", &[7; 64])
                };
                keep(crowd, (link, "short"), message);
                // What else is due in a minute, as pings of all, is another case.
                crowd.now = crowd.now.plus_millis(59_990);
                crowd.give(Input::Deadline);
                crowd.follow()?;
                Ok(link)
            })?;
            crowd.now = crowd.now.plus_millis(10);
            crowd.give(Input::Deadline);
            crowd.follow()
        }),
    ]
}

fn announce(id: u64) -> Box<Announce> {
    Box::new(Announce {
        sequence: 1,
        name: "pump".to_owned(),
        id,
        kind: InstanceType::Data,
        groups: vec!["night".to_owned()],
        activity_timeout_ms: 5000,
        stalled_ms: 0,
        state: InstanceState::Running,
        addresses: Vec::new(),
        meta: Vec::new(),
        state_names: Vec::new(),
    })
}

/// An instance of the connection that was noted.
const ONE: u64 = INSTANCES - 7;

fn instances() -> Vec<Case> {
    vec![
        case("Announce: 100,000 instances of one group", |crowd| {
            for first in (0..INSTANCES).step_by(EACH as usize) {
                let link = before(crowd, bus)?;
                for id in first..first + EACH {
                    crowd.give(Input::Announce { link, announce: announce(id) });
                }
            }
            crowd.follow()
        }),
        noted("Announce: one more than may be", |link| Input::Announce {
            link,
            announce: announce(INSTANCES),
        }),
        noted("StateChange: of one of 100,000", |link| {
            let (state, text) = (InstanceState::Stopping, "soon".to_owned());
            let change = StateChange { sequence: 1, id: ONE, state, checkpoint: Some(9), text };
            Input::StateChange { link, change: Box::new(change) }
        }),
        noted("Beat: of 4096 of 100,000", |link| {
            let ids = INSTANCES - 4096..INSTANCES;
            let instances = ids.map(|id| BeatOf { id, checkpoint: 7, is_idle: false }).collect();
            Input::Beat { link, beat: Beat { beat: 7, instances } }
        }),
        noted("Withdraw: one of 100,000", |link| {
            let (failed, text) = (true, "broken".to_owned());
            let withdraw = Withdraw { sequence: 0, id: ONE, failed, text };
            Input::Withdraw { link, withdraw: Box::new(withdraw) }
        }),
        case("Deadline: looks at 100,000 instances for two seconds", |crowd| crowd.pass(2000)),
    ]
}

fn instance_ends() -> Vec<Case> {
    vec![
        case("Deadline: 100,000 instances time out", |crowd| crowd.pass(6000)),
        noted("Beat: 4096 return that were timed out", |link| {
            let ids = INSTANCES - 4096..INSTANCES;
            let instances = ids.map(|id| BeatOf { id, checkpoint: 8, is_idle: false }).collect();
            Input::Beat { link, beat: Beat { beat: 8, instances } }
        }),
        case("Deadline: the broker stood still, with 100,000 instances", |crowd| {
            crowd.now = crowd.now.plus_millis(31_000);
            crowd.give(Input::Deadline);
            crowd.follow()
        }),
        noted("Closed: a client with 10,000 instances", |link| Input::Closed {
            link,
            how: Close::Reset,
        }),
        case("set instances_max 10, with 90,000 instances", |crowd| {
            crowd.command("set instances_max 10");
            crowd.follow()?;
            crowd.quietly(|crowd| {
                crowd.command("set instances_max 100000");
                crowd.follow()
            })
        }),
        commands::case("set instance_history_max 1"),
    ]
}
