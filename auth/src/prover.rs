//! The side that logs in: it names its token and answers the challenge. It trusts the other side
//! only after that has proved that it knows the token, too.

use crate::scram::{Cost, Keys};
use crate::token::Token;
use protocol::kinds::Role;
use protocol::proof::{
    Binding, Challenge, Channel, Channels, Claim, NONCE_BYTES_MIN, Proof, from_digits, statement,
};

/// The state of one login with a token.
#[derive(Clone, Debug)]
pub struct Prover {
    token: Token,
    role: Role,
    target: String,
    claim: Claim,
    /// The keys and the signed text, set once the challenge was answered.
    signed: Option<(Keys, String)>,
}

impl Prover {
    /// Begins a login. `target` is the service; for a broker at an execd it is the host's name.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn begin(token: &Token, role: Role, target: &str) -> Result<Self, String> {
        let nonce = crate::random_bytes::<24>()?.to_vec();
        Ok(Self::with_nonce(token, role, target, nonce))
    }

    /// As [`Prover::begin`], with a given nonce; for tests and documents.
    pub fn with_nonce(token: &Token, role: Role, target: &str, nonce: Vec<u8>) -> Self {
        let claim = Claim { token: token.name().clone(), nonce };
        Self { token: token.clone(), role, target: target.to_owned(), claim, signed: None }
    }

    /// The claim for the first frame.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Answers the challenge that came on a connection with this channel binding; `None` only
    /// without TLS. Give [`Channel::Exporter`] wherever the TLS has it. Hashing the token takes
    /// some hundredths of a second.
    ///
    /// # Errors
    /// The challenge does not belong to this claim, one was answered before, or the other side does
    /// not take such a binding.
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
        let binding = match channel {
            // Every verifier takes it, so the proof does not name it.
            None | Some(Channel::Exporter(_)) => None,
            Some(Channel::EndPoint(_)) => Some(offered(challenge, Binding::EndPoint)?),
        };
        let Challenge { memory_kib, passes, lanes, .. } = *challenge;
        let keys = self.token.keys(&challenge.salt, Cost { memory_kib, passes, lanes })?;
        let text = statement(self.role, &self.target, self.token.name(), challenge, channel);
        let proof = Proof { proof: keys.prove(&text), channel: binding };
        self.signed = Some((keys, text));
        Ok(proof)
    }

    /// Whether `signature`, from the line of that name in the answer, proves that the other side
    /// knows the token.
    pub fn is_proven(&self, signature: Option<&str>) -> bool {
        match (&self.signed, signature.and_then(from_digits)) {
            (Some((keys, text)), Some(signature)) => keys.is_signed(text, &signature),
            (Some(_) | None, _) => false,
        }
    }
}

/// The binding, if the other side takes it.
fn offered(challenge: &Challenge, binding: Binding) -> Result<Binding, String> {
    match &challenge.channels {
        Some(channels) if channels.has(binding) => Ok(binding),
        channels => {
            let taken = channels.as_ref().map_or_else(|| "none".into(), Channels::to_string);
            Err(format!(
                "the other side takes no proof by {binding} (it names: {taken}); a library whose \
                 TLS has the exporter can log in (docs/security.md)"
            ))
        }
    }
}
