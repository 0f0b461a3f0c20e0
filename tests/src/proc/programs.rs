//! The programs of this workspace: where they are, and runs that end by themselves.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a program of this workspace is. `cargo test --workspace` has built them all; a single
/// package's tests build them here.
pub fn program(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().expect("own path");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    if !path.is_file() {
        build(&folder);
    }
    assert!(path.is_file(), "{} is not built; run: cargo build --workspace --bins", path.display());
    path
}

/// Copies a program that is to be run. A separate process writes the copy: otherwise a child that
/// another test starts meanwhile would inherit the open file, and running it would fail (ETXTBSY).
#[expect(clippy::disallowed_methods, reason = "see above")]
pub fn copy_program(name: &str, to: &Path) {
    let status = Command::new("cp").arg(program(name)).arg(to).status().expect("cp runs");
    assert!(status.success(), "{name} can't be copied to {}", to.display());
}

/// Makes an executable file of this text. A separate process writes it, as in [`copy_program`].
#[expect(clippy::disallowed_methods, reason = "see above")]
pub fn write_program(path: &Path, text: &[u8]) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut writer = shell.spawn().expect("sh runs");
    let written = writer.stdin.take().expect("a pipe").write_all(text);
    let is_done = writer.wait().expect("sh ends").success();
    assert!(written.is_ok() && is_done, "{} is not written: {written:?}", path.display());
}

#[expect(clippy::disallowed_methods, reason = "builds what the tests run")]
fn build(folder: &Path) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--workspace", "--bins", "--quiet"]).current_dir(crate::docs::root());
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    if let Some(target) = folder.parent() {
        cargo.env("CARGO_TARGET_DIR", target);
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "cargo build failed");
}

/// The folder of the `python3` on the path, which may be found there by a script.
///
/// # Panics
/// If there is none.
#[expect(clippy::disallowed_methods, reason = "asks Python where it is")]
pub fn python_folder() -> PathBuf {
    let asked = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let said = asked.expect("python3 is installed");
    let path = PathBuf::from(String::from_utf8_lossy(&said.stdout).trim());
    path.parent().expect("a folder").to_path_buf()
}

/// The result of a program that ran to its end.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its exit status; 128 + N after signal N.
    pub status: i32,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
}

/// Runs a program of this workspace to its end, with this text on its stdin.
#[expect(clippy::disallowed_methods, reason = "tests start the real programs")]
pub fn run(name: &str, args: &[&str], input: &[u8]) -> Done {
    use std::os::unix::process::ExitStatusExt;
    let mut child = Command::new(program(name))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_remove("ISECT_HOST")
        .spawn()
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let ended = std::thread::scope(|scope| {
        // The program may end without reading all of its stdin.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap_or_else(|e| panic!("{name}: {e}"))
    });
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let status = ended.status;
    Done {
        status: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        out: text(ended.stdout),
        err: text(ended.stderr),
    }
}
