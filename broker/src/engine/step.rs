//! What each input means: the one entry point of the engine.

use super::action::Action;
use super::context::context;
use super::effect::Effect;
use super::hub::Engine;
use super::input::Input;
use super::operator::{
    certificates, listing, logs, restart, run, save, script, status, tokens, why,
};
use super::operator_act::OperatorAct;
use super::sessions::connection::End;
use super::timers::Timer;
use super::work::{Work, WorkerVerb};
use super::{
    client_frames, deadlines, deaths, demand, fact_messages, heartbeat, instance_frames, outlook,
    recycle, rollouts, shutdown, start, start_logins, topic_frames, work_parts, worker_instances,
};
use bytes::Bytes;
use protocol::{ErrorBody, ErrorCode, Frame, Header, LinkId, Setting, Tick, TransactionId};

/// Most timers that are handled in one step.
const TIMERS_MAX: usize = 128;

impl Engine {
    /// Takes one input and appends the actions that follow from it, in order. What `out` has
    /// already stays as it is.
    ///
    /// # Time
    /// `now` is the tick at which the input was read; a tick earlier than the one before counts as
    /// that one. Once the clock has passed [`next_deadline`](Self::next_deadline), which may change
    /// with each step, the caller owes an [`Input::Deadline`].
    ///
    /// # Order of the calls
    /// - [`Input::Listening`] comes first, and once. The scripts of the start follow, with the
    ///   tokens and certificates, and then [`Input::Started`], once; inputs of links come after it.
    /// - The inputs of a link begin with its `ClientOpened`, `WorkerOpened` or `HostOpened`, which
    ///   comes once. Frames follow in the order in which the peer sent them; a peer may send any
    ///   frame at any time. `Known` stands right before the login that it is about.
    /// - They end with [`Input::Closed`], or when [`Action::Close`] is carried out. The caller
    ///   throws away what it has for the link then, and gives no other connection the same id.
    /// - `Congested` and `Uncongested` of a link take turns.
    /// - All other inputs may come in any order.
    ///
    /// # What may be repeated
    /// `Deadline`, which does nothing when it comes too early; `Clock`; `Script`; `Terminate`, for
    /// each signal; `TokensRead` and `CertificatesRead`, also where nobody asked for them.
    ///
    /// # What the caller owes
    /// - It carries out the actions of a step in their order before the next step. It does not call
    ///   the engine meanwhile: an input that follows from an action waits for the next step.
    /// - The comment of an [`Action`] names the input that answers it. What the caller itself finds
    ///   out (a dial, a proof that was checked, a file that was read) it says once for each action,
    ///   in any later step, with any others before it. The end of the action's link may take its
    ///   place.
    /// - What a peer has to answer may never come. The engine has set a timer for it.
    /// - An action whose comment names no input has none. That a frame was sent, a link closed or a
    ///   fact written, the engine is not told.
    ///
    /// The order among actions for different links means nothing to their peers
    /// (docs/decisions/0032).
    pub fn step(&mut self, now: Tick, input: Input, out: &mut Vec<Action>) {
        std::mem::swap(&mut self.out, out);
        self.now = self.now.max(now);
        // Deadlines come before the input, however late it was read (docs/decisions/0019): a broker
        // that stood still passes on no late answer and gives no worker a request that nobody waits
        // for any more. Only the end of a link is handled first, because nothing can be sent to it.
        if self.dispatch.is_due(self.now) && !matches!(input, Input::Closed { .. }) {
            deadlines::before(self, &input);
        }
        match input {
            Input::Request { link, head, body } => {
                self.heard(link);
                self.on_request(link, head, body);
            }
            Input::Reply { link, head, body } => {
                self.heard(link);
                self.on_reply(link, head, body);
            }
            Input::Deadline => self.on_time(),
            Input::Clock { wall } => self.wall_clock.set(self.now, wall),
            Input::Listening(listening) => start::on_listening(self, *listening),
            Input::Started => start::on_started(self),
            Input::Script { origin, text } => {
                script::on_script(self, origin, text);
                work_parts::finish(self);
            }
            Input::ClientOpened { link, peer } => self.on_opened(link, End::NewClient, peer),
            Input::WorkerOpened { link, peer } => self.on_opened(link, End::NewWorker, peer),
            Input::HostOpened { link, host, fd, must } => {
                self.on_host_opened(link, host, (fd, must));
            }
            Input::HostRefused { host, why } => {
                self.supervision.on_host_refused(&host, why, context!(self));
            }
            Input::Closed { link, how } => self.on_closed(link, how),
            Input::Congested { link } => {
                let end = self.sessions.end(link);
                // A client of the bus asks for nothing that could pile up, and its beats must be
                // heard; what it subscribed to waits elsewhere.
                let is_held = matches!(end, Some(End::Client(key))
                    if self.dispatch.caller(key).service != self.catalog.bus());
                self.dispatch.flow_mut().congested(link, is_held, &mut self.out);
                self.facts.congested(link, true);
                if end.is_some() {
                    self.topics.congested(link);
                }
            }
            Input::Uncongested { link } => {
                self.dispatch.flow_mut().has_room(link, &mut self.effects, &mut self.out);
                self.facts.congested(link, false);
                self.topics.uncongested(link, context!(self));
            }
            Input::OutboxFull { link, bytes } => self.on_outbox_full(link, bytes),
            Input::Stalled { link, bytes } => {
                let max = self.settings.get(Setting::StallMs);
                self.drop_link(
                    link,
                    format!(
                        "took none of {bytes} waiting bytes for {max} ms (stall_ms); closing it"
                    ),
                );
            }
            Input::Garbage { link, error } => self.on_garbage(link, error),
            Input::Known { link, uid, is_owner } => self.sessions.know(link, uid, is_owner),
            Input::Login { link, login } => {
                self.heard(link);
                self.on_login(link, *login);
            }
            Input::Proof { link, proof } => {
                self.heard(link);
                self.sessions.on_proof(link, proof, context!(self));
            }
            Input::Proven { link, proven } => self.on_proven(link, proven),
            Input::Claimed { link, claim } => {
                if let Some(key) = self.sessions.host_at(link) {
                    self.supervision.on_claimed(link, key, claim, context!(self));
                }
            }
            Input::Challenged { link, challenge } => {
                if let Some(key) = self.sessions.host_at(link) {
                    self.supervision.on_challenged(link, key, challenge, context!(self));
                }
            }
            Input::Unproven { link, why } => {
                if let Some(key) = self.sessions.host_at(link) {
                    self.supervision.on_unproven(link, key, &why, context!(self));
                }
            }
            Input::TokensRead { requester, tokens } => tokens::on_tokens(self, requester, tokens),
            Input::CertificatesRead { requester, found, more } => {
                certificates::on_certificates(self, requester, found, more);
            }
            Input::Logout { link, received } => self.on_logout(link, received),
            Input::HalfClosed { link } => client_frames::on_half_closed(self, link),
            Input::Cancel { link, sequence } => client_frames::on_cancel(self, link, sequence),
            Input::Flush { link, sequence } => client_frames::on_flush(self, link, sequence),
            Input::Subscribe { link, subscribe } => {
                topic_frames::on_subscribe(self, link, &subscribe);
            }
            Input::Unsubscribe { link, subscription } => {
                topic_frames::on_unsubscribe(self, link, subscription);
            }
            Input::Publish { link, head, body } => {
                topic_frames::on_publish(self, link, &head, &body);
            }
            Input::Announce { link, announce } => {
                instance_frames::on_announce(self, link, *announce);
            }
            Input::StateChange { link, change } => {
                instance_frames::on_state_change(self, link, *change);
            }
            Input::Beat { link, beat } => instance_frames::on_beat(self, link, &beat),
            Input::Withdraw { link, withdraw } => {
                instance_frames::on_withdraw(self, link, *withdraw);
            }
            Input::StartLogin { link, login, proof } => {
                self.heard(link);
                start_logins::on_start_login(self, link, *login, proof);
            }
            Input::WorkerLogin { link, login, proof } => {
                self.heard(link);
                self.on_worker_login(link, *login, proof);
            }
            Input::StatusReply { link, sequence, text } => {
                self.heard(link);
                status::on_status_reply(self, link, sequence, &text);
            }
            Input::Report { link, report } => {
                self.heard(link);
                if let Some(key) = self.sessions.host_at(link) {
                    logs::on_report(self, link, &report);
                    self.supervision.on_report(link, key, *report, context!(self));
                }
            }
            Input::PeerError { link, worker, run, error } => {
                self.on_peer_error(link, (worker, run), &error);
            }
            Input::Ping { link, sequence } => {
                self.heard(link);
                if self.sessions.end(link).is_some() {
                    self.out.push(Action::Send { link, frame: Frame::Pong { sequence } });
                }
            }
            Input::Pong { link } | Input::Heard { link } => self.heard(link),
            Input::Sourced { link, head, path, script } => {
                script::on_sourced(self, link, head, path, script)
            }
            Input::Stored { number, result } => save::on_stored(self, number, result),
            Input::Terminate { signal } => shutdown::on_terminate(self, signal),
        }
        self.settle();
        if self.store.is_due() {
            save::begin(self);
        }
        if self.shutdown.is_some() {
            shutdown::check_shutdown(self);
            self.settle();
        }
        std::mem::swap(&mut self.out, out);
    }

    /// Hands on what the machines let each other know, until nobody has anything to say.
    #[inline]
    pub(crate) fn settle(&mut self) {
        // An ordinary request leaves none.
        if !self.effects.is_empty() {
            self.hand_on();
        }
    }

    #[cold]
    fn hand_on(&mut self) {
        while let Some(effect) = self.effects.pop() {
            match effect {
                Effect::Refuse { link, error } => self.refuse_link(link, error),
                Effect::Resumed { link } => instance_frames::on_resumed(self, link),
                Effect::RefuseLogin { link, error, detail } => {
                    self.refuse_because(link, error, Some(&detail));
                }
                Effect::SilentWorker { worker, why } => {
                    heartbeat::silent_worker(self, worker, &why)
                }
                Effect::SilentHost { host } => self.supervision.silent_host(host),
                Effect::Emptied { worker, is_overdue } => {
                    self.supervision.emptied(worker, is_overdue, context!(self));
                }
                Effect::Overlong { worker, what } => {
                    self.supervision.overlong(worker, &what, context!(self));
                }
                Effect::Died { death, .. } => deaths::on_died(self, *death),
                Effect::Ended { worker } => deaths::settled(self, worker),
                Effect::Available { worker, is_available } => {
                    self.dispatch.set_available(worker, is_available, context!(self));
                    worker_instances::on_turned(self, worker);
                    rollouts::on_turned(self, worker);
                }
                Effect::Turned { worker } => {
                    worker_instances::on_turned(self, worker);
                    rollouts::on_turned(self, worker);
                }
                Effect::Roll { service } => rollouts::go_on(self, service),
                Effect::Replaced { service, outcome } => {
                    restart::on_outcome(self, service, *outcome);
                }
                Effect::Memory { worker, bytes } => recycle::on_memory(self, worker, bytes),
                Effect::GroupTurned { group, members, topic, lines } => {
                    worker_instances::on_group_turned(self, (&group, members), &topic, lines);
                }
                Effect::Outlook { service, no_worker } => {
                    outlook::on_outlook(self, service, no_worker);
                }
                Effect::Asked { service } => demand::on_asked(self, service),
                Effect::Demand { service, is_down } => demand::on_turned(self, service, is_down),
                Effect::Serve { service } => {
                    self.works.begin(Work::Serve { service }, &mut self.effects);
                }
                Effect::Launch { workers } => {
                    let (verb, said) = (WorkerVerb::Launch, OperatorAct::default());
                    self.works.begin(Work::Workers { workers, verb, said }, &mut self.effects);
                }
                Effect::Retire { workers } => {
                    let (verb, said) = (WorkerVerb::Retire, OperatorAct::default());
                    self.works.begin(Work::Workers { workers, verb, said }, &mut self.effects);
                }
                Effect::Work => work_parts::begin_part(self),
                Effect::Drain { worker } => self.dispatch.drain(worker, context!(self)),
                Effect::AskToEnd { worker } => self.ask_to_end(worker),
                Effect::Disconnect { worker, how, why } => self.disconnect(worker, how, &why),
                Effect::RefuseWorker { worker, error } => {
                    if let Some(link) = self.dispatch.seat(worker).link {
                        self.refuse_link(link, error);
                    }
                }
                Effect::Forget { worker } => {
                    self.effects.forget(worker);
                    worker_instances::on_forget(self, worker);
                    deaths::settled(self, worker);
                    self.dispatch.remove_worker(worker);
                    self.supervision.remove_worker(worker, context!(self));
                }
                Effect::Answered { link } => client_frames::on_answered(self, link),
                Effect::CloseLink { link } => self.close_link(link),
                Effect::DropLink { link, why } => self.drop_link(link, why),
                Effect::HostGone { host } => {
                    shutdown::on_host_ended(self, host);
                    rollouts::on_host_gone(self);
                }
                Effect::Traced => why::name_traces(self),
                Effect::Poisoned { transaction } => name_poison(self, transaction),
                Effect::Enqueue { service, body } => {
                    // It may be deleted by now.
                    if self.catalog.get(service).is_some() {
                        self.dispatch.accept_message(service, body, context!(self));
                    }
                }
                Effect::Fact(fact) => fact_messages::publish(self, &fact),
                Effect::StopReading { link } => {
                    self.dispatch.flow_mut().stop_reading(link, &mut self.out);
                }
                Effect::ResumeReading { link } => {
                    let flow = self.dispatch.flow_mut();
                    flow.resume_reading(link, &mut self.effects, &mut self.out);
                }
                Effect::Publish { topic, lines, source } => {
                    // It may be gone by now.
                    let source = source.filter(|link| self.sessions.end(*link).is_some());
                    self.topics.publish_own(&topic, &lines, source, context!(self));
                }
            }
        }
    }

    /// Handles a data frame of a client: a new request, a piece of one, or a command for `op`.
    fn on_request(&mut self, link: LinkId, head: Header, body: Bytes) {
        let key = match self.sessions.end(link) {
            Some(End::Client(key)) => key,
            Some(_) => {
                let text = "a request came before the login";
                self.refuse_link(link, ErrorBody::new(ErrorCode::BadState, text));
                return;
            }
            None => return,
        };
        if self.dispatch.caller(key).service == self.catalog.op() {
            run::on_command(self, key, head, &body);
        } else {
            self.dispatch.on_request(key, head, body, context!(self));
        }
    }

    /// Handles a data frame of a worker: a reply to its present transaction, or to another one.
    fn on_reply(&mut self, link: LinkId, head: Header, body: Bytes) {
        match self.sessions.end(link) {
            Some(End::Worker(worker)) => {
                self.dispatch.on_reply(link, worker, (head, body), context!(self));
            }
            Some(_) => {
                let text = "a reply came before the login";
                self.refuse_link(link, ErrorBody::new(ErrorCode::BadState, text));
            }
            None => {}
        }
    }

    pub(crate) fn heard(&mut self, link: LinkId) {
        if let Some(host) = self.sessions.heard(link, self.now) {
            self.supervision.heard_host(host);
        }
    }

    /// Handles all timers that are due: deadlines of transactions first, then the timers.
    fn on_time(&mut self) {
        heartbeat::excuse_standstill(self);
        deadlines::on_due(self);
        // The others follow in the next step.
        for _ in 0..TIMERS_MAX {
            let Some(due) = self.timers.take(self.now) else { break };
            match due {
                Timer::Login(link) => self.sessions.on_login_due(link, context!(self)),
                Timer::Greeting(link) => {
                    if let Some(key) = self.sessions.host_at(link) {
                        self.supervision.on_greeting_due(link, key, context!(self));
                    }
                }
                Timer::Proof(link) => self.sessions.on_proof_due(link, context!(self)),
                Timer::WorkerLogin(worker, run) => {
                    self.supervision.on_worker_login_due(worker, run, context!(self))
                }
                Timer::Lost(worker, run) => {
                    self.supervision.on_lost_due(worker, run, context!(self))
                }
                Timer::Return(worker, run) => {
                    self.supervision.on_return_due(worker, run, context!(self))
                }
                Timer::Unlisted(worker, run) => {
                    self.supervision.on_unlisted_due(worker, run, context!(self))
                }
                Timer::StopAsk(worker, run) => {
                    self.supervision.on_stop_ask_due(worker, run, context!(self))
                }
                Timer::Restart(worker, run) => {
                    self.supervision.on_restart_due(worker, run, context!(self))
                }
                Timer::Overlong(worker) => {
                    if let Some(key) = self.supervision.find_worker(worker) {
                        self.dispatch.on_overlong_due(key, context!(self));
                    }
                }
                Timer::SelfStart(service) => {
                    self.supervision.on_self_start_due(service, context!(self));
                }
                Timer::Rollout(service) => rollouts::on_due(self, service),
                Timer::Recycle => recycle::on_due(self),
                Timer::NextRestart(restart) => restart::begin_next(self, restart),
                Timer::Demand(service) => demand::on_due(self, service),
                Timer::Stable(worker, run) => {
                    self.supervision.on_stable_due(worker, run, context!(self));
                }
                Timer::Dial(host) => self.supervision.on_dial_due(&host, context!(self)),
                Timer::LeftOut => self.on_left_out_due(),
                Timer::Heartbeat => heartbeat::on_heartbeat(self),
                Timer::LogsAnswer(query) => logs::finish(self, query),
                Timer::StatusAnswer(query) => status::answer_status_query(self, query),
                Timer::Store => self.store.retry(),
                Timer::StoreWait(number) => save::on_store_wait_due(self, number),
                Timer::Listing => listing::on_listing(self),
                Timer::Work => work_parts::on_due(self),
                Timer::Topics => self.topics.on_due(context!(self)),
                Timer::Instances => instance_frames::on_due(self),
                Timer::End => shutdown::on_shutdown_due(self),
            }
            self.settle();
        }
    }
}

/// Says who sent a request that was set aside, as far as is known.
fn name_poison(hub: &mut Engine, transaction: TransactionId) {
    let mut poison = hub.dispatch.poison().iter().rev();
    let client = poison.find(|p| p.transaction == transaction).and_then(|p| p.client);
    let client = client.and_then(|client| hub.sessions.find_client(client));
    if let Some(client) = client.map(|key| hub.sessions.client(key)) {
        let from = format!("{} pid {}", client.loghost, client.hostpid);
        hub.dispatch.name_poison(transaction, from);
    }
}
