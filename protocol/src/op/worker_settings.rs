//! TABLE of the settings of workers: of their processes, and of what the broker makes of those. A
//! service sets them for all its workers (`config service`), a worker for itself (`config worker`).
//! `worker_setting_args` reads them.

use super::parse::OpError;
use super::words::quote;
use crate::process::WorkerSettings;
use std::collections::BTreeMap;
use std::fmt;

/// How a word begins that sets a variable.
const ENV: &str = "env=";

/// What stands in place of a value for those who may not see it.
pub const HIDDEN: &str = "…";

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct WorkerSettingRow {
    /// The name, before the `=`.
    pub name: &'static str,
    /// How its value is written.
    pub form: &'static str,
    /// What it does.
    pub text: &'static str,
}

macro_rules! worker_settings {
    ($($setting:ident = $name:literal, $form:literal, $text:literal;)*) => {
        /// A setting of workers: a row of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "each is a row of the table, which says all about it")]
        pub enum WorkerSetting {
            $($setting,)*
        }

        /// TABLE of the settings of workers, in the order of the variants.
        pub const WORKER_SETTINGS: &[WorkerSettingRow] =
            &[$(WorkerSettingRow { name: $name, form: $form, text: $text },)*];

        impl WorkerSetting {
            /// All settings, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$setting,)*];

            /// The row of this setting.
            pub const fn row(self) -> &'static WorkerSettingRow {
                &WORKER_SETTINGS[self as usize]
            }
        }
    };
}

worker_settings! {
    Env = "env", "NAME=VALUE", "a variable of the environment; may stand there several times. `env=NAME` removes it, `env=` all. Only who may give commands of effect danger sees the values";
    EnvFile = "env_file", "PATH", "a file on the host with such variables, a line `NAME=VALUE` for each; those of `env` win";
    Cwd = "cwd", "DIRECTORY", "the working directory, an absolute path on the host";
    User = "user", "USER", "the user that the process runs as, by name or number";
    Group = "group", "GROUP", "the group that it runs as, by name or number; unless it is set, those of the user";
    Umask = "umask", "OCTAL", "the permission bits that its new files don't get, 000 to 777";
    Nice = "nice", "NUMBER", "how far it stands back behind other processes, -20 to 19";
    Limit = "limit", "NAME=SOFT[:HARD]", "a resource limit; may stand there several times. Names are as, core, cpu, data, fsize, memlock, nofile, nproc and stack; a number may have K, M or G behind it, or is `unlimited`. `limit=NAME` removes it, `limit=` all";
    StopSignal = "stop_signal", "SIGNAL", "the signal that asks the process to end, by name or number; unless it is set, TERM";
    SuccessExit = "success_exit", "STATUS,…", "the exit statuses, 0 to 255, with which the process ends in order; unless it is set, 0 alone";
    Rights = "rights", "ROLE,…", "the roles that the process has as a client with the secret of its start, each as in a file of tokens; unless it is set, none";
}

impl WorkerSetting {
    /// The setting with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|setting| setting.row().name == name)
    }

    /// Whether it may be given several times, each with a name of its own.
    pub const fn is_many(self) -> bool {
        matches!(self, Self::Env | Self::Limit)
    }

    /// Whether the host applies it when it starts a process, so that it holds from the next start
    /// on.
    pub const fn is_of_process(self) -> bool {
        !matches!(self, Self::SuccessExit | Self::Rights)
    }
}

/// A value of one of several names (`env`, `limit`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// This name has this value.
    Set(String, String),
    /// This name has no value any more.
    Remove(String),
    /// No name has a value any more.
    Clear,
}

/// A change of one setting of workers; of most, `None` = it is not set any more. `Display` writes
/// it as a word of a command, without the values of `env`; `{:#}` writes these, too.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is a row of the table, which says all about it")]
pub enum WorkerChange {
    Env(Named),
    EnvFile(Option<String>),
    Cwd(Option<String>),
    User(Option<String>),
    Group(Option<String>),
    Umask(Option<u32>),
    Nice(Option<i32>),
    Limit(Named),
    StopSignal(Option<i32>),
    SuccessExit(Option<Vec<u8>>),
    Rights(Option<Vec<String>>),
}

impl WorkerChange {
    /// The setting that is changed.
    pub const fn setting(&self) -> WorkerSetting {
        match self {
            Self::Env(_) => WorkerSetting::Env,
            Self::EnvFile(_) => WorkerSetting::EnvFile,
            Self::Cwd(_) => WorkerSetting::Cwd,
            Self::User(_) => WorkerSetting::User,
            Self::Group(_) => WorkerSetting::Group,
            Self::Umask(_) => WorkerSetting::Umask,
            Self::Nice(_) => WorkerSetting::Nice,
            Self::Limit(_) => WorkerSetting::Limit,
            Self::StopSignal(_) => WorkerSetting::StopSignal,
            Self::SuccessExit(_) => WorkerSetting::SuccessExit,
            Self::Rights(_) => WorkerSetting::Rights,
        }
    }

    /// Whether another change is of the same setting, and of the same name if it has several.
    pub fn is_of_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Env(one), Self::Env(two)) | (Self::Limit(one), Self::Limit(two)) => {
                one.name() == two.name()
            }
            (one, two) => one.setting() == two.setting(),
        }
    }

    /// Makes the change.
    pub fn apply(&self, settings: &mut WorkerSettings) {
        let process = &mut settings.process;
        match self {
            Self::Env(named) => named.apply(&mut process.env),
            Self::EnvFile(path) => process.env_file.clone_from(path),
            Self::Cwd(path) => process.cwd.clone_from(path),
            Self::User(name) => process.user.clone_from(name),
            Self::Group(name) => process.group.clone_from(name),
            Self::Umask(mask) => process.umask = *mask,
            Self::Nice(nice) => process.nice = *nice,
            Self::Limit(named) => named.apply(&mut process.limits),
            Self::StopSignal(signal) => process.stop_signal = *signal,
            Self::SuccessExit(statuses) => settings.success_exit.clone_from(statuses),
            Self::Rights(roles) => settings.rights.clone_from(roles),
        }
    }

    /// Whether these settings have a value of what this changes.
    pub fn is_set_in(&self, settings: &WorkerSettings) -> bool {
        let process = &settings.process;
        match self {
            Self::Env(named) => named.is_set_in(&process.env),
            Self::EnvFile(_) => process.env_file.is_some(),
            Self::Cwd(_) => process.cwd.is_some(),
            Self::User(_) => process.user.is_some(),
            Self::Group(_) => process.group.is_some(),
            Self::Umask(_) => process.umask.is_some(),
            Self::Nice(_) => process.nice.is_some(),
            Self::Limit(named) => named.is_set_in(&process.limits),
            Self::StopSignal(_) => process.stop_signal.is_some(),
            Self::SuccessExit(_) => settings.success_exit.is_some(),
            Self::Rights(_) => settings.rights.is_some(),
        }
    }

    /// The value as it stands behind the first `=`; that of a variable only if it `is_shown`.
    pub fn value(&self, is_shown: bool) -> String {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        match self {
            Self::Env(named) => named.written(is_shown),
            Self::EnvFile(path) | Self::Cwd(path) => text(path),
            Self::User(name) | Self::Group(name) => text(name),
            Self::Umask(mask) => mask.map_or_else(String::new, |mask| format!("{mask:03o}")),
            Self::Nice(nice) => nice.map_or_else(String::new, |nice| nice.to_string()),
            Self::Limit(named) => named.written(true),
            Self::StopSignal(signal) => signal.map_or_else(String::new, signal_name),
            Self::SuccessExit(statuses) => {
                let words = statuses.iter().flatten().map(u8::to_string);
                words.collect::<Vec<_>>().join(",")
            }
            Self::Rights(roles) => roles.iter().flatten().cloned().collect::<Vec<_>>().join(","),
        }
    }

    /// Whether it has a value that only those see who may give commands of effect danger.
    pub const fn has_hidden(&self) -> bool {
        matches!(self, Self::Env(Named::Set(..)))
    }

    /// Whether its value is the sign of one that was not shown, as in a line of `save` that
    /// somebody replays.
    pub fn is_placeholder(&self) -> bool {
        matches!(self, Self::Env(Named::Set(_, value)) if value == HIDDEN)
    }
}

impl fmt::Display for WorkerChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.setting().row().name;
        let is_shown = f.alternate();
        if !is_shown && let Self::Env(Named::Set(variable, _)) = self {
            let before = format!("{name}={variable}=");
            // The sign needs no quotation marks, which a person would have to think about.
            if quote(&before) == before {
                return write!(f, "{before}{HIDDEN}");
            }
        }
        f.write_str(&quote(&format!("{name}={}", self.value(is_shown))))
    }
}

impl Named {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Set(name, _) | Self::Remove(name) => Some(name),
            Self::Clear => None,
        }
    }

    fn apply(&self, values: &mut BTreeMap<String, String>) {
        match self {
            Self::Set(name, value) => {
                values.insert(name.clone(), value.clone());
            }
            Self::Remove(name) => {
                values.remove(name);
            }
            Self::Clear => values.clear(),
        }
    }

    fn is_set_in(&self, values: &BTreeMap<String, String>) -> bool {
        self.name().map_or(!values.is_empty(), |name| values.contains_key(name))
    }

    fn written(&self, is_shown: bool) -> String {
        match self {
            Self::Set(name, value) => format!("{name}={}", if is_shown { value } else { HIDDEN }),
            Self::Remove(name) => name.clone(),
            Self::Clear => String::new(),
        }
    }
}

impl WorkerSettings {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The changes that make these settings of none, in the order of the table.
    pub fn changes(&self) -> Vec<WorkerChange> {
        let process = &self.process;
        let named = |values: &BTreeMap<String, String>| -> Vec<Named> {
            let pairs = values.iter();
            pairs.map(|(name, value)| Named::Set(name.clone(), value.clone())).collect()
        };
        let mut all: Vec<_> = named(&process.env).into_iter().map(WorkerChange::Env).collect();
        let text = |value: &Option<String>, of: fn(Option<String>) -> WorkerChange| {
            value.is_some().then(|| of(value.clone()))
        };
        all.extend(text(&process.env_file, WorkerChange::EnvFile));
        all.extend(text(&process.cwd, WorkerChange::Cwd));
        all.extend(text(&process.user, WorkerChange::User));
        all.extend(text(&process.group, WorkerChange::Group));
        all.extend(process.umask.map(|mask| WorkerChange::Umask(Some(mask))));
        all.extend(process.nice.map(|nice| WorkerChange::Nice(Some(nice))));
        all.extend(named(&process.limits).into_iter().map(WorkerChange::Limit));
        all.extend(process.stop_signal.map(|signal| WorkerChange::StopSignal(Some(signal))));
        all.extend(self.success_exit.clone().map(|all| WorkerChange::SuccessExit(Some(all))));
        all.extend(self.rights.clone().map(|all| WorkerChange::Rights(Some(all))));
        all
    }

    /// What has another value than before, and what has none any more.
    pub fn changes_since(&self, before: &Self) -> Vec<WorkerChange> {
        let (was, is) = (before.changes(), self.changes());
        let gone = was.iter().filter(|one| !one.is_set_in(self));
        is.iter().filter(|one| !was.contains(one)).chain(gone).cloned().collect()
    }
}

/// A word of a command without the value of the variable that it sets.
pub(super) fn hidden(word: &str) -> String {
    let variable = word.strip_prefix(ENV).and_then(|rest| rest.split_once('='));
    variable.map_or_else(|| word.to_owned(), |(name, _)| format!("{ENV}{name}={HIDDEN}"))
}

/// Refuses control characters in a command, except in the value of a variable: other words are
/// shown in many lists as they are.
pub(super) fn check_controls(words: &[String]) -> Result<(), OpError> {
    let others = words.iter().filter(|word| !word.starts_with(ENV));
    let controls = others.flat_map(|word| word.chars().filter(|c| c.is_control() && *c != '\t'));
    controls.take(1).try_for_each(|c| {
        Err(OpError::usage(format!(
            "the command has the control character {c:?}; only the value of a variable \
             (env=NAME=VALUE) may have one"
        )))
    })
}

/// TABLE of the signals of Linux that have a name.
const SIGNALS: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The names of all signals that have one.
pub(super) fn signal_names() -> impl Iterator<Item = &'static str> {
    SIGNALS.iter().map(|(name, _)| *name)
}

/// The signal with this name, with or without `SIG`.
pub(super) fn signal_named(name: &str) -> Option<i32> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The name of a signal, or its number if it has none.
fn signal_name(signal: i32) -> String {
    let known = SIGNALS.iter().find(|(_, number)| *number == signal);
    known.map_or_else(|| signal.to_string(), |(name, _)| (*name).to_owned())
}
