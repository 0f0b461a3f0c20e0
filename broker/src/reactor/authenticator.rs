//! Makes challenges, checks proofs of tokens, and proves the broker's own token to execds. The
//! engine never sees a secret; it gets the result and decides what follows. Nothing here decides
//! who is trusted.

use super::io::Io;
use super::tls_config::Loaded;
use crate::engine::input::{Input, Signature, TokenRights, Tokens};
use crate::engine::origin::Requester;
use auth::list::{IssuedChallenge, TokenList};
use auth::private;
use auth::prover::Prover;
use protocol::{
    Bindings, Challenge, Channel, Claim, Frame, HostName, LinkId, Proof, Role, ServiceName,
};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

/// Most reloads that wait at once; further ones are refused.
const RELOADS_MAX: usize = 64;

/// The tokens in force, and the logins that wait for a proof.
#[derive(Debug, Default)]
pub(super) struct Authenticator {
    /// Path of the token file, which need not exist.
    pub(super) file: Option<PathBuf>,
    /// The file with the tokens that execds want proved, if there is one.
    pub(super) host_file: Option<PathBuf>,
    list: Option<TokenList>,
    /// The tokens that were claimed at execds and which their welcomes are to prove in turn.
    claimed: BTreeMap<LinkId, Prover>,
    challenges: BTreeMap<LinkId, IssuedChallenge>,
    /// Sources of the waiting reloads, in order; the first one is running.
    reloads: VecDeque<Requester>,
}

impl Authenticator {
    /// Whether tokens are in force, so that logins must prove one.
    pub(super) fn has_tokens(&self) -> bool {
        self.list.is_some()
    }

    /// Forgets the state of a closed link.
    pub(super) fn forget(&mut self, link: LinkId) {
        self.challenges.remove(&link);
        self.claimed.remove(&link);
    }

    /// What the signature of an execd's welcome is worth. The claim of the link is used up by it.
    pub(super) fn check_signature(&mut self, link: LinkId, signature: Option<&str>) -> Signature {
        let claimed = self.claimed.remove(&link);
        match (signature, claimed) {
            (None, _) => Signature::Missing,
            (Some(_), Some(prover)) if prover.is_proven(signature) => Signature::Right,
            (Some(_), _) => Signature::Wrong,
        }
    }

    fn verify(&mut self, link: LinkId, proof: &Proof) -> Result<String, String> {
        let (Some(issued), Some(list)) = (self.challenges.remove(&link), &self.list) else {
            return Err("no challenge was made".into());
        };
        match list.check(&issued, proof) {
            Ok((_, signature)) => Ok(signature),
            Err(fault) => Err(fault.to_string()),
        }
    }
}

impl Io {
    /// Sends a challenge to a login that named a token.
    pub(super) fn challenge(
        &mut self,
        link: LinkId,
        role: Role,
        target: &ServiceName,
        claim: &Claim,
    ) {
        let bindings = self.bindings(link);
        let made = match (&self.authenticator.list, bindings) {
            (Some(list), Ok(bindings)) => {
                list.challenge(claim, bindings.as_ref()).map(|made| (made, bindings))
            }
            (Some(_), Err(why)) => Err(why),
            (None, _) => Err("there are no tokens".into()),
        };
        match made {
            Ok((challenge, bindings)) => {
                let frame = Frame::Challenge(challenge.clone());
                let (target, token) = (target.to_string(), claim.token.clone());
                let issued = IssuedChallenge { role, target, token, challenge, bindings };
                self.authenticator.challenges.insert(link, issued);
                self.send(link, frame);
            }
            Err(why) => self.tell(Some(link), Input::Proven { link, proven: Err(why) }),
        }
    }

    /// What proofs that come on a link can be bound to; `None` = the link has no TLS.
    fn bindings(&mut self, link: LinkId) -> Result<Option<Bindings>, String> {
        self.links.get(link).map_or(Ok(None), |conn| conn.stream.bindings())
    }

    /// What a proof that leaves on a link is bound to; `None` = the link has no TLS.
    fn channel(&mut self, link: LinkId) -> Result<Option<Channel>, String> {
        self.links.get(link).map_or(Ok(None), |conn| conn.stream.channel())
    }

    /// Checks the proof that answers a challenge, and tells the engine the result.
    pub(super) fn verify(&mut self, link: LinkId, proof: &Proof) {
        let proven = self.authenticator.verify(link, proof);
        self.tell(Some(link), Input::Proven { link, proven });
    }

    /// Looks up the token to claim at an execd; `Claimed` or `Unproven` answers the engine.
    pub(super) fn claim(&mut self, link: LinkId, host: HostName) {
        match self.authenticator.host_file.clone() {
            Some(file) => self.helpers.find_host_token(link, host, file),
            None => self.tell(Some(link), Input::Claimed { link, claim: None }),
        }
    }

    /// The token to claim at an execd was looked up.
    pub(super) fn host_token_found(
        &mut self,
        link: LinkId,
        prover: Result<Option<Prover>, String>,
    ) {
        if self.links.get(link).is_none() {
            return;
        }
        let input = match prover {
            Ok(prover) => {
                let claim = prover.as_ref().map(|prover| prover.claim().clone());
                prover.into_iter().for_each(|prover| {
                    self.authenticator.claimed.insert(link, prover);
                });
                Input::Claimed { link, claim }
            }
            Err(why) => Input::Unproven { link, why },
        };
        self.tell(Some(link), input);
    }

    /// Has a helper compute the answer to an execd's challenge. The claim stays: a welcome that
    /// comes before the proof is made proves nothing.
    pub(super) fn prove(&mut self, link: LinkId, challenge: Challenge) {
        let Some(prover) = self.authenticator.claimed.get(&link).cloned() else { return };
        match self.channel(link) {
            Ok(channel) => self.helpers.prove(link, prover, challenge, channel),
            Err(why) => self.tell(Some(link), Input::Unproven { link, why }),
        }
    }

    /// Sends the computed proof to an execd, or tells the engine why it could not be made.
    pub(super) fn proved(&mut self, link: LinkId, prover: Prover, proof: Result<Proof, String>) {
        match proof {
            Ok(proof) if self.links.get(link).is_some() => {
                self.authenticator.claimed.insert(link, prover);
                self.send(link, Frame::Proof(proof));
            }
            Ok(_) => {}
            Err(why) => self.tell(Some(link), Input::Unproven { link, why }),
        }
    }

    /// Reads the certificates and the token file again, if there are any. Reloads run one after
    /// another, so that an older file never replaces a newer one.
    pub(super) fn reload(&mut self, requester: Requester) {
        if self.authenticator.reloads.len() >= RELOADS_MAX {
            let why = format!("{RELOADS_MAX} reloads wait already; try again later");
            self.tell(None, Input::TokensRead { requester, tokens: Err(why) });
            return;
        }
        self.authenticator.reloads.push_back(requester);
        if self.authenticator.reloads.len() == 1 {
            self.begin_reload(requester);
        }
    }

    fn begin_reload(&mut self, requester: Requester) {
        match self.tls_config.files() {
            Some(files) => self.helpers.read_certificates(requester, files.clone()),
            None => match self.missing_tokens() {
                Some(file) => {
                    let why = format!(
                        "there is nothing to read again: there is no token file {file} ('isectd \
                         token add NAME --role ROLE --file {file}' makes it), and no certificate \
                         is named (--tls-cert FILE)"
                    );
                    self.tokens_read(requester, Err(why));
                }
                None => self.read_tokens(requester),
            },
        }
    }

    /// The path of the token file if it does not exist and no tokens are in force. Deleting the
    /// file does not take tokens out of force.
    fn missing_tokens(&self) -> Option<String> {
        let file = self.authenticator.file.as_ref().filter(|_| !self.authenticator.has_tokens())?;
        let is_missing = matches!(private::is_there(file), Ok(false));
        is_missing.then(|| file.display().to_string())
    }

    /// Ends a reload and begins the next one that waits.
    fn end_reload(&mut self) {
        self.authenticator.reloads.pop_front();
        if let Some(next) = self.authenticator.reloads.front() {
            self.begin_reload(*next);
        }
    }

    /// Takes new certificates into use, or keeps the old ones if reading failed; then reads the
    /// tokens.
    pub(super) fn certificates_read(&mut self, requester: Requester, loaded: Loaded) {
        let found = self.tls_config.put(loaded);
        // A broker without tokens is allowed.
        let has_file = self.authenticator.file.is_some() && self.missing_tokens().is_none();
        let more = self.authenticator.has_tokens() || has_file;
        self.tell(None, Input::CertificatesRead { requester, found, more });
        if more {
            self.read_tokens(requester);
        } else {
            self.end_reload();
        }
    }

    fn read_tokens(&mut self, requester: Requester) {
        match &self.authenticator.file {
            Some(file) => self.helpers.read_tokens(requester, file.clone()),
            None => {
                let why = "no token file is named; start isectd with --tokens FILE".to_owned();
                self.tokens_read(requester, Err(why));
            }
        }
    }

    /// Ends a reload with the new tokens, or keeps the old ones if reading failed.
    pub(super) fn tokens_read(&mut self, requester: Requester, list: Result<TokenList, String>) {
        self.put_tokens(requester, list);
        self.end_reload();
    }

    /// Puts tokens into force, at the start or at a reload.
    pub(super) fn put_tokens(&mut self, requester: Requester, list: Result<TokenList, String>) {
        let tokens = list.map(|list| {
            let file = self.authenticator.file.as_ref().map(|file| file.display().to_string());
            let entries = list.entries.iter().map(|(name, entry)| {
                let rights = TokenRights { rights: entry.rights.clone(), stamp: entry.stamp() };
                (name.clone(), rights)
            });
            let tokens = Tokens {
                file: file.unwrap_or_default(),
                tokens: entries.collect(),
                anonymous: list.anonymous.clone(),
            };
            if self.authenticator.list.replace(list).is_none() {
                self.state.note_tokens(self.authenticator.file.as_deref());
            }
            Box::new(tokens)
        });
        self.tell(None, Input::TokensRead { requester, tokens });
    }
}
