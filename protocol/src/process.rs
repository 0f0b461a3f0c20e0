//! What is set of a worker's process beside its program: environment, directory, user, limits. A
//! service sets it for all its workers, a worker for itself; an `exec-start` carries the sum of
//! both, and the host's execd has to permit it.

use crate::bodies::Stream;
use crate::ids::WorkerId;
use crate::keys::{Form, In, Keys, Text};
use crate::lines::{BodyError, Lines, number};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Settings of a process. What is absent is as the host has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessSettings {
    /// Variables of its environment, by name.
    pub env: BTreeMap<String, String>,
    /// A file of such variables on the host, a line `NAME=VALUE` for each.
    pub env_file: Option<String>,
    /// The working directory, an absolute path on the host.
    pub cwd: Option<String>,
    /// The user that it runs as, by name or number.
    pub user: Option<String>,
    /// The group that it runs as, by name or number; absent = those of the user.
    pub group: Option<String>,
    /// Permission bits that its new files don't get, 0 to 0o777.
    pub umask: Option<u32>,
    /// How far it stands back behind other processes, -20 to 19 (nice(1)).
    pub nice: Option<i32>,
    /// Resource limits by name, as `SOFT` or `SOFT:HARD` (prlimit(1)).
    pub limits: BTreeMap<String, String>,
    /// The number of the signal that asks it to end; absent = TERM.
    pub stop_signal: Option<i32>,
}

impl ProcessSettings {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These settings for a worker that has others of its own, which win one by one.
    #[must_use]
    pub fn with(&self, own: &Self) -> Self {
        let mut sum = self.clone();
        sum.env.extend(own.env.clone());
        sum.limits.extend(own.limits.clone());
        let win = |own: &Option<String>, all: &mut Option<String>| {
            if own.is_some() {
                all.clone_from(own);
            }
        };
        win(&own.env_file, &mut sum.env_file);
        win(&own.cwd, &mut sum.cwd);
        win(&own.user, &mut sum.user);
        win(&own.group, &mut sum.group);
        sum.umask = own.umask.or(sum.umask);
        sum.nice = own.nice.or(sum.nice);
        sum.stop_signal = own.stop_signal.or(sum.stop_signal);
        sum
    }
}

/// Everything that is set of a worker, or of all workers of a service: its process, and what the
/// broker makes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkerSettings {
    /// What its host does.
    pub process: ProcessSettings,
    /// The exit statuses with which it ends in order; `None` = 0 alone.
    pub success_exit: Option<Vec<u8>>,
    /// The roles that the secret of its start has as a client; `None` = none.
    pub rights: Option<Vec<String>>,
}

/// The nice values of Linux.
const NICE: In<i32> = In(-20..=19, "");
/// The permission bits of a umask.
const UMASK_MAX: u32 = 0o777;
/// The signal that stops a process, which then can't end.
const STOP: i32 = 19;

/// Whether this signal can ask a process to end.
///
/// # Errors
/// It can't, and why.
pub fn check_stop_signal(signal: i32) -> Result<(), String> {
    if signal != STOP {
        return Ok(());
    }
    Err(format!(
        "stop_signal {signal} can't ask a process to end: it stands still and can't notice; name \
         another one"
    ))
}

/// The signals of Linux.
const SIGNAL: In<i32> = In(1..=64, "");

/// The value of a resource limit: a number, with K, M or G behind it, or `unlimited`, which is the
/// largest number. `None` = it is none of these. The broker refuses what a host would.
pub fn limit_number(text: &str) -> Option<u64> {
    if text == "unlimited" {
        return Some(u64::MAX);
    }
    let (digits, factor) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1 << 10),
        b'M' => (&text[..text.len() - 1], 1 << 20),
        b'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let value = digits.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(factor)?;
    // The kernel uses the largest number for "no limit", which has its own word here.
    (value != u64::MAX).then_some(value)
}

/// The keys of settings of a process.
pub(crate) struct ProcessKeys;

impl Keys<Option<Box<ProcessSettings>>> for ProcessKeys {
    fn read(&self, lines: &Lines, _: &str) -> Result<Option<Box<ProcessSettings>>, BodyError> {
        let pairs = |key: &str| {
            let pair = |line: &str| match line.split_once('=') {
                Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
                None => Err(BodyError(format!("'{key} {line}' is not of the form NAME=VALUE"))),
            };
            lines.all(key).map(pair).collect::<Result<BTreeMap<_, _>, _>>()
        };
        let text = |key: &str| lines.get(key).map(str::to_owned);
        let umask = lines.get("umask").map(|word| {
            let mask = u32::from_str_radix(word, 8).ok().filter(|mask| *mask <= UMASK_MAX);
            mask.ok_or_else(|| BodyError(format!("'umask {word}' is not 000 to 777, octal")))
        });
        let settings = ProcessSettings {
            env: pairs("env")?,
            env_file: text("env_file"),
            cwd: text("cwd"),
            user: text("user"),
            group: text("group"),
            umask: umask.transpose()?,
            nice: lines.get("nice").map(|word| NICE.read("nice", word)).transpose()?,
            limits: pairs("limit")?,
            stop_signal: lines
                .get("stop_signal")
                .map(|word| SIGNAL.read("stop_signal", word))
                .transpose()?,
        };
        Ok((!settings.is_empty()).then(|| Box::new(settings)))
    }

    fn write(&self, value: &Option<Box<ProcessSettings>>, _: &str, lines: Lines) -> Lines {
        let Some(settings) = value else { return lines };
        let pairs = |pairs: &BTreeMap<String, String>| -> Vec<String> {
            pairs.iter().map(|(name, value)| format!("{name}={value}")).collect()
        };
        lines
            .with_each("env", pairs(&settings.env))
            .with_each("env_file", &settings.env_file)
            .with_each("cwd", &settings.cwd)
            .with_each("user", &settings.user)
            .with_each("group", &settings.group)
            .with_each("umask", settings.umask.map(|mask| format!("{mask:03o}")))
            .with_each("nice", settings.nice)
            .with_each("limit", pairs(&settings.limits))
            .with_each("stop_signal", settings.stop_signal)
    }

    fn about(&self, _: &str) -> [String; 3] {
        let keys = "`env` and `limit`, a line for each; `env_file`; `cwd`; `user`; `group`; \
                    `umask`; `nice`; `stop_signal`";
        let form = "`NAME=VALUE`; text; text; text; text; octal; number; number";
        [keys.into(), form.into(), "none".into()]
    }
}

/// What a client shows that a worker's start was given: its secret, in place of a token.
#[derive(Clone, PartialEq, Eq)]
pub struct StartClaim {
    /// The worker: `argv[3]`.
    pub worker: WorkerId,
    /// The value of `ISECT_WORKER_SECRET`.
    pub secret: String,
}

impl fmt::Debug for StartClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartClaim").field("worker", &self.worker).finish_non_exhaustive()
    }
}

/// The keys `worker` and `secret` of a client's login.
pub(crate) struct StartClaimKeys;

impl Keys<Option<Box<StartClaim>>> for StartClaimKeys {
    fn read(&self, lines: &Lines, key: &str) -> Result<Option<Box<StartClaim>>, BodyError> {
        let Some(secret) = lines.get(key) else { return Ok(None) };
        let worker = WorkerId(number("worker", lines.need("worker")?)?);
        Ok(Some(Box::new(StartClaim { worker, secret: secret.to_owned() })))
    }

    fn write(&self, claim: &Option<Box<StartClaim>>, key: &str, lines: Lines) -> Lines {
        match claim {
            None => lines,
            Some(claim) => lines.with("worker", claim.worker).with(key, &claim.secret),
        }
    }

    fn about(&self, key: &str) -> [String; 3] {
        [format!("`worker`; `{key}`"), "number; text".into(), "none".into()]
    }
}

/// One line that a worker's processes wrote and its host has kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptLine {
    /// Counts the lines of this worker on its host, over all its processes.
    pub number: u64,
    /// When execd read it, in milliseconds since 1970 of the host's clock.
    pub at_ms: u64,
    /// The stream that it came from.
    pub stream: Stream,
    /// The line without its end.
    pub text: String,
}

impl fmt::Display for KeptLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.number, self.at_ms, self.stream, self.text)
    }
}

impl FromStr for KeptLine {
    type Err = BodyError;

    fn from_str(line: &str) -> Result<Self, BodyError> {
        let wrong = || BodyError(format!("'{line}' is not NUMBER MILLISECONDS STREAM TEXT"));
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().ok_or_else(wrong);
        Ok(Self {
            number: word()?.parse().map_err(|_| wrong())?,
            at_ms: word()?.parse().map_err(|_| wrong())?,
            stream: match word()? {
                "stdout" => Stream::Stdout,
                "stderr" => Stream::Stderr,
                _ => return Err(wrong()),
            },
            text: word()?.to_owned(),
        })
    }
}

impl Form<KeptLine> for Text {
    fn read(&self, _: &str, word: &str) -> Result<KeptLine, BodyError> {
        word.parse()
    }

    fn write(&self, line: &KeptLine) -> impl fmt::Display {
        line.to_string()
    }

    fn about(&self) -> String {
        "`NUMBER MILLISECONDS STREAM TEXT`".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn settings_of_a_process_are_read_as_they_were_written() {
        let all = ProcessSettings {
            env: pairs(&[("A", "b=c"), ("LONG", "two\nlines")]),
            env_file: Some("/etc/a b".into()),
            cwd: Some("/srv".into()),
            user: Some("www".into()),
            group: Some("0".into()),
            umask: Some(0o27),
            nice: Some(-5),
            limits: pairs(&[("nofile", "1:2")]),
            stop_signal: Some(2),
        };
        for settings in [None, Some(Box::new(all))] {
            let body = ProcessKeys.write(&settings, "", Lines::default()).render();
            let lines = Lines::parse(&body).unwrap();
            assert_eq!(ProcessKeys.read(&lines, "").unwrap(), settings);
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for wrong in ["env A", "limit x", "umask 8", "umask 1000", "nice 20", "stop_signal 65"] {
            let lines = Lines::parse(format!("{wrong}\n").as_bytes()).unwrap();
            let error = ProcessKeys.read(&lines, "").unwrap_err().to_string();
            assert!(error.contains(wrong.split(' ').next().unwrap()), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_workers_own_settings_win_one_by_one() {
        let all = ProcessSettings {
            env: pairs(&[("A", "1"), ("B", "1")]),
            cwd: Some("/a".into()),
            nice: Some(1),
            ..ProcessSettings::default()
        };
        let own = ProcessSettings {
            env: pairs(&[("B", "2")]),
            cwd: Some("/b".into()),
            ..ProcessSettings::default()
        };
        let sum = all.with(&own);
        assert_eq!(sum.env, pairs(&[("A", "1"), ("B", "2")]));
        assert_eq!((sum.cwd.as_deref(), sum.nice), (Some("/b"), Some(1)));
    }

    #[test]
    fn a_kept_line_is_read_as_it_was_written() {
        let (stream, text) = (Stream::Stderr, "  two words ".to_owned());
        let line = KeptLine { number: 7, at_ms: 1_700_000_000_000, stream, text };
        assert_eq!(line.to_string().parse(), Ok(line));
        for wrong in ["", "1", "1 2", "1 2 stdin x", "x 2 stdout y"] {
            assert!(wrong.parse::<KeptLine>().is_err(), "{wrong}");
        }
    }
}
