//! The arithmetic of RFC 5802 (SCRAM) with Argon2id instead of PBKDF2, and with SHA-256 as in RFC
//! 7677. The holder of a token hashes it and proves it; the verifier compares the proof with the
//! values it stored. Nobody can log in with the stored values. `prover` and `list` do the two sides
//! of the exchange.

use argon2::{Algorithm, Argon2, Params, Version};
use hmac::{Hmac, KeyInit, Mac};
use protocol::proof::MAC_BYTES;
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A key, a proof or a signature: the output of HMAC-SHA-256.
pub type Key = [u8; MAC_BYTES];

/// How much work the hash of a token is for its holder (RFC 9106).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes that are computed in parallel.
    pub lanes: u32,
}

impl Default for Cost {
    /// The least that OWASP recommends for Argon2id: 19 MiB, two passes, one lane.
    fn default() -> Self {
        Self { memory_kib: 19_456, passes: 2, lanes: 1 }
    }
}

/// HMAC-SHA-256 of a text (RFC 2104).
pub fn hmac(key: &[u8], text: &[u8]) -> Key {
    // HMAC takes keys of any length, so this can't fail.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> Key {
    Sha256::digest(bytes).into()
}

fn xor(one: &Key, other: &Key) -> Key {
    std::array::from_fn(|at| one[at] ^ other[at])
}

/// The hash of a secret: Argon2id, which costs the memory and the time that `cost` says.
///
/// # Errors
/// The salt or the cost is out of Argon2's range.
pub fn salted(secret: &[u8], salt: &[u8], cost: Cost) -> Result<Zeroizing<Key>, String> {
    let wrong = |e: argon2::Error| format!("argon2id of {cost:?}: {e}");
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(MAC_BYTES));
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.map_err(wrong)?);
    let mut salted = Zeroizing::new([0; MAC_BYTES]);
    argon2.hash_password_into(secret, salt, salted.as_mut()).map_err(wrong)?;
    Ok(salted)
}

/// The two keys that the holder of a token derives from it.
#[derive(Clone)]
pub struct Keys {
    client: Zeroizing<Key>,
    server: Zeroizing<Key>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    /// Derives the keys from a secret; see [`salted`] for the cost.
    ///
    /// # Errors
    /// As [`salted`].
    pub fn derive(secret: &[u8], salt: &[u8], cost: Cost) -> Result<Self, String> {
        let salted = salted(secret, salt, cost)?;
        Ok(Self {
            client: Zeroizing::new(hmac(salted.as_ref(), b"Client Key")),
            server: Zeroizing::new(hmac(salted.as_ref(), b"Server Key")),
        })
    }

    /// The proof over this statement (`ClientProof` of RFC 5802).
    pub fn prove(&self, statement: &str) -> Key {
        let stored = sha256(self.client.as_ref());
        xor(&self.client, &hmac(&stored, statement.as_bytes()))
    }

    /// Whether the signature over this statement was made by a verifier that knows the token.
    pub fn is_signed(&self, statement: &str, signature: &[u8]) -> bool {
        hmac(self.server.as_ref(), statement.as_bytes()).ct_eq(signature).into()
    }

    /// The values that a verifier stores for these keys.
    pub fn verifier(&self) -> Verifier {
        Verifier { stored: sha256(self.client.as_ref()), server: *self.server }
    }
}

/// What a verifier stores of a token. It can't be used to log in at another verifier.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// SHA-256 of the client key (`StoredKey` of RFC 5802).
    pub stored: Key,
    /// The server key (`ServerKey` of RFC 5802).
    pub server: Key,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(…)")
    }
}

impl Verifier {
    /// Checks a proof; returns the signature that answers it, or `None` for a wrong proof. The time
    /// does not depend on the proof.
    pub fn verify(&self, statement: &str, proof: &Key) -> Option<Key> {
        let client = xor(proof, &hmac(&self.stored, statement.as_bytes()));
        let is_right: bool = sha256(&client).ct_eq(&self.stored).into();
        is_right.then(|| hmac(&self.server, statement.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::show::digits;

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };

    fn keys(secret: &str) -> Keys {
        Keys::derive(secret.as_bytes(), b"saltsalt", CHEAP).unwrap()
    }

    #[test]
    fn the_hash_is_argon2id_as_others_compute_it() {
        // The vector of RFC 9106 has a secret and associated data, which isect does not use. This
        // one is from the tests of the reference implementation: argon2id, v=19, t=2, m=65536, p=1.
        let params = Params::new(65_536, 2, 1, Some(32)).unwrap();
        let mut out = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(b"password", b"somesalt", &mut out)
            .unwrap();
        assert_eq!(
            digits(&out),
            "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"
        );
    }

    #[test]
    fn the_proof_is_scrams_proof() {
        // The example of RFC 7677 (SCRAM-SHA-256): its salted password must give the same keys.
        let salted = hmac_pbkdf2_once();
        let client = hmac(&salted, b"Client Key");
        let stored = sha256(&client);
        let keys = Keys {
            client: Zeroizing::new(client),
            server: Zeroizing::new(hmac(&salted, b"Server Key")),
        };
        let text = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let proof = keys.prove(text);
        // p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=
        assert_eq!(
            digits(&proof),
            "747cdb65aa56224e2352137e52d7bdcad6a0f738df30782caa69a2cfb0277554"
        );
        let verifier = Verifier { stored, server: hmac(&salted, b"Server Key") };
        // v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=
        assert_eq!(
            verifier.verify(text, &proof).map(|signature| digits(&signature)),
            Some("eabae24d1062db75a9451ff0b6ea7e98c8546549ff741e672d3251b2397de46e".into())
        );
    }

    /// PBKDF2-HMAC-SHA-256 of "pencil" as RFC 7677 has it, for one block.
    fn hmac_pbkdf2_once() -> Key {
        let salt = [
            0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e, 0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36,
            0xfa, 0x81,
        ];
        let mut block = hmac(b"pencil", &[&salt[..], &[0, 0, 0, 1]].concat());
        let mut sum = block;
        for _ in 1..4096 {
            block = hmac(b"pencil", &block);
            sum = xor(&sum, &block);
        }
        sum
    }

    #[test]
    fn only_the_right_secret_proves_and_only_its_own_statement() {
        let (wrong, verifier) = (keys("secreT"), keys("secret").verifier());
        let keys = keys("secret");
        let proof = keys.prove("one");
        let signature = verifier.verify("one", &proof).unwrap();
        assert!(keys.is_signed("one", &signature));
        assert!(!keys.is_signed("two", &signature) && !keys.is_signed("one", &signature[..31]));
        assert_eq!(verifier.verify("two", &proof), None, "a proof of another login");
        assert_eq!(verifier.verify("one", &wrong.prove("one")), None);
        for at in 0..MAC_BYTES * 8 {
            let mut forged = proof;
            forged[at / 8] ^= 1 << (at % 8);
            assert_eq!(verifier.verify("one", &forged), None, "bit {at}");
        }
    }

    #[test]
    fn what_is_stored_proves_nothing() {
        let verifier = keys("secret").verifier();
        // A thief of the file would try its two keys as client keys.
        for stolen in [verifier.stored, verifier.server] {
            let thief =
                Keys { client: Zeroizing::new(stolen), server: Zeroizing::new(verifier.server) };
            assert_eq!(verifier.verify("one", &thief.prove("one")), None);
            let direct = xor(&stolen, &hmac(&verifier.stored, b"one"));
            assert_eq!(verifier.verify("one", &direct), None);
        }
        assert_eq!(format!("{verifier:?} {:?}", keys("secret")), "Verifier(…) Keys(…)");
    }
}
