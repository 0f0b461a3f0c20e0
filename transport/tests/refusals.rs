//! Tests of who is refused and what both ends report, and of files that are not valid.

mod common;

use common::{Authority, handshake, wire, write_private};
use std::io::IoSlice;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use transport::session::Session;
use transport::setup::{CallerConfig, CallerFiles, ListenerConfig, ListenerFiles, Pair};

/// The errors of the listener and of the caller after a handshake.
fn fault_text(listener: &ListenerConfig, caller: &CallerConfig, name: &str) -> (String, String) {
    let (mut one, mut other) =
        (listener.session().expect("a session"), caller.session(name).expect("a session"));
    let (mut near, mut far) = wire();
    let _ = handshake((&mut one, &mut near), (&mut other, &mut far));
    // Only now the caller learns whether the listener accepted its certificate.
    let mut buffer = [0; 100];
    let mut look = |session: &mut Session, end: &mut common::End| {
        let _ = session.write(end, &[IoSlice::new(b"hello")]);
        let _ = session.read(end, &mut [std::io::IoSliceMut::new(&mut buffer)]);
        session.fault_text().unwrap_or_default()
    };
    let first = look(&mut one, &mut near);
    (first, look(&mut other, &mut far))
}

#[test]
fn both_ends_say_what_is_wrong_with_a_certificate() {
    let (authority, strange) = (Authority::new(), Authority::new());
    let name = authority.folder.path().to_string_lossy().into_owned();
    let namesake = Authority::named(tempfile::tempdir().unwrap(), name);
    let good = authority.sign("good", (2020, 2090));
    let old = authority.sign("old", (2020, 2021));
    let early = authority.sign("early", (2080, 2090));
    let own_ca = Pair { cert: authority.ca(), key: authority.folder.path().join("ca.key") };
    let open = |pair: &Pair| authority.listener(pair.clone(), None);
    let mutual = |of: &Authority| authority.listener(good.clone(), Some(of.ca()));
    let none = || authority.caller(None);
    let shown = |pair: &Pair| authority.caller(Some(pair.clone()));
    let unknown = ("does not know the CA", "not signed by a CA of");
    let expired = ("has expired", "has expired");
    let name = ("", "not for elsewhere, only for");
    let nothing = ("sent no certificate", "wants a certificate");
    for (what, listener, caller, (near, far)) in [
        ("strange", open(&good), strange.caller(None), unknown),
        ("namesake", open(&good), namesake.caller(None), ("", unknown.1)),
        ("old", open(&old), none(), expired),
        ("early", open(&early), none(), ("", "not valid yet")),
        ("elsewhere", open(&good), none(), name),
        ("ca", open(&own_ca), none(), ("", "that of a CA itself")),
        ("nothing", mutual(&authority), none(), nothing),
        ("strange client", mutual(&strange), shown(&good), (unknown.1, unknown.0)),
        ("old client", mutual(&authority), shown(&old), expired),
        ("good client", mutual(&authority), shown(&good), ("", "")),
        ("good", open(&good), none(), ("", "")),
    ] {
        let name = if what == "elsewhere" { what } else { "localhost" };
        let (one, other) = fault_text(&listener, &caller, name);
        assert!(one.contains(near) && other.contains(far), "{what}: '{one}' / '{other}'");
        assert_eq!(other.is_empty(), what.starts_with("good"), "{what}: {other}");
    }
}

#[test]
fn bad_files_are_named_with_the_cure() {
    let authority = Authority::new();
    let good = authority.sign("good", (2020, 2090));
    let other = authority.sign("other", (2020, 2090));
    let at = |name: &str| authority.folder.path().join(name);
    std::fs::write(at("empty"), "").unwrap();
    write_private(&at("text"), "no key at all\n");
    write_private(&at("cut"), "-----BEGIN PRIVATE KEY-----\nAAAA\n");
    write_private(
        &at("locked"),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    std::fs::write(at("large"), vec![b'x'; (1 << 20) + 1]).unwrap();
    std::fs::copy(&good.key, at("open.key")).unwrap();
    std::fs::set_permissions(at("open.key"), PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::copy(&good.cert, at("open.ca")).unwrap();
    std::fs::set_permissions(at("open.ca"), PermissionsExt::from_mode(0o664)).unwrap();
    std::os::unix::fs::symlink(at("gone"), at("dangling")).unwrap();
    let load = |cert: &Path, key: &Path, client_ca: Option<&Path>| {
        let pair = Pair { cert: cert.to_owned(), key: key.to_owned() };
        let files = ListenerFiles {
            pair,
            client_ca: client_ca.map(Path::to_owned),
            is_exporter_only: false,
        };
        files.load().map(|_| ()).unwrap_err()
    };
    for (error, parts) in [
        (load(&at("none"), &good.key, None), &["certificate", "none", "No such file"][..]),
        (load(&at("empty"), &good.key, None), &["empty has no certificate", "BEGIN CERTIFICATE"]),
        (load(&good.key, &good.key, None), &["has no certificate in it"]),
        (load(authority.folder.path(), &good.key, None), &["no regular file"]),
        (load(&at("large"), &good.key, None), &["larger than 1048576 bytes"]),
        (load(&good.cert, &at("none"), None), &["key", "No such file"]),
        (load(&good.cert, &at("text"), None), &["has no private key in it"]),
        (load(&good.cert, &at("cut"), None), &["no whole PEM file"]),
        (load(&good.cert, &at("locked"), None), &["is encrypted", "openssl pkey"]),
        (load(&good.cert, &at("open.key"), None), &["mode 644", "chmod 600"]),
        (load(&good.cert, &other.key, None), &["is not that of certificate"]),
        (load(&good.cert, &good.key, Some(&at("none"))), &["client CA", "No such file"]),
        (load(&good.cert, &good.key, Some(&at("empty"))), &["client CA", "has no certificate"]),
        (load(&good.cert, &good.key, Some(&at("open.ca"))), &["client CA", "0664", "chmod go-w"]),
        (load(&good.cert, &good.key, Some(&at("dangling"))), &["client CA", "No such file"]),
        (load(&at("dangling"), &good.key, None), &["certificate", "No such file"]),
    ] {
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        assert!(!error.ends_with('.'), "{error}");
    }
    let error = CallerFiles::default().load().map(|_| ()).unwrap_err();
    assert!(error.contains("ISECT_CA"), "{error}");
    let error = authority.caller(None).session("a b").map(|_| ()).unwrap_err();
    assert!(error.contains("not a name"), "{error}");
}

#[test]
fn a_key_of_another_user_is_refused() {
    let authority = Authority::new();
    let good = authority.sign("good", (2020, 2090));
    // Only root can give a file to another user, and read it then.
    if std::os::unix::fs::chown(&good.key, Some(65_534), None).is_ok() {
        let pair = Pair { cert: good.cert.clone(), key: good.key.clone() };
        let error = ListenerFiles { pair, client_ca: None, is_exporter_only: false }
            .load()
            .map(|_| ())
            .unwrap_err();
        assert!(error.contains("belongs to user 65534"), "{error}");
    }
}

#[test]
fn one_certificate_that_signs_itself_is_enough_for_a_small_house() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("c"), folder.path().join("k"));
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&cert, pair.cert.pem()).unwrap();
    write_private(&key, &pair.signing_key.serialize_pem());
    let pair = Pair { cert: cert.clone(), key };
    let files = ListenerFiles { pair, client_ca: None, is_exporter_only: false };
    let listener = files.load().unwrap();
    let caller = CallerFiles { ca: Some(cert), pair: None }.load().unwrap();
    assert_eq!(fault_text(&listener, &caller, "localhost"), (String::new(), String::new()));
}

#[test]
fn the_operator_is_warned_of_a_certificate_that_is_over() {
    let authority = Authority::new();
    let notes = |years| {
        let listener = authority.listener(authority.sign("x", years), None);
        listener.notes().clone()
    };
    assert_eq!(notes((2020, 2090)).warnings, Vec::<String>::new());
    assert!(notes((2020, 2090)).read[0].contains("x.pem, valid until 2090-01-01 "));
    assert!(notes((2020, 2021)).warnings[0].contains("expired on 2021-01-01"));
    assert!(notes((2080, 2090)).warnings[0].contains("valid only from 2080-01-01"));
}
