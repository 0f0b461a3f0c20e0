//! The rights of a token, or of a peer without one: roles as words, and their sum. Data only: the
//! engine enforces rights, and the reactor finds out who a peer is.

use crate::names::ServiceName;
use crate::op::spec::{Effect, OpRequest};
use crate::topics::{Pattern, Patterns};
use std::collections::BTreeSet;
use std::fmt;

/// Some services, or all. The service `op` is never among them, because only the role operator
/// opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Services {
    /// These services; none if the set is empty.
    Only(BTreeSet<ServiceName>),
    /// Every service, also one that is configured later.
    All,
}

impl Default for Services {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

impl Services {
    /// Whether this service is among them.
    pub fn has(&self, service: &ServiceName) -> bool {
        match self {
            Self::All => !service.is_op(),
            Self::Only(names) => !service.is_op() && names.contains(service),
        }
    }

    fn add(&mut self, words: &str) -> Result<(), String> {
        if words == "*" {
            *self = Self::All;
            return Ok(());
        }
        for word in words.split(',') {
            let name = ServiceName::new(word).map_err(|e| e.to_string())?;
            if name.is_op() {
                return Err("service 'op' is opened by the role operator, as in operator:read; \
                            name other services"
                    .into());
            }
            if let Self::Only(names) = self {
                names.insert(name);
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Only(names) if names.is_empty())
    }
}

impl fmt::Display for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Only(names) => {
                let names: Vec<&str> = names.iter().map(ServiceName::as_str).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

/// The sum of somebody's roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// The services it may send requests to (`client:echo,sum`, `client:*`).
    pub client: Services,
    /// The services it may answer for as a self-started worker (`worker:echo`, `worker:*`).
    pub worker: Services,
    /// Whether it may have an execd start programs (`host`); only an execd checks this.
    pub host: bool,
    /// The highest effect of the commands it may give (`operator:read`, `operator:change`,
    /// `operator:danger`); `None` = it may not use the service `op`.
    pub operator: Option<Effect>,
    /// Whether it may also give the commands for releases (`operator:deploy`), those whose row has
    /// the mark `deploy`, whatever they may change. Independent of `operator`, which is at least
    /// `Read` then.
    pub deploy: bool,
    /// The topics to which it may publish (`publish:orders.>`).
    pub publish: Patterns,
    /// The patterns to which it may subscribe: these, and those that match no more
    /// (`subscribe:orders.>`).
    pub subscribe: Patterns,
}

/// The spelling of all roles, for error texts.
pub const ROLES: &str = "client:SERVICE[,SERVICE]… or client:*, worker:… likewise, host, \
                         operator:read, operator:deploy, operator:change, operator:danger, \
                         publish:PATTERN[,PATTERN]…, subscribe:… likewise";

/// The word of the role for releases.
pub const DEPLOY: &str = "deploy";

impl Rights {
    /// All rights: those of the broker's own user and root.
    pub fn all() -> Self {
        let operator = Some(Effect::Danger);
        Self { host: true, operator, ..Self::without_tokens() }
    }

    /// The rights of everybody who can connect, as long as there are no tokens.
    pub fn without_tokens() -> Self {
        Self {
            client: Services::All,
            worker: Services::All,
            publish: Patterns::of(&[">"]),
            subscribe: Patterns::of(&[">", "isect.state.>"]),
            ..Self::default()
        }
    }

    /// Adds a role to the sum.
    ///
    /// # Errors
    /// The text is not a role; the error says how roles are written.
    pub fn add(&mut self, role: &str) -> Result<(), String> {
        let (kind, value) = role.split_once(':').map_or((role, None), |(k, v)| (k, Some(v)));
        match (kind, value) {
            ("client", Some(services)) => self.client.add(services),
            ("worker", Some(services)) => self.worker.add(services),
            ("publish", Some(patterns)) => self.publish.add(patterns),
            ("subscribe", Some(patterns)) => self.subscribe.add(patterns),
            ("host", None) => {
                self.host = true;
                Ok(())
            }
            ("operator", Some(DEPLOY)) => {
                self.deploy = true;
                self.operator = self.operator.max(Some(Effect::Read));
                Ok(())
            }
            ("operator", Some(word)) => {
                let effects = [Effect::Read, Effect::Change, Effect::Danger];
                let effect = effects.into_iter().find(|effect| effect.word() == word);
                self.operator = self.operator.max(Some(effect.ok_or_else(|| no_role(role))?));
                Ok(())
            }
            _ => Err(no_role(role)),
        }
    }

    /// Whether a command with this effect is allowed.
    pub fn may(&self, effect: Effect) -> bool {
        self.operator >= Some(effect)
    }

    /// Whether this command is allowed.
    pub fn may_command(&self, request: &OpRequest) -> bool {
        self.may(request.effect()) || (self.deploy && request.command().row().deploy)
    }

    /// Whether it may publish to a topic. The topics of the broker itself are for nobody else.
    pub fn may_publish(&self, topic: &str) -> bool {
        self.publish.allow(topic) && !is_own(topic)
    }

    /// Whether it may subscribe to a pattern. Who may read as an operator may read what the broker
    /// itself publishes, because that is what operators see.
    pub fn may_subscribe(&self, pattern: &Pattern) -> bool {
        self.subscribe.cover(pattern) || (pattern.is_own() && self.may(Effect::Read))
    }

    /// The roles in the spelling that [`add`](Self::add) reads.
    pub fn roles(&self) -> Vec<String> {
        let mut words = Vec::new();
        if !self.client.is_empty() {
            words.push(format!("client:{}", self.client));
        }
        if !self.worker.is_empty() {
            words.push(format!("worker:{}", self.worker));
        }
        if self.host {
            words.push("host".to_owned());
        }
        if let Some(effect) = self.operator.filter(|&most| !self.deploy || most > Effect::Read) {
            words.push(format!("operator:{}", effect.word()));
        }
        if self.deploy && !self.may(Effect::Danger) {
            words.push(format!("operator:{DEPLOY}"));
        }
        for (kind, patterns) in [("publish", &self.publish), ("subscribe", &self.subscribe)] {
            if !patterns.is_empty() {
                words.push(format!("{kind}:{patterns}"));
            }
        }
        words
    }

    /// Whether no right is granted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn is_own(topic: &str) -> bool {
    topic.split('.').next() == Some(crate::topics::OWN_WORD)
}

fn no_role(role: &str) -> String {
    let shown: String = role.chars().take(60).flat_map(char::escape_debug).collect();
    let kinds = [
        "client:*",
        "worker:*",
        "host",
        "operator:read",
        "operator:deploy",
        "operator:change",
        "publish:>",
        "subscribe:>",
    ];
    let near = crate::op::parse::nearest(role, kinds.into_iter());
    let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
    format!("'{shown}' is no role{hint}; a role is {ROLES}")
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = self.roles();
        if words.is_empty() {
            words.push("nothing".to_owned());
        }
        f.pad(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(roles: &str) -> Result<Rights, String> {
        let mut rights = Rights::default();
        roles.split_whitespace().try_for_each(|role| rights.add(role))?;
        Ok(rights)
    }

    #[test]
    fn roles_add_up_and_are_shown_as_they_are_written() {
        for text in [
            "client:*",
            "client:echo,sum",
            "worker:echo operator:read",
            "client:a worker:* host operator:danger",
            "operator:read publish:orders.> subscribe:a.*.c,orders.>",
            "operator:deploy",
            "operator:change operator:deploy",
        ] {
            assert_eq!(rights(text).unwrap().to_string(), text);
        }
        let both = rights("client:b client:a operator:danger operator:read").unwrap();
        assert_eq!(both.to_string(), "client:a,b operator:danger");
        assert_eq!(rights("operator:read operator:deploy").unwrap().to_string(), "operator:deploy");
        let most = rights("operator:deploy operator:danger").unwrap();
        assert_eq!(most.to_string(), "operator:danger");
        assert_eq!(rights("client:a client:*").unwrap().to_string(), "client:*");
        assert_eq!(Rights::default().to_string(), "nothing");
        assert!(Rights::default().is_empty() && !both.is_empty());
    }

    #[test]
    fn all_services_are_all_but_the_operators() {
        let echo = ServiceName::new("echo").unwrap();
        let most = rights("client:* worker:*").unwrap();
        assert!(most.client.has(&echo) && most.worker.has(&echo));
        assert!(!most.client.has(&ServiceName::op()) && !most.worker.has(&ServiceName::op()));
        assert!(!rights("client:sum").unwrap().client.has(&echo));
        assert!(!Rights::default().client.has(&echo));
    }

    #[test]
    fn topics_are_those_of_the_patterns_and_the_brokers_own_are_for_operators() {
        let pattern = |text| Pattern::new(text).unwrap();
        let some = rights("publish:orders.>,isect.> subscribe:orders.*").unwrap();
        assert!(some.may_publish("orders.eu") && !some.may_publish("orders"));
        assert!(!some.may_publish("isect.fact.changed"));
        assert!(some.may_subscribe(&pattern("orders.eu")));
        assert!(!some.may_subscribe(&pattern("orders.>")) && !some.may_subscribe(&pattern(">")));
        assert!(!some.may_subscribe(&pattern("isect.>")));
        let reader = rights("operator:read").unwrap();
        assert!(reader.may_subscribe(&pattern("isect.fact.>")));
        assert!(!reader.may_subscribe(&pattern(">")));
        let open = Rights::without_tokens();
        assert!(open.may_subscribe(&pattern(">")) && open.may_publish("a"));
        assert!(open.may_subscribe(&pattern("isect.state.*.pump")));
        assert!(!open.may_subscribe(&pattern("isect.fact.>")));
        assert!(Rights::all().may_subscribe(&pattern("isect.>")));
        assert!(rights("publish:a..b").is_err() && rights("subscribe:").is_err());
    }

    #[test]
    fn a_higher_operator_may_what_a_lower_one_may() {
        let effects = [Effect::Read, Effect::Change, Effect::Danger];
        for (most, word) in ["read", "change", "danger"].into_iter().enumerate() {
            let rights = rights(&format!("operator:{word}")).unwrap();
            for (at, effect) in effects.into_iter().enumerate() {
                assert_eq!(rights.may(effect), at <= most, "{word} {effect:?}");
            }
        }
        assert!(!rights("client:* worker:* host").unwrap().may(Effect::Read));
    }

    #[test]
    fn who_deploys_may_what_has_the_mark_and_what_only_shows() {
        let deploy = rights("operator:deploy").unwrap();
        for (line, may) in [
            ("workers", true),
            ("service echo", true),
            ("start echo", true),
            ("stop all", true),
            ("pause host h1", true),
            ("ready 3", true),
            ("drain host h1", true),
            ("undrain host h1", true),
            ("halt", false),
            ("halt keep", false),
            ("abort", false),
            ("source /x", false),
            ("set idle_ms 0", false),
            ("config service echo", false),
            ("delete worker 1", false),
            ("service 4 echo", false),
            ("shutdown all", false),
        ] {
            let request = crate::op::parse::parse(line).unwrap();
            assert_eq!(deploy.may_command(&request), may, "{line}");
            assert!(rights("operator:danger").unwrap().may_command(&request), "{line}");
        }
        let both = rights("operator:deploy operator:change").unwrap();
        assert!(both.may_command(&crate::op::parse::parse("stop all").unwrap()));
        assert!(both.may_command(&crate::op::parse::parse("set idle_ms 0").unwrap()));
        assert!(!both.may_command(&crate::op::parse::parse("halt").unwrap()));
    }

    #[test]
    fn what_is_no_role_says_what_one_is() {
        for (given, part) in [
            ("admin", "operator:danger"),
            ("operator", "operator:danger"),
            ("operator:all", "operator:danger"),
            ("host:h1", "no role"),
            ("client", "client:*"),
            ("client:", "is empty"),
            ("client:a,", "is empty"),
            ("client:op", "role operator"),
            ("worker:7", "begins with '7'"),
        ] {
            let error = rights(given).unwrap_err();
            assert!(error.contains(part), "{given}: {error}");
        }
    }
}
