//! Tests of the table of commands, and of `help` against the manual chapter, word for word.

use protocol::op::parse::parse;
use protocol::op::spec::{Effect, OpRequest, Takes};
use protocol::op::table::COMMANDS;
use protocol::op::{help, reply};

#[test]
fn names_are_unique_and_the_manuals_rows_come_first() {
    for row in COMMANDS {
        assert_eq!(row.command.row().name, row.name);
        assert_eq!(COMMANDS.iter().filter(|other| other.name == row.name).count(), 1);
    }
    let manual = COMMANDS.iter().take_while(|row| row.manual).count();
    assert!(COMMANDS[manual..].iter().all(|row| !row.manual), "the manual's rows come first");
    let beyond: Vec<&str> = COMMANDS[manual..].iter().map(|row| row.name).collect();
    assert!(beyond.is_sorted(), "{beyond:?}");
}

#[test]
fn every_row_has_texts_and_an_example_that_means_it() {
    for row in COMMANDS {
        let name = row.name;
        assert!(!row.usage.is_empty() && !row.syntax.is_empty(), "{name}");
        assert!(!row.short.is_empty() && !row.short.ends_with('.'), "{name}: short");
        assert!(row.long.ends_with('.') && row.long.len() > 20, "{name}: long");
        assert!(row.usage.starts_with(name), "{name}: usage begins with the name");
        assert!(name.split(' ').count() <= 2, "{name}");
        for arg in row.args() {
            assert!(!arg.text.is_empty() && !arg.text.ends_with('.'), "{name}: {}", arg.name);
            if let Takes::Words(words) = arg.takes {
                assert!(!words.is_empty(), "{name}: {}", arg.name);
            }
        }
        let request = parse(row.example).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(request.command(), row.command, "{name}");
        assert_eq!(parse(&request.to_string()), Ok(request), "{name}");
    }
}

#[test]
fn a_first_word_is_a_command_or_begins_commands_of_two_words() {
    for row in COMMANDS {
        if row.second().is_some() {
            assert!(COMMANDS.iter().all(|other| other.name != row.first()), "{}", row.first());
        }
    }
}

#[test]
fn help_begins_with_the_manuals_help_word_for_word() {
    let golden = include_str!("golden/manual-help.txt");
    assert_eq!(help::manual(), golden);
    let short = help::short();
    let beyond = short.strip_prefix(golden).unwrap_or_default();
    assert!(beyond.starts_with('\n'), "then a blank line and the commands beyond");
    for row in COMMANDS {
        assert!(short.contains(row.syntax), "{}", row.name);
    }
    for line in beyond.lines().filter(|line| !line.is_empty()) {
        assert!(line.len() <= 80 && line.trim_end() == line, "{line:?}");
    }
}

#[test]
fn every_command_is_explained() {
    for row in COMMANDS {
        let text = help::long(row.name).unwrap_or_default();
        assert!(text.starts_with(row.usage) && text.contains(row.example), "{}", row.name);
        for arg in row.args() {
            assert!(text.contains(arg.name), "{}: {}", row.name, arg.name);
        }
        assert!(text.lines().all(|line| line.trim_end() == line), "{}", row.name);
    }
    let config = help::long("config").unwrap_or_default();
    assert!(config.contains("config host") && config.contains("config worker"));
    assert_eq!(help::long("razmafritz"), None);
    assert!(help::long("?").is_some_and(|text| text.starts_with("help")));
}

#[test]
fn the_page_for_the_documents_has_every_command() {
    let page = help::markdown();
    for row in COMMANDS {
        assert!(page.contains(&format!("\n## {}\n", row.name)), "{}", row.name);
    }
    assert!(page.ends_with("`\n") && !page.contains("\n\n\n"));
}

#[test]
fn an_effect_is_what_the_request_does_not_only_its_command() {
    let effect = |line: &str| parse(line).map(|request| request.effect());
    assert_eq!(effect("preempt"), Ok(Effect::Read));
    assert_eq!(effect("preempt off"), Ok(Effect::Change));
    assert_eq!(effect("buckets"), Ok(Effect::Read));
    assert_eq!(effect("poison 3"), Ok(Effect::Read));
    assert_eq!(effect("poison clear"), Ok(Effect::Change));
    assert_eq!(effect("stop all"), Ok(Effect::Danger));
    assert_eq!(effect("config service a retry=1 topic=x"), Ok(Effect::Change));
    assert_eq!(effect("config service a retry=1 cwd="), Ok(Effect::Danger));
    assert_eq!(effect("config worker a b /c cwd=/d"), Ok(Effect::Change));
    assert_eq!(effect("config worker a b cwd=/d /c"), Ok(Effect::Danger));
    assert_eq!(effect("config worker #3 cwd="), Ok(Effect::Danger));
    assert_eq!(effect(""), Ok(Effect::Read));
}

#[test]
fn help_is_an_answer_like_any_other() {
    assert_eq!(help::answer(None).text(), help::short() + "\n");
    assert!(help::answer(Some("pause")).text().starts_with("pause "));
    assert!(matches!(help::answer(None).blocks[..], [reply::Block::Text { name: "help", .. }]));
}

#[test]
fn a_command_is_written_as_the_parser_reads_it() {
    for line in [
        "config worker #3 echo localhost /bin/x -a 'two words' \"it's\" '' '#7'",
        "config service #2 echo deadline_ms=5 selfstart=1",
        "config host h2 unix:/run/x",
        "config host h2 h2.example:5502",
        "config events 5 worker_died",
        "send service echo command:reinit",
        "source '/tmp/a b'",
        "pause worker 7",
        "shutdown 12",
        "set stall_ms=500",
        "help config worker",
    ] {
        let request = parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        let written = request.to_string();
        assert_eq!(parse(&written).as_ref(), Ok(&request), "{written}");
        assert_eq!(parse(&written).map(|again: OpRequest| again.to_string()), Ok(written));
    }
}
