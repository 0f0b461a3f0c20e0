//! Reads the settings of workers in `config service` and `config worker`.

use super::args::Args;
use super::parse::OpError;
use super::spec::{ServiceChange, WorkerConfig};
use super::words;
use super::worker_settings::{Named, WorkerChange, WorkerSetting, signal_named, signal_names};
use crate::limits::{PATH_BYTES_MAX, RUN_VARIABLE, USER_BYTES_MAX, WORKER_SECRET_VARIABLE};
use crate::process::{check_stop_signal, limit_number};
use crate::rights::Rights;

/// The resource limits that an execd knows, by the names that prlimit(1) has for them.
const LIMITS: &[&str] =
    &["as", "core", "cpu", "data", "fsize", "memlock", "nofile", "nproc", "stack"];
/// The permission bits of a umask.
const UMASK_MAX: u32 = 0o777;
/// The nice values of Linux.
const NICE: std::ops::RangeInclusive<i32> = -20..=19;
/// The signals of Linux.
const SIGNAL: std::ops::RangeInclusive<i32> = 1..=64;

impl Args<'_> {
    /// Takes the settings of a worker that stand before its program; its path begins with '/'.
    fn own_settings(&mut self) -> Result<Vec<WorkerChange>, OpError> {
        let mut changes: Vec<WorkerChange> = Vec::new();
        while let Some((name, value)) = self.peek().and_then(setting_word) {
            self.at += 1;
            let change = self.worker_setting(name, value)?;
            let mut earlier = changes.iter();
            if let Some(twice) = earlier.find(|earlier| earlier.is_of_same(&change)) {
                return Err(self.error(given_twice(twice)));
            }
            changes.push(change);
        }
        Ok(changes)
    }

    fn worker_setting(&self, name: &str, value: &str) -> Result<WorkerChange, OpError> {
        let setting = WorkerSetting::named(name).ok_or_else(|| {
            let all: Vec<&str> = WorkerSetting::ALL.iter().map(|s| s.row().name).collect();
            let hint = words::nearest(name, all.iter().copied());
            self.error(format_args!(
                "unknown setting '{}' of a worker{}; there are {}",
                words::shown(name),
                words::meant(hint),
                all.join(", ")
            ))
        })?;
        WorkerChange::read(setting, value).map_err(|e| self.error(e))
    }

    /// Takes the settings of a worker alone, or a worker with its service, host and program.
    pub(super) fn worker_config(&mut self) -> Result<WorkerConfig, OpError> {
        // A change needs the id, and the word before this one is it.
        let has_id = self.at > 0 && self.words[self.at - 1].starts_with('#');
        if self.peek().and_then(setting_word).is_some() {
            if !has_id {
                return Err(self.error(
                    "a setting stands behind the id of a worker that is there (#ID), or before \
                     the path of a new one",
                ));
            }
            return self.own_settings().map(WorkerConfig::Change);
        }
        Ok(WorkerConfig::Whole {
            service: self.service("service")?,
            host: self.host("host")?,
            own: self.own_settings()?,
            path: self.program()?,
            args: self.rest(),
        })
    }

    /// The change of a setting of workers in `config service`; `None` = it is another setting.
    pub(super) fn service_worker_setting(
        &self,
        name: &str,
        value: &str,
        before: &[ServiceChange],
    ) -> Result<Option<WorkerChange>, OpError> {
        let Some(setting) = WorkerSetting::named(name) else { return Ok(None) };
        let change = WorkerChange::read(setting, value).map_err(|e| self.error(e))?;
        let is_same = |other: &&ServiceChange| match other {
            ServiceChange::Worker(other) => other.is_of_same(&change),
            ServiceChange::Number(..) | ServiceChange::Topic(_) => false,
        };
        match before.iter().find(is_same) {
            Some(ServiceChange::Worker(twice)) => Err(self.error(given_twice(twice))),
            Some(_) | None => Ok(Some(change)),
        }
    }
}

/// The name and value of a word that is a setting; a path is none, whatever stands in it.
fn setting_word(word: &str) -> Option<(&str, &str)> {
    word.split_once('=').filter(|(name, _)| !name.contains('/'))
}

fn given_twice(change: &WorkerChange) -> String {
    let name = change.setting().row().name;
    match change {
        WorkerChange::Env(Named::Set(of, _) | Named::Remove(of))
        | WorkerChange::Limit(Named::Set(of, _) | Named::Remove(of)) => {
            format!("setting '{name}={}' is given twice", words::shown(of))
        }
        _ => format!("setting '{name}' is given twice"),
    }
}

impl WorkerChange {
    /// Reads what stands behind `NAME=`; nothing = it is not set any more.
    ///
    /// # Errors
    /// The value is not valid; the text says what is, and never shows that of a variable.
    pub(super) fn read(setting: WorkerSetting, value: &str) -> Result<Self, String> {
        let some = (!value.is_empty()).then_some(value);
        let what = setting.row().name;
        let path = || some.map(|path| read_path(what, path)).transpose();
        let user = || some.map(|name| read_user(what, name)).transpose();
        Ok(match setting {
            WorkerSetting::Env => Self::Env(read_variable(value)?),
            WorkerSetting::EnvFile => {
                if value.ends_with('/') {
                    return Err(format!("{what} '{}' names a directory", words::shown(value)));
                }
                Self::EnvFile(path()?)
            }
            WorkerSetting::Cwd => Self::Cwd(path()?),
            WorkerSetting::User => Self::User(user()?),
            WorkerSetting::Group => Self::Group(user()?),
            WorkerSetting::Umask => Self::Umask(some.map(read_umask).transpose()?),
            WorkerSetting::Nice => Self::Nice(some.map(read_nice).transpose()?),
            WorkerSetting::Limit => Self::Limit(read_limit(value)?),
            WorkerSetting::StopSignal => Self::StopSignal(some.map(read_signal).transpose()?),
            WorkerSetting::SuccessExit => Self::SuccessExit(some.map(read_statuses).transpose()?),
            WorkerSetting::Rights => Self::Rights(some.map(read_roles).transpose()?),
        })
    }
}

fn read_variable(text: &str) -> Result<Named, String> {
    if text.is_empty() {
        return Ok(Named::Clear);
    }
    let (name, value) = text.split_once('=').map_or((text, None), |(name, v)| (name, Some(v)));
    let shown = words::shown(name);
    if name.is_empty() {
        return Err("the name of the variable is missing; write env=NAME=VALUE".into());
    }
    if let Some(c) = name.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("the name of variable '{shown}' has {c:?} in it"));
    }
    if [WORKER_SECRET_VARIABLE, RUN_VARIABLE].contains(&name) {
        return Err(format!("variable {name} is the host's own; it gives one to each start"));
    }
    match value {
        None => Ok(Named::Remove(name.to_owned())),
        Some(value) if value.contains('\0') => {
            Err(format!("the value of variable '{shown}' has a NUL in it"))
        }
        Some(value) => Ok(Named::Set(name.to_owned(), value.to_owned())),
    }
}

fn read_path(what: &str, path: &str) -> Result<String, String> {
    let shown = words::shown(path);
    if !path.starts_with('/') {
        return Err(format!("{what} '{shown}' is not absolute; it must begin with '/'"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(format!("{what} '{shown}' has '..' in it; write where it leads"));
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(format!(
            "{what} has {} bytes; at most {PATH_BYTES_MAX} are allowed",
            path.len()
        ));
    }
    Ok(path.to_owned())
}

fn read_user(what: &str, name: &str) -> Result<String, String> {
    let shown = words::shown(name);
    if name.len() > USER_BYTES_MAX {
        return Err(format!(
            "{what} '{shown}' has {} bytes; at most {USER_BYTES_MAX} are allowed",
            name.len()
        ));
    }
    if let Some(c) = name.chars().find(|c| c.is_whitespace() || matches!(c, ':' | '/' | ',')) {
        return Err(format!("{what} '{shown}' has {c:?} in it; it is one name or number"));
    }
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    // The kernel takes the highest number for "none".
    if name.starts_with('-') || (is_number && name.parse().unwrap_or(u32::MAX) == u32::MAX) {
        return Err(format!("{what} '{shown}' is neither a name nor a number below {}", u32::MAX));
    }
    Ok(name.to_owned())
}

fn read_umask(text: &str) -> Result<u32, String> {
    let is_octal = text.bytes().all(|byte| byte.is_ascii_digit());
    let mask = u32::from_str_radix(text, 8).ok().filter(|mask| is_octal && *mask <= UMASK_MAX);
    mask.ok_or_else(|| format!("umask '{}' is not 000 to 777, octal", words::shown(text)))
}

fn read_nice(text: &str) -> Result<i32, String> {
    let nice = text.parse().ok().filter(|nice| NICE.contains(nice));
    let (least, most) = (NICE.start(), NICE.end());
    nice.ok_or_else(|| format!("nice '{}' is not {least} to {most}", words::shown(text)))
}

fn read_limit(text: &str) -> Result<Named, String> {
    if text.is_empty() {
        return Ok(Named::Clear);
    }
    let (name, value) = text.split_once('=').map_or((text, None), |(name, v)| (name, Some(v)));
    if !LIMITS.contains(&name) {
        let hint = words::meant(words::nearest(name, LIMITS.iter().copied()));
        let (shown, all) = (words::shown(name), LIMITS.join(", "));
        return Err(format!("there is no limit '{shown}'{hint}; there are {all}"));
    }
    let Some(value) = value else { return Ok(Named::Remove(name.to_owned())) };
    let form = || {
        let shown = words::shown(text);
        format!("limit '{shown}' is not NAME=SOFT[:HARD], as in nofile=1024 or core=0:0")
    };
    let (soft, hard) = value.split_once(':').map_or((value, None), |(soft, h)| (soft, Some(h)));
    let soft = limit_number(soft).ok_or_else(form)?;
    let hard = hard.map_or(Some(soft), limit_number).ok_or_else(form)?;
    if soft > hard {
        return Err(format!("limit '{}': the soft one is above the hard one", words::shown(text)));
    }
    Ok(Named::Set(name.to_owned(), value.to_owned()))
}

fn read_signal(text: &str) -> Result<i32, String> {
    let number = text.parse().ok().filter(|number| SIGNAL.contains(number));
    let number = number.or_else(|| signal_named(text)).ok_or_else(|| {
        let names: Vec<String> = signal_names().map(str::to_lowercase).collect();
        let hint = words::nearest(text, names.iter().map(String::as_str));
        let hint = words::meant(hint.map(str::to_uppercase).as_deref());
        format!(
            "signal '{}' is none{hint}; write a name as TERM or INT, or a number from {} to {}",
            words::shown(text),
            SIGNAL.start(),
            SIGNAL.end()
        )
    })?;
    check_stop_signal(number)?;
    Ok(number)
}

fn read_statuses(text: &str) -> Result<Vec<u8>, String> {
    let read = |word: &str| {
        let is_number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        word.parse::<u8>().ok().filter(|_| is_number).ok_or_else(|| {
            let shown = words::shown(word);
            format!("exit status '{shown}' is not 0 to 255; several have commas between them")
        })
    };
    let mut all = text.split(',').map(read).collect::<Result<Vec<_>, _>>()?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn read_roles(text: &str) -> Result<Vec<String>, String> {
    let mut rights = Rights::default();
    let mut roles: Vec<String> = Vec::new();
    for role in text.split(',') {
        rights.add(role).map_err(|why| {
            let form = "roles have commas between them, and one of several services is written \
                        as several roles: client:A,client:B";
            format!("{why}; {form}")
        })?;
        if !roles.iter().any(|earlier| earlier == role) {
            roles.push(role.to_owned());
        }
    }
    Ok(roles)
}
