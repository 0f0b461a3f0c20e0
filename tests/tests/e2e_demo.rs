//! Tests that `isectd demo --once` shows what it promises, ends with status 0, and leaves no
//! process and no file behind.

use isect_tests::proc::{processes_of, program, run};

#[test]
fn the_demonstration_runs_to_its_end_and_leaves_nothing() {
    let done = run("isectd", &["demo", "--once"], b"");
    assert_eq!(done.status, 0, "{done:?}");
    for part in [
        "ANY PROGRAM CAN BE A WORKER",
        "answered, every byte right",
        "worker 1 (pid ",
        "isdData.NumEvents=1000",
        "                         service          id",
        "worker_died worker 1 of service 'echo'",
        "signal 9 (SIGKILL)",
        "restarted 2 workers of echo",
        "added worker->id = 4, worker->name = echo",
        "all processes are gone",
    ] {
        assert!(done.out.contains(part), "no '{part}' in\n{}", done.out);
    }
    assert!(!done.out.contains("WRONGLY"), "{}", done.out);
    let restart = done.out.split("restarted 2 workers of echo").nth(1).expect("the restart");
    let got: Vec<&str> = restart.lines().skip(1).take_while(|line| line.contains('×')).collect();
    assert!(matches!(got[..], [one] if one.contains("every byte right")), "{got:?}");
    let folder = done.out.split("isect-demo-").nth(1).and_then(|rest| rest.split('/').next());
    if let Some(number) = folder {
        let folder = format!("isect-demo-{number}");
        assert!(processes_of(&folder).is_empty(), "{folder}");
        assert!(!std::env::temp_dir().join(&folder).exists(), "{folder}");
    }
    let pid = done.out.split("pid ").nth(1).and_then(|rest| rest.split(',').next());
    let pid = pid.expect("the broker's process id");
    assert!(!std::path::Path::new("/proc").join(pid).exists(), "the broker is still there");
    assert!(program("isdecho").is_file());
}
