//! Acts as another user of the machine, to test what it may do with a broker of someone else. Only
//! root can do this; a test calls `can_be` first and says so if it skipped the check.

use crate::proc::{Broker, copy_program};
use nix::unistd::Uid;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A user that is neither root nor anybody who owns a broker.
pub const OTHER_USER: u32 = 65_534;

/// Whether this process can become another user; says on stderr if it can't.
#[expect(clippy::print_stderr, reason = "a test that was not tried says so")]
pub fn can_be() -> bool {
    let is_root = Uid::effective().is_root();
    if !is_root {
        eprintln!("not tried: only root can be somebody else");
    }
    is_root
}

/// Runs isdclient as the other user with one variable in its environment or none; a copy of it,
/// where that user can reach it.
#[expect(clippy::disallowed_methods, reason = "another user, and an environment of its own")]
pub fn isdclient(broker: &Broker, variable: Option<(&str, &str)>, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("temporary folder");
    let open = |path: &Path| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("permissions");
    };
    open(folder.path());
    let copy = folder.path().join("isdclient");
    copy_program("isdclient", &copy);
    open(&copy);
    Command::new(&copy)
        .args(["-h", &broker.port("client")])
        .args(args)
        .env_clear()
        .envs(variable)
        .current_dir("/")
        .stdin(Stdio::null())
        .uid(OTHER_USER)
        .gid(OTHER_USER)
        .output()
        .expect("isdclient runs")
}
