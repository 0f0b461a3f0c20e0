//! Checks that documents made from tables equal what the tables make. `UPDATE=1` rewrites them.

use isect_tests::docs;

#[test]
fn documents_are_fresh() {
    #[expect(clippy::disallowed_methods, reason = "the one switch of this test")]
    let is_update = std::env::var("UPDATE").is_ok();
    let mut files: Vec<(String, String)> =
        docs::pages().into_iter().map(|(path, text)| (path.to_owned(), text)).collect();
    for (path, name, text) in docs::parts() {
        let at = docs::root().join(path);
        let page = match files.iter().position(|(known, _)| known == path) {
            Some(index) => files.remove(index).1,
            None => std::fs::read_to_string(&at).unwrap_or_else(|e| panic!("{path}: {e}")),
        };
        let made = docs::replace_part(&page, name, &text)
            .unwrap_or_else(|| panic!("{path} has no part '<!-- made: {name} -->'"));
        files.push((path.to_owned(), made));
    }
    let mut stale = Vec::new();
    for (path, text) in files {
        let at = docs::root().join(&path);
        if std::fs::read_to_string(&at).unwrap_or_default() != text {
            if is_update {
                std::fs::write(&at, text).unwrap_or_else(|e| panic!("{path}: {e}"));
            } else {
                stale.push(path);
            }
        }
    }
    assert!(stale.is_empty(), "stale: {stale:?}; run: UPDATE=1 cargo fresh");
}
