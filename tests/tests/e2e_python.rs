//! Runs the tests of the Python library with the Python of this machine, and the fast ones with the
//! oldest and the newest that it has. Needs Python 3.10 or later. With `ISECT_PYTHON_ALL=1` (the
//! gate) no test may be passed over for want of a module that pip or the system can install; with
//! `ISECT_PYTHON_EACH=1` (the nightly run) every interpreter runs all tests.

use isect_tests::docs::root;
use isect_tests::proc::program;
use std::path::PathBuf;
use std::process::Command;

/// The oldest minor version of Python 3 that the library runs on.
const OLDEST: u32 = 10;
/// Test modules that start few programs of their own, for each further interpreter.
const FAST: &[&str] = &[
    "test_session",
    "test_login",
    "test_client",
    "test_client_broker",
    "test_worker_ways",
    "test_aio_faults",
];
/// Why a test may be passed over: the interpreter lacks what it tries.
const MAY_SKIP: &[&str] = &["this Python has no ", "Python 3.10 has no tomllib"];

/// Whether one of the switches of these tests is set.
fn is_set(switch: &str) -> bool {
    std::env::var_os(switch).is_some()
}

/// The reasons that unittest gave with `-v` for tests that it did not run.
fn skipped(said: &str) -> Vec<&str> {
    let reasons = said.lines().filter_map(|line| line.split_once(" ... skipped "));
    reasons.map(|(_, reason)| reason.trim_matches(['\'', '"'])).collect()
}

#[expect(clippy::disallowed_methods, reason = "an interpreter ends by itself, and is waited for")]
fn python_command(name: &str) -> Command {
    Command::new(name)
}

/// An interpreter, and the minor version that it says.
fn interpreter(name: &str) -> Option<(String, u32)> {
    let said = python_command(name)
        .args(["-c", "import sys; print(*sys.version_info[:2])"])
        .output()
        .ok()
        .filter(|done| done.status.success())?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let (major, minor) = text.trim().split_once(' ')?;
    (major == "3").then_some((name.to_owned(), minor.parse().ok()?))
}

/// Runs test modules; all if none is named, and then none may be skipped if the gate asks for all.
fn run(python: &str, modules: &[&str]) {
    let folder: PathBuf = root().join("client/python");
    let programs = program("isectd").parent().expect("a folder").to_path_buf();
    for needed in ["isdexecd", "isdclient", "isdecho", "isdpipe"] {
        program(needed);
    }
    let mut command = python_command(python);
    command.args(["-W", "error::ResourceWarning", "-m", "unittest"]);
    match modules {
        [] => command.args(["discover", "-v", "-s", "tests"]),
        named => command.arg("-v").args(named),
    };
    let done = command
        .current_dir(if modules.is_empty() { folder.clone() } else { folder.join("tests") })
        .env("PYTHONPATH", folder.join("src"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("ISECT_BIN", &programs)
        .env_remove("ISECT_HOST")
        .output()
        .unwrap_or_else(|e| panic!("{python}: {e}"));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{python} {modules:?}: {}\n{said}", done.status);
    let count = said.lines().rev().find_map(|line| line.strip_prefix("Ran ")).unwrap_or_default();
    let count = count.split(' ').next().and_then(|word| word.parse::<u32>().ok());
    assert!(count.is_some_and(|count| count > 100), "{python} ran {count:?} tests:\n{said}");
    if modules.is_empty() && is_set("ISECT_PYTHON_ALL") {
        let mut reasons = skipped(&said);
        reasons.retain(|reason| !MAY_SKIP.iter().any(|known| reason.starts_with(known)));
        assert!(reasons.is_empty(), "{python} did not run all tests: {reasons:?}\n{said}");
    }
}

#[test]
fn the_python_library_keeps_its_promises() {
    let (name, minor) =
        interpreter("python3").expect("python3 runs: install Python 3.10 or later, with venv");
    assert!(minor >= OLDEST, "python3 is 3.{minor}; the library needs 3.{OLDEST}");
    run(&name, &[]);
}

#[test]
fn so_it_does_with_the_oldest_and_the_newest_python_that_are_here() {
    let own = interpreter("python3").map(|(_, minor)| minor);
    let there: Vec<(String, u32)> = (OLDEST..30)
        .filter_map(|minor| interpreter(&format!("python3.{minor}")))
        .filter(|(_, minor)| Some(*minor) != own)
        .collect();
    if is_set("ISECT_PYTHON_EACH") {
        return there.iter().for_each(|(name, _)| run(name, &[]));
    }
    for (name, _) in there.first().into_iter().chain(there.iter().skip(1).next_back()) {
        run(name, FAST);
    }
}
