//! What may be announced, and by whom: the rules of names and texts, and whose an instance is.

use super::instance::{Instance, Owner};
use crate::engine::action::Action;
use crate::engine::catalog::Catalog;
use crate::engine::context::Context;
use protocol::bodies::Announce;
use protocol::instances::{ACTIVITY_TIMEOUT_MS_MAX, ACTIVITY_TIMEOUT_MS_MIN, STATE_TEXT_CHARS_MAX};
use protocol::{ErrorBody, ErrorCode, Frame, Header, LinkId, ServiceName, TokenName, show};
use std::sync::Arc;

/// Most groups, addresses, texts and names of states of one instance, each.
const LIST_MAX: usize = 64;
/// Most bytes of an address.
const ADDRESS_BYTES_MAX: u64 = 255;
/// Most bytes of a word and its value.
const META_BYTES_MAX: u64 = 1024;
/// Most bytes of a wrong text that an error shows.
const SHOWN_MAX: usize = 60;

/// The program that announces, as far as the broker knows it.
#[derive(Clone, Debug)]
pub(crate) struct Announcer {
    pub(crate) link: LinkId,
    /// The machine that it runs on, as its address shows it.
    pub(crate) machine: Arc<str>,
    /// Its user, if the kernel tells it.
    pub(crate) uid: Option<u32>,
    /// The token that it has proved.
    pub(crate) token: Option<TokenName>,
}

impl Announcer {
    /// Whether both are certainly the same user, or the holder of the same token.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        let is_same_user = self.uid.is_some() && self.uid == other.uid;
        is_same_user || (self.token.is_some() && self.token == other.token)
    }
}

/// An error about an instance.
pub(crate) fn bad(text: impl Into<String>) -> ErrorBody {
    ErrorBody::new(ErrorCode::BadInstance, text.into())
}

/// A name by the rules of names of services.
fn name(what: &str, given: &str) -> Result<ServiceName, ErrorBody> {
    ServiceName::new(given).map_err(|error| {
        bad(error.to_string().replacen("service name", &format!("{what} name"), 1))
    })
}

/// A text of so many bytes or characters at most, on one line.
fn check_text(
    what: &str,
    text: &str,
    (size, unit, max): (u64, &str, u64),
) -> Result<(), ErrorBody> {
    let shown = || show::brief(text, SHOWN_MAX);
    if size > max {
        return Err(bad(format!(
            "{what} '{}' has {size} {unit}; at most {max} are allowed",
            shown()
        )));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(bad(format!("{what} '{}' contains {c:?}; it stands on one line", shown()))),
        None => Ok(()),
    }
}

/// A text about a state.
fn check_chars(what: &str, text: &str) -> Result<(), ErrorBody> {
    let size = text.chars().count() as u64;
    check_text(what, text, (size, "characters", STATE_TEXT_CHARS_MAX as u64))
}

/// The text beside a state.
///
/// # Errors
/// It is too long, or has several lines.
pub(crate) fn check_state_text(text: &str) -> Result<(), ErrorBody> {
    check_chars("text", text)
}

fn check_count(what: &str, count: usize) -> Result<(), ErrorBody> {
    if count <= LIST_MAX {
        return Ok(());
    }
    Err(bad(format!("the instance has {count} {what}; at most {LIST_MAX} are allowed")))
}

/// The groups that an announcement names, each once.
fn groups(body: &Announce, catalog: &Catalog) -> Result<Vec<ServiceName>, ErrorBody> {
    let mut groups = Vec::new();
    for given in &body.groups {
        let group = name("group", given)?;
        if catalog.find(group.as_str()).is_some() {
            return Err(bad(format!(
                "group '{group}' is a service: its members are its workers; name another group"
            )));
        }
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    Ok(groups)
}

/// The name and the groups of an announcement whose texts keep the rules. A group that is named
/// twice counts once.
///
/// # Errors
/// Says which rule is broken, and by what.
pub(crate) fn check(
    body: &Announce,
    catalog: &Catalog,
) -> Result<(ServiceName, Vec<ServiceName>), ErrorBody> {
    let own = name("instance", &body.name)?;
    check_count("groups", body.groups.len())?;
    check_count("addresses", body.addresses.len())?;
    check_count("lines of meta", body.meta.len())?;
    check_count("names of states", body.state_names.len())?;
    let groups = groups(body, catalog)?;
    for address in &body.addresses {
        check_text("address", address, (address.len() as u64, "bytes", ADDRESS_BYTES_MAX))?;
    }
    for meta in &body.meta {
        check_text("meta", meta, (meta.len() as u64, "bytes", META_BYTES_MAX))?;
    }
    for (at, name) in body.state_names.iter().enumerate() {
        check_chars("state name", &name.text)?;
        if body.state_names[..at].iter().any(|earlier| earlier.number == name.number) {
            return Err(bad(format!("state {} has two names; give it one", name.number)));
        }
    }
    let timeout_ms = body.activity_timeout_ms;
    let allowed = ACTIVITY_TIMEOUT_MS_MIN..=ACTIVITY_TIMEOUT_MS_MAX;
    if timeout_ms != 0 && !allowed.contains(&timeout_ms) {
        return Err(bad(format!(
            "activity_timeout_ms is {timeout_ms}; it must be between {ACTIVITY_TIMEOUT_MS_MIN} \
             and {ACTIVITY_TIMEOUT_MS_MAX}, or 0 for the broker's own"
        )));
    }
    Ok((own, groups))
}

/// The error for a name and id that somebody else has.
pub(crate) fn is_taken(instance: &Instance, is_here: bool) -> ErrorBody {
    let name = &instance.name;
    if is_here {
        return bad(format!(
            "this connection has announced an instance with id {} already, '{}'; withdraw it \
             first, or choose another id",
            name.id, name.name
        ));
    }
    let whose = match instance.owner {
        Owner::Link(_) => "another connection, of another user or of one that is not known",
        Owner::Worker { .. } => "the broker",
    };
    let text = format!(
        "instance '{}' with id {} on {} is there already, announced by {whose}; choose another \
         id, or wait until that one has ended",
        name.name, name.id, name.machine
    );
    ErrorBody::new(ErrorCode::InstanceTaken, text)
}

/// Refuses what a program asked for; its connection goes on.
pub(super) fn refuse(link: LinkId, sequence: u32, error: ErrorBody, cx: &mut Context<'_>) {
    let head = Header { sequence, ..Header::default() };
    cx.out.push(Action::Send { link, frame: Frame::Error { head, error } });
}
