//! Runs the tutorial `docs/first-worker.md` as printed, with a broker on a simulated machine without
//! network: the shell script; the Python library, from its folder, in a fresh virtual environment;
//! the Rust library, from a crate outside of this workspace. Needs root, see `isect_tests::lan`.

use isect_tests::docs::root;
use isect_tests::lan::Lan;
use isect_tests::page::type_page;
use isect_tests::proc::program;
use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the `python3` that is found here, whatever the path leads through.
#[expect(clippy::disallowed_methods, reason = "asks Python where it is")]
fn python_folder() -> PathBuf {
    let asked = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let said = asked.expect("python3 is installed");
    let path = PathBuf::from(String::from_utf8_lossy(&said.stdout).trim());
    path.parent().expect("a folder").to_path_buf()
}

/// How this workspace is built, as variables: crates that are built in the same way are not built
/// again.
fn profile() -> BTreeMap<String, String> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    let (_, dev) = manifest.split_once("[profile.dev]\n").expect("its profile");
    let settings = dev.lines().map_while(|line| line.split_once(" = "));
    let mut found: BTreeMap<String, String> = settings
        .map(|(name, value)| {
            let name = name.replace('-', "_").to_uppercase();
            (format!("CARGO_PROFILE_DEV_{name}"), value.trim_matches('"').to_owned())
        })
        .collect();
    let is_of_it = |name: &str| name.starts_with("CARGO_PROFILE_") || name == "RUSTFLAGS";
    found.extend(env::vars().filter(|(name, _)| is_of_it(name)));
    found
}

/// What a person has who begins the tutorial: programs on the path, a broker, the sources. The
/// crates of this workspace are on this machine, and no others; they are built in the same place.
fn prepared() -> String {
    let tools = Path::new(env!("CARGO")).parent().expect("a folder");
    let home = env::var("CARGO_HOME").map(PathBuf::from).or_else(|_| {
        let own = env::var("HOME").map(PathBuf::from);
        own.map(|own| own.join(".cargo"))
    });
    let isectd = program("isectd");
    let target = isectd.ancestors().nth(2).expect("the target folder");
    let mut lines = format!(
        "export PATH=\"{}:{}:$PATH\" CARGO_HOME=\"{}\" CARGO_NET_OFFLINE=true\n\
         export ISECT=\"{}\" PIP_DISABLE_PIP_VERSION_CHECK=1\n\
         mkdir upper; cp \"$ISECT/Cargo.lock\" upper; ln -s \"{}\" upper/target\n\
         isectd > log 2>&1 &\n\
         until isdclient -c hosts | grep -q up; do sleep 0.1; done\n",
        python_folder().display(),
        tools.display(),
        home.expect("the folder of cargo").display(),
        root().display(),
        target.display(),
    );
    for (name, value) in profile() {
        lines += &format!("export {name}='{value}'\n");
    }
    lines
}

#[test]
fn the_first_worker_is_made_in_three_languages_as_the_page_says() {
    let Some(mut lan) = Lan::build(&["here"]) else { return };
    let (out, is_well) = lan.run("here", &prepared());
    assert!(is_well, "{out}");
    let typed = type_page(&mut lan, "docs/first-worker.md");
    assert!(typed > 14, "only {typed} blocks were typed");
}
