//! Checks that execd's check and the kernel agree: each case is given to a real isdexecd and,
//! without it, to the kernel.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::{Execd, Wire, copy, is_root, program, run_to_end, script, until, usual};
use protocol::bodies::ExitCause;
use protocol::frame::Frame;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Whether the kernel executes it from this working directory.
fn kernel_runs(path: &str, directory: &str) -> bool {
    #[expect(clippy::disallowed_methods, reason = "the kernel is asked directly")]
    let done = Command::new(path).current_dir(directory).output();
    done.is_ok()
}

#[test]
fn a_scripts_first_line_means_what_the_kernel_takes_it_for() {
    let execd = Execd::unix(&["--directory", "/usr"]);
    let home = execd.directory.path().to_owned();
    let mut broker = execd.broker("b");
    let long = |size: usize| format!("#!/bin/true{}x\n", " ".repeat(size));
    let name = |size: usize| format!("#!{}/bin/true\n", "/".repeat(size));
    let mut cases: Vec<(String, Vec<u8>)> = [
        "#!/bin/true",
        "#! \t/bin/true\n",
        "#!/bin/true -a b  c \n",
        "#!/bin/true\r\n",
        "#!bin/env true\n",
        "#!../usr/bin/env true\n",
        "#!no/such\n",
        "#!\n",
        "#!",
        "#! \n",
        "#!/bin\n",
        "#!/bin/\n",
        "#!/bin/true/\n",
        "#!/bin//true\n",
        "#!/proc/self/exe\n",
        "#!/bin/true\0x\n",
        "#!\0/bin/true\n",
        "# !/bin/true\n",
        "",
    ]
    .iter()
    .map(|text| ((*text).to_owned(), text.as_bytes().to_vec()))
    .collect();
    // Exactly at the end of the 256 bytes, and one byte to each side.
    for size in 243..=248 {
        cases.push((format!("{size} blanks"), long(size).into_bytes()));
        cases.push((format!("{size} slashes"), name(size - 1).into_bytes()));
        let mut no_end = name(size - 1).into_bytes();
        no_end.pop();
        cases.push((format!("{size} slashes, no end"), no_end));
    }
    for (at, (shown, bytes)) in cases.iter().enumerate() {
        let path = program(&home, &format!("script{at}"), bytes);
        if kernel_runs(&path, "/usr") {
            if shown.contains("/proc/self/exe") {
                // The result depends on the user that runs the test.
                continue;
            }
            broker.started(1, &path, &[]);
            broker.exited();
        } else {
            let (permanent, text) = broker.failed(1, &path, &[]);
            assert!(permanent && text.contains(&path), "{shown:?}: {text}");
        }
    }
}

#[test]
fn scripts_stand_behind_each_other_as_far_as_the_kernel_follows_them() {
    let execd = Execd::unix(&[]);
    let home = execd.directory.path().to_owned();
    let mut broker = execd.broker("b");
    let mut last = "/bin/true".to_owned();
    let mut followed = 0;
    for depth in 1..=8 {
        last = program(&home, &format!("depth{depth}"), format!("#!{last}\n").as_bytes());
        if kernel_runs(&last, "/") {
            followed = depth;
            broker.started(1, &last, &[]);
            broker.exited();
        } else {
            let (permanent, text) = broker.failed(1, &last, &[]);
            assert!(permanent && text.contains("too deep"), "{depth}: {text}");
        }
    }
    assert_eq!(followed, 5, "as in fs/exec.c");
    // Each interpreter is checked, not only the first.
    let inner = home.join("depth2");
    fs::set_permissions(&inner, PermissionsExt::from_mode(0o757)).unwrap();
    let outer = home.join("depth4").display().to_string();
    let (permanent, text) = broker.failed(1, &outer, &[]);
    assert!(permanent && text.contains("depth2 can be written by everybody"), "{text}");
    fs::set_permissions(&inner, PermissionsExt::from_mode(0o655)).unwrap();
    broker.started(1, &outer, &[]);
    broker.exited();
    fs::remove_file(&inner).unwrap();
    let (permanent, text) = broker.failed(1, &outer, &[]);
    assert!(
        permanent && text.contains("depth3 is a script for") && text.contains("depth2"),
        "{text}"
    );
}

#[test]
fn who_may_write_by_an_access_list_could_choose_what_runs() {
    let execd = Execd::unix(&[]);
    let home = execd.directory.path().to_owned();
    let mut broker = execd.broker("b");
    let folder = home.join("folder");
    fs::create_dir(&folder).unwrap();
    let path = script(&folder, "program", "exit 0");
    let set = |path: &Path, kind: u8, rights: u8, mask: u8| {
        let entries = format!(
            "b=lambda t,p,i=0xffffffff: struct.pack('<HHI',t,p,i); \
             os.setxattr(sys.argv[1],'system.posix_acl_access',struct.pack('<I',2)+b(1,7)\
             +(b(2,{rights},4711) if {kind}==2 else b''\
             )+b(4,5)+(b(8,{rights},4712) if {kind}==8 else b'')+b(16,{mask})+b(32,5))"
        );
        #[expect(clippy::disallowed_methods, reason = "no crate here sets an attribute")]
        let done = Command::new("python3")
            .args(["-c", &format!("import os,struct,sys; {entries}")])
            .arg(path)
            .output();
        done.is_ok_and(|done| done.status.success())
    };
    if !set(&folder, 2, 5, 7) {
        // There is no python, or the file system has no access lists.
        return;
    }
    let file = folder.join("program");
    broker.started(1, &path, &[]);
    broker.exited();
    for (at, kind, rights, mask, part) in [
        (&file, 2, 7, 7, "program can be written by user 4711"),
        (&file, 8, 7, 7, "program can be written by group 4712"),
        (&folder, 2, 7, 7, "folder, which can be written by user 4711"),
        (&folder, 8, 7, 7, "folder, which can be written by group 4712"),
        (&folder, 2, 7, 5, ""),
        (&file, 8, 5, 7, ""),
    ] {
        assert!(set(at, kind, rights, mask), "{at:?}");
        if part.is_empty() {
            broker.started(1, &path, &[]);
            broker.exited();
        } else {
            let (permanent, text) = broker.failed(1, &path, &[]);
            assert!(permanent && text.contains(part) && text.contains("setfacl"), "{text}");
        }
        assert!(set(at, kind, 5, 7), "{at:?}");
    }
    // In a sticky directory others can't remove or rename our files.
    fs::set_permissions(&folder, PermissionsExt::from_mode(0o1755)).unwrap();
    assert!(set(&folder, 2, 7, 7));
    broker.started(1, &path, &[]);
    broker.exited();
}

#[test]
fn what_is_mounted_noexec_is_not_executed_and_said_so() {
    if !is_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (ports, mount) = (home.path().join("ports"), home.path().join("mount"));
    fs::create_dir(&mount).unwrap();
    let listen = format!("unix:{}", home.path().join("s").display());
    #[expect(clippy::disallowed_methods, reason = "the test plays the script")]
    let mut command = Command::new("unshare");
    let become_execd = "mount -t tmpfs -o noexec,mode=755 none \"$0\" && cp /bin/true \"$0/true\" \
                        && printf '#!%s/true\\n' \"$0\" > \"$1/script\" && chmod 755 \"$1/script\" \
                        && shift && exec \"$@\"";
    command.args(["-m", "sh", "-c", become_execd]).args([&mount, home.path()]);
    command.args([env!("CARGO_BIN_EXE_isdexecd"), "--ports-file"]).arg(&ports);
    usual(&mut command, &["--log", "error", "--state", "none", "--listen", &listen]);
    let mut execd = command.spawn().unwrap();
    let listens = until("it listens, or can't", || {
        if ports.exists() { Some(true) } else { execd.try_wait().unwrap().map(|_| false) }
    });
    if !listens {
        // Not even root may mount here.
        execd.wait().unwrap();
        return;
    }
    let mut broker = Wire::dial(&listen);
    broker.hello("b");
    assert!(matches!(broker.next(), Frame::ExecWelcome(_)));
    for path in [mount.join("true"), home.path().join("script")] {
        let (permanent, text) = broker.failed(1, path.to_str().unwrap(), &[]);
        assert!(permanent && text.contains("mount/true is on a file system"), "{text}");
        assert!(text.contains("noexec"), "{text}");
    }
    broker.started(1, "/bin/true", &[]);
    assert_eq!(broker.exited().0.exit_cause, ExitCause::Exit(0));
    drop(broker);
    common::kill(execd.id(), nix::sys::signal::Signal::SIGTERM);
    execd.wait().unwrap();
}

#[test]
fn what_the_kernel_would_refuse_at_each_start_is_refused_once() {
    for (args, part) in [
        (&["--limit", "nofile=unlimited"][..], "nr_open"),
        (&["--limit", "core=18446744073709551615"], "NAME=SOFT"),
        (&["--env", "A B=c"], "no name of a variable"),
        (&["--env", "ISECT_WORKER_SECRET=x"], "no name of a variable"),
        (&["--listen", "127.1:0"], "ends in a number"),
        (&["--listen", "[::ffff:0.0.0.0]:0"], "--tokens"),
        (&["--listen", "[::]:0"], "--tokens"),
    ] {
        let (status, text) = run_to_end(args);
        assert_eq!(status, 2, "{args:?}: {text}");
        assert!(text.contains(part), "{args:?}: {text}");
    }
}

#[test]
fn as_ones_own_user_another_group_is_still_another_right() {
    if !is_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let isdexecd = copy(env!("CARGO_BIN_EXE_isdexecd"), home.path(), "isdexecd");
    #[expect(clippy::disallowed_methods, reason = "another user")]
    let done = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&isdexecd)
        .args(["--allow", "/", "--listen", "127.0.0.1:0", "--user", "65534:4711"])
        .output();
    let Ok(done) = done else { return };
    let text = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{text}");
    assert!(text.contains("group 4711 alone"), "{text}");
}
