//! Tests how times are printed by a real broker in a time zone of its own: local time with its
//! offset in answers and log lines, RFC 3339 in JSON.

use isect_tests::proc::Broker;
use tempfile::TempDir;

/// Three and a half hours behind UTC, without summer time.
const ZONE: &str = "TZ=<-0330>3:30";

#[test]
fn people_see_local_time_and_programs_utc() {
    let folder = TempDir::new().expect("a folder");
    let broker = Broker::start_wrapped(folder, &[], &["env", ZONE]);
    broker.op("config events 10");
    let shown = broker.op("listevents 1");
    // As in `2026-01-31 23:59:59.123-03:30 changed …`.
    let offset = shown.get(23..30).unwrap_or_default();
    assert_eq!(offset, "-03:30 ", "{shown}");
    let host = broker.op("host localhost");
    assert!(host.contains("-03:30\"\n"), "{host}");
    let log = broker.process.log();
    assert!(log.lines().all(|line| line.get(26..33) == Some("-03:30 ")), "{log}");
    let done = broker.isdclient(&["--json", "-c", "listevents 1"], "");
    let events: serde_json::Value = serde_json::from_str(&done.out).expect("JSON");
    let at = events["events"][0]["at"].as_str().expect("a time");
    // As in `2026-02-01T03:29:59.123Z`.
    assert!(at.len() == 24 && at.ends_with('Z') && at.as_bytes()[10] == b'T', "{at}");
}
