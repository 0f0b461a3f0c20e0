//! Parses the left side of a script line: who does what. Time, the broker, the operator and
//! `service …` are here; clients, workers and hosts are in `clients`, `workers`, `hosts`.

use super::words::{self, Cursor};
use super::world::{Disk, OPERATOR, World};
use crate::shell::Ask;
use broker::engine::builtin;
use broker::engine::input::Input;
use broker::engine::origin::Origin;
use protocol::settings::{Setting, Settings};
use protocol::time::Wall;

/// The words a line may begin with.
const SUBJECTS: &str = "'+TIME', 'op COMMAND', 'broker …', 'service NAME …', a client (c1), \
a worker (echo#1), a host (h1)";

impl World {
    /// Carries out a line.
    ///
    /// # Errors
    /// The line makes no sense (which word, and what would), or the engine broke a law.
    pub(super) fn act(&mut self, stimulus: &str) -> Result<(), String> {
        if let Some(time) = stimulus.strip_prefix('+') {
            return self.wait(micros(time)?);
        }
        if let Some(command) = stimulus.strip_prefix("op ") {
            if !self.is_connected(OPERATOR) {
                self.operator(OPERATOR, protocol::bodies::Format::Text)?;
            }
            return match Cursor::new(command).ok().and_then(|mut c| {
                let text = c.quoted()?;
                c.end("").ok().map(|()| text)
            }) {
                Some(bytes) => self.command(OPERATOR, bytes),
                None => self.command(OPERATOR, command.as_bytes().to_vec()),
            };
        }
        let mut line = Cursor::new(stimulus)?;
        let subject = line.word(SUBJECTS)?;
        match subject.as_str() {
            "broker" => self.act_broker(&mut line),
            "service" => self.act_service(&mut line),
            name if name.contains('#') => self.act_worker(name, &mut line),
            name if is_client(name) => self.act_client(name, &mut line),
            name if is_host(name) => self.act_host(name, &mut line),
            other => Err(format!("unknown word '{other}'; a line begins with {SUBJECTS}")),
        }
    }

    fn act_broker(&mut self, line: &mut Cursor) -> Result<(), String> {
        const KNOWN: &str = "starts [without execd] [builtin NAME] [SETTING=VALUE], restarts, loads \"SCRIPT\", \
reads \"SCRIPT\", cannot read \"WHY\", cannot save \"WHY\", \
stalls saving, saves the first, saves again, has tokens \"NAME ROLE…; …\", lacks tokens \"WHY\", \
has certificates [\"READ; …\"] [lost=\"WHY; …\"] [expiring=\"WHAT; …\"] [without tokens], \
clock EPOCH_MS [east=MINUTES], gets SIGNAL, oversleeps TIME, stands still TIME";
        let verb = line.word(KNOWN)?;
        match verb.as_str() {
            "starts" => {
                let mut settings = Settings::default();
                for (name, value) in line.pairs() {
                    let setting = Setting::named(&name)
                        .ok_or_else(|| format!("no setting is called '{name}'"))?;
                    settings.set(setting, setting.check(&value).map_err(|e| e.to_string())?);
                }
                let has_execd = !(line.flag("without") && line.flag("execd"));
                let builtin = line.after("builtin").map(|name| {
                    let row = builtin::row_of(&name).map(|row| row.name);
                    row.ok_or_else(|| format!("no service called '{name}' is built in"))
                });
                let builtin = builtin.transpose()?.into_iter().collect();
                *self = Self::bare(settings, has_execd, builtin)?;
            }
            "restarts" => self.restart()?,
            "stands" if line.is("still") => {
                let time = line.word("a time, like 10s")?;
                self.stand_still(micros(&time)?)?;
            }
            "loads" => {
                let text = line.quoted().unwrap_or_default();
                let text = String::from_utf8_lossy(&text).into_owned();
                let origin = line.pair("from").map_or(Origin::State, Origin::File);
                self.step(Input::Script { origin, text })?;
            }
            "reads" | "cannot" => {
                if verb == "cannot" && line.is("save") {
                    return self.disk_is(Disk::Fails(text(line)));
                }
                line.is("read");
                let ask = self.shell.take_asked(|ask| matches!(ask, Ask::File(..)));
                let Some(Ask::File(link, head, path)) = ask else {
                    return Err("no 'op source FILE' waits for a file".into());
                };
                let script = if verb == "reads" { Ok(text(line)) } else { Err(text(line)) };
                self.step(Input::Sourced { link, head, path, script })?;
            }
            "stalls" if line.is("saving") => self.disk_is(Disk::Stalls)?,
            "saves" if line.is("again") => self.disk_is(Disk::Works)?,
            "saves" if line.is("the") => {
                line.is("first");
                let first = self.shell.take_asked(|ask| matches!(ask, Ask::Store(_)));
                let Some(Ask::Store(number)) = first else {
                    return Err("nothing waits to be saved".into());
                };
                self.step(Input::Stored { number, result: Ok(()) })?;
            }
            "has" if line.is("certificates") => self.act_certificates(line)?,
            "has" => self.act_tokens(true, line)?,
            "lacks" => self.act_tokens(false, line)?,
            "clock" => {
                let epoch_ms = line.word("milliseconds since 1970")?;
                let epoch_ms = epoch_ms.parse().map_err(|e| format!("clock {epoch_ms}: {e}"))?;
                let minutes = line.number::<i32>("east")?.unwrap_or(0);
                let wall = Wall { epoch_ms, offset_secs: minutes * 60 };
                self.step(Input::Clock { wall })?;
            }
            "oversleeps" => {
                let time = line.word("how long, as 1200ms")?;
                self.oversleep(micros(&time)?);
            }
            "gets" => {
                let signal = match line.word("TERM or INT")?.as_str() {
                    "TERM" => "TERM",
                    "INT" => "INT",
                    other => return Err(format!("unknown signal '{other}'; TERM or INT")),
                };
                self.step(Input::Terminate { signal })?;
            }
            other => return Err(unknown(other, "broker", KNOWN)),
        }
        line.end(KNOWN)
    }

    /// `service echo [SETTING=VALUE]… [has N workers [on HOST]]`: configured, started and ready.
    fn act_service(&mut self, line: &mut Cursor) -> Result<(), String> {
        const KNOWN: &str = "[SETTING=VALUE]… [has N [lazy] workers [on HOST] [takes=N] [cancel]]";
        let name = line.word("the service's name")?;
        let host = line.after("on").unwrap_or_else(|| "localhost".to_owned());
        let is_lazy = line.flag("lazy");
        let takes: u32 = line.number("takes")?.unwrap_or(0);
        let hears_cancel = line.flag("cancel");
        let count: u32 = match line.after("has") {
            None => 0,
            Some(count) => count.parse().map_err(|_| format!("'{count}' is no number"))?,
        };
        line.flag("workers");
        line.flag("worker");
        let settings: String =
            line.pairs().iter().map(|(key, value)| format!(" {key}={value}")).collect();
        line.end(KNOWN)?;
        self.setup(&format!("config service {name}{settings}"))?;
        let before: Vec<u32> = self.shell.engine.workers_view().iter().map(|w| w.id.0).collect();
        for _ in 0..count {
            self.setup(&format!("config worker {name} {host} /bin/{name}"))?;
        }
        let fresh: Vec<u32> = self
            .shell
            .engine
            .workers_view()
            .iter()
            .map(|w| w.id.0)
            .filter(|id| !before.contains(id))
            .collect();
        for id in fresh.into_iter().filter(|_| !is_lazy) {
            self.setup(&format!("start {id}"))?;
            let worker = format!("{name}#{id}");
            let end = self.workers.entry(id).or_default();
            (end.concurrency, end.hears_cancel) = (takes, hears_cancel);
            self.started(&worker, None)?;
            self.worker_login(&worker, None, true)?;
        }
        Ok(())
    }

    /// The disk is like this from now on. What waits to be written is written by it.
    fn disk_is(&mut self, disk: Disk) -> Result<(), String> {
        self.disk = disk;
        let mut number = None;
        while let Some(Ask::Store(next)) = self.shell.take_asked(|ask| matches!(ask, Ask::Store(_)))
        {
            number = Some(next);
        }
        let result = self.disk.result();
        number.map_or(Ok(()), |number| self.step(Input::Stored { number, result }))
    }

    /// An operator command that must succeed.
    fn setup(&mut self, command: &str) -> Result<(), String> {
        self.look();
        self.command(OPERATOR, command.as_bytes().to_vec())?;
        let failed = self.look().into_iter().find(|item| item.head.starts_with("error "));
        failed.map_or(Ok(()), |item| Err(format!("'{command}': {}", item.in_full())))
    }
}

/// The text in quotation marks, or nothing.
pub(super) fn text(line: &mut Cursor) -> String {
    String::from_utf8_lossy(&line.quoted().unwrap_or_default()).into_owned()
}

/// The error about a verb that does not exist.
pub(super) fn unknown(word: &str, subject: &str, known: &str) -> String {
    let near = protocol::op::parse::nearest(word, known.split([' ', ',', '[', ']', '|']));
    let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
    format!("unknown word {}{hint}; after '{subject}' stands: {known}", words::quote(word))
}

/// `c1`, `c23`.
fn is_client(name: &str) -> bool {
    name.strip_prefix('c').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// `h1`, `localhost`.
fn is_host(name: &str) -> bool {
    let is_numbered = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
    name == "localhost" || name.strip_prefix('h').is_some_and(is_numbered)
}

/// `1000ms`, `5s`, `2m`, `1h`, `250us` as microseconds.
fn micros(time: &str) -> Result<u64, String> {
    let bad = || format!("'+{time}' is no time; write +250us, +1000ms, +5s, +2m or +1h");
    let at = time.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let count: u64 = time[..at].parse().map_err(|_| bad())?;
    let unit = match &time[at..] {
        "us" => 1,
        "ms" => 1000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return Err(bad()),
    };
    Ok(count * unit)
}
