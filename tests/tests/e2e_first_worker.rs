//! Runs the tutorial `docs/first-worker.md` as printed, with a broker on a simulated machine: the
//! shell script; the Python library, from its folder, in a fresh virtual environment; the Rust
//! library, from a crate outside of this workspace. No network is needed for that. Needs root, see
//! `isect_tests::lan`.

use isect_tests::docs::root;
use isect_tests::lan::Lan;
use isect_tests::page::type_page;
use isect_tests::proc::{program, python_folder};
use std::env;
use std::path::{Path, PathBuf};

/// What a person has who begins the tutorial: programs on the path, a broker, the sources. The
/// crates of this workspace are on this machine, and no others; they are built in the same place
/// and way, so that few of them are built again.
#[expect(clippy::disallowed_methods, reason = "tells how cargo was started")]
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
         mkdir -p upper/.cargo; cp \"$ISECT/Cargo.lock\" upper; ln -s \"{}\" upper/target\n\
         sed -n '/^.profile.dev]/,$p' \"$ISECT/Cargo.toml\" > upper/.cargo/config.toml\n\
         isectd > log 2>&1 &\n\
         until isdclient -c hosts | grep -q up; do sleep 0.1; done\n",
        python_folder().display(),
        tools.display(),
        home.expect("the folder of cargo").display(),
        root().display(),
        target.display(),
    );
    let says_how = |name: &str| name.starts_with("CARGO_PROFILE_") || name == "RUSTFLAGS";
    for (name, value) in env::vars().filter(|(name, _)| says_how(name)) {
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
