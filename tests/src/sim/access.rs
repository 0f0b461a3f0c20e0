//! Access rights in a simulated world with tokens: the token file, the rights in force, and a model
//! of who is logged in, by which token, and who may be. The model knows the promises, not the
//! engine. `tokens` changes the file and the tokens that programs hold.

use super::model::Broken;
use super::rng::Rng;
use broker::engine::input::{TokenRights, Tokens};
use protocol::errors::ErrorCode;
use protocol::ids::LinkId;
use protocol::names::TokenName;
use protocol::rights::Rights;
use std::collections::{BTreeMap, BTreeSet};

/// Tokens that there may be.
pub const NAMES: [&str; 3] = ["one", "two", "three"];

/// A token as its holder has it. Whoever knows the number of its secret can prove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Name of the token.
    pub name: &'static str,
    /// Number that stands for the secret.
    pub secret: u64,
}

/// The rights that a token gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Number that stands for the secret; who knows it can prove the token.
    pub secret: u64,
    asks: BTreeSet<&'static str>,
    serves: BTreeSet<&'static str>,
}

/// A token file.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// The tokens.
    pub tokens: BTreeMap<&'static str, Grant>,
    /// Rights of programs without a token.
    pub anonymous: Grant,
}

/// The login of a link, as it said and proved.
#[derive(Clone, Debug)]
struct SimLogin {
    /// It is a worker's login, not a client's.
    is_worker: bool,
    /// The broker started it, so that it needs no token.
    is_issued: bool,
    service: String,
    claim: Option<&'static str>,
    proved: Option<Token>,
    is_in: bool,
}

/// The model of access rights: who may do what, and who is logged in.
#[derive(Debug, Default)]
pub struct Access {
    /// There are tokens in this world.
    pub is_on: bool,
    /// An operator may have moved a client to another service.
    pub may_move: bool,
    /// Content of the token file.
    pub file: List,
    /// The list that the broker read last.
    in_force: List,
    logins: BTreeMap<LinkId, SimLogin>,
    asked: BTreeMap<u64, LinkId>,
    /// Hosts' links whose execd has proved itself, or need not.
    pub trusted: BTreeSet<LinkId>,
}

impl Grant {
    /// Random rights for these services.
    pub fn random(secret: u64, services: &[&'static str], rng: &mut Rng) -> Self {
        let mut some = || services.iter().copied().filter(|_| rng.hits(600)).collect();
        Self { secret, asks: some(), serves: some() }
    }

    /// All rights for these services.
    pub fn all(secret: u64, services: &[&'static str]) -> Self {
        let all: BTreeSet<_> = services.iter().copied().collect();
        Self { secret, asks: all.clone(), serves: all }
    }

    /// The same rights, by another secret.
    pub fn with_secret(self, secret: u64) -> Self {
        Self { secret, ..self }
    }

    fn has(&self, login: &SimLogin) -> bool {
        let services = if login.is_worker { &self.serves } else { &self.asks };
        services.contains(login.service.as_str())
    }

    fn rights(&self) -> Rights {
        let mut rights = Rights::default();
        for (role, services) in [("client", &self.asks), ("worker", &self.serves)] {
            for service in services {
                rights.add(&format!("{role}:{service}")).expect("a role");
            }
        }
        rights
    }
}

impl List {
    /// As the broker's engine is told.
    pub fn told(&self) -> Box<Tokens> {
        let named = |(name, grant): (&&str, &Grant)| {
            let rights = TokenRights { rights: grant.rights(), stamp: grant.secret };
            (TokenName::new(name).expect("a name"), rights)
        };
        let tokens = self.tokens.iter().map(named).collect();
        Box::new(Tokens { file: "tokens".into(), tokens, anonymous: self.anonymous.rights() })
    }
}

impl Access {
    /// The broker takes another list into use.
    pub fn takes(&mut self, list: List) {
        self.in_force = list;
    }

    /// The list that the broker has.
    pub const fn in_force(&self) -> &List {
        &self.in_force
    }

    /// Records the login of a link; a second login of it changes nothing.
    pub fn claims(
        &mut self,
        link: LinkId,
        (is_worker, is_issued): (bool, bool),
        service: &str,
        claim: Option<&TokenName>,
    ) {
        let claim = claim.and_then(|claim| NAMES.into_iter().find(|name| *name == claim.as_str()));
        self.logins.entry(link).or_insert_with(|| SimLogin {
            is_worker,
            is_issued,
            service: service.to_owned(),
            claim,
            proved: None,
            is_in: false,
        });
    }

    /// Records a proof; returns whether its secret is that of the token named in the login.
    pub fn proves(&mut self, link: LinkId, secret: u64) -> bool {
        let Some(login) = self.logins.get_mut(&link) else { return false };
        let Some(name) = login.claim else { return false };
        login.proved = Some(Token { name, secret });
        self.in_force.tokens.get(name).is_some_and(|grant| grant.secret == secret)
    }

    /// Whether a login is allowed by the rights in force.
    fn may(&self, login: &SimLogin) -> bool {
        match &login.proved {
            _ if !self.is_on || login.is_issued => true,
            None => login.claim.is_none() && self.in_force.anonymous.has(login),
            Some(held) => self.in_force.tokens.get(held.name).is_some_and(|grant| {
                // A client that an operator moved to another service stays as long as its token is
                // valid.
                let is_moved = login.is_in && !login.is_worker && self.may_move;
                grant.secret == held.secret && (is_moved || grant.has(login))
            }),
        }
    }

    /// Records that the broker accepted a login.
    ///
    /// # Errors
    /// The login must not be accepted.
    pub fn admits(&mut self, link: LinkId) -> Result<(), Broken> {
        let Some(login) = self.logins.get(&link) else {
            return Err(format!("link {link} is let in and never said who it is"));
        };
        if !self.may(login) {
            return Err(format!("link {link} is let in: {login:?}, though {:?}", self.in_force));
        }
        if let Some(login) = self.logins.get_mut(&link) {
            login.is_in = true;
        }
        Ok(())
    }

    /// Records that the broker refused a link; returns whether it was logged in.
    ///
    /// # Errors
    /// The link must not be refused.
    pub fn refuses(&self, link: LinkId, code: ErrorCode) -> Result<bool, Broken> {
        let Some(login) = self.logins.get(&link) else { return Ok(false) };
        let is_checked = !(login.is_in && !login.is_worker && self.may_move);
        if is_checked && self.may(login) {
            return Err(format!("link {link} is refused, {code}: {login:?}: {:?}", self.in_force));
        }
        Ok(login.is_in)
    }

    /// Checks after each step that all links that are logged in may be.
    ///
    /// # Errors
    /// Names the link.
    pub fn check(&self) -> Result<(), Broken> {
        let is_wrong = |login: &SimLogin| {
            // An operator may have moved one without a token, too.
            let is_free = login.proved.is_none() && !login.is_worker && self.may_move;
            login.is_in && !is_free && !self.may(login)
        };
        match self.logins.iter().find(|(_, login)| is_wrong(login)) {
            Some((link, login)) => {
                Err(format!("link {link} is still in: {login:?}, though {:?}", self.in_force))
            }
            None => Ok(()),
        }
    }

    /// The first frame of a request came in on a link.
    pub fn asks(&mut self, link: LinkId, uid: u64) {
        self.asked.insert(uid, link);
    }

    /// The first frame of a request leaves for a worker, for the first time.
    ///
    /// # Errors
    /// Who asked is not in, or the worker is not. `is_silent`: it wants no reply, and outlives its
    /// client.
    pub fn serves(&self, worker: LinkId, uid: u64, is_silent: bool) -> Result<(), Broken> {
        let is_in = |link: LinkId| self.logins.get(&link).is_some_and(|login| login.is_in);
        if !is_in(worker) {
            return Err(format!("link {worker} is given work and is not in"));
        }
        let Some(requester) = self.asked.get(&uid) else { return Ok(()) };
        if is_in(*requester) || is_silent && !self.logins.contains_key(requester) {
            return Ok(());
        }
        Err(format!("request {uid} of link {requester}, which is not in, is given to a worker"))
    }

    /// A link of the broker is gone.
    pub fn link_gone(&mut self, link: LinkId) {
        self.logins.remove(&link);
        self.trusted.remove(&link);
    }

    /// The broker is gone, and all its links.
    pub fn broker_gone(&mut self) {
        self.logins.clear();
        self.asked.clear();
        self.trusted.clear();
        self.in_force = List::default();
    }
}
