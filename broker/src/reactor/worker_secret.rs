//! Makes and checks the secret a worker is started with: `RUN.DIGEST.MAC`, where MAC is HMAC-SHA256
//! over worker, run and digest of its configuration under the key of the state directory. So a
//! restarted broker recognises its workers without a list of secrets. `state_dir` keeps the key.

use crate::engine::input::Start;
use hmac::{Hmac, KeyInit, Mac};
use protocol::ids::{RunId, WorkerId};
use sha2::Sha256;
use std::fmt;

/// Bytes of the key and of a MAC.
pub(super) const KEY_BYTES: usize = 32;

/// The key under which worker secrets are signed. It never leaves this module, and
/// never shows itself in a log.
#[derive(Clone)]
pub(super) struct WorkerSecretKey {
    mac: Hmac<Sha256>,
}

impl fmt::Debug for WorkerSecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkerSecretKey(…)")
    }
}

impl WorkerSecretKey {
    /// A key of these bytes.
    pub(super) fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        // HMAC takes keys of any length, so this can't fail.
        Self { mac: Hmac::new_from_slice(bytes).expect("a key of any length will do") }
    }

    /// The secret for one start of a worker.
    pub(super) fn sign(&self, worker: WorkerId, start: Start) -> String {
        let Start { run, digest } = start;
        format!("{run}.{digest}.{}", hex::encode(self.over(worker, start).finalize().into_bytes()))
    }

    /// Returns the start of the worker that a secret proves. The comparison takes constant time.
    pub(super) fn verify(&self, worker: WorkerId, secret: &str) -> Option<Start> {
        let (run, rest) = secret.split_once('.')?;
        let (digest, mac) = rest.split_once('.')?;
        let start = Start { run: RunId(run.parse().ok()?), digest: digest.parse().ok()? };
        // Each start has exactly one spelling: no sign, no leading zeros.
        if start.run.to_string() != run || start.digest.to_string() != digest {
            return None;
        }
        self.over(worker, start).verify_slice(&from_hex(mac)?).ok().map(|()| start)
    }

    /// A name for the broker's directory id, derived from the key without revealing it.
    pub(super) fn directory_id(&self) -> String {
        let mut mac = self.mac.clone();
        mac.update(b"instance");
        hex::encode(&mac.finalize().into_bytes()[..8])
    }

    fn over(&self, worker: WorkerId, start: Start) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        let Start { run, digest } = start;
        mac.update(format!("{worker}.{run}.{digest}").as_bytes());
        mac
    }
}

/// Decodes lower-case hex of a key's length; `None` = it is anything else.
pub(super) fn from_hex(text: &str) -> Option<[u8; KEY_BYTES]> {
    let mut bytes = [0; KEY_BYTES];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    // There is one spelling of each.
    (hex::encode(bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: WorkerId = WorkerId(3);
    const RUN: RunId = RunId(1_700_000_000_000_007);

    const START: Start = Start { run: RUN, digest: 77 };

    #[test]
    fn a_secret_proves_its_start_and_nothing_else() {
        let key = WorkerSecretKey::new(&[7; KEY_BYTES]);
        let secret = key.sign(W, START);
        assert_eq!(key.verify(W, &secret), Some(START));
        assert_eq!(key.verify(WorkerId(4), &secret), None, "another worker");
        assert_eq!(WorkerSecretKey::new(&[8; KEY_BYTES]).verify(W, &secret), None, "another key");
        let run = RUN.0;
        let (head, mac) = secret.rsplit_once('.').unwrap();
        for wrong in [
            String::new(),
            run.to_string(),
            format!("{head}."),
            format!("{run}.{mac}"),
            format!("..{mac}"),
            format!("{}.77.{mac}", run + 1),
            format!("{run}.78.{mac}"),
            format!("{run}.077.{mac}"),
            format!("{run}.4294967373.{mac}"),
            format!("+{head}.{mac}"),
            format!("0{head}.{mac}"),
            format!("{head}.{}", mac.to_uppercase()),
            format!("{head}.{mac}0"),
            format!("{head}.{}", &mac[..62]),
            format!("{head}.{}é", &mac[..62]),
        ] {
            assert_eq!(key.verify(W, &wrong), None, "{wrong}");
        }
        for at in 0..mac.len() {
            let mut bytes = mac.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let forged = format!("{head}.{}", String::from_utf8(bytes).unwrap());
            assert_eq!(key.verify(W, &forged), None, "digit {at} changed");
        }
    }

    #[test]
    fn numbers_at_their_limits_are_numbers_like_others() {
        let key = WorkerSecretKey::new(&[7; KEY_BYTES]);
        for run in [0, 1, u64::MAX - 1, u64::MAX].map(RunId) {
            for digest in [0, 1, u32::MAX - 1, u32::MAX] {
                for worker in [0, 1, u32::MAX].map(WorkerId) {
                    let start = Start { run, digest };
                    assert_eq!(key.verify(worker, &key.sign(worker, start)), Some(start));
                }
            }
        }
    }

    #[test]
    fn the_mac_is_hmac_sha256_over_worker_run_and_digest() {
        // Made with: printf 3.5.6 | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707…07
        let secret =
            WorkerSecretKey::new(&[7; KEY_BYTES]).sign(W, Start { run: RunId(5), digest: 6 });
        assert_eq!(secret, KNOWN);
    }

    const KNOWN: &str = "5.6.e27d431a95217867d089c679c5df755482df415859b9f6571f5cb75c4a15181e";

    #[test]
    fn the_key_does_not_show_itself() {
        let key = WorkerSecretKey::new(&[7; KEY_BYTES]);
        assert_eq!(format!("{key:?}"), "WorkerSecretKey(…)");
        assert_eq!(key.directory_id().len(), 16);
        assert_ne!(key.directory_id(), WorkerSecretKey::new(&[8; KEY_BYTES]).directory_id());
    }
}
