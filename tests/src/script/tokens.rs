//! Tokens and certificates in a script: reading the files, logins that name a token and prove it,
//! and the answers. No proof is computed; the script states the result that the reactor found.

use super::stimulus::{text, unknown};
use super::words::Cursor;
use super::world::World;
use broker::engine::input::{Certificates, Input, TokenRights, Tokens};
use protocol::names::TokenName;
use protocol::proof::{Claim, Proof};
use protocol::rights::Rights;
use std::collections::BTreeMap;

/// Verbs about tokens for every connection.
pub(super) const PROOFS: &str = "proves, is proven, is unproven [\"WHY\"]";

/// `token=NAME` as the claim of a login.
pub(super) fn claim(line: &mut Cursor) -> Result<Option<Claim>, String> {
    let name = line.pair("token").map(|name| TokenName::new(&name)).transpose();
    let name = name.map_err(|e| e.to_string())?;
    Ok(name.map(|token| Claim { token, nonce: vec![1; 16] }))
}

/// `ops operator:danger; shop 2 client:echo`: a number after the name says that it was renewed;
/// `anonymous` is who has none.
fn tokens(text: &str) -> Result<Tokens, String> {
    let (mut tokens, mut anonymous) = (BTreeMap::new(), Rights::default());
    for entry in text.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
        let mut words: Vec<&str> = entry.split_whitespace().collect();
        let name = words.remove(0);
        let stamp = words.first().and_then(|word| word.parse().ok());
        let roles = &words[usize::from(stamp.is_some())..];
        let mut rights = Rights::default();
        roles.iter().try_for_each(|role| rights.add(role))?;
        if name == "anonymous" {
            anonymous = rights;
        } else {
            let name = TokenName::new(name).map_err(|e| e.to_string())?;
            tokens.insert(name, TokenRights { rights, stamp: stamp.unwrap_or(1) });
        }
    }
    Ok(Tokens { file: "/etc/isect/tokens".into(), tokens, anonymous })
}

impl World {
    /// `broker has tokens "…"`, `broker lacks tokens "WHY"`: the file was read, or not.
    pub(super) fn act_tokens(&mut self, has: bool, line: &mut Cursor) -> Result<(), String> {
        line.flag("tokens");
        let requester = self.shell.requester(true);
        let given = text(line);
        let tokens = if has { Ok(Box::new(tokens(&given)?)) } else { Err(given) };
        self.step(Input::TokensRead { requester, tokens })
    }

    /// `broker has certificates ["READ; …"] [lost="WHY; …"] [expiring="WHAT; …"] [without tokens]`:
    /// those of the last reload were read; the tokens are next, unless there are none.
    pub(super) fn act_certificates(&mut self, line: &mut Cursor) -> Result<(), String> {
        let lines = |text: String| -> Vec<String> {
            text.split(';').map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect()
        };
        let more = !(line.flag("without") && line.flag("tokens"));
        let requester = self.shell.requester(!more);
        let found = Certificates {
            failed: lines(line.pair("lost").unwrap_or_default()),
            warnings: lines(line.pair("expiring").unwrap_or_default()),
            read: lines(text(line)),
        };
        self.step(Input::CertificatesRead { requester, found, more })
    }

    /// Carries out a verb about tokens of someone that logs in; `None` = no such verb.
    pub(super) fn act_proof(
        &mut self,
        name: &str,
        verb: &str,
        line: &mut Cursor,
    ) -> Result<Option<()>, String> {
        let proven = match verb {
            "proves" => {
                let (link, proof) =
                    (self.link(name)?, Box::new(Proof { proof: [7; 32], channel: None }));
                self.step(Input::Proof { link, proof })?;
                return Ok(Some(()));
            }
            "is" if line.is("proven") => Ok("5161".to_owned()),
            "is" if line.is("unproven") => Err(text(line)),
            _ => return Ok(None),
        };
        self.step(Input::Proven { link: self.link(name)?, proven })?;
        Ok(Some(()))
    }

    /// The error about a verb that no end of a link has.
    pub(super) fn no_verb(&self, verb: &str, name: &str, known: &str) -> String {
        unknown(verb, name, &format!("{known}, {PROOFS}"))
    }
}
