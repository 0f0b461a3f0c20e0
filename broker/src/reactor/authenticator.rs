//! Makes challenges, checks proofs of tokens, and proves the broker's own token to execds. The
//! engine never sees a secret; it gets the result and decides what follows.

use super::io::Io;
use super::tls_config::Loaded;
use crate::engine::input::{Input, TokenRights, Tokens};
use crate::engine::origin::Requester;
use auth::list::{IssuedChallenge, TokenList};
use auth::private;
use auth::prover::Prover;
use protocol::bodies::{ExecHello, ExecWelcome};
use protocol::frame::Frame;
use protocol::ids::LinkId;
use protocol::kinds::Role;
use protocol::names::ServiceName;
use protocol::proof::{Challenge, Channel, Claim, Proof};
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
    /// Execds that must prove a token before they are trusted, and whether each has sent its
    /// challenge; `None` = the token is still being looked up.
    unproven: BTreeMap<LinkId, Option<(Prover, bool)>>,
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
        self.unproven.remove(&link);
    }

    /// Distrusts an execd from now on: the hello is sent once its token is looked up, and until the
    /// execd has proved that token, nothing that it sends is trusted.
    pub(super) fn require_proof(&mut self, link: LinkId) {
        self.unproven.insert(link, None);
    }

    /// Whether an execd that sends its welcome is trusted: it proved the token named in the hello,
    /// or the hello named none.
    pub(super) fn is_right(&mut self, link: LinkId, welcome: &ExecWelcome) -> bool {
        let is_right = match self.unproven.get(&link) {
            None => true,
            Some(None) => false,
            Some(Some((prover, _))) => prover.is_proven(welcome.signature.as_deref()),
        };
        if is_right {
            self.unproven.remove(&link);
        }
        is_right
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
        let channel = self.channel(link);
        let made = match &self.authenticator.list {
            Some(list) => list.challenge(claim).and_then(|made| Ok((made, channel?))),
            None => Err("there are no tokens".into()),
        };
        match made {
            Ok((challenge, channel)) => {
                let frame = Frame::Challenge(challenge.clone());
                let (target, token) = (target.to_string(), claim.token.clone());
                let issued = IssuedChallenge { role, target, token, challenge, channel };
                self.authenticator.challenges.insert(link, issued);
                self.send(link, frame);
            }
            Err(why) => self.tell(Some(link), Input::Proven { link, proven: Err(why) }),
        }
    }

    /// The TLS channel that proofs on a link are bound to; `None` = the link has no TLS.
    fn channel(&mut self, link: LinkId) -> Result<Option<Channel>, String> {
        self.links.get(link).map_or(Ok(None), |conn| conn.stream.channel())
    }

    /// Checks the proof that answers a challenge, and tells the engine the result.
    pub(super) fn verify(&mut self, link: LinkId, proof: &Proof) {
        let proven = self.authenticator.verify(link, proof);
        self.tell(Some(link), Input::Proven { link, proven });
    }

    /// Sends the hello to an execd after its token was looked up; tells the engine if that failed.
    pub(super) fn greet(
        &mut self,
        link: LinkId,
        mut hello: ExecHello,
        prover: Result<Option<Prover>, String>,
    ) {
        match prover {
            Ok(prover) => {
                hello.token = prover.as_ref().map(|prover| prover.claim().clone());
                if self.links.get(link).is_some() {
                    match prover {
                        Some(prover) => {
                            self.authenticator.unproven.insert(link, Some((prover, false)))
                        }
                        None => self.authenticator.unproven.remove(&link),
                    };
                    self.send(link, Frame::ExecHello(hello));
                }
            }
            Err(why) => self.tell(Some(link), Input::Unproven { link, why }),
        }
    }

    /// Has a helper compute the answer to an execd's challenge.
    pub(super) fn prove(&mut self, link: LinkId, challenge: Challenge) {
        // Computing a proof is expensive (Argon2), so a link gets one only.
        let known = match self.authenticator.unproven.get_mut(&link) {
            None | Some(None) => Err("a challenge came, and no token was named".to_owned()),
            Some(Some((_, true))) => Err("a second challenge came in one login".to_owned()),
            Some(Some((prover, is_asked))) => {
                *is_asked = true;
                // The entry stays: until the proof is made, a welcome on this link is not trusted.
                Ok(prover.clone())
            }
        };
        match known.and_then(|prover| Ok((prover, self.channel(link)?))) {
            Ok((prover, channel)) => self.helpers.prove(link, prover, challenge, channel),
            Err(why) => self.tell(Some(link), Input::Unproven { link, why }),
        }
    }

    /// Sends the computed proof to an execd, or tells the engine why it could not be made.
    pub(super) fn proved(&mut self, link: LinkId, prover: Prover, proof: Result<Proof, String>) {
        match proof {
            Ok(proof) if self.links.get(link).is_some() => {
                self.authenticator.unproven.insert(link, Some((prover, true)));
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
