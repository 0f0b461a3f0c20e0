//! Completes the word under the cursor: commands and their arguments, from the table of commands.
//! The caller asks the broker for names of services.

use protocol::op::help;
use protocol::op::spec::{Arg, TOPIC_SETTING, Takes};
use protocol::op::table::COMMANDS;
use protocol::op::worker_settings::WORKER_SETTINGS;
use protocol::{ServiceName, ServiceSetting, Setting};
use serde_json::Value;

/// Names that were learned from the broker.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Names of the services, from an answer to `services`.
    pub services: Vec<String>,
}

/// The names of the services in an answer to `services`, text or JSON.
pub fn services(answer: &str) -> Vec<String> {
    if answer.starts_with('{') {
        let answer: Value = serde_json::from_str(answer).unwrap_or_default();
        let rows = answer["services"].as_array();
        let names = rows.into_iter().flatten().filter_map(|row| row["service"].as_str());
        return names.filter_map(name_of).collect();
    }
    let words = answer.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    words.filter_map(name_of).collect()
}

/// The word, if it is a valid name. Nothing else may reach the prompt, whoever answered.
fn name_of(word: &str) -> Option<String> {
    ServiceName::new(word).is_ok().then(|| word.to_owned())
}

/// The byte at which the word under the cursor begins, and its completions, sorted.
pub fn complete(line: &str, known: &Known) -> (usize, Vec<String>) {
    let begin = line
        .char_indices()
        .rfind(|(_, c)| c.is_whitespace())
        .map_or(0, |(at, c)| at + c.len_utf8());
    let word = &line[begin..];
    let before: Vec<&str> = line[..begin].split_whitespace().collect();
    let mut found = candidates(&before, known);
    found.retain(|candidate| candidate.starts_with(word));
    found.sort();
    found.dedup();
    (begin, found)
}

fn candidates(before: &[&str], known: &Known) -> Vec<String> {
    let Some((first, rest)) = before.split_first() else {
        let words = COMMANDS.iter().map(|row| row.first().to_owned());
        return words.chain(["exit".to_owned()]).collect();
    };
    let group: Vec<_> = COMMANDS.iter().filter(|row| row.first() == *first).collect();
    if let [row] = group.as_slice()
        && row.second().is_none()
    {
        return arguments(&row.args(), rest, known);
    }
    match rest.split_first() {
        None => group.iter().filter_map(|row| row.second()).map(str::to_owned).collect(),
        Some((second, rest)) => group
            .iter()
            .find(|row| row.second() == Some(*second))
            .map(|row| arguments(&row.args(), rest, known))
            .unwrap_or_default(),
    }
}

/// Completions of the argument after the words in `before`.
fn arguments(args: &[Arg], before: &[&str], known: &Known) -> Vec<String> {
    let mut args = args.iter().peekable();
    let mut words = before.iter().peekable();
    while let Some(word) = words.next() {
        let Some(arg) = args.peek() else { return Vec::new() };
        // Only `save` writes `#ID`; a person leaves it out.
        if arg.name == "#id" && !word.starts_with('#') {
            args.next();
        }
        let Some(arg) = args.peek() else { return Vec::new() };
        match (arg.takes, *word) {
            (Takes::Target, "service") if words.peek().is_none() => return known.services.clone(),
            (Takes::Target, "host") if words.peek().is_none() => return values(Takes::Host, known),
            (Takes::Target, "service" | "worker" | "host") => {
                words.next();
                args.next();
            }
            // This argument may be repeated.
            (Takes::ServiceSetting, _) => {}
            (Takes::WorkerSetting, word) if !word.starts_with('/') => {}
            // The path stands behind the settings.
            (Takes::WorkerSetting, _) => {
                args.next();
                args.next();
            }
            (Takes::Command, first) => return help_topics(first),
            _ => {
                args.next();
            }
        }
    }
    if args.peek().is_some_and(|arg| arg.name == "#id") {
        args.next();
    }
    args.next().map(|arg| values(arg.takes, known)).unwrap_or_default()
}

fn values(takes: Takes, known: &Known) -> Vec<String> {
    let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match takes {
        Takes::Words(words) => own(words),
        Takes::Target => {
            let mut all = known.services.clone();
            all.extend(own(&["all", "host", "service", "worker"]) as Vec<String>);
            all
        }
        Takes::Service => known.services.clone(),
        Takes::Host => own(&["localhost"]),
        Takes::Setting => Setting::ALL.iter().map(|s| s.row().name.to_owned()).collect(),
        Takes::ServiceSetting => {
            let names = ServiceSetting::ALL.iter().map(|s| s.row().name);
            let of_workers = WORKER_SETTINGS.iter().map(|row| row.name);
            let names = names.chain([TOPIC_SETTING]).chain(of_workers);
            names.map(|name| format!("{name}=")).collect()
        }
        Takes::WorkerSetting => {
            WORKER_SETTINGS.iter().map(|row| format!("{}=", row.name)).collect()
        }
        Takes::Command => COMMANDS.iter().map(|row| row.first().to_owned()).collect(),
        Takes::Any | Takes::Worker | Takes::Client => Vec::new(),
    }
}

fn help_topics(first: &str) -> Vec<String> {
    help::rows(first).iter().filter_map(|row| row.second()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(line: &str) -> Vec<String> {
        let known = Known { services: vec!["echo".into(), "eat".into()] };
        complete(line, &known).1
    }

    #[test]
    fn commands_and_their_words_are_completed() {
        assert_eq!(after("wor"), ["worker", "workers"]);
        assert_eq!(after("config "), ["events", "group", "host", "service", "worker"]);
        assert_eq!(after("config w"), ["worker"]);
        assert_eq!(after("workers "), ["all", "builtin", "busy", "idle", "lazy"]);
        assert_eq!(after("workers idle "), Vec::<String>::new());
        assert_eq!(after("pause "), ["all", "eat", "echo", "host", "service", "worker"]);
        assert_eq!(after("pause service e"), ["eat", "echo"]);
        assert_eq!(after("send service echo "), ["reinit", "status"]);
        assert_eq!(after("send all re"), ["reinit"]);
        assert_eq!(after("config worker e"), ["eat", "echo"]);
        assert_eq!(after("config worker #3 e"), ["eat", "echo"]);
        assert_eq!(after("config worker echo "), ["localhost"]);
        assert_eq!(after("service 4 e"), ["eat", "echo"]);
        assert_eq!(
            after("config service new ret"),
            ["retry=", "retry_idempotent=", "retry_min=", "retry_percent="]
        );
        assert_eq!(after("config service new retry=1 self"), ["selfstart="]);
        assert_eq!(after("set stal"), ["stall_ms"]);
        assert_eq!(after("help conf"), ["config"]);
        assert_eq!(after("help config w"), ["worker"]);
        assert_eq!(after("nonsense "), Vec::<String>::new());
        assert!(after("").len() > 30);
    }

    #[test]
    fn services_are_known_from_either_form_of_the_answer() {
        let text = "                 service          id\n     eat           3\n      op    1\n";
        assert_eq!(services(text), ["eat", "op"]);
        let json =
            r#"{"services":[{"service":"eat","service_id":3},{"service":"op","service_id":1}]}"#;
        assert_eq!(services(json), ["eat", "op"]);
        assert!(services("").is_empty() && services("{}").is_empty());
    }

    #[test]
    fn the_word_under_the_cursor_is_replaced() {
        assert_eq!(complete("pause  wor", &Known::default()), (7, vec!["worker".to_owned()]));
        assert_eq!(complete("é w", &Known::default()).0, 3);
        assert_eq!(complete("a\u{3000}w", &Known::default()).0, 4);
    }
}
