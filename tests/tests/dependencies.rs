//! Checks that `docs/dependencies.md` has a row with a reason for each crate that a manifest names,
//! and no other, that what stays by hand is where that page says, and that our own crates name each
//! other as `docs/architecture.md` says. `cargo deny` checks licences and advisories.

use isect_tests::docs;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The head of the chapter about what no crate does.
const BY_HAND: &str = "\n## What stays by hand, and why\n";

/// The crates that each manifest of the workspace names, by the folder of the manifest; what only
/// tests of a crate use is left out unless `with_tests`.
fn named(with_tests: bool) -> BTreeMap<String, BTreeSet<String>> {
    let manifests = fs::read_dir(docs::root())
        .expect("a manifest")
        .map(|entry| entry.expect("a manifest").path().join("Cargo.toml"))
        .filter(|path| path.exists());
    let mut named = BTreeMap::new();
    for path in manifests {
        let folder = path.parent().and_then(Path::file_name).expect("a manifest");
        let names: &mut BTreeSet<String> =
            named.entry(folder.to_string_lossy().into_owned()).or_default();
        let mut is_inside = false;
        for line in fs::read_to_string(&path).expect("a manifest").lines() {
            if line.starts_with('[') {
                is_inside =
                    line == "[dependencies]" || with_tests && line.ends_with("dependencies]");
            } else if is_inside && !line.starts_with('#') {
                let name = line.split([' ', '.', '=']).next().unwrap_or_default();
                names.extend(Some(name.to_owned()).filter(|name| !name.is_empty()));
            }
        }
    }
    assert!(named.len() > 6, "{named:?}");
    named
}

#[test]
fn every_crate_has_its_reason() {
    let all = named(true);
    let crates = all.values().flatten().filter(|name| !all.contains_key(*name));
    let named: BTreeSet<String> = crates.cloned().collect();
    let text = fs::read_to_string(docs::root().join("docs/dependencies.md")).unwrap();
    let (table, _) = text.split_once(BY_HAND).expect("the chapter after it");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let told: BTreeSet<String> = rows.map(|(name, _)| name.to_owned()).collect();
    let missing: Vec<_> = named.difference(&told).collect();
    let stale: Vec<_> = told.difference(&named).collect();
    assert!(missing.is_empty(), "docs/dependencies.md has no row for {missing:?}");
    assert!(stale.is_empty(), "docs/dependencies.md tells of {stale:?}, which nothing uses");
}

#[test]
fn what_stays_by_hand_is_there_and_has_its_reason() {
    let text = fs::read_to_string(docs::root().join("docs/dependencies.md")).unwrap();
    let (_, table) = text.split_once(BY_HAND).expect("the chapter");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let ["", what, path, why, ""] = cells[..] else { panic!("not three cells: {row}") };
        let path = path.strip_prefix('`').and_then(|path| path.strip_suffix('`'));
        let path = path.unwrap_or_else(|| panic!("not one file: {row}"));
        assert!(docs::root().join(path).exists(), "there is no {path}: {row}");
        assert!(!what.is_empty() && !why.is_empty(), "{row}");
    }
}

#[test]
fn our_crates_name_those_above_them() {
    let named = named(false);
    let text = fs::read_to_string(docs::root().join("docs/architecture.md")).unwrap();
    let table = text.split("| crate | what it is | may name |").nth(1).expect("the table");
    let mut above: BTreeSet<&str> = BTreeSet::new();
    for row in table.lines().skip(2).take_while(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').collect();
        let [_, name, _, may, _] = cells[..] else { panic!("not three cells: {row}") };
        let name = name.trim().trim_matches('`');
        let words: BTreeSet<&str> = may.split('`').skip(1).step_by(2).collect();
        let may = if may.trim() == "everything" { &above } else { &words };
        assert!(may.is_subset(&above), "{name} may name a crate that is not above it: {row}");
        let own = named[name].iter().map(String::as_str).filter(|name| named.contains_key(*name));
        let own: BTreeSet<&str> = own.collect();
        let wrong: Vec<_> = own.difference(may).collect();
        assert!(wrong.is_empty(), "{name} names {wrong:?}, which it may not");
        above.insert(name);
    }
    let all: BTreeSet<&str> = named.keys().map(String::as_str).collect();
    assert_eq!(above, all, "each crate has a row");
}

#[test]
fn only_the_program_isectd_names_execd_and_the_client_library() {
    let mut folders = vec![docs::root().join("broker/src")];
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let is_named = |line: &str| {
                ["execd::", "client::"].iter().any(|name| {
                    line.strip_prefix("use ").is_some_and(|used| used.starts_with(name))
                        || line.contains(&format!(" {name}"))
                })
            };
            if text.lines().any(is_named) {
                let name = path.strip_prefix(docs::root().join("broker/src")).unwrap();
                found.insert(name.to_string_lossy().into_owned());
            }
        }
    }
    let program = ["demo.rs", "execd_role.rs", "main.rs", "services/health.rs", "services/mod.rs"];
    assert_eq!(found, program.map(String::from).into());
}
