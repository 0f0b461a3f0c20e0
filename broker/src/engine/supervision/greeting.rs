//! From the open link of a host to its list: the hello, the proof of the host's token, the welcome.
//! The reactor looks the token up and does the arithmetic; what follows from it is decided here. An
//! execd that is not trusted is closed before anything else that it sends counts.

use super::host::KeptOutput;
use super::host_state::{HostEvent, HostState};
use super::machine::Supervision;
use crate::engine::action::Action;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::fact::{About, FactKind};
use crate::engine::input::Signature;
use crate::engine::keys::HostKey;
use crate::engine::quotas::{Class, TEXT_BYTES_MAX};
use crate::engine::timers::Timer;
use protocol::bodies::{ExecEnd, ExecHello, ExecWelcome};
use protocol::{Challenge, Claim, Frame, LinkId, show};

/// Milliseconds that a host may take to send welcome and list, although it answers pings. This is
/// longer than an execd lets a proof wait for its turn, and than many handshakes at once take.
const GREETING_MS: u64 = 30_000;

impl Supervision {
    /// The link to a host is open: its token is looked up for the hello. The built-in execd needs
    /// none and gets its hello at once.
    pub(crate) fn begin_greeting(&mut self, link: LinkId, key: HostKey, cx: &mut Context<'_>) {
        cx.timers.add(cx.now.plus_millis(GREETING_MS), Timer::Greeting(link));
        let host = &self.hosts[key];
        if host.is_builtin {
            self.greet(link, key, None, cx);
        } else {
            cx.out.push(Action::Claim { link, host: host.name.clone() });
        }
    }

    /// The token for the hello was looked up: sends the hello. `None` = it names no token.
    pub(crate) fn on_claimed(
        &mut self,
        link: LinkId,
        key: HostKey,
        claim: Option<Claim>,
        cx: &mut Context<'_>,
    ) {
        if self.hosts[key].state == HostState::Greeting(link) {
            self.greet(link, key, claim, cx);
        }
    }

    fn greet(&mut self, link: LinkId, key: HostKey, claim: Option<Claim>, cx: &mut Context<'_>) {
        let host = &mut self.hosts[key];
        host.enter(if claim.is_some() { HostEvent::Claim } else { HostEvent::Greet });
        let broker = cx.listening.directory_id.clone();
        let hello = ExecHello { host: host.name.clone(), broker, token: claim };
        cx.out.push(Action::Send { link, frame: Frame::ExecHello(hello) });
    }

    /// Has the host's token proved to an execd that asks for it.
    pub(crate) fn on_challenged(
        &mut self,
        link: LinkId,
        key: HostKey,
        challenge: Box<Challenge>,
        cx: &mut Context<'_>,
    ) {
        if !self.is_awaiting_welcome(key) {
            return;
        }
        if self.is_trusted_after(HostEvent::Challenge, link, key, cx) {
            cx.out.push(Action::Prove { link, challenge });
        }
    }

    /// The welcome of an execd: if that is trusted and is what it must be, its processes are asked
    /// for.
    pub(crate) fn on_welcome(
        &mut self,
        link: LinkId,
        key: HostKey,
        welcome: ExecWelcome,
        signature: Signature,
        cx: &mut Context<'_>,
    ) {
        let event = match signature {
            Signature::Right => HostEvent::SignedWelcome,
            Signature::Missing | Signature::Wrong => HostEvent::Welcome,
        };
        if !self.is_trusted_after(event, link, key, cx) {
            return;
        }
        if let Some(grace_ms) = self.shutdown_ms {
            let end = ExecEnd { grace_ms, keep: false };
            cx.out.push(Action::Send { link, frame: Frame::ExecEnd(end) });
            return;
        }
        let host = &mut self.hosts[key];
        host.pid = welcome.hostpid;
        host.version.clone_from(&welcome.version);
        let before = std::mem::replace(&mut host.policy, welcome.policy.clone());
        let differs = host.differs(&welcome);
        if let Some(what) = differs.filter(|_| !cx.is_shutting_down) {
            self.replace_execd(link, key, &welcome, what, cx);
            return;
        }
        host.older = welcome.older;
        host.connection.kept_output =
            if welcome.keeps_output { KeptOutput::Unasked } else { KeptOutput::No };
        cx.out.push(Action::Send { link, frame: Frame::ExecList });
        self.record_policy(key, &before, cx);
    }

    /// Goes on with what an execd sent. Returns false if that shows that it is not to be trusted;
    /// then the link is closed.
    fn is_trusted_after(
        &mut self,
        event: HostEvent,
        link: LinkId,
        key: HostKey,
        cx: &mut Context<'_>,
    ) -> bool {
        let host = &mut self.hosts[key];
        host.enter(event);
        let HostState::Untrusted(_, why) = host.state else { return true };
        self.on_unproven(link, key, why, cx);
        false
    }

    /// Closes a host whose token can't be proved, or whose execd has not proved that it knows the
    /// token.
    pub(crate) fn on_unproven(
        &mut self,
        link: LinkId,
        key: HostKey,
        why: &str,
        cx: &mut Context<'_>,
    ) {
        if cx.may_cause(Class::Host, Some(link)) {
            let about = About { host: Some(self.hosts[key].name.clone()), ..About::default() };
            let why = show::brief(why, TEXT_BYTES_MAX);
            cx.record(FactKind::HostError, about, format!("the host's token: {why}"));
        }
        cx.effects.push(Effect::DropLink { link, why: "its token is not proved".to_owned() });
    }

    /// Whether the welcome of a host's execd may still come.
    pub(crate) fn is_awaiting_welcome(&self, key: HostKey) -> bool {
        self.hosts[key].state.is_awaiting_welcome()
    }

    /// `Timer::Greeting`: closes a host that has not sent its welcome or its list in time.
    pub(crate) fn on_greeting_due(&mut self, link: LinkId, key: HostKey, cx: &mut Context<'_>) {
        let state = self.hosts[key].state;
        let what = match state {
            HostState::Listing(at) if at == link => "exec-listed",
            _ if state.is_awaiting_welcome() && state.link() == Some(link) => "exec-welcome",
            _ => return,
        };
        let why = format!("answers pings, but has sent no {what} for {GREETING_MS} ms; closing it");
        cx.effects.push(Effect::DropLink { link, why });
    }
}
