//! The authenticator of brokers: it reads the token file, makes challenges and checks proofs. The
//! engine decides what follows.

use super::log::LogLimiter;
use auth::list::{FILE_BYTES_MAX, IssuedChallenge, TokenList};
use auth::private;
use protocol::login_failures::{Check, LoginFailures};
use protocol::{
    Bindings, Challenge, Claim, HostName, LinkId, PeerGroup, Proof, Role, Tick, TokenName,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tracing::{error, warn};

/// What a broker is told whose proof is refused. It does not say which of the reasons it was.
const REFUSAL: &str = "is not known here, lacks the role host, or was not proved";

/// The tokens of brokers, and the challenges that wait for a proof.
#[derive(Debug)]
pub(super) struct Authenticator {
    file: PathBuf,
    list: TokenList,
    challenges: BTreeMap<LinkId, IssuedChallenge>,
    /// The text of the file when it was read last.
    text: String,
    /// Limits how often logins may fail.
    login_failures: LoginFailures,
    /// The token and stamp of each welcomed link; see [`Entry::stamp`](auth::list::Entry::stamp).
    admitted: BTreeMap<LinkId, (TokenName, u64)>,
}

fn read(file: &Path) -> Result<(String, TokenList), String> {
    let text = private::read(file, FILE_BYTES_MAX)?;
    let list = TokenList::of_file(&text).map_err(|why| format!("{}: {why}", file.display()))?;
    Ok((text, list))
}

impl Authenticator {
    /// Reads the token file for the first time.
    pub(super) fn open(file: PathBuf) -> Result<Self, String> {
        let (text, list) = read(&file)?;
        let (challenges, admitted) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self {
            file,
            list,
            challenges,
            text,
            login_failures: LoginFailures::default(),
            admitted,
        })
    }

    /// Makes the challenge to a broker's claim. It reads the file each time, so that a new or
    /// removed token counts from the next connection on. If the file can't be read, the tokens stay
    /// as they were.
    pub(super) fn challenge(
        &mut self,
        link: LinkId,
        host: &HostName,
        claim: &Claim,
        bindings: Option<Bindings>,
        (now, log_limiter): (Tick, &mut LogLimiter),
    ) -> Result<Challenge, String> {
        match private::read(&self.file, FILE_BYTES_MAX) {
            // Parsing is expensive, and anybody who connects can cause it.
            Ok(text) if text == self.text => {}
            Ok(text) => match TokenList::of_file(&text) {
                Ok(list) => (self.text, self.list) = (text, list),
                Err(why) => {
                    self.complain(&format!("{}: {why}", self.file.display()), now, log_limiter);
                }
            },
            Err(why) => self.complain(&why, now, log_limiter),
        }
        let challenge = self.list.challenge(claim, bindings.as_ref())?;
        let (target, token) = (host.to_string(), claim.token.clone());
        let role = Role::Broker;
        let issued =
            IssuedChallenge { role, target, token, challenge: challenge.clone(), bindings };
        self.challenges.insert(link, issued);
        Ok(challenge)
    }

    /// Logs a problem of the token file, with a limit: a peer can cause one at each login.
    fn complain(&self, why: &str, now: Tick, log_limiter: &mut LogLimiter) {
        if log_limiter.has_room(now) {
            error!("{why}; the tokens in force stay");
        }
    }

    /// When the proof that came on a link is to be checked.
    pub(super) fn when(&mut self, link: LinkId, peer_group: PeerGroup, now: Tick) -> Check {
        match self.challenges.get(&link) {
            Some(login) => self.login_failures.ask(&login.token, peer_group, now),
            None => Check::Now,
        }
    }

    /// Checks the answer; returns the signature for the broker, or the error text.
    pub(super) fn verify(
        &mut self,
        link: LinkId,
        proof: &Proof,
        (peer_group, now): (PeerGroup, Tick),
        log_limiter: &mut LogLimiter,
    ) -> Result<String, String> {
        let Some(login) = self.challenges.remove(&link) else { return Err(REFUSAL.into()) };
        let why = match self.list.check(&login, proof) {
            Ok((entry, signature)) if entry.rights.host => {
                self.admitted.insert(link, (login.token, entry.stamp()));
                return Ok(signature);
            }
            Ok(_) => "it lacks the role host".to_owned(),
            Err(fault) => fault.to_string(),
        };
        self.login_failures.failed(&login.token, peer_group, now);
        if log_limiter.has_room(now) {
            warn!(%link, token = %login.token, "a broker was not let in: {why}");
        }
        Err(REFUSAL.into())
    }

    /// Reads the file again. Returns a summary for the log, and the links whose token was removed,
    /// renewed or lost its right.
    pub(super) fn reload(&mut self) -> Result<(String, Vec<LinkId>), String> {
        (self.text, self.list) = read(&self.file)?;
        let holds = |(token, stamp): &(TokenName, u64)| {
            let entry = self.list.entries.get(token);
            entry.is_some_and(|entry| entry.rights.host && entry.stamp() == *stamp)
        };
        let gone: Vec<LinkId> =
            self.admitted.iter().filter(|(_, by)| !holds(by)).map(|(link, _)| *link).collect();
        gone.iter().for_each(|link| self.forget(*link));
        let hosts = self.list.entries.values().filter(|entry| entry.rights.host).count();
        Ok((format!("{}: {hosts} with the role host", self.file.display()), gone))
    }

    /// Forgets what is known of a link that is gone.
    pub(super) fn forget(&mut self, link: LinkId) {
        self.challenges.remove(&link);
        self.admitted.remove(&link);
    }
}
