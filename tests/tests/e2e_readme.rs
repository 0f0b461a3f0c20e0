//! Runs "Five minutes" of the README as printed on a simulated machine: each command succeeds or
//! fails as the page says, and prints what the page shows. Commands that need cargo are skipped.
//! Needs root, see `isect_tests::lan`.

use isect_tests::docs::root;
use isect_tests::lan::Lan;
use isect_tests::page::save;
use isect_tests::proc::{program, python_folder};
use isect_tests::walkthrough::{Numbers, blocks, session};

#[test]
fn the_five_minutes_of_the_readme_are_as_they_say() {
    let Some(mut lan) = Lan::build(&["here"]) else { return };
    // The folder of the sources, in which the tour begins.
    let lines = format!(
        "export PATH=\"{}:$PATH\" PIP_DISABLE_PIP_VERSION_CHECK=1\nln -s \"{}\" client\n",
        python_folder().display(),
        root().join("client").display()
    );
    assert!(lan.run("here", &lines).1, "{lines}");
    let page = std::fs::read_to_string(root().join("README.md")).expect("the page");
    let (_, page) = page.split_once("\n## Five minutes\n").expect("the tour");
    let (page, _) = page.split_once("\n## ").expect("what follows it");
    let mut numbers = Numbers::default();
    let mut typed = 0;
    for block in blocks(page) {
        if block.info == "rust" || block.text.contains("cargo ") {
            continue;
        }
        if let Some(file) = block.info.strip_prefix("python ") {
            save(&mut lan, "here", file, &block.text);
            continue;
        }
        assert_eq!(block.info, "", "a block of another kind: {}", block.text);
        let steps = match session(&block.text) {
            steps if steps.is_empty() => vec![(block.text.clone(), String::new())],
            steps => steps,
        };
        for (command, says) in steps {
            let (out, is_well) = lan.run("here", &numbers.now(&settled(&command)));
            assert_eq!(is_well, !says.contains("whose: "), "{command}\n{out}");
            let (says, out) = (certain(&command, &says), elsewhere(&out));
            numbers
                .compare(&says, &out)
                .unwrap_or_else(|why| panic!("{command}: {why}; it was\n{out}"));
            typed += 1;
        }
    }
    assert!(typed > 30, "only {typed} commands were typed");
}

/// The lines of an answer that must come. The order of some events differs by microseconds, so only
/// certain ones are compared.
fn certain(command: &str, says: &str) -> String {
    if !command.contains("listevents") {
        return says.to_owned();
    }
    let is_certain =
        |line: &&str| ["worker_start", "worker_ready", "signal 9"].iter().any(|w| line.contains(w));
    says.lines().filter(is_certain).map(|line| format!("{line}\n")).collect()
}

/// The output as it would be on the machine of the page.
fn elsewhere(out: &str) -> String {
    let isectd = program("isectd");
    let folder = isectd.parent().expect("a folder").to_string_lossy().into_owned();
    let line = |line: &str| {
        // The time in the state differs each time, and so may its unit.
        if let Some((row, _)) = line.split_once(" ready for ") {
            return format!("{row} ready for 2.1 s\n");
        }
        // The last column of `requests`: the machine of the client.
        match line.rsplit_once("  ") {
            Some((row, from)) if from.split(' ').nth(1) == Some("pid") => {
                format!("{row}  vm pid 17117\n")
            }
            Some(_) | None => format!("{line}\n"),
        }
    };
    out.replace(&folder, "/usr/local/bin").lines().map(line).collect()
}

/// A command, after the wait for what it needs: a person types more slowly.
fn settled(command: &str) -> String {
    let ready =
        "until [ \"$(isdclient -c workers | grep -c 'ready for ')\" = 3 ]; do sleep 0.1; done";
    let up = "until isdclient -c hosts | grep -q up; do sleep 0.1; done";
    match command.trim() {
        "isectd &" => format!("isectd > log 2>&1 &\n{up}\n"),
        command if command.contains("\"workers") => format!("{ready}\n{command}\n"),
        // The waits leave events of their own.
        command if command.contains("listevents") => {
            format!("{}\n", command.replace("listevents 5", "listevents 100"))
        }
        // The request before it has come, and its worker has it.
        command if command.ends_with(" requests") => {
            let here = "until isdclient -c requests | grep -q '  worker  '; do sleep 0.1; done";
            format!("{here}\n{command}\n")
        }
        // It has logged in.
        command if command.contains("\"worker 5\"") => {
            let here =
                "until isdclient -c 'worker 5' | grep -q 'concurrency = 8'; do sleep 0.1; done";
            format!("{here}\n{command}\n")
        }
        // Waits until the killed worker is ready again.
        command if command.starts_with("kill ") => {
            let ready = "isdclient -c 'listevents 100' | grep -c 'worker_ready worker 1 '";
            format!("{command}\nuntil [ \"$({ready})\" = 2 ]; do sleep 0.1; done\n")
        }
        command => format!("{command}\n"),
    }
}
