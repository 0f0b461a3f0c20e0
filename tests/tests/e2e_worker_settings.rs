//! Tests settings of workers' processes with real ones: that the processes have them, that they are
//! kept over a restart of the broker, in files that nobody else may read, that values of variables
//! reach only who may see them, and what a process may do with its rights.

use isect_tests::proc::{Broker, TIMEOUT, program, run, write_program};
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

/// What a worker answers.
fn ask(broker: &Broker, service: &str) -> String {
    let answer = broker.login(service).call("?", Some(TIMEOUT)).expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_process_has_its_variables_and_its_folder_also_when_it_is_a_clone() {
    let broker = Broker::start(&[]);
    let folder = broker.folder.path().canonicalize().expect("a folder");
    let file = folder.join("variables");
    std::fs::write(&file, "FROM_FILE=f\nALL=of the file\n").expect("written");
    let (pipe, file) = (program("isdpipe"), file.display().to_string());
    broker.op(&format!("config service told env='ALL=hunter two' env_file={file} cwd=/"));
    broker.op(&format!(
        "config worker told localhost env=OWN=own cwd={} umask=027 limit=core=0 {} /bin/sh -c \
         'echo \"$ALL,$OWN,$FROM_FILE\"; pwd; umask; ulimit -c'",
        folder.display(),
        pipe.display()
    ));
    broker.op("start told");
    broker.await_ready(1);
    let told = format!("hunter two,own,f\n{}\n0027\n0\n", folder.display());
    assert_eq!(ask(&broker, "told"), told);
    broker.op("scale told 2");
    broker.await_ready(2);
    broker.op("stop 1");
    broker.await_page("worker 1", "worker->state = \"down, stopped\"");
    assert_eq!(ask(&broker, "told"), told);
    // A change holds from the next start on.
    broker.op("config worker #2 env=OWN=other");
    assert_eq!(ask(&broker, "told"), told);
    broker.op("restart told");
    assert_eq!(ask(&broker, "told"), told.replace("own", "other"));
    assert_eq!(broker.end(), 0);
}

/// What a worker's process was told that asked `op` for this in its own name.
fn told_as_worker(rights: &str) -> (String, String) {
    let broker = Broker::start(&[]);
    let (client, echo) = (program("isdclient"), program("isdecho"));
    let folder = broker.folder.path().to_path_buf();
    let say = |command: &str, file: &str| {
        format!(
            "{} -h {} --as-worker $3 -c '{command}' >{folder}/{file} 2>&1\n",
            client.display(),
            broker.port("client"),
            folder = folder.display()
        )
    };
    let text = format!(
        "#!/bin/sh\n{}{}exec {} \"$@\"\n",
        say("whoami", "who"),
        say("stop teller", "stopped"),
        echo.display()
    );
    write_program(&folder.join("teller"), text.as_bytes());
    broker.op(&format!("config service teller {rights}"));
    broker.op(&format!("config worker teller localhost {}/teller", folder.display()));
    broker.op("start teller");
    broker.await_ready(1);
    assert_eq!(ask(&broker, "teller"), "?");
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).expect("what it was told");
    let told = (read("who"), read("stopped"));
    assert_eq!(broker.end(), 0);
    told
}

#[test]
fn a_process_is_a_client_with_its_rights_and_no_others() {
    let (who, stopped) = told_as_worker("rights=operator:read");
    assert!(who.contains("worker 1 of teller: operator:read"), "{who}");
    assert!(stopped.contains("'stop' needs the role operator:danger"), "{stopped}");
    let (who, stopped) = told_as_worker("");
    assert!(!who.contains("operator:read"), "{who}");
    assert!(!stopped.contains("Ok."), "{stopped}");
}
