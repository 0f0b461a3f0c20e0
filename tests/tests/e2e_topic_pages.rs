//! Runs the blocks of pages of `docs` as printed, against a broker on a simulated machine, and
//! compares the output with the pages. Needs root, see
//! `isect_tests::lan`.

use isect_tests::lan::Lan;
use isect_tests::page::type_page;

const START: &str = "isectd > log 2>&1 &\n\
                     until isdclient -c hosts | grep -q up; do sleep 0.1; done\n";

/// Types all blocks of a page; returns how many.
fn typed(name: &str) -> usize {
    let Some(mut lan) = Lan::build(&["here"]) else { return usize::MAX };
    let (out, is_well) = lan.run("here", START);
    assert!(is_well, "{out}");
    type_page(&mut lan, name)
}

#[test]
fn the_page_of_topics_is_as_it_says() {
    assert!(typed("docs/topics.md") >= 5);
}

#[test]
fn the_page_of_logs_is_as_it_says() {
    assert!(typed("docs/logs.md") >= 3);
}

#[test]
fn the_page_of_services_is_as_it_says() {
    assert!(typed("docs/services.md") >= 4);
}

#[test]
fn the_page_of_instances_is_as_it_says() {
    assert!(typed("docs/instances.md") >= 4);
}

#[test]
fn the_page_of_upgrades_is_as_it_says() {
    assert!(typed("docs/upgrade.md") >= 5);
}

#[test]
fn the_page_of_restarts_is_as_it_says() {
    assert!(typed("docs/deploy.md") >= 5);
}

#[test]
fn the_page_of_deaths_is_as_it_says() {
    assert!(typed("docs/deaths.md") >= 5);
}
