//! Runs every `tests/scripts/**/*.script` on the engine. `UPDATE=1` writes what happened into the
//! files; `SCRIPT=part/of/path` runs only some. It also tests that the runner reports a failure.

#![expect(clippy::disallowed_methods, reason = "UPDATE and SCRIPT are for the person at the keys")]

use isect_tests::script;
use std::path::Path;

#[test]
fn every_script_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let is_update = std::env::var("UPDATE").is_ok();
    let wanted = std::env::var("SCRIPT").unwrap_or_default();
    let (mut files, mut cases, mut failures) = (0, 0, Vec::new());
    for path in script::files(&folder).unwrap() {
        let name = path.strip_prefix(&folder).unwrap().to_string_lossy().into_owned();
        if !name.contains(&wanted) {
            continue;
        }
        let report = script::run(&name, &std::fs::read_to_string(&path).unwrap(), is_update);
        files += 1;
        cases += report.cases;
        failures.extend(report.failures);
        if let Some(updated) = report.updated {
            std::fs::write(&path, updated).unwrap();
            println!("updated {name}");
        }
    }
    println!("{cases} cases in {files} scripts, {} failed", failures.len());
    assert!(failures.is_empty(), "{} scripts failed:\n\n{}", failures.len(), failures.join("\n"));
    assert!(cases > 0, "no script has '{wanted}' in its path");
}

fn failure_of(source: &str) -> String {
    script::run("x.script", source, false).failures.join("\n")
}

#[test]
fn a_wrong_expectation_is_shown_with_file_and_line() {
    let text = failure_of(
        "== t\nservice echo has 1 worker\nc1 sends \"hi\" | > echo#1 gets \"ho\" ; busy echo#1\n",
    );
    assert!(text.contains("x.script:3 (t)"), "{text}");
    assert!(
        text.contains("- echo#1 gets \"ho\"") && text.contains("+ echo#1 gets \"hi\""),
        "{text}"
    );
}

#[test]
fn an_action_that_is_not_named_is_wrong_unless_the_line_ends_with_dots() {
    let source = "service echo has 1 worker\nc1 sends \"hi\" | > echo#1 gets \"hi\"";
    assert!(failure_of(source).contains("+ busy echo#1"));
    assert_eq!(failure_of(&format!("{source} ...")), "");
}

#[test]
fn an_unknown_word_is_named_with_the_cure() {
    let text = failure_of("c1 sendz \"hi\" | >\n");
    assert!(text.contains("unknown word \"sendz\"; did you mean 'sends'?"), "{text}");
    let text = failure_of("service echo\nc1 sends \"hi\" quickly | >\n");
    assert!(text.contains("unknown word 'quickly'") && text.contains("x.script:2"), "{text}");
    let text = failure_of("somebody sleeps\n");
    assert!(text.contains("a line begins with"), "{text}");
}

#[test]
fn an_answer_of_several_lines_is_compared_line_by_line() {
    let source = "op services | > text\n    |                          service          id\n    |                               op           1\n";
    assert_eq!(failure_of(source), "");
    let text = failure_of(&source.replace("op           1", "op           2"));
    assert!(text.contains("+ |                               op           1"), "{text}");
}

#[test]
fn an_update_writes_what_happened_and_keeps_what_fits() {
    let source = "# note\nservice echo has 1 worker\nc1 sends \"hi\" | > echo#1 gets \"hi\" trans=1 ; idle echo#1\n";
    let report = script::run("x.script", source, true);
    let expected = source.replace("idle echo#1", "busy echo#1");
    assert_eq!(report.updated.as_deref(), Some(expected.as_str()));
    assert!(script::run("x.script", &expected, true).updated.is_none());
}
