//! The files of the engine name each other in one direction only, as their `use` lines say: who
//! reads one file need not know what stands on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Modules by path (`dispatch::serve`), with the modules that each one uses.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// The sources below a folder without their unit tests, by the path of their module; `mod.rs` is
/// its folder.
fn sources(folder: &Path, prefix: &str, out: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            sources(&path, &format!("{prefix}{stem}::"), out);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let name = match stem.as_str() {
                "mod" => prefix.trim_end_matches("::").to_owned(),
                _ => format!("{prefix}{stem}"),
            };
            let text = fs::read_to_string(&path).expect("a file");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
            out.insert(name, code);
        }
    }
}

/// The paths of a `use` line: `a::{b, c::{d}}` is `a::b` and `a::c::d`.
fn paths(tree: &str) -> Vec<String> {
    let Some((before, inner)) = tree.split_once('{') else { return vec![tree.trim().to_owned()] };
    let inner = inner.strip_suffix('}').expect("a closing brace");
    let (mut depth, mut part, mut parts) = (0, String::new(), Vec::new());
    for letter in inner.chars() {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        if letter == ',' && depth == 0 {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(letter);
        }
    }
    parts.push(part);
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    parts.flat_map(|part| paths(&format!("{}{part}", before.trim()))).collect()
}

/// The module that a path of `from` leads to, if it is one of the engine.
fn target(from: &str, path: &str, all: &BTreeMap<String, String>) -> Option<String> {
    let words: Vec<&str> = path.split("::").collect();
    let parent = from.rsplit_once("::").map_or("", |(parent, _)| parent);
    let (base, rest) = match words.as_slice() {
        ["crate", "engine", rest @ ..] => ("", rest),
        ["super", rest @ ..] => (parent, rest),
        ["self", rest @ ..] => (from, rest),
        rest if all.contains_key(&join(from, &rest[..1])) => (from, rest),
        _ => return None,
    };
    let found = (1..=rest.len()).rev().map(|length| join(base, &rest[..length]));
    found.into_iter().find(|name| all.contains_key(name) && name != from)
}

fn join(base: &str, words: &[&str]) -> String {
    let first = (!base.is_empty()).then_some(base);
    first.into_iter().chain(words.iter().copied()).collect::<Vec<_>>().join("::")
}

fn graph(all: &BTreeMap<String, String>) -> Graph {
    let uses = |code: &str| -> Vec<String> {
        let is_use = |line: &str| {
            let line = line.trim_start();
            line.starts_with("use ") || line.starts_with("pub") && line.contains(" use ")
        };
        let starts = code.match_indices('\n').map(|(at, _)| at + 1);
        let statements = std::iter::once(0).chain(starts).map(|at| &code[at..]);
        let trees = statements.filter(|rest| is_use(rest.lines().next().unwrap_or_default()));
        let tree = |rest: &str| -> Option<String> {
            let (tree, _) = rest.split_once("use ")?.1.split_once(';')?;
            Some(tree.replace('\n', " "))
        };
        trees.filter_map(tree).flat_map(|tree| paths(&tree)).collect()
    };
    let named = |name: &String, code: &String| {
        uses(code).iter().filter_map(|path| target(name, path, all)).collect()
    };
    all.iter().map(|(name, code)| (name.clone(), named(name, code))).collect()
}

/// What is left when files that use nothing that is left are taken away, again and again, and then
/// those that nothing uses: the circles.
fn circles(mut graph: Graph) -> Vec<String> {
    loop {
        let used: BTreeSet<String> = graph.values().flatten().cloned().collect();
        let left: BTreeSet<String> = graph.keys().cloned().collect();
        let before = graph.len();
        graph.retain(|name, uses| {
            uses.iter().any(|other| left.contains(other)) && used.contains(name)
        });
        if graph.len() == before {
            return graph.into_keys().collect();
        }
        let left: BTreeSet<String> = graph.keys().cloned().collect();
        graph.values_mut().for_each(|uses| uses.retain(|other| left.contains(other)));
    }
}

/// The sources of the engine.
fn engine() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../broker/src/engine");
    let mut all = BTreeMap::new();
    sources(&folder, "", &mut all);
    all
}

#[test]
fn files_of_the_engine_name_each_other_in_one_direction() {
    let graph = graph(&engine());
    assert!(graph["step"].contains("dispatch") || graph["step"].contains("hub"), "it reads them");
    assert_eq!(circles(graph), [""; 0], "these files use each other in a circle");
}

/// The machine that a module is part of.
fn machine(name: &str) -> Option<&'static str> {
    let first = name.split("::").next();
    let mut machines = ["dispatch", "instances", "sessions", "supervision", "topics"].into_iter();
    machines.find(|machine| first == Some(machine))
}

/// What one machine uses of another one.
fn crossings(graph: &Graph) -> Vec<String> {
    let pairs = graph.iter().flat_map(|(name, uses)| uses.iter().map(move |other| (name, other)));
    let crosses = pairs.filter(|(name, other)| {
        let (from, to) = (machine(name), machine(other));
        from.is_some() && to.is_some() && from != to
    });
    crosses.map(|(name, other)| format!("{name} uses {other}")).collect()
}

#[test]
fn no_machine_names_another() {
    let graph = graph(&engine());
    let machines: BTreeSet<&str> = graph.keys().filter_map(|name| machine(name)).collect();
    assert_eq!(machines.len(), 5, "{machines:?}");
    assert_eq!(crossings(&graph), [""; 0], "an effect or the hub must stand between them");
    let wrong = BTreeMap::from([
        ("sessions::a".to_owned(), "use crate::engine::dispatch::b::B;".to_owned()),
        ("dispatch::b".to_owned(), "use super::c;".to_owned()),
        ("dispatch::c".to_owned(), String::new()),
    ]);
    assert_eq!(crossings(&self::graph(&wrong)), ["sessions::a uses dispatch::b"]);
}

/// How many functions the blocks `impl Engine` of a file have.
fn hub_methods(code: &str) -> usize {
    let blocks = code.split("\nimpl Engine {\n").skip(1);
    let body = |block: &str| block.split("\n}\n").next().unwrap_or_default().to_owned();
    let is_fn = |line: &&str| {
        let line = line.strip_prefix("    ").unwrap_or_default();
        !line.starts_with(' ') && !line.starts_with('/') && line.contains("fn ")
    };
    blocks.map(|block| body(block).lines().filter(is_fn).count()).sum()
}

#[test]
fn the_hub_stays_small() {
    let code = "
impl Engine {
    /// A fn a.
    pub(crate) const fn a() {
        fn b() {}
    }

    fn c() {}
}

impl Other {
    fn d() {}
}
";
    assert_eq!(hub_methods(code), 2);
    let count: usize = engine().values().map(|code| hub_methods(code)).sum();
    assert!((40..60).contains(&count), "the hub has {count} methods; fewer than 60 are allowed");
}

#[test]
fn a_circle_is_found_and_a_chain_is_none() {
    let all = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, code)| ((*name).to_owned(), (*code).to_owned())).collect()
    };
    let chain = all(&[("a", "use super::b::B;"), ("b", "use super::c::{C, d::D};"), ("c", "")]);
    assert_eq!(circles(graph(&chain)), [""; 0]);
    let circle = all(&[
        ("a", "use super::x::b::B;"),
        ("x::b", "use crate::engine::c;"),
        ("c", "pub(crate) use super::a::A;"),
        ("alone", "use super::a::A;"),
    ]);
    assert_eq!(circles(graph(&circle)), ["a", "c", "x::b"]);
}
