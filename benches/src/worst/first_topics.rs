//! What the first subscriber, publisher and instance cost among the crowd.

use super::Case;
use super::crowd::Crowd;
use super::inputs::{client, one};
use broker::engine::input::Input;
use protocol::bodies::{Beat, Subscribe, Withdraw};
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::instances::BeatOf;
use protocol::kinds::Kind;
use protocol::messages::MessageOf;

/// Topics and instances.
pub(super) fn cases() -> Vec<Case> {
    let subscribe = |crowd: &Crowd| Input::Subscribe {
        link: client(crowd),
        subscribe: Box::new(Subscribe {
            subscription: 9,
            pattern: "orders.>".to_owned(),
            from: None,
            retained: true,
        }),
    };
    vec![
        one("Subscribe: the first", move |crowd| Ok(subscribe(crowd))),
        one("Unsubscribe: one that is not there", |crowd| {
            Ok(Input::Unsubscribe { link: client(crowd), subscription: 1 })
        }),
        one("Publish: to nobody", |crowd| {
            let body = MessageOf::new("orders.eu.created", b"order 4711").body();
            Ok(Input::Publish { link: client(crowd), head: Header::default(), body })
        }),
        one("Announce: the first", |crowd| {
            let announce = Frame::example(Kind::Announce).ok_or("no example")?;
            let Frame::Announce(announce) = announce else { return Err("no announce".to_owned()) };
            Ok(Input::Announce { link: client(crowd), announce: Box::new(announce) })
        }),
        one("StateChange: of none", |crowd| {
            let change = Frame::example(Kind::StateChange).ok_or("no example")?;
            let Frame::StateChange(change) = change else { return Err("no change".to_owned()) };
            Ok(Input::StateChange { link: client(crowd), change: Box::new(change) })
        }),
        one("Beat: of 4096 that are not there", |crowd| {
            let instances = (0..4096).map(|id| BeatOf { id, checkpoint: 7, is_idle: false });
            let beat = Beat { beat: 7, instances: instances.collect() };
            Ok(Input::Beat { link: client(crowd), beat })
        }),
        one("Withdraw: of none", |crowd| {
            let withdraw = Withdraw { sequence: 0, id: 7, failed: false, text: String::new() };
            Ok(Input::Withdraw { link: client(crowd), withdraw: Box::new(withdraw) })
        }),
    ]
}
