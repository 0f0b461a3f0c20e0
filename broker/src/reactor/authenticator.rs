//! The authenticator: it makes challenges and checks proofs of tokens for the engine, which never
//! sees what proves a token, and proves the broker's own token to execds. What follows from a token
//! the engine decides.

use super::io::Io;
use super::secure::Loaded;
use crate::engine::input::{Asker, Input, TokenRights, Tokens};
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

/// Most reloads that wait at once.
const RELOADS_MAX: usize = 64;

/// The tokens that are known, and the logins that wait for a proof.
#[derive(Debug, Default)]
pub(super) struct Authenticator {
    /// The token file, there or not.
    pub(super) file: Option<PathBuf>,
    /// The file with the tokens that execds want proved, if there is one.
    pub(super) host_file: Option<PathBuf>,
    list: Option<TokenList>,
    /// Execds that have to prove a token before they are trusted, and whether they have asked for
    /// its proof; `None` = it is looked up, and nothing was asked yet.
    unproven: BTreeMap<LinkId, Option<(Prover, bool)>>,
    challenges: BTreeMap<LinkId, IssuedChallenge>,
    /// Who asked for a reload; the first one is under way.
    reloads: VecDeque<Asker>,
}

impl Authenticator {
    /// Whether there are tokens, so that it matters who comes.
    pub(super) fn has_tokens(&self) -> bool {
        self.list.is_some()
    }

    /// A link is gone.
    pub(super) fn forget(&mut self, link: LinkId) {
        self.challenges.remove(&link);
        self.unproven.remove(&link);
    }

    /// A hello goes to an execd when the token to name in it is found: until it has proved that
    /// token, nothing that it says is trusted.
    pub(super) fn require_proof(&mut self, link: LinkId) {
        self.unproven.insert(link, None);
    }

    /// Whether an execd that says welcome is the right one: it has proved the token that was named
    /// to it, or none was.
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
    /// Sends the challenge to a token.
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

    /// What proofs on a link are bound to; `None` = it has no TLS.
    fn channel(&mut self, link: LinkId) -> Result<Option<Channel>, String> {
        self.links.get(link).map_or(Ok(None), |conn| conn.stream.channel())
    }

    /// Checks the answer to a challenge.
    pub(super) fn verify(&mut self, link: LinkId, proof: &Proof) {
        let proven = self.authenticator.verify(link, proof);
        self.tell(Some(link), Input::Proven { link, proven });
    }

    /// Says hello to an execd, now that its token is found, or not.
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

    /// Has an execd's challenge answered.
    pub(super) fn prove(&mut self, link: LinkId, challenge: Challenge) {
        // An answer is dear: there is one for each login.
        let known = match self.authenticator.unproven.get_mut(&link) {
            None | Some(None) => Err("a challenge came, and no token was named".to_owned()),
            Some(Some((_, true))) => Err("a second challenge came in one login".to_owned()),
            Some(Some((prover, is_asked))) => {
                *is_asked = true;
                // One stays here: until the answer is there, whoever says welcome is not the right
                // one.
                Ok(prover.clone())
            }
        };
        match known.and_then(|prover| Ok((prover, self.channel(link)?))) {
            Ok((prover, channel)) => self.helpers.prove(link, prover, challenge, channel),
            Err(why) => self.tell(Some(link), Input::Unproven { link, why }),
        }
    }

    /// The answer to an execd's challenge is there, or not.
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

    /// Has the certificates and the token file read again, whichever there are. One reload after
    /// the other: what was read earlier never comes into force later.
    pub(super) fn reload(&mut self, asker: Asker) {
        if self.authenticator.reloads.len() >= RELOADS_MAX {
            let why = format!("{RELOADS_MAX} reloads wait already; try again later");
            self.tell(None, Input::TokensRead { asker, tokens: Err(why) });
            return;
        }
        self.authenticator.reloads.push_back(asker);
        if self.authenticator.reloads.len() == 1 {
            self.begin_reload(asker);
        }
    }

    fn begin_reload(&mut self, asker: Asker) {
        match self.secure.files() {
            Some(files) => self.helpers.read_certificates(asker, files.clone()),
            None => match self.missing_tokens() {
                Some(file) => {
                    let why = format!(
                        "there is nothing to read again: there is no token file {file} ('isectd \
                         token add NAME --role ROLE --file {file}' makes it), and no certificate \
                         is named (--tls-cert FILE)"
                    );
                    self.tokens_read(asker, Err(why));
                }
                None => self.read_tokens(asker),
            },
        }
    }

    /// The token file, if none is there and none was. Those that are in force are not forgotten
    /// with their file.
    fn missing_tokens(&self) -> Option<String> {
        let file = self.authenticator.file.as_ref().filter(|_| !self.authenticator.has_tokens())?;
        let is_missing = matches!(private::is_there(file), Ok(false));
        is_missing.then(|| file.display().to_string())
    }

    /// A reload is done: the next one, if one waits.
    fn end_reload(&mut self) {
        self.authenticator.reloads.pop_front();
        if let Some(next) = self.authenticator.reloads.front() {
            self.begin_reload(*next);
        }
    }

    /// The certificates were read, or not: then those in use stay. The tokens are next.
    pub(super) fn certificates_read(&mut self, asker: Asker, loaded: Loaded) {
        let found = self.secure.put(loaded);
        // There need be no tokens.
        let has_file = self.authenticator.file.is_some() && self.missing_tokens().is_none();
        let more = self.authenticator.has_tokens() || has_file;
        self.tell(None, Input::CertificatesRead { asker, found, more });
        if more {
            self.read_tokens(asker);
        } else {
            self.end_reload();
        }
    }

    fn read_tokens(&mut self, asker: Asker) {
        match &self.authenticator.file {
            Some(file) => self.helpers.read_tokens(asker, file.clone()),
            None => {
                let why = "no token file is named; start isectd with --tokens FILE".to_owned();
                self.tokens_read(asker, Err(why));
            }
        }
    }

    /// The token file was read at a reload, or not: then those in force stay.
    pub(super) fn tokens_read(&mut self, asker: Asker, list: Result<TokenList, String>) {
        self.put_tokens(asker, list);
        self.end_reload();
    }

    /// The tokens come into force, at the start and at a reload.
    pub(super) fn put_tokens(&mut self, asker: Asker, list: Result<TokenList, String>) {
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
        self.tell(None, Input::TokensRead { asker, tokens });
    }
}
