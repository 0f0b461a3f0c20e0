//! Tests addresses in real programs: each spelling is accepted everywhere or nowhere, rules apply
//! to the address that the kernel uses, and a start leaves nothing unexpected behind.

use isect_tests::proc::{Broker, Execd, Process, await_that, program, run};
use std::path::Path;
use tempfile::TempDir;

fn has_ipv6() -> bool {
    std::net::TcpListener::bind("[::1]:0").is_ok()
}

fn port(address: &str) -> &str {
    address.rsplit(':').next().expect("a port")
}

/// The answer to `whoami` over this client address.
fn whoami(address: &str) -> String {
    let done = run("isdclient", &["-h", address, "-c", "whoami"], b"");
    assert_eq!(done.status, 0, "{address}: {}", done.err);
    done.out
}

#[test]
fn a_broker_is_reached_at_every_spelling_of_its_address() {
    let broker = Broker::start(&["--listen", "[::ffff:127.0.0.1]:0"]);
    let at = broker.port("client");
    assert!(at.starts_with("127.0.0.1:"), "{at}");
    let port4 = port(&at);
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"] {
        // The kernel knows the user of a loopback peer: it is the broker's own.
        assert!(whoami(&format!("{host}:{port4}")).contains("operator:danger"), "{host}");
    }
    if !has_ipv6() {
        return;
    }
    let broker = Broker::start(&["--listen", "[::1]:0", "--worker-listen", "[::1]:0"]);
    let port6 = port(&broker.port("client")).to_owned();
    for at in [format!("[::1]:{port6}"), format!("[0:0::1]:{port6}"), format!("[::1%1]:{port6}")] {
        assert!(whoami(&at).contains("operator:danger"), "{at}");
    }
    // The built-in execd's workers and those of a host find the worker port over IPv6, too.
    let execd = Execd::start_at("[::1]:0", &[]);
    let place = port(&execd.address).to_owned();
    broker.op("config host six ::1%1");
    assert!(broker.op("save").contains("config host six '[::1%1]:5502'"), "{}", broker.op("save"));
    broker.op("delete host six");
    broker.op(&format!("config host six [::1%1]:{place}"));
    broker.await_page("host six", "host->state = up");
    broker.op("config service s");
    let echo = program("isdecho");
    broker.op(&format!("config worker s six {}", echo.display()));
    broker.op("start s");
    // The worker has found the worker port over IPv6.
    broker.await_idle(1);
}

#[test]
fn a_sockets_path_may_have_as_many_bytes_everywhere() {
    let folder = TempDir::with_prefix("isect-path-").expect("temporary folder");
    let room = 107 - folder.path().as_os_str().len() - 1;
    let path = folder.path().join("s".repeat(room)).display().to_string();
    assert_eq!(path.len(), 107);
    let at = format!("unix:{path}");
    let broker = Broker::start(&["--listen", "127.0.0.1:0", "--listen", &at]);
    assert!(whoami(&at).contains("operator:danger"));
    let long = format!("{at}x");
    assert_eq!(run("isdclient", &["-h", &long, "-c", ""], b"").status, 2);
    let said = broker.try_op(&format!("config host h {long}")).expect_err("108 bytes").text;
    assert!(said.contains("108 bytes, and a socket's has at most 107"), "{said}");
    for (name, words) in [
        ("isectd", vec!["--listen", &long]),
        ("isdexecd", vec!["--allow", "/", "--allow-root-workers", "--listen", &long]),
    ] {
        let done = run(name, &words, b"");
        assert_eq!(done.status, 2, "{name}: {}", done.err);
        assert!(done.err.contains("has at most 107"), "{name}: {}", done.err);
    }
    let execd = folder.path().join("e".repeat(room));
    let execd = Execd::start_at(&format!("unix:{}", execd.display()), &[]);
    broker.op(&format!("config host h {}", execd.address));
    broker.await_page("host h", "host->state = up");
}

#[test]
fn a_broker_says_that_it_has_started_when_its_configuration_has_stood_the_test() {
    let folder = TempDir::with_prefix("isect-start-").expect("temporary folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("bad"), "config service good\nconfig service 7\n").expect("a file");
    let isectd = program("isectd");
    let args = ["--listen", "127.0.0.1:0", "--state", &at("state"), "--source", &at("bad")];
    let mut process = Process::start(&isectd, &args, folder.path().join("log"));
    assert_eq!(process.await_end(), 6);
    assert!(!process.log().contains("broker_started"), "{}", process.log());
    std::fs::write(at("bad"), "config service good\n").expect("a file");
    let mut process = Process::start(&isectd, &args, folder.path().join("log2"));
    await_that("the start", || process.log().contains("broker_started").then_some(()));
    // An execd that is still starting would write into the folder after it was removed.
    await_that("its execd", || process.log().contains("host_up").then_some(()));
    process.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(process.await_end(), 0);
}

#[test]
fn a_broker_that_keeps_nothing_leaves_no_key_when_it_is_killed() {
    let runtime = TempDir::with_prefix("isect-run-").expect("temporary folder");
    let variable = format!("XDG_RUNTIME_DIR={}", runtime.path().display());
    let folder = TempDir::with_prefix("isect-none-").expect("temporary folder");
    let wrap = ["/usr/bin/env", &variable];
    let mut broker = Broker::start_wrapped(folder, &["--state", "none"], &wrap);
    broker.op("config service s");
    broker.kill();
    let left = |path: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(path).expect("a directory").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let [private] = &left(runtime.path())[..] else { panic!("{:?}", left(runtime.path())) };
    for name in left(&runtime.path().join(private)) {
        assert!(name == "lock" || name.ends_with(".sock"), "{name}");
    }
    // The next broker removes the directory of the killed one.
    let dead = runtime.path().join(private);
    broker.restart();
    assert!(!dead.exists());
    broker.kill();
}
