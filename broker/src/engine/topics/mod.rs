//! The machine `topics`: who gets a published message. It owns the subscriptions, the values that
//! are kept, and what waits for subscribers.

use super::context::Context;
use super::keys::ServiceKey;
use bytes::Bytes;
use protocol::bodies::Subscribe;
use protocol::topics::Pattern;
use protocol::{Header, LinkId};

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    epoch: u64,
}

impl Topics {
    /// Without subscriptions; `epoch` tells this start of the broker from all others.
    pub(crate) fn new(epoch: u64) -> Self {
        Self { epoch }
    }

    /// A client or worker subscribes.
    pub(crate) fn subscribe(&mut self, link: LinkId, body: Subscribe, cx: &mut Context<'_>) {
        let _ = (link, body, cx, self.epoch);
    }

    /// A client or worker ends a subscription.
    pub(crate) fn unsubscribe(&mut self, link: LinkId, subscription: u32, cx: &mut Context<'_>) {
        let _ = (link, subscription, cx);
    }

    /// A client or worker publishes.
    pub(crate) fn publish(
        &mut self,
        link: LinkId,
        head: &Header,
        body: Bytes,
        cx: &mut Context<'_>,
    ) {
        let _ = (link, head, body, cx);
    }

    /// The broker publishes.
    pub(crate) fn publish_own(
        &mut self,
        topic: &str,
        lines: &[(&'static str, String)],
        cx: &mut Context<'_>,
    ) {
        let _ = (topic, lines, cx);
    }

    /// A link is gone.
    pub(crate) fn link_gone(&mut self, link: LinkId, cx: &mut Context<'_>) {
        let _ = (link, cx);
    }

    /// Too much waits to be sent to a link.
    pub(crate) fn congested(&mut self, link: LinkId) {
        let _ = link;
    }

    /// No more.
    pub(crate) fn uncongested(&mut self, link: LinkId, cx: &mut Context<'_>) {
        let _ = (link, cx);
    }

    /// A service takes the messages of a pattern as requests from now on, or no more of any.
    pub(crate) fn take_for_service(&mut self, service: ServiceKey, pattern: Option<Pattern>) {
        let _ = (service, pattern);
    }

    /// `Timer::Topics`.
    pub(crate) fn on_due(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }
}
