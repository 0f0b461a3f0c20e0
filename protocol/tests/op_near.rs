//! Tests of the suggestions for unknown commands: what is suggested, and what never is.

use protocol::op::parse::parse;
use protocol::op::spec::Effect;
use protocol::op::table::COMMANDS;

fn said(line: &str) -> String {
    parse(line).expect_err("it is no command").text
}

#[test]
fn a_hint_stands_alone_and_help_stands_between_two_lines_that_say_why() {
    for (line, hint) in [
        ("sevices", "'sevices' is no command; did you mean 'services'? 'help' lists all"),
        ("CLEINTS", "'CLEINTS' is no command; did you mean 'clients'? 'help' lists all"),
        ("sotp echo", "'sotp' is no command; did you mean 'stop'? 'help' lists all"),
        ("hlat", "'hlat' is no command"),
    ] {
        assert!(said(line).starts_with(hint), "{}", said(line));
    }
    let far = said("razmafritz");
    let lines: Vec<&str> = far.lines().collect();
    assert!(lines.len() > 60 && far.contains("abort                    isectd calls abort()"));
    assert_eq!(lines[0], "'razmafritz' is no command");
    let last = lines.last().unwrap();
    assert!(last.starts_with(lines[0]) && last.ends_with("isdclient -c TEXT SERVICE"), "{last}");
}

#[test]
fn words_of_other_systems_are_answered_and_not_guessed_at() {
    for word in
        ["bounce", "top", "ps", "list", "kill", "quit", "remove", "add", "RESPAWN", "hello d"]
    {
        let text = said(word);
        assert!(!text.contains("did you mean") && text.lines().count() == 1, "{text}");
        assert!(text.ends_with("'help' lists all"), "{text}");
    }
    assert!(said("hello d").contains("isdclient -c TEXT SERVICE"));
    for word in ["status", "reload"] {
        assert!(parse(word).is_ok());
    }
}

#[test]
fn nothing_of_danger_is_suggested_for_a_word_that_may_be_another() {
    let dangers: Vec<&str> =
        COMMANDS.iter().filter(|row| row.effect == Effect::Danger).map(|row| row.first()).collect();
    assert!(dangers.contains(&"stop") && dangers.contains(&"halt"));
    for danger in &dangers {
        for at in 0..=danger.len() {
            for letter in 'a'..='z' {
                let (begin, end) = danger.split_at(at);
                let mut words = vec![format!("{begin}{letter}{end}")];
                if let Some(rest) = end.get(1..) {
                    words.push(format!("{begin}{letter}{rest}"));
                    if !rest.is_empty() {
                        words.push(format!("{begin}{rest}"));
                    }
                }
                for word in words {
                    let Err(error) = parse(&word) else { continue };
                    let hint = error.text.split("did you mean '").nth(1).unwrap_or_default();
                    let hint = hint.split('\'').next().unwrap_or_default();
                    assert!(!dangers.contains(&hint), "{word}: {}", error.text);
                }
            }
        }
    }
}

#[test]
fn near_misses_of_every_kind_say_what_was_meant() {
    for (line, part) in [
        ("set stal_ms 5", "did you mean 'stall_ms'?"),
        ("set deadline_ms 5", "it is one of a service: 'config service SERVICE NAME=VALUE'"),
        ("config service echo deadlin_ms=5", "did you mean 'deadline_ms'?"),
        ("config service echo stall_ms=5", "it is one of the broker: 'set NAME VALUE'"),
        ("config sevice echo", "did you mean 'service'?"),
        ("delete wroker 3", "did you mean 'worker'?"),
        ("workers idel", "did you mean 'idle'?"),
        ("send all statsu", "did you mean 'status'?"),
        ("help sevices", "did you mean 'services'?"),
        ("help config servic", "did you mean 'service'?"),
        ("clients 3", "did you mean 'client 3'?"),
        ("hosts alpha", "did you mean 'host alpha'?"),
        ("service", "\nsyntax: service clientid newservice\nsyntax: service name"),
    ] {
        assert!(said(line).contains(part), "{line}: {}", said(line));
    }
}
