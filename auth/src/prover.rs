//! The side that logs in: names its token, answers the challenge, and does not trust the other
//! side before that has proved that it knows the token, too.

use crate::scram::{Cost, Keys};
use crate::token::Token;
use protocol::kinds::Role;
use protocol::proof::{Challenge, Channel, Claim, NONCE_BYTES_MIN, Proof, from_digits, statement};

/// One login with a token.
#[derive(Clone, Debug)]
pub struct Prover {
    token: Token,
    role: Role,
    target: String,
    claim: Claim,
    /// What was signed, once the challenge was answered.
    signed: Option<(Keys, String)>,
}

impl Prover {
    /// Begins a login. `target` is the service, or for a broker at an execd the host's name.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn begin(token: &Token, role: Role, target: &str) -> Result<Self, String> {
        let nonce = crate::random_bytes::<24>()?.to_vec();
        Ok(Self::with_nonce(token, role, target, nonce))
    }

    /// As [`Prover::begin`], with bytes that are not random: for examples with known values.
    pub fn with_nonce(token: &Token, role: Role, target: &str, nonce: Vec<u8>) -> Self {
        let claim = Claim { token: token.name().clone(), nonce };
        Self { token: token.clone(), role, target: target.to_owned(), claim, signed: None }
    }

    /// What the first frame says.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Answers the challenge that came on a connection with this channel; `None` only if it has no
    /// TLS. This hashes the token, which takes some hundredths of a second.
    ///
    /// # Errors
    /// The challenge is not one to this claim, or there was one before.
    pub fn answer(
        &mut self,
        challenge: &Challenge,
        channel: Option<&Channel>,
    ) -> Result<Proof, String> {
        if self.signed.is_some() {
            return Err("a second challenge came in one login".into());
        }
        let other = challenge.nonce.strip_prefix(self.claim.nonce.as_slice());
        if other.is_none_or(|own| own.len() < NONCE_BYTES_MIN) {
            return Err("the challenge does not go on from the nonce of this login".into());
        }
        let Challenge { memory_kib, passes, lanes, .. } = *challenge;
        let keys = self.token.keys(&challenge.salt, Cost { memory_kib, passes, lanes })?;
        let text = statement(self.role, &self.target, self.token.name(), challenge, channel);
        let proof = Proof { proof: keys.prove(&text) };
        self.signed = Some((keys, text));
        Ok(proof)
    }

    /// Whether the other side has proved that it knows the token: the line `signature` of its
    /// answer.
    pub fn is_proven(&self, signature: Option<&str>) -> bool {
        match (&self.signed, signature.and_then(from_digits)) {
            (Some((keys, text)), Some(signature)) => keys.is_signed(text, &signature),
            (Some(_) | None, _) => false,
        }
    }
}
