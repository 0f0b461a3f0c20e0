//! Who may be an operator: the broker's own user and root, as the kernel knows them, also over a
//! loopback port that every user of the machine can reach.

use isect_tests::proc::{Broker, program};
use nix::unistd::Uid;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

/// A user that is neither root nor anybody who owns a broker.
const STRANGER: u32 = 65_534;

/// Runs isdclient as a stranger; a copy of it, where a stranger can reach it.
#[expect(clippy::disallowed_methods, reason = "the one test that needs another user")]
fn as_stranger(broker: &Broker, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("temporary folder");
    let open = |path: &std::path::Path| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("permissions");
    };
    open(folder.path());
    let copy = folder.path().join("isdclient");
    std::fs::copy(program("isdclient"), &copy).expect("a copy of isdclient");
    open(&copy);
    Command::new(&copy)
        .args(["-h", &broker.port("client")])
        .args(args)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .uid(STRANGER)
        .gid(STRANGER)
        .output()
        .expect("isdclient runs")
}

#[test]
fn another_user_of_the_machine_is_a_client_but_no_operator() {
    if !Uid::effective().is_root() {
        eprintln!("not tried: only root can be somebody else");
        return;
    }
    let broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 1);
    let refused = as_stranger(&broker, &["-c", "halt"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("denied") && text.contains(&STRANGER.to_string()), "{text}");
    let served = as_stranger(&broker, &["-c", "hello", "echo"]);
    assert_eq!(served.stdout, b"hello", "{}", String::from_utf8_lossy(&served.stderr));
    // The owner is one, over the same port, and is named in the lists.
    assert!(broker.op("services").contains("echo"));
    assert_eq!(broker.end(), 0);
}
