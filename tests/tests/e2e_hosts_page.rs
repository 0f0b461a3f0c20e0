//! Runs the walk-through of `docs/hosts.md` as printed, on three machines of a simulated network,
//! and compares the output with the page. Needs root, see `isect_tests::lan`.

use isect_tests::docs::root;
use isect_tests::lan::Lan;
use isect_tests::walkthrough::{Numbers, blocks};

#[test]
fn the_page_of_several_hosts_is_as_it_says() {
    let Some(mut lan) = Lan::build(&["hub", "alpha", "beta"]) else { return };
    let page = std::fs::read_to_string(root().join("docs/hosts.md")).expect("the page");
    let (mut numbers, mut said) = (Numbers::default(), String::new());
    let mut typed = 0;
    for block in blocks(&page) {
        let mut words = block.info.split_whitespace();
        match words.next() {
            Some("sh") => {
                for machine in words {
                    let lines = numbers.now(&block.text);
                    let (out, is_well) = lan.run(machine, &lines);
                    assert!(is_well, "line {} on {machine}:\n{lines}\n{out}", block.line);
                    said = out;
                    typed += 1;
                }
            }
            Some("text") => numbers
                .compare(&block.text, &said)
                .unwrap_or_else(|why| panic!("line {}: {why}; it was\n{said}", block.line)),
            // Contents of a file, which an earlier command wrote.
            Some("ini") => {}
            other => panic!("line {}: a block of kind {other:?}", block.line),
        }
    }
    assert!(typed > 20, "only {typed} blocks were typed");
    // The end of the broker causes no warnings and no errors.
    let log = lan.file("hub", "/opt/isect/broker.log");
    let (_, end) = log.rsplit_once("the broker ends").expect("its end is in its log");
    assert!(!end.contains(" WARN ") && !end.contains(" ERROR "), "{end}");
}
