//! Commands that show the configuration: the settings of the broker and of a service, the page of a
//! service, and the kinds of facts that are kept. `config` and `change` change it.

use super::restart_words::restart_words;
use super::{names, worker_settings};
use crate::engine::hub::Engine;
use crate::engine::keys::ServiceKey;
use crate::engine::operator::cells::{flag, number, table, text, yes};
use crate::engine::operator::result::{OpResult, not_found};
use protocol::op::parse::nearest;
use protocol::op::spec::SettingsOf;
use protocol::settings::{SERVICE_SETTINGS, SETTINGS, SettingRow, Unit};
use protocol::{Block, ServiceName, ServiceSetting, Setting, Value};

/// The row of one setting, with its limits and its default.
fn setting_row(row: &SettingRow, value: u64) -> Vec<Value> {
    let limit = |limit: u64| match row.unit {
        Unit::Switch => Value::shown(limit.to_string(), Value::None),
        Unit::Choice(_) => Value::shown(String::new(), Value::None),
        Unit::Millis | Unit::Bytes | Unit::Count => number(limit),
    };
    vec![
        text(row.name),
        setting_value(row, value),
        Value::Word(row.unit.word()),
        setting_value(row, row.default),
        limit(row.min),
        limit(row.max),
        yes(row.live),
        text(row.text),
    ]
}

/// The value of a setting: a number, or whether a switch is on.
pub(crate) fn setting_value(row: &SettingRow, value: u64) -> Value {
    match row.unit {
        Unit::Switch => flag(value != 0),
        Unit::Choice(_) => text(row.written(value)),
        Unit::Millis | Unit::Bytes | Unit::Count => number(value),
    }
}

/// `settings`: all of the broker, one of them, or those of a service.
pub(crate) fn show_settings(hub: &Engine, of: &SettingsOf, is_shown: bool) -> OpResult {
    let mine = |&setting: &Setting| setting_row(setting.row(), hub.settings.get(setting));
    let rows = match of {
        SettingsOf::All => Setting::ALL.iter().map(mine).collect(),
        SettingsOf::One(setting) => vec![mine(setting)],
        SettingsOf::Service(name) => {
            if !name.is_op() && hub.catalog.find(name.as_str()).is_none() {
                return Err(not_found(no_settings(hub, name)));
            }
            let key = names::plain_service(hub, name)?;
            let mut reply = table("settings", settings_of(hub, key));
            reply.blocks.push(worker_settings::of_service(hub, key, is_shown));
            return Ok(reply);
        }
    };
    Ok(table("settings", rows))
}

/// The error text for a name that is neither a setting nor a service.
fn no_settings(hub: &Engine, name: &ServiceName) -> String {
    let name = name.as_str();
    if ServiceSetting::named(name).is_some() {
        return format!("'{name}' is a setting of services; 'settings SERVICE' shows them");
    }
    let names = SETTINGS.iter().map(|row| row.name).chain(hub.catalog.names());
    let names = names.chain(SERVICE_SETTINGS.iter().map(|row| row.name));
    let near = nearest(name, names);
    let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
    format!(
        "'{name}' is neither a setting of the broker nor a service{hint}; 'settings' lists \
         the ones, 'services' the others"
    )
}

fn settings_of(hub: &Engine, service: ServiceKey) -> Vec<Vec<Value>> {
    let in_force = &hub.catalog[service].settings;
    let row = |&setting: &ServiceSetting| setting_row(setting.row(), in_force.get(setting));
    ServiceSetting::ALL.iter().map(row).collect()
}

/// `service NAME`: the page of a service, and its settings.
pub(crate) fn show_service(hub: &Engine, name: &ServiceName, is_shown: bool) -> OpResult {
    let key = names::plain_service(hub, name)?;
    let service = &hub.catalog[key];
    let mine = hub.supervision.workers_of(key);
    let fields = vec![
        ("id", number(service.id.0)),
        ("name", text(&service.name)),
        ("paused", flag(service.is_paused)),
        ("stopped", flag(service.is_stopped)),
        ("Workers", Value::Numbers(mine.map(|(_, w)| w.id.0.into()).collect())),
        ("Clients", number(hub.dispatch.queue(key).callers)),
        ("Waiting", number(hub.dispatch.queue(key).waiting())),
        ("topic", service.topic.as_ref().map_or(Value::None, text)),
        ("rollout", hub.supervision.rollout(key).map_or(Value::None, |of| text(of.words()))),
        ("demand", demand_word(hub, key)),
        ("restarts", text(restart_words(service, &hub.settings))),
    ];
    let page = Block::Record { name: "service", prefix: "service->", width: 0, fields };
    let mut reply = table("settings", settings_of(hub, key));
    reply.blocks.insert(0, page);
    reply.blocks.push(worker_settings::of_service(hub, key, is_shown));
    Ok(reply)
}

/// Whether the workers of a service that is started on demand are asked for.
fn demand_word(hub: &Engine, key: ServiceKey) -> Value {
    match hub.supervision.is_down_until_asked(key) {
        _ if !hub.catalog[key].is_on_demand() => Value::None,
        true => Value::Word("down"),
        false => Value::Word("up"),
    }
}

/// The kinds of facts that are kept, for the status page.
pub(crate) fn event_kinds(hub: &Engine) -> Value {
    let kinds: Vec<String> =
        hub.facts.recent().kinds().iter().map(|kind| kind.row().name.to_owned()).collect();
    if kinds.is_empty() {
        return Value::shown("all", Value::None);
    }
    Value::shown(format!("\"{}\"", kinds.join(" ")), Value::Texts(kinds))
}
