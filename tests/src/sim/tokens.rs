//! Tokens in the simulated world: how the file changes and is read again, which token each program
//! holds, and the reactor's part in proving one. A proof is the number of the secret; the real
//! arithmetic has its own tests. `access` says who may do what.

use super::access::{Grant, List, NAMES, Token};
use super::links::Peer;
use super::plan::Sabotage;
use super::world::{Event, World};
use crate::shell::Player;
use broker::engine::input::{Input, Signature};
use broker::engine::origin::Requester;
use protocol::encode;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::ids::LinkId;
use protocol::kinds::Role;
use protocol::names::{HostName, TokenName};
use protocol::proof::{Claim, Proof};
use std::collections::{BTreeMap, VecDeque};

/// The name of the token that hosts want proved.
const HOST_TOKEN: &str = "broker";
/// How long a refused worker that starts itself stays away, at most, in microseconds.
const AWAY_MICROS: u64 = 3_000_000;

/// The reactor's state about tokens, besides the list in force.
#[derive(Debug, Default)]
pub struct Authenticator {
    /// Sources of the waiting reloads, in order; the first one is running.
    reloads: VecDeque<Requester>,
    /// The list that the engine is about to be told.
    coming: Option<List>,
    /// The secret of the hosts' token as the broker has it.
    pub host_secret: u64,
    /// Hosts' links on which a token with this secret was claimed.
    greeted: BTreeMap<LinkId, u64>,
    next_secret: u64,
}

/// A stand-in for the proof of a secret: its number as bytes.
pub fn proof(secret: u64) -> Proof {
    let mut proof = [0; 32];
    proof[..8].copy_from_slice(&secret.to_be_bytes());
    Proof { proof, channel: None }
}

/// The secret of a proof.
pub fn secret_of(proof: &Proof) -> u64 {
    proof.proof.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// A stand-in for the signature by which the broker proves itself in turn.
pub fn signature(secret: u64) -> String {
    format!("{secret:064x}")
}

/// A claim of a token.
pub fn claim(name: &str) -> Claim {
    Claim { token: TokenName::new(name).expect("a name"), nonce: vec![0; 16] }
}

impl World {
    /// The names of all services.
    fn services(&self) -> Vec<&'static str> {
        self.plan.services.iter().map(|service| service.name).collect()
    }

    /// The world gets its tokens, if it is to have any.
    pub(super) fn make_tokens(&mut self) {
        if self.plan.tokens_ms == 0 {
            return;
        }
        self.access.is_on = true;
        self.access.may_move = self.plan.operator_ms > 0;
        for _ in NAMES {
            self.change_file();
        }
        self.later(1_000_000, Event::Tokens);
    }

    fn new_secret(&mut self) -> u64 {
        self.authenticator.next_secret += 1;
        self.authenticator.next_secret
    }

    /// One thing in the token file changes.
    fn change_file(&mut self) {
        let services = self.services();
        let name = self.rng.pick(&NAMES);
        let secret = self.new_secret();
        let grant = Grant::random(secret, &services, &mut self.rng);
        let tokens = &mut self.access.file.tokens;
        match (self.rng.below(4), tokens.get_mut(name)) {
            (0, Some(_)) => {
                tokens.remove(name);
            }
            (1, Some(old)) => old.secret = secret,
            (2, Some(old)) => *old = grant.with_secret(old.secret),
            (_, Some(_)) => self.access.file.anonymous = grant,
            (_, None) => {
                tokens.insert(name, grant);
            }
        }
    }

    /// The tokens change, and will again; mostly the broker is told.
    pub fn tokens_change(&mut self) {
        if self.is_quiescent {
            return;
        }
        let wait = self.rng.between(1, self.plan.tokens_ms * 1000);
        self.later(wait, Event::Tokens);
        if self.rng.hits(300) {
            // A host and the broker disagree, or agree again.
            let host = self.rng.index(self.hosts.len());
            let other = self.new_secret();
            let same = self.authenticator.host_secret;
            self.hosts[host].token = if self.rng.hits(300) { other } else { same };
            return;
        }
        self.change_file();
        self.note(format_args!("the token file changes"));
        match self.rng.below(10) {
            0 => {}
            1..=4 => {
                self.operate("reload");
            }
            _ => self.read_tokens(None),
        }
    }

    /// From now on everybody may do everything, and knows how.
    pub(super) fn soothe_tokens(&mut self) {
        if !self.access.is_on {
            return;
        }
        let services = self.services();
        for name in NAMES {
            let secret = self.new_secret();
            let tokens = &mut self.access.file.tokens;
            let secret = tokens.get(name).map_or(secret, |grant| grant.secret);
            tokens.insert(name, Grant::all(secret, &services));
        }
        for host in &mut self.hosts {
            host.token = self.authenticator.host_secret;
        }
        self.read_tokens(None);
    }

    /// The token a program logs in with: its old one, or one it has just been given.
    pub(super) fn now_holds(&mut self, held: Option<Token>) -> Option<Token> {
        if !self.access.is_on || !(self.is_quiescent || self.rng.hits(300)) {
            return held;
        }
        if !self.is_quiescent && self.rng.hits(250) {
            return None;
        }
        let name = self.rng.pick(&NAMES);
        let known = self.access.file.tokens.get(name).map(|grant| grant.secret);
        let is_forged = !self.is_quiescent && self.rng.hits(100);
        Some(Token { name, secret: known.filter(|_| !is_forged).unwrap_or_default() })
    }

    /// A worker that started itself was refused: somebody starts it again.
    pub(super) fn self_started_refused(&mut self, host: usize, service: &str) {
        let services = self.services();
        let service = services.into_iter().find(|name| *name == service);
        if let Some(service) = service.filter(|_| self.access.is_on && !self.is_closing) {
            let wait = self.rng.between(1000, AWAY_MICROS);
            self.later(wait, Event::SelfStarted(host, service));
        }
    }

    /// The token file is to be read, one reload after the other. A broker that is gone reads it
    /// when it starts.
    pub(super) fn read_tokens(&mut self, requester: Requester) {
        if self.broker.is_none() {
            return;
        }
        self.authenticator.reloads.push_back(requester);
        if self.authenticator.reloads.len() == 1 {
            self.begin_reload();
        }
    }

    fn begin_reload(&mut self) {
        let wait = self.rng.below(if self.is_quiescent { 1000 } else { 500_000 });
        self.later(wait, Event::TokensRead(self.epoch));
    }

    /// The token file was read.
    pub fn tokens_read(&mut self, epoch: u32) {
        if epoch != self.epoch || self.broker.is_none() {
            return;
        }
        let Some(requester) = self.authenticator.reloads.pop_front() else { return };
        if !self.authenticator.reloads.is_empty() {
            self.begin_reload();
        }
        let is_bad = !self.access.is_on || (!self.is_quiescent && self.rng.hits(100));
        let tokens = if is_bad { Err("it can't be read".to_owned()) } else { Ok(self.put_file()) };
        self.feed(Input::TokensRead { requester, tokens });
    }

    /// The list that stands in the file, for the engine; the access model takes it with the step.
    pub(super) fn put_file(&mut self) -> Box<broker::engine::input::Tokens> {
        let list = self.access.file.clone();
        let mut told = list.told();
        if self.plan.sabotage == Sabotage::KeepRevoked {
            for (name, rights) in self.access.in_force().told().tokens {
                told.tokens.entry(name).or_insert(rights);
            }
        }
        self.authenticator.coming = Some(list);
        told
    }

    /// Tells the access model about an input, before the engine sees it.
    pub(super) fn access_input(&mut self, input: &Input) {
        match input {
            Input::TokensRead { tokens: Ok(_), .. } => {
                let coming = self.authenticator.coming.take();
                coming.into_iter().for_each(|list| self.access.takes(list));
                self.model.count("the tokens were read");
            }
            Input::Login { link, login } => {
                let claim = login.token.as_ref().map(|claim| &claim.token);
                self.access.claims(*link, (false, false), login.service.as_str(), claim);
            }
            Input::WorkerLogin { link, login, .. } => {
                let claim = login.token.as_ref().map(|claim| &claim.token);
                let is_issued = !login.secret.is_empty();
                self.access.claims(*link, (true, is_issued), login.service.as_str(), claim);
            }
            _ => {}
        }
    }

    /// Tells the access model about a frame that the broker sends about a login.
    pub(super) fn access_frame(&mut self, link: LinkId, frame: &Frame) {
        let verdict = match frame {
            Frame::LoginOk(ok) => {
                if ok.signature.is_some() {
                    self.model.count("logins with a token");
                }
                self.access.admits(link)
            }
            Frame::WorkerLoginOk(ok) => {
                if ok.signature.is_some() {
                    self.model.count("workers with a token");
                }
                self.access.admits(link)
            }
            Frame::Error { head, error } if head.sequence == 0 => match error.code {
                ErrorCode::NeedsToken | ErrorCode::BadToken | ErrorCode::Denied => {
                    self.access.refuses(link, error.code).map(|was_in| {
                        let what = if was_in { "shut out" } else { "not let in" };
                        self.model.count(&format!("{what}: {}", error.code));
                    })
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        };
        self.hold(verdict);
    }

    /// A login's proof is checked.
    pub(super) fn verify(&mut self, link: LinkId, given: &Proof) -> Input {
        let secret = secret_of(given);
        let is_right = self.access.proves(link, secret);
        let is_let_in = is_right || self.plan.sabotage == Sabotage::LetIn;
        let proven = if is_let_in { Ok(signature(secret)) } else { Err("it is wrong".to_owned()) };
        Input::Proven { link, proven }
    }

    /// Which token the broker claims at an execd, where one is needed.
    pub(super) fn claims(&mut self, link: LinkId, host: &HostName) -> Input {
        let must = self.must_prove(host);
        if must {
            self.authenticator.greeted.insert(link, self.authenticator.host_secret);
        }
        Input::Claimed { link, claim: must.then(|| claim(HOST_TOKEN)) }
    }

    /// Whether the broker and the execd of a host prove a token to each other.
    fn must_prove(&self, host: &HostName) -> bool {
        self.access.is_on && host.as_str() != "localhost"
    }

    /// What the signature of an execd's welcome is worth. The access model is told which execds the
    /// broker may trust.
    pub(super) fn check_signature(&mut self, link: LinkId, given: Option<&str>) -> Signature {
        let secret = self.authenticator.greeted.remove(&link);
        let is_right = secret.is_some() && given == secret.map(signature).as_deref();
        if is_right || secret.is_none() {
            self.access.trusted.insert(link);
        }
        match given {
            None => Signature::Missing,
            Some(_) if is_right => Signature::Right,
            Some(_) => Signature::Wrong,
        }
    }

    /// The broker answers an execd's challenge.
    pub(super) fn prove_to_host(&self, link: LinkId) -> Frame {
        let secret = self.authenticator.greeted.get(&link).copied().unwrap_or_default();
        Frame::Proof(proof(secret))
    }

    /// A challenge came to a client or worker: it answers with what it holds.
    pub(super) fn answer_challenge(&mut self, conn: u64, held: Option<Token>) {
        let secret = held.map_or(0, |held| held.secret);
        self.write_up(conn, encode::to_bytes(Frame::Proof(proof(secret))));
    }

    /// The broker is gone, and what its reactor knew.
    pub(super) fn reset_authenticator(&mut self) {
        self.access.broker_gone();
        self.authenticator.reloads.clear();
        self.authenticator.greeted.clear();
        self.authenticator.coming = None;
    }

    /// Whether the broker and the execd of the host at this index prove a token to each other.
    pub(super) fn must_prove_at(&self, host: usize) -> bool {
        self.must_prove(&self.hosts[host].name)
    }

    /// Tells the access model that the first step of a request goes to a worker, where both ends
    /// must be allowed to be.
    pub(super) fn access_work(&mut self, id: u64, link: LinkId, uid: u64) {
        let conn = self.conns.get(&id);
        if conn.is_some_and(|conn| conn.role == Role::Worker && matches!(conn.peer, Peer::Proc(_)))
        {
            let is_silent = self.model.get(uid).is_some_and(|asked| !asked.wants_reply);
            let verdict = self.access.serves(link, uid, is_silent);
            self.hold(verdict);
        }
    }
}
