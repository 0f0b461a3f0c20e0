//! Runs the walk-through of `docs/hosts.md` as printed, on three machines of a simulated network,
//! and compares the output with the page. Needs root, see `isect_tests::lan`.

use isect_tests::lan::Lan;
use isect_tests::page::type_page;

#[test]
fn the_page_of_several_hosts_is_as_it_says() {
    let Some(mut lan) = Lan::build(&["hub", "alpha", "beta"]) else { return };
    let typed = type_page(&mut lan, "docs/hosts.md");
    assert!(typed > 20, "only {typed} blocks were typed");
    // The end of the broker causes no warnings and no errors.
    let log = lan.file("hub", "/opt/isect/broker.log");
    let (_, end) = log.rsplit_once("the broker ends").expect("its end is in its log");
    assert!(!end.contains(" WARN ") && !end.contains(" ERROR "), "{end}");
}
