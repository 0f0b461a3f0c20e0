//! The channel binding `tls-server-end-point` (RFC 5929, section 4): the hash of the listener's
//! certificate, for provers whose TLS has no exporter. Which hash it is says the certificate: that
//! of the algorithm with which it is signed.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::asn1::{AnyRef, ContextSpecific, ObjectIdentifier};
use x509_cert::der::{Decode, Reader as _, TagNumber};
use x509_cert::spki::AlgorithmIdentifierRef;

/// A hash by which a certificate is identified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-224.
    Sha224,
    /// SHA-256, also for algorithms with MD5 and SHA-1, and for those that name no hash.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha224 => Sha224::digest(bytes).to_vec(),
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha384 => Sha384::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }
}

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

/// `id-RSASSA-PSS` (RFC 4055); its parameters name the hash.
const PSS: ObjectIdentifier = oid("1.2.840.113549.1.1.10");

/// TABLE of the algorithms that a certificate may be signed with, and the hash that identifies it.
const SIGNATURES: &[(ObjectIdentifier, Hash)] = &[
    // RSA, PKCS #1 version 1.5: MD5, SHA-1, SHA-2 (RFC 8017).
    (oid("1.2.840.113549.1.1.4"), Hash::Sha256),
    (oid("1.2.840.113549.1.1.5"), Hash::Sha256),
    (oid("1.2.840.113549.1.1.14"), Hash::Sha224),
    (oid("1.2.840.113549.1.1.11"), Hash::Sha256),
    (oid("1.2.840.113549.1.1.12"), Hash::Sha384),
    (oid("1.2.840.113549.1.1.13"), Hash::Sha512),
    // ECDSA: SHA-1, SHA-2 (RFC 5758).
    (oid("1.2.840.10045.4.1"), Hash::Sha256),
    (oid("1.2.840.10045.4.3.1"), Hash::Sha224),
    (oid("1.2.840.10045.4.3.2"), Hash::Sha256),
    (oid("1.2.840.10045.4.3.3"), Hash::Sha384),
    (oid("1.2.840.10045.4.3.4"), Hash::Sha512),
    // Ed25519, Ed448: they name none (RFC 8410).
    (oid("1.3.101.112"), Hash::Sha256),
    (oid("1.3.101.113"), Hash::Sha256),
];

/// TABLE of the hashes that the parameters of RSASSA-PSS may name.
const HASHES: &[(ObjectIdentifier, Hash)] = &[
    (oid("1.2.840.113549.2.5"), Hash::Sha256),
    (oid("1.3.14.3.2.26"), Hash::Sha256),
    (oid("2.16.840.1.101.3.4.2.4"), Hash::Sha224),
    (oid("2.16.840.1.101.3.4.2.1"), Hash::Sha256),
    (oid("2.16.840.1.101.3.4.2.2"), Hash::Sha384),
    (oid("2.16.840.1.101.3.4.2.3"), Hash::Sha512),
];

fn look_up(table: &[(ObjectIdentifier, Hash)], id: ObjectIdentifier) -> Option<Hash> {
    table.iter().find(|(known, _)| *known == id).map(|(_, hash)| *hash)
}

/// The hash that identifies a certificate in DER; `None` if it can't be read, or is signed in a way
/// for which there is none.
pub fn hash_of(der: &[u8]) -> Option<Hash> {
    let certificate = Certificate::from_der(der).ok()?;
    let algorithm = certificate.signature_algorithm();
    // RFC 5280, section 4.1.1.2: both are the same.
    if algorithm != certificate.tbs_certificate().signature() {
        return None;
    }
    if algorithm.oid == PSS {
        return pss_hash(algorithm.parameters.as_ref()?.to_ref());
    }
    look_up(SIGNATURES, algorithm.oid)
}

/// The hash in the parameters of RSASSA-PSS (RFC 4055, section 3.1): that of the message, SHA-1 if
/// none is named.
fn pss_hash(parameters: AnyRef<'_>) -> Option<Hash> {
    let named = parameters.sequence(|reader| {
        let hash =
            ContextSpecific::<AlgorithmIdentifierRef<'_>>::decode_explicit(reader, TagNumber(0))?;
        while !reader.is_finished() {
            AnyRef::decode(reader)?;
        }
        Ok::<_, x509_cert::der::Error>(hash.map(|hash| hash.value.oid))
    });
    match named.ok()? {
        Some(id) => look_up(HASHES, id),
        None => Some(Hash::Sha256),
    }
}

/// The binding: the hash of this certificate in DER; `None` as in [`hash_of`].
pub fn end_point(der: &[u8]) -> Option<Vec<u8>> {
    hash_of(der).map(|hash| hash.digest(der))
}
