//! Brokers that must prove a token: hello, challenge, proof, and only then the welcome; and which
//! link without a broker is closed when there are too many. `os` checks the proofs.

use super::Engine;
use super::action::Action;
use super::links::Link;
use protocol::bodies::ExecHello;
use protocol::{ErrorCode, LinkId, PeerGroup, Proof};
use std::collections::BTreeMap;

/// How far a link is with proving a token.
#[derive(Debug, Default)]
pub(super) struct Proving {
    /// Whether the peer must prove a token.
    pub(super) is_needed: bool,
    /// The hello, kept while its challenge is open.
    hello: Option<ExecHello>,
    /// Whether the proof came and is being checked.
    pub(super) is_checked: bool,
}

impl Proving {
    /// The state of a new link, which must prove a token or not.
    pub(super) fn new(is_needed: bool) -> Self {
        Self { is_needed, ..Self::default() }
    }

    /// Whether the peer has not said hello.
    pub(super) const fn is_silent(&self) -> bool {
        self.hello.is_none()
    }
}

impl Engine {
    /// Closes a link without a broker, so that a newer one has room; returns whether it found one.
    /// It takes a link of the peer group that has most of them, so that a crowd does not keep
    /// others out. In that group it takes the one that is silent longest, because a broker says
    /// hello at once. If more than half of the group are proving a token, it takes the oldest of
    /// those, because a hello costs nothing.
    pub(super) fn make_room(&mut self, newer: PeerGroup) -> bool {
        let out_of = || self.links.iter().filter(|(_, link)| link.broker.is_none());
        let mut crowds = BTreeMap::from([(newer, 1)]);
        for (_, link) in out_of() {
            *crowds.entry(link.peer_group).or_insert(0_usize) += 1;
        }
        let most = crowds.values().max().copied();
        let crowd = || out_of().filter(|(_, link)| crowds.get(&link.peer_group).copied() == most);
        let silent = crowd().filter(|(_, link)| link.proving.is_silent()).count();
        let prefers_silent = crowd().count() <= silent * 2;
        let goes = crowd().min_by_key(|(_, Link { proving, .. })| {
            (proving.is_checked, proving.is_silent() != prefers_silent)
        });
        let Some(id) = goes.map(|(id, _)| *id) else { return false };
        let text =
            "all connections are in use; yours, without a broker, goes to a newer one".into();
        self.drop_link(id, (ErrorCode::TooManyConnections, text));
        true
    }

    /// Handles the first frame of a broker.
    pub(super) fn greeted(&mut self, id: LinkId, hello: ExecHello) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let error = match &hello.token {
            _ if link.proving.hello.is_some() => {
                (ErrorCode::BadState, "this connection was challenged; a proof must come next")
            }
            Some(claim) => {
                let (host, claim) = (hello.host.clone(), claim.clone());
                link.proving.hello = Some(hello);
                self.out.push(Action::Challenge { link: id, host, claim });
                return;
            }
            None if link.proving.is_needed => (
                ErrorCode::NeedsToken,
                "this execd starts programs only for a broker that proves a token; start isectd \
                 with --host-token FILE",
            ),
            None => {
                self.hello(id, &hello, None);
                return;
            }
        };
        self.drop_link(id, (error.0, error.1.into()));
    }

    /// Handles the answer to a challenge.
    pub(super) fn proved(&mut self, id: LinkId, proof: Proof) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.proving.hello.is_none() || link.proving.is_checked {
            let text = "a proof answers a challenge, and there was none".into();
            self.drop_link(id, (ErrorCode::BadState, text));
            return;
        }
        link.proving.is_checked = true;
        self.out.push(Action::Verify { link: id, proof });
    }

    /// Handles the result of the check: the signature for the welcome, or why the proof was
    /// refused.
    pub(super) fn proven(&mut self, id: LinkId, proven: Result<String, String>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(hello) = link.proving.hello.take() else { return };
        match proven {
            Ok(signature) => self.hello(id, &hello, Some(signature)),
            Err(why) => {
                let name = hello.token.map(|claim| claim.token.to_string()).unwrap_or_default();
                let text = format!("token '{name}' {why}");
                self.drop_link(id, (ErrorCode::BadToken, text));
            }
        }
    }
}
