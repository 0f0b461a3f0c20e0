//! Tests the settings of workers in commands: what is taken, what is refused, that a line that is
//! saved is read back, and that no text but that line has the value of a variable.

use protocol::OpRequest;
use protocol::op::parse::{parse, quote};
use protocol::op::spec::{ServiceChange, WorkerConfig};
use protocol::op::worker_settings::{Named, WORKER_SETTINGS, WorkerChange, WorkerSetting};
use protocol::process::WorkerSettings;

fn of_service(words: &str) -> Vec<WorkerChange> {
    let request = parse(&format!("config service echo {words}"));
    let Ok(OpRequest::ConfigService { settings, .. }) = request else {
        panic!("{words}: {request:?}");
    };
    let change = |setting| match setting {
        ServiceChange::Worker(change) => change,
        ServiceChange::Number(..) | ServiceChange::Topic(_) => panic!("{words}: {setting:?}"),
    };
    settings.into_iter().map(change).collect()
}

fn error(line: &str) -> String {
    match parse(line) {
        Ok(request) => panic!("{line} is taken as {request:?}"),
        Err(error) => error.text,
    }
}

fn written(changes: &[WorkerChange]) -> String {
    changes.iter().map(|change| format!(" {change:#}")).collect()
}

const ALL: &str = "env=A=1 env=B= env_file=/etc/a cwd=/srv user=www group=33 umask=027 nice=-5 \
                   limit=core=0:unlimited limit=nofile=1K:2K stop_signal=INT \
                   success_exit=0,143 rights=operator:read,client:echo";

#[test]
fn each_setting_is_read_applied_and_written_as_it_was() {
    let changes = of_service(ALL);
    let mut settings = WorkerSettings::default();
    changes.iter().for_each(|change| change.apply(&mut settings));
    assert_eq!(settings.changes(), changes);
    assert_eq!(format!(" {ALL}"), written(&changes));
    for setting in WorkerSetting::ALL {
        assert!(changes.iter().any(|change| change.setting() == *setting), "{setting:?}");
    }
    let process = &settings.process;
    assert_eq!((process.umask, process.nice, process.stop_signal), (Some(0o27), Some(-5), Some(2)));
    assert_eq!(settings.success_exit, Some(vec![0, 143]));
    // Each is taken back by an empty value.
    let names: Vec<String> = WORKER_SETTINGS.iter().map(|row| format!("{}=", row.name)).collect();
    of_service(&names.join(" ")).iter().for_each(|change| change.apply(&mut settings));
    assert!(settings.is_empty(), "{settings:?}");
}

#[test]
fn other_spellings_mean_the_same() {
    for (one, other) in [
        ("umask=7", "umask=007"),
        ("stop_signal=SIGHUP", "stop_signal=1"),
        ("stop_signal=usr1", "stop_signal=USR1"),
        ("stop_signal=34", "stop_signal=34"),
        ("success_exit=143,0,143", "success_exit=0,143"),
        ("nice=+5", "nice=5"),
        ("rights=client:a,client:a", "rights=client:a"),
    ] {
        assert_eq!(of_service(one), of_service(other), "{one}");
    }
}

#[test]
fn one_of_many_is_removed_by_its_name() {
    let mut settings = WorkerSettings::default();
    for words in ["env=A=1 env=B=2 limit=core=0 limit=cpu=1", "env=A limit=cpu", "env=C limit=as"] {
        of_service(words).iter().for_each(|change| change.apply(&mut settings));
    }
    assert_eq!(written(&settings.changes()), " env=B=2 limit=core=0");
    // In order: all are removed first.
    of_service("env= env=D=4").iter().for_each(|change| change.apply(&mut settings));
    assert_eq!(written(&settings.changes()), " env=D=4 limit=core=0");
}

#[test]
fn what_makes_no_sense_is_refused_and_says_what_does() {
    for (words, part) in [
        ("env==x", "the name of the variable is missing"),
        ("'env=A B=x'", "has ' ' in it"),
        ("env=ISECT_WORKER_SECRET=x", "the host's own"),
        ("env=ISECT_RUN", "the host's own"),
        ("env=A=$'\\u0000'", "variable 'A' has a NUL"),
        ("env=A=1 env=A=2", "setting 'env=A' is given twice"),
        ("env=A=1 env=A", "setting 'env=A' is given twice"),
        ("limit=cpu=1 limit=cpu=2", "setting 'limit=cpu' is given twice"),
        ("cwd=/a cwd=/b", "setting 'cwd' is given twice"),
        ("cwd=srv", "cwd 'srv' is not absolute"),
        ("cwd=/a/../b", "'..' in it"),
        ("env_file=/a/", "names a directory"),
        ("env_file=a", "not absolute"),
        ("user='a b'", "has ' ' in it"),
        ("user=a:b", "has ':' in it"),
        ("user=-1", "neither a name nor a number"),
        ("user=4294967295", "neither a name nor a number"),
        ("group=99999999999", "neither a name nor a number"),
        ("umask=8", "not 000 to 777"),
        ("umask=1000", "not 000 to 777"),
        ("umask=+7", "not 000 to 777"),
        ("nice=20", "not -20 to 19"),
        ("nice=-21", "not -20 to 19"),
        ("limit=nofiles=1", "did you mean 'nofile'"),
        ("limit=nofile=", "not NAME=SOFT[:HARD]"),
        ("limit=nofile=1:", "not NAME=SOFT[:HARD]"),
        ("limit=nofile=2:1", "the soft one is above"),
        ("limit=nofile=unlimited:1", "the soft one is above"),
        ("limit=as=18446744073709551615", "not NAME=SOFT[:HARD]"),
        ("limit=as=18446744073709551615K", "not NAME=SOFT[:HARD]"),
        ("stop_signal=STOP", "stop_signal 19 can't ask a process to end: it stands still"),
        ("stop_signal=19", "name another one"),
        ("stop_signal=TREM", "did you mean 'TERM'"),
        ("stop_signal=0", "a number from 1 to 64"),
        ("stop_signal=65", "a number from 1 to 64"),
        ("success_exit=256", "is not 0 to 255"),
        ("success_exit=1,,2", "is not 0 to 255"),
        ("success_exit=-1", "is not 0 to 255"),
        ("rights=operator:rede", "is no role"),
        ("rights=client:a,b", "client:A,client:B"),
        ("rights=client:op", "role operator"),
        ("enw=A=1", "did you mean 'env'"),
    ] {
        for line in [
            format!("config service echo {words}"),
            format!("config worker echo localhost {words} /bin/x"),
            format!("config worker #3 {words}"),
        ] {
            let text = error(&line);
            assert!(text.contains(part), "{line}: {text}");
        }
    }
    let long = "x".repeat(33);
    assert!(error(&format!("config service echo user={long}")).contains("at most 32"));
    assert_eq!(of_service(&format!("user={}", &long[1..])).len(), 1);
    let long = format!("config service echo cwd=/{}", "x".repeat(4095));
    assert!(error(&long).contains("cwd has 4096 bytes; at most 4095"));
    assert!(error("config service echo x=1").contains("there are deadline_ms, queue_max"));
    assert!(error("config service echo x=1").contains("success_exit, rights"));
}

#[test]
fn a_worker_has_its_settings_before_its_path() {
    let config = |line: &str| match parse(line) {
        Ok(OpRequest::ConfigWorker { config, .. }) => config,
        other => panic!("{line}: {other:?}"),
    };
    let WorkerConfig::Whole { own, path, args, .. } =
        config("config worker echo localhost cwd=/srv nice=1 /bin/x=y cwd=/z")
    else {
        panic!("a worker");
    };
    assert_eq!(written(&own), " cwd=/srv nice=1");
    assert_eq!((path.as_str(), args), ("/bin/x=y", vec!["cwd=/z".to_owned()]));
    let change = WorkerConfig::Change(vec![WorkerChange::Nice(None)]);
    assert_eq!(config("config worker #3 nice="), change);
    assert!(error("config worker nice=1").contains("behind the id of a worker"));
    assert!(error("config worker #3").contains("argument 'service' is missing"));
    assert!(error("config worker #3 nice=1 /bin/x").contains("unexpected '/bin/x'"));
    assert!(error("config worker echo localhost nice=1").contains("argument 'path' is missing"));
    assert!(error("config worker echo localhost bin/x").contains("not absolute"));
}

/// What is read back must be the same for any value; words with control characters are no words of
/// other commands.
#[test]
fn any_value_is_written_so_that_it_is_read_back() {
    let letters = ['a', ' ', '\'', '"', '\\', '#', '\t', '\n', '\r', '\u{1b}', '=', '$', 'é', '…'];
    for number in 0..letters.len().pow(4) {
        let value: String =
            (0..4).map(|at| letters[number / letters.len().pow(at) % letters.len()]).collect();
        let change = WorkerChange::Env(Named::Set("NAME".into(), value.clone()));
        let word = format!("{change:#}");
        assert!(!word.contains(|c: char| c.is_control() && c != '\t'), "{word:?}");
        assert_eq!(of_service(&word), [change], "{word}");
        if value.contains(['\n', '\r', '\u{1b}']) {
            let text = error(&format!("config worker echo localhost /bin/x {}", quote(&value)));
            assert!(text.contains("control character"), "{text}");
        }
    }
    for wrong in ["env=A=$'x", "env=A=$'\\q'", "env=A=$'\\u12'", "env=A=$'\\ud800'", "env=A=$'\\"] {
        assert!(parse(&format!("config service echo {wrong}")).is_err(), "{wrong}");
    }
}

/// Whatever is wrong with a line, its error has no value of a variable; nor has what is written of
/// a command unless somebody asks for it.
#[test]
fn no_text_has_the_value_of_a_variable() {
    const SECRET: &str = "hunter2";
    let word = format!("env=KEY={SECRET}");
    for line in [
        word.clone(),
        format!("config {word}"),
        format!("config service {word}"),
        format!("config service echo {word} {word}"),
        format!("config service echo {word} nice=99"),
        format!("config service echo {word} x"),
        format!("config service echo 'env=K Y={SECRET}'"),
        format!("config service echo env=ISECT_RUN={SECRET}"),
        format!("config service echo env=KEY={SECRET}$'\\u0000'"),
        format!("config service echo 'env={SECRET}' 'env=={SECRET}'"),
        format!("config worker {word}"),
        format!("config worker echo {word}"),
        format!("config worker echo localhost {word}"),
        format!("config worker echo localhost {word} bin/x"),
        format!("config worker #3 {word} /bin/x"),
        format!("config worker #3 /bin/x {word}"),
        format!("start {word}"),
        format!("set {word}"),
        format!("help {word} {word} {word}"),
        format!("pri 3 {word}"),
        format!("services {word}"),
    ] {
        if let Err(error) = parse(&line) {
            // A name without a value is no value.
            let shown = error.text.replace(&format!("env={SECRET}'"), "");
            assert!(!shown.contains(SECRET), "{line}: {}", error.text);
        }
    }
    for line in [
        format!("config service echo retry=1 {word} cwd=/x"),
        format!("config worker #3 echo localhost {word} /bin/x a"),
        format!("config worker #3 {word}"),
        format!("config worker #3 'env=K\"Y={SECRET}'"),
    ] {
        let request = parse(&line).unwrap();
        assert!(!request.to_string().contains(SECRET), "{request}");
        let whole = format!("{request:#}");
        assert_eq!(parse(&whole), Ok(request), "{whole}");
    }
    let shown = parse(&format!("config service echo {word}")).unwrap().to_string();
    assert_eq!(shown, "config service echo env=KEY=…");
}
