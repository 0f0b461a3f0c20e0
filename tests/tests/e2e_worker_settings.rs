//! Tests settings of workers' processes with real ones: that they are kept over a restart of the
//! broker, in files that nobody else may read, and that values of variables reach only who may see
//! them.

use isect_tests::proc::{Broker, run};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use tempfile::TempDir;

/// Values of variables, which stand nowhere but where they are meant to.
const VALUES: [&str; 2] = ["hunter two", "hunter\nthree"];
/// The same as `save` writes them.
const WRITTEN: [&str; 2] = ["'env=ALL=hunter two'", "$'env=OWN=hunter\\nthree'"];

/// Gives the service `echo` and its only worker variables with these values.
fn configure(broker: &Broker) {
    broker.remember_events();
    broker.op(&format!("config service echo {} cwd=/", WRITTEN[0]));
    broker.op(&format!("config worker echo localhost {} nice=1 /bin/true", WRITTEN[1]));
}

/// What a client with a token in a file is told.
fn told(broker: &Broker, token: &Path, args: &[&str]) -> String {
    let token = token.to_string_lossy().into_owned();
    let done = broker.isdclient(&[&["--token-file", &token], args].concat(), "");
    done.out + &done.err
}

fn has_value(text: &str) -> bool {
    VALUES.iter().chain(&WRITTEN).any(|value| text.contains(value)) || text.contains("hunter")
}

#[test]
fn settings_are_kept_over_a_restart_in_files_of_the_owner() {
    let mut broker = Broker::start(&[]);
    configure(&broker);
    let saved = broker.op("save");
    for part in WRITTEN {
        assert!(saved.contains(part), "{part} in\n{saved}");
    }
    broker.kill();
    broker.restart();
    assert_eq!(broker.op("save"), saved);
    // What was a journal is a snapshot now.
    broker.restart();
    assert_eq!(broker.op("save"), saved);
    for entry in broker.folder.path().join("state").read_dir().expect("a folder").flatten() {
        let text = std::fs::read(entry.path()).unwrap_or_default();
        if has_value(&String::from_utf8_lossy(&text)) {
            let mode = entry.metadata().expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", entry.path().display());
        }
    }
    assert_eq!(broker.end(), 0);
}

#[test]
fn values_are_for_who_may_do_anything() {
    let folder = TempDir::with_prefix("isect-tokens-").expect("temporary folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    for effect in ["read", "change", "danger"] {
        let (file, out, role) = (path("tokens"), path(effect), format!("operator:{effect}"));
        let args = ["token", "add", effect, "--file", &file, "--out", &out, "--role", &role];
        let done = run("isectd", &args, b"");
        assert_eq!(done.status, 0, "{}", done.err);
    }
    let broker = Broker::start(&["--tokens", &path("tokens")]);
    configure(&broker);
    let pages = ["service echo", "settings echo", "worker 1", "save"];
    for (role, may_see) in [("read", false), ("change", false), ("danger", true)] {
        let token = folder.path().join(role);
        for page in pages {
            for args in [&["-c", page][..], &["--json", "-c", page]] {
                let text = told(&broker, &token, args);
                assert!(text.contains("ALL="), "{role}: {page}: {text}");
                assert_eq!(has_value(&text), may_see, "{role}: {page}: {text}");
            }
        }
        // Events and errors have them for nobody.
        let line = format!("config service echo {} nice=99", WRITTEN[0]);
        for said in ["listevents", &line, &format!("start {}", WRITTEN[0])] {
            let text = told(&broker, &token, &["-c", said]);
            assert!(!text.is_empty() && !has_value(&text), "{role}: {text}");
        }
    }
    let script =
        format!("config worker #1 {0}\nconfig service echo {0} nice=99\nstart {0}\n", WRITTEN[0]);
    std::fs::write(folder.path().join("script"), script).expect("a file");
    let error = broker.try_op(&format!("source {}", path("script"))).expect_err("a wrong line");
    assert!(!has_value(&error.to_string()), "{error}");
    let log = broker.process.log();
    assert!(log.contains("env=ALL=…") && !has_value(&log), "{log}");
    assert_eq!(broker.end(), 0);
}
