//! Checks that `docs/dependencies.md` has a row with a reason for each crate that a manifest names,
//! and no other. `cargo deny` checks licences and advisories.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_crate_has_its_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifests: Vec<_> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path().join("Cargo.toml"))
        .filter(|path| path.exists())
        .collect();
    assert!(manifests.len() > 6, "{manifests:?}");
    let mut named = BTreeSet::new();
    let mut own = BTreeSet::new();
    for path in &manifests {
        let folder = path.parent().and_then(Path::file_name).unwrap();
        own.insert(folder.to_string_lossy().into_owned());
        let mut is_inside = false;
        for line in fs::read_to_string(path).unwrap().lines() {
            if line.starts_with('[') {
                is_inside = line.ends_with("dependencies]");
            } else if is_inside && !line.starts_with('#') {
                let name = line.split([' ', '.', '=']).next().unwrap_or_default();
                named.insert(name.to_owned());
            }
        }
    }
    named.retain(|name| !name.is_empty() && !own.contains(name));
    let text = fs::read_to_string(root.join("docs/dependencies.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let told: BTreeSet<String> = rows.map(|(name, _)| name.to_owned()).collect();
    let missing: Vec<_> = named.difference(&told).collect();
    let stale: Vec<_> = told.difference(&named).collect();
    assert!(missing.is_empty(), "docs/dependencies.md has no row for {missing:?}");
    assert!(stale.is_empty(), "docs/dependencies.md tells of {stale:?}, which nothing uses");
}
