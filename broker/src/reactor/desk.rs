//! The desk where tokens are shown: it makes challenges and checks proofs for the engine, which
//! never sees what proves a token. Not what follows from a token: the engine decides that.

use super::shell::Shell;
use crate::engine::input::{Asker, Input, TokenRights, Tokens};
use auth::list::{Pending, TokenList};
use protocol::frame::Frame;
use protocol::ids::LinkId;
use protocol::kinds::Role;
use protocol::names::ServiceName;
use protocol::proof::{Claim, Proof};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The tokens that are known, and the logins that wait for a proof.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// The token file, there or not.
    pub(super) file: Option<PathBuf>,
    list: Option<TokenList>,
    pending: BTreeMap<LinkId, Pending>,
}

impl Desk {
    /// Whether there are tokens, so that it matters who comes.
    pub(super) fn has_tokens(&self) -> bool {
        self.list.is_some()
    }

    /// A link is gone.
    pub(super) fn forget(&mut self, link: LinkId) {
        self.pending.remove(&link);
    }

    fn verify(&mut self, link: LinkId, proof: &Proof) -> Result<String, String> {
        let (Some(pending), Some(list)) = (self.pending.remove(&link), &self.list) else {
            return Err("no challenge was made".into());
        };
        match list.check(&pending, proof) {
            Ok((_, signature)) => Ok(signature),
            Err(fault) => Err(fault.to_string()),
        }
    }
}

impl Shell {
    /// Sends the challenge to a token.
    pub(super) fn challenge(
        &mut self,
        link: LinkId,
        role: Role,
        target: &ServiceName,
        claim: &Claim,
    ) {
        let made = match &self.desk.list {
            Some(list) => list.challenge(claim),
            None => Err("there are no tokens".into()),
        };
        match made {
            Ok(challenge) => {
                let (target, token) = (target.to_string(), claim.token.clone());
                let pending = Pending { role, target, token, challenge: challenge.clone() };
                self.desk.pending.insert(link, pending);
                self.send(link, Frame::Challenge(challenge));
            }
            Err(why) => self.tell(Some(link), Input::Proven { link, proven: Err(why) }),
        }
    }

    /// Checks the answer to a challenge.
    pub(super) fn verify(&mut self, link: LinkId, proof: &Proof) {
        let proven = self.desk.verify(link, proof);
        self.tell(Some(link), Input::Proven { link, proven });
    }

    /// Has the token file read again.
    pub(super) fn read_tokens(&mut self, asker: Asker) {
        match &self.desk.file {
            Some(file) => self.helpers.read_tokens(asker, file.clone()),
            None => {
                let why = "no token file is named; start isectd with --tokens FILE".to_owned();
                self.tell(None, Input::TokensRead { asker, tokens: Err(why) });
            }
        }
    }

    /// The token file was read, or not: then those in force stay.
    pub(super) fn tokens_read(&mut self, asker: Asker, list: Result<TokenList, String>) {
        let tokens = list.map(|list| {
            let file = self.desk.file.as_ref().map(|file| file.display().to_string());
            let entries = list.entries.iter().map(|(name, entry)| {
                let rights = TokenRights { rights: entry.rights.clone(), stamp: entry.stamp() };
                (name.clone(), rights)
            });
            let tokens = Tokens {
                file: file.unwrap_or_default(),
                tokens: entries.collect(),
                anonymous: list.anonymous.clone(),
            };
            self.desk.list = Some(list);
            Box::new(tokens)
        });
        self.tell(None, Input::TokensRead { asker, tokens });
    }
}
