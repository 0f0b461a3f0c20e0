//! TABLE of command words of other systems, each with a sentence that names the command of isect.
//! It is read before a similar command is suggested: whoever types `respawn` does not mean `reset`.

/// Each row: words, and the sentence that answers them.
pub(super) const FOREIGN: &[(&[&str], &str)] = &[
    (
        &["bounce", "cycle", "respawn", "roll", "rollout"],
        "'restart NAME' replaces the processes of a service, one after another",
    ),
    (
        &["top", "ps", "jobs", "tasks", "htop", "processes"],
        "'workers' shows the workers and what they do, 'load' what each service has to do",
    ),
    (
        &["list", "ls", "dir", "show", "get", "describe", "inspect", "view"],
        "'services', 'workers', 'clients' and 'hosts' list what there is; 'service NAME', \
         'worker ID', 'client ID' and 'host NAME' show one",
    ),
    (
        &["kill", "terminate", "signal", "term", "abend"],
        "'stop ID' ends a worker, 'idle ID' takes its request away, 'delete client ID' ends a \
         connection, 'cancel ID' gives up one request",
    ),
    (
        &["quit", "exit", "logout", "bye", "q", "close", "disconnect"],
        "the connection ends with Ctrl-D, or 'exit' at the prompt; the broker goes on",
    ),
    (
        &["remove", "rm", "del", "destroy", "drop", "unregister", "erase"],
        "'delete service NAME', 'delete worker ID', 'delete client ID' and 'delete host NAME' \
         remove one",
    ),
    (
        &["add", "create", "new", "make", "register", "define", "mk"],
        "'config service NAME', 'config worker SERVICE HOST PATH' and 'config host NAME ADDRESS' \
         make one",
    ),
    (
        &["info", "stats", "statistics", "metrics", "health", "monitor", "uptime"],
        "'status' is the broker's page; 'load' and 'latency' are those of the services",
    ),
    (
        &["log", "tail", "journal", "history", "events"],
        "'listevents' lists what happened, 'watch' follows it; 'logs' shows what workers wrote",
    ),
    (&["spawn", "fork"], "'clone ID' makes one worker more, 'delete worker ID' removes one"),
    (
        &["enable", "resume", "continue", "unpause", "disable", "suspend", "hold"],
        "'pause NAME' holds a service or worker, 'ready NAME' lets it go on",
    ),
    (
        &["edit", "modify", "update", "change", "configure", "alter", "unset"],
        "'config service NAME SETTING=VALUE' changes a service, 'set NAME VALUE' the broker",
    ),
    (
        &["connect", "login", "open", "use", "ping", "hello", "hi", "echo"],
        "this is the broker's own service; to send something to another one, name it: \
         isdclient -c TEXT SERVICE",
    ),
    (
        &["dump", "export", "backup", "print", "write", "import", "restore"],
        "'save' prints the configuration as a script, 'source FILE' runs one",
    ),
    (
        &["transactions", "messages", "queues", "backlog"],
        "'requests' lists the requests under way, 'queue' those that wait and why",
    ),
    (
        &["subs", "subscribers", "retained", "values", "bus", "publish", "subscribe"],
        "'subscriptions' lists who gets which messages, 'topics' what is kept of them",
    ),
    (
        &["trace", "explain", "timeline", "track", "diagnose", "where"],
        "'why TRANSACTION' shows what became of a request, 'requests' lists those under way",
    ),
    (&["users", "sessions", "connections", "who", "peers"], "'clients' lists who is connected"),
    (&["nodes", "machines", "servers", "agents"], "'hosts' lists the machines with workers"),
    (&["man", "usage", "commands", "h"], "'help' explains the commands"),
    (
        &["reboot", "poweroff", "down"],
        "'halt' ends the broker; what starts it again is your service manager",
    ),
    (&["run", "exec", "execute", "launch", "up"], "'start NAME' starts the workers of a service"),
    (&["refresh", "rehash", "hup"], "'reload' reads tokens and certificates again"),
];

/// The sentence for this word, if the table has it.
pub(super) fn answer(word: &str) -> Option<&'static str> {
    let word = word.to_lowercase();
    FOREIGN.iter().find(|(words, _)| words.contains(&word.as_str())).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::table::COMMANDS;

    #[test]
    fn no_word_is_answered_twice_or_is_a_command() {
        let all: Vec<&str> = FOREIGN.iter().flat_map(|(words, _)| words.iter().copied()).collect();
        for word in &all {
            assert_eq!(all.iter().filter(|other| *other == word).count(), 1, "{word}");
            assert!(COMMANDS.iter().all(|row| row.first() != *word), "{word}");
        }
    }
}
