//! Tests the hash by which a certificate is identified (RFC 5929): against values of OpenSSL, for
//! every way to sign that is known; and what the two ends of a connection make of it.

mod common;

use common::{Authority, handshake, wire};
use protocol::show::digits;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::sync::Arc;
use transport::end_point::{Hash, end_point, hash_of};
use transport::session::Session;
use transport::setup::{ListenerConfig, ListenerFiles};

/// See the first lines there.
const CERTIFICATES: &str = include_str!("certificates.pem");
/// How many they are.
const COUNT: usize = 20;

/// How each is signed, the name and the value of its hash, and itself.
fn certificates() -> Vec<([String; 3], Vec<u8>)> {
    let mut all = Vec::new();
    for part in CERTIFICATES.split_inclusive("-----END CERTIFICATE-----\n") {
        let (text, _) = part.split_once("-----BEGIN").expect("a certificate");
        let line = text.lines().last().expect("a line before it");
        let mut words = line.split(' ').map(str::to_owned);
        let words = std::array::from_fn(|_| words.next().unwrap_or_default());
        let der = CertificateDer::from_pem_slice(part.as_bytes()).expect("PEM");
        all.push((words, der.to_vec()));
    }
    assert_eq!(all.len(), COUNT);
    all
}

#[test]
fn the_hash_is_that_of_the_signature_as_openssl_computes_it() {
    for ([signed, name, value], der) in certificates() {
        let hash = match name.as_str() {
            "none" => None,
            "sha224" => Some(Hash::Sha224),
            "sha256" => Some(Hash::Sha256),
            "sha384" => Some(Hash::Sha384),
            "sha512" => Some(Hash::Sha512),
            other => panic!("{other}"),
        };
        assert_eq!(hash_of(&der), hash, "{signed}");
        let found = end_point(&der).map(|hash| digits(&hash)).unwrap_or_default();
        assert_eq!(found, value, "{signed}");
    }
}

/// Where these bytes stand.
fn places(der: &[u8], part: &[u8]) -> Vec<usize> {
    (0..der.len()).filter(|at| der[*at..].starts_with(part)).collect()
}

#[test]
fn a_certificate_that_is_cut_bent_or_contradicts_itself_has_none() {
    for ([signed, name, _], der) in certificates() {
        for end in 0..der.len() {
            assert_eq!(hash_of(&der[..end]), None, "{signed}, cut at {end}");
        }
        let longer = [&der[..], &[0]].concat();
        assert_eq!(hash_of(&longer), None, "{signed}, and a byte more");
        for at in 0..der.len() {
            let mut bent = der.clone();
            bent[at] ^= 0xff;
            // Whatever comes of it: no panic.
            let _ = end_point(&bent);
        }
        if signed == "ecdsa-sha384" {
            // Inside it says SHA-384, outside SHA-512.
            let id = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
            let [inside, outside] = places(&der, &id)[..] else { panic!("not twice") };
            for at in [inside, outside] {
                let mut two = der.clone();
                two[at + 7] = 4;
                assert_eq!(hash_of(&two), None, "{name} at {at}");
            }
        }
    }
}

/// The end points that a listener and a caller see after their handshake.
fn seen(authority: &Authority, listener: &ListenerConfig) -> [Option<Arc<[u8]>>; 2] {
    let mut near = listener.session().expect("a session");
    let mut far = authority.caller(None).session("localhost").expect("a session");
    let before = [&near, &far].map(Session::end_point);
    assert!(before[1].is_none(), "no certificate has come");
    let (mut one, mut other) = wire();
    let done = handshake((&mut near, &mut one), (&mut far, &mut other));
    assert!(done.0.is_ok() && done.1.is_ok(), "{done:?}");
    [near, far].map(|session| session.end_point())
}

#[test]
fn both_ends_see_the_same_and_another_certificate_is_another() {
    let authority = Authority::new();
    let of = |name: &str| authority.listener(authority.sign(name, (2020, 2090)), None);
    let [near, far] = seen(&authority, &of("one"));
    assert!(near.is_some() && near == far, "{near:?} {far:?}");
    let file = std::fs::read(authority.folder.path().join("one.pem")).expect("the file");
    let der = CertificateDer::from_pem_slice(&file).expect("PEM");
    assert_eq!(near.as_deref(), end_point(&der).as_deref());
    let [other, _] = seen(&authority, &of("other"));
    assert!(other.is_some() && other != near);
}

#[test]
fn a_session_keeps_the_certificate_that_it_began_with() {
    let authority = Authority::new();
    let pair = authority.sign("mine", (2020, 2090));
    let load = || ListenerFiles { pair: pair.clone(), client_ca: None, is_exporter_only: false };
    let old = load().load().expect("files").session().expect("a session");
    let first = old.end_point();
    authority.sign("mine", (2020, 2090));
    let new = load().load().expect("files").session().expect("a session");
    assert!(first.is_some() && new.end_point().is_some() && new.end_point() != first);
    assert_eq!(old.end_point(), first);
}

#[test]
fn a_listener_that_wants_the_exporter_has_none() {
    let authority = Authority::new();
    let pair = authority.sign("mine", (2020, 2090));
    let files = ListenerFiles { pair, client_ca: None, is_exporter_only: true };
    let listener = files.load().expect("files");
    assert!(!listener.notes().read[0].contains("tls-server-end-point"), "it was asked for");
    let [near, far] = seen(&authority, &listener);
    assert_eq!(near, None);
    assert!(far.is_some(), "the caller sees the certificate all the same");
}
