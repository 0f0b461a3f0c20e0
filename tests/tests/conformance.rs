//! The conformance suite with the libraries of this project, and with another one if
//! `CONFORMANCE_DRIVER='program arguments'` names its driver. See docs/conformance.md.

use isect_tests::conformance::{Driver, Report, folder, play};
use isect_tests::docs;
use std::process::{Command, Stdio};

/// The driver of the Rust library.
fn rust() -> Driver {
    Driver::new("Rust", &[env!("CARGO_BIN_EXE_isdconform").to_owned()])
}

#[expect(clippy::disallowed_methods, reason = "the switches of this suite")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether an interpreter ends well with a line.
#[expect(clippy::disallowed_methods, reason = "it asks the interpreter for its version")]
fn says_yes(python: &str, line: &str) -> bool {
    let asked = Command::new(python).args(["-c", line]).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// The interpreter, 3.10 or later; `None` = there is none, and the Python library is not played.
fn python() -> Option<String> {
    let python = variable("PYTHON").unwrap_or_else(|| "python3".to_owned());
    says_yes(&python, "import sys; sys.exit(sys.version_info < (3, 10))").then_some(python)
}

/// Plays all conversations, or those whose path or title has `CONFORMANCE` in it.
#[expect(clippy::print_stdout, reason = "the report is what whoever runs it wants to read")]
fn check(driver: &Driver) -> Report {
    let only = variable("CONFORMANCE").unwrap_or_default();
    let report = play(&folder(), driver, &only);
    println!("{}: {report}", driver.name);
    assert!(
        report.failures.is_empty(),
        "{} cases are not as they are to be",
        report.failures.len()
    );
    assert!(report.passed > 0, "no case has '{only}' in its file or title");
    report
}

/// Nothing is left out but for these reasons.
fn check_left_out(report: &Report, reasons: &[&str]) {
    let is_known = |case: &&String| reasons.iter().any(|reason| case.contains(reason));
    let other: Vec<&String> = report.left_out.iter().filter(|case| !is_known(case)).collect();
    assert!(other.is_empty(), "the driver has it: {other:?}");
}

#[test]
fn the_rust_library_speaks_as_the_conversations_say() {
    check_left_out(&check(&rust()), &[]);
}

#[test]
fn the_rust_library_answers_alike_with_owned_requests() {
    let driver = Driver { worker_args: vec!["owned=yes".to_owned()], ..rust() };
    check_left_out(&check(&driver), &[]);
}

/// What a conversation says does not depend on the kind of socket.
#[test]
fn the_rust_library_speaks_alike_over_unix_sockets() {
    check_left_out(&check(&Driver { is_unix: true, ..rust() }), &[]);
}

/// Plays the conversations with the Python library, one of its two halves.
fn check_python(name: &str, way: &str, is_unix: bool) {
    let Some(python) = python() else { return };
    let folder = docs::root().join("client/python");
    let driver = folder.join("tests/conformance_driver.py").display().to_string();
    let sources = folder.join("src").display().to_string();
    let variables = [("PYTHONPATH", sources.as_str()), ("CONFORMANCE_WAY", way)];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    // What asyncio has taken to be sent may have been sent.
    let mut lacks = if way.is_empty() { Vec::new() } else { vec!["sees-unsent".to_owned()] };
    let mut reasons =
        vec!["sees-unsent", "no 'limits'", "one side", "a conversation is never repeated"];
    // The gate has it installed, and then nothing may be left out for want of it.
    if variable("ISECT_PYTHON_ALL").is_none() && !says_yes(&python, "import argon2") {
        lacks.push("tokens".to_owned());
        reasons.extend(["argon2-cffi", "tokens"]);
    }
    let driver = Driver { variables, lacks, is_unix, ..Driver::new(name, &[python, driver]) };
    check_left_out(&check(&driver), &reasons);
}

#[test]
fn the_python_library_speaks_as_the_conversations_say() {
    check_python("Python", "", false);
}

#[test]
fn the_python_library_speaks_alike_with_asyncio() {
    check_python("Python with asyncio", "asyncio", false);
}

#[test]
fn the_python_library_speaks_alike_over_unix_sockets() {
    check_python("Python over Unix sockets", "", true);
}

#[test]
fn the_python_library_speaks_alike_with_asyncio_over_unix_sockets() {
    check_python("Python with asyncio over Unix sockets", "asyncio", true);
}

#[test]
fn another_library_speaks_as_the_conversations_say() {
    if let Some(line) = variable("CONFORMANCE_DRIVER") {
        let is_unix = variable("CONFORMANCE_UNIX").is_some();
        check(&Driver { is_unix, ..Driver::of_line(&line) });
    }
}

/// What the report says of one case of a client, which does not go well.
fn failure(driver: &Driver, steps: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("client")).expect("a folder");
    let file = folder.path().join("client/wrong.conv");
    std::fs::write(file, steps).expect("a file");
    let report = play(folder.path(), driver, "");
    assert_eq!((report.passed, report.failures.len()), (0, 1), "{report}");
    report.failures[0].clone()
}

#[test]
fn what_is_not_as_the_line_says_is_shown_with_the_line_in_words_and_in_hex() {
    let steps = "== it asks\ndo call \"hello\" as a\nenter\nSTEP\n";
    for (step, parts) in [
        (
            "expect data sequence=_ reply=1 \"hallo\"",
            &["hello", "expected \"hallo\"", "68 65 6c 6c 6f"][..],
        ),
        ("expect data sequence=_ \"hello\"", &["reply is 1, expected 0"]),
        ("expect data sequence=_ reply=1 priority=5 \"hello\"", &["priority is 0, expected 5"]),
        ("expect data sequence=2..9 reply=1 \"hello\"", &["sequence is 1, expected 2..9"]),
        ("expect flush sequence=_", &["it is no flush frame", "got data"]),
        ("expect close", &["the library sent data", "68 65 6c 6c 6f"]),
        ("any-order\nexpect data sequence=7\nexpect flush\nend", &["sequence is 1, expected 7"]),
        ("expect data sequence=$s reply=1 \"hello\"\nresult b ok", &["called 'b'"]),
        ("soon x pong sequence=1\nby-now x", &["it sent data"]),
    ] {
        let shown = failure(&rust(), &steps.replace("STEP", step));
        let line = if step.contains("result") || step.contains("by-now") { 5 } else { 4 };
        let line = if step.starts_with("any-order") { 5 } else { line };
        assert!(shown.starts_with(&format!("client/wrong.conv:{line}: it asks\n")), "{shown}");
        for part in parts {
            assert!(shown.contains(part), "{step}: {shown}");
        }
    }
}

#[test]
fn what_the_library_says_is_compared() {
    let steps = "== it asks\ndo call \"hello\" as a\nenter\n\
                 expect data sequence=$s reply=1 \"hello\"\nANSWER\nresult a RESULT\n";
    for (answer, result, part) in [
        ("send data sequence=$s \"x\"", "\"y\"", "body is \"x\", expected \"y\""),
        ("send data sequence=$s \"x\"", "fails deadline", "it says {\"body\":\"78\"}"),
        ("send error deadline sequence=$s \"x\"", "\"x\"", "\"name\":\"deadline\""),
        ("send error deadline sequence=$s \"x\"", "fails poison", "expected poison"),
        ("send error deadline sequence=$s \"x\"", "fails deadline ran=no", "ran is maybe"),
        ("send error deadline sequence=$s \"x\"", "fails deadline text~=y", "without 'y'"),
    ] {
        let steps = steps.replace("ANSWER", answer).replace("RESULT", result);
        let shown = failure(&rust(), &steps);
        assert!(shown.starts_with("client/wrong.conv:6: it asks\n"), "{shown}");
        assert!(shown.contains(part), "{result}: {shown}");
    }
}

#[test]
fn a_frame_that_no_line_expects_is_a_fault() {
    let steps = "== it asks\ndo submit \"hello\" as a\nenter\nresult a ok\n";
    let shown = failure(&rust(), steps);
    assert!(shown.contains("no line expects this frame:\n    data seq=1"), "{shown}");
}

#[test]
fn a_line_that_says_nothing_is_shown_with_its_number() {
    for (steps, part) in [
        ("accept\n", ":1: a step before the first '== TITLE'"),
        ("== a\n", "the case 'a' has no steps"),
        ("== a\nrepeat n=1..3\naccept\n", ":3: 'repeat' or 'any-order' without 'end' above"),
        ("== a\nend\n", ":2: nothing is open here"),
        ("== a\nrepeat\nend\n", ":2: what is repeated?"),
        ("== a\nsend data \"x\n", ":2: a quotation mark is not closed"),
        ("== a\nsend date\n", ":2: a\n    send date\n    'date' is no kind of frame"),
        ("== a\nsend data lenght=3\n", "the frame has no field 'lenght'"),
        ("== a\nsend data sequence=$s\n", "the variable 's' has no value"),
        ("== a\nsend data priority=256\n", "the field 'priority' can't be 256"),
        ("== a\nsend pong sequence=1\n", "there is no connection"),
        ("== a\nsing\n", "there is no such step"),
        ("== a\non b\n", "no connection is called 'b'"),
        ("== a\nrelease\n", "nothing is held"),
        ("== a\ndo wait of=b as c\n", "nothing is called 'b'"),
    ] {
        let shown = failure(&rust(), steps);
        assert!(
            shown.starts_with("client/wrong.conv:") && shown.contains(part),
            "{steps}: {shown}"
        );
    }
}

#[test]
fn a_driver_that_does_not_do_its_part_is_told_from_a_library_that_does_not() {
    let steps = "== it asks\ndo call \"hello\" as a\nresult a \"HELLO\"\n";
    let driver = |script: &str| {
        Driver::new("wrong", &["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()])
    };
    for (script, part) in [
        ("read line; echo hello; cat", "the driver wrote a line that is none of its: hello"),
        ("read line; echo '{\"id\":1}'; cat", "the driver wrote a line that is none of its"),
        ("read line; echo it fell >&2", "the driver has ended\n    it fell"),
        ("read line; echo '{\"id\":1,\"ok\":{\"body\":\"\"}}'; cat", "body is \"\", expected"),
    ] {
        let shown = failure(&driver(script), steps);
        assert!(shown.contains(part), "{script}: {shown}");
    }
    let shown = failure(&Driver::of_line("/nowhere/driver now"), steps);
    assert!(shown.contains("/nowhere/driver does not start"), "{shown}");
}

#[test]
fn what_a_driver_has_not_is_left_out_and_no_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("client")).expect("a folder");
    let steps = "== it sings\ndo sing as a\nenter service=bus\nresult a ok\n";
    std::fs::write(folder.path().join("client/songs.conv"), steps).expect("a file");
    let report = play(folder.path(), &rust(), "");
    assert_eq!((report.passed, report.failures.len(), report.left_out.len()), (0, 0, 1));
    assert!(report.left_out[0].contains("client/songs.conv:1: it sings: the driver has no 'sing'"));
}
