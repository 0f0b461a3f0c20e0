//! Reads the arguments of a command that are settings.

use super::args::Args;
use super::parse::OpError;
use super::spec::{ServiceChange, SettingsOf, TOPIC_SETTING};
use super::words;
use super::worker_settings::WORKER_SETTINGS;
use crate::names::ServiceName;
use crate::settings::{ServiceSetting, Setting};
use crate::topics::Pattern;

impl Args<'_> {
    pub(super) fn service_settings(&mut self) -> Result<Vec<ServiceChange>, OpError> {
        let mut settings: Vec<ServiceChange> = Vec::new();
        while let Some(word) = self.peek() {
            self.at += 1;
            let Some((name, value)) = word.split_once('=') else {
                return Err(self.error(format_args!(
                    "'{}' is not of the form SETTING=VALUE",
                    words::shown(word)
                )));
            };
            if let Some(change) = self.service_worker_setting(name, value, &settings)? {
                settings.push(ServiceChange::Worker(change));
                continue;
            }
            if settings.iter().any(|other| other.name() == name) {
                return Err(self.error(format_args!("setting '{name}' is given twice")));
            }
            settings.push(if name == TOPIC_SETTING {
                let pattern = (!value.is_empty()).then(|| Pattern::new(value)).transpose();
                ServiceChange::Topic(pattern.map_err(|e| self.error(e))?)
            } else {
                let setting =
                    ServiceSetting::named(name).ok_or_else(|| self.no_service_setting(name))?;
                ServiceChange::Number(setting, setting.check(value).map_err(|e| self.error(e))?)
            });
        }
        Ok(settings)
    }

    fn no_service_setting(&self, name: &str) -> OpError {
        let all = ServiceSetting::ALL.iter().map(|s| s.row().name);
        let of_workers = WORKER_SETTINGS.iter().map(|row| row.name);
        let all: Vec<&str> = all.chain([TOPIC_SETTING]).chain(of_workers).collect();
        let hint = words::nearest(name, all.iter().copied());
        let broker =
            Setting::named(name).map_or("", |_| "; it is one of the broker: 'set NAME VALUE'");
        self.error(format_args!(
            "unknown setting '{}' of a service{}{broker}; there are {}",
            words::shown(name),
            words::meant(hint),
            all.join(", ")
        ))
    }

    /// Takes `NAME`, `SERVICE` or `service SERVICE`; the name of a broker setting wins over that of
    /// a service.
    pub(super) fn settings_of(&mut self) -> Result<SettingsOf, OpError> {
        if self.peek() == Some("service") {
            self.at += 1;
            return self.service("service").map(SettingsOf::Service);
        }
        let word = self.next("name")?;
        match (Setting::named(word), ServiceName::new(word)) {
            (Some(setting), _) => Ok(SettingsOf::One(setting)),
            (None, Ok(service)) => Ok(SettingsOf::Service(service)),
            (None, Err(_)) => self.setting_named(word).map(SettingsOf::One),
        }
    }

    fn setting_named(&self, name: &str) -> Result<Setting, OpError> {
        Setting::named(name).ok_or_else(|| {
            let hint = words::nearest(name, Setting::ALL.iter().map(|s| s.row().name));
            let service = ServiceSetting::named(name)
                .map_or("", |_| "; it is one of a service: 'config service SERVICE NAME=VALUE'");
            self.error(format_args!(
                "unknown setting '{}'{}{service}; 'settings' lists them",
                words::shown(name),
                words::meant(hint)
            ))
        })
    }

    pub(super) fn setting(&mut self) -> Result<(Setting, u64), OpError> {
        let first = self.next("name")?;
        let (name, value) = match first.split_once('=') {
            Some(pair) => pair,
            None => {
                self.setting_named(first)?;
                (first, self.next("value")?)
            }
        };
        let setting = self.setting_named(name)?;
        let value = setting.check(value).map_err(|e| self.error(e))?;
        Ok((setting, value))
    }
}
