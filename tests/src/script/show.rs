//! What a script sees of an action, as an item. Meanwhile it stores in the world what later lines
//! need: which run was started, which transaction a worker has.

use super::item::Item;
use super::words;
use super::world::{Disk, OPERATOR, World};
use crate::shell::{Ask, Deed, Player, TestShell};
use broker::engine::input::Input;
use broker::translate::outbound;
use bytes::Bytes;
use protocol::bodies::ErrorBody;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::{LinkId, WorkerId};
use protocol::messages::{MessageLines, Removed};
use protocol::process::WorkerSettings;

impl Player for World {
    type End = String;

    fn shell(&mut self) -> Option<&mut TestShell<String>> {
        Some(&mut self.shell)
    }

    fn broken(&mut self, law: String) {
        self.broken.get_or_insert(law);
    }

    fn sees(&mut self, link: Option<LinkId>, mut item: Item) {
        if let Some(link) = link {
            item.head = item.head.replace("{}", self.name(link));
        }
        self.items.push(item);
    }

    fn does(&mut self, deed: Deed) {
        match deed {
            Deed::Send(link, frame) => self.sent(link, frame),
            Deed::Answer(link, head, reply, format) => {
                let text = outbound::render(&reply, format);
                let text = String::from_utf8_lossy(&text);
                let item = self.show_answer(self.name(link), &head, &text);
                self.items.push(item);
            }
            Deed::Ask(Ask::Store(number)) if !matches!(self.disk, Disk::Stalls) => {
                self.shell.push(Input::Stored { number, result: self.disk.result() });
            }
            Deed::Ask(ask) => self.shell.asked.push_back(ask),
            Deed::Record(fact) => self.items.push(Item::fact(&fact)),
            // The shell has shown it, and the script says what follows.
            Deed::Close(_) | Deed::Shut(_) | Deed::HalfClose(_) | Deed::Read(..) => {}
            Deed::ScriptDone(..) | Deed::End(_) => {}
        }
    }
}

impl World {
    /// The name at the other end of a link.
    fn name(&self, link: LinkId) -> &str {
        self.shell.ends.get(&link).map_or("?", String::as_str)
    }

    /// Pings are answered, except by peers marked silent.
    fn sent(&mut self, link: LinkId, frame: Frame) {
        let name = self.name(link).to_owned();
        match &frame {
            Frame::ExecStart(start) => {
                let end = self.workers.entry(start.worker.0).or_default();
                (end.run, end.digest, end.pid) = (start.run.0, start.digest, 0);
                end.has.clear();
                self.services.insert(start.worker.0, start.service.to_string());
                if let Some(process) = &start.process {
                    let process = (**process).clone();
                    let settings = WorkerSettings { process, ..WorkerSettings::default() };
                    let words = settings.changes().into_iter().map(|change| format!("{change:#}"));
                    let words = words.collect::<Vec<_>>().join(" ");
                    let head = format!("settings {}#{}", start.service, start.worker);
                    self.items.push(Item::new(head).saying(words, true));
                }
                return;
            }
            Frame::Ping { .. } if !self.silent.contains(&name) => {
                self.shell.push(Input::Pong { link });
            }
            _ => {}
        }
        let item = self.show_frame(&name, frame);
        self.items.push(item);
    }

    fn show_answer(&self, name: &str, head: &Header, text: &str) -> Item {
        let more = if head.more != 0 { " more" } else { "" };
        let prefix = if name == OPERATOR { String::new() } else { format!("{name} answered ") };
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let item = match lines.as_slice() {
            [only] => Item::new(format!("{prefix}{}{more}", words::quote(only))),
            _ => Item { text: lines, ..Item::new(format!("{prefix}text{more}")) },
        };
        item.with("seq", head.sequence).answering(name, text)
    }

    /// The script's name of a worker.
    fn worker_name(&self, id: WorkerId) -> String {
        let service = self.services.get(&id.0).map_or("?", String::as_str);
        format!("{service}#{id}")
    }

    fn show_frame(&mut self, name: &str, frame: Frame) -> Item {
        match frame {
            Frame::Data { head, body } if name.contains('#') => {
                self.show_request(name, &head, &body)
            }
            Frame::Data { head, body } => {
                if let Some(end) = self.clients.get_mut(name) {
                    end.with = head.workerid;
                }
                let more = if head.more != 0 { " more" } else { "" };
                Item::new(format!("{name} gets {}{more}", words::body(&body)))
                    .showing("error", head.error, head.error != 0)
                    .showing("seq", head.sequence, self.has_many(name))
                    .with("worker", head.workerid)
                    .with("trans", head.transaction)
                    .with("trace", hex::encode(head.trace_id))
                    .with("span", head.span_id)
            }
            Frame::Error { head, error } => self.show_error(name, &head, &error),
            Frame::LoginOk(ok) => Item::new(format!("{name} welcome"))
                .with("id", ok.client)
                .with("body_bytes_max", ok.body_bytes_max)
                .with("requests_max", ok.requests_max)
                .with("deadline_ms", ok.deadline_ms)
                .with("heartbeat_ms", ok.heartbeat_ms)
                .with("silence_ms", ok.silence_ms)
                .with("version", ok.version)
                .with("signature", ok.signature.unwrap_or_default()),
            Frame::WorkerLoginOk(ok) => Item::new(format!("{name} welcome"))
                .with("id", ok.worker)
                .with("body_bytes_max", ok.body_bytes_max)
                .with("heartbeat_ms", ok.heartbeat_ms)
                .with("silence_ms", ok.silence_ms)
                .with("reconnect_ms", ok.reconnect_ms)
                .showing("concurrency", ok.concurrency, ok.concurrency > 1)
                .with("signature", ok.signature.unwrap_or_default()),
            Frame::Ping { sequence } => {
                Item::new(format!("ping {name}")).with("seq", sequence).quiet()
            }
            Frame::Pong { sequence } => Item::new(format!("pong {name}")).with("seq", sequence),
            Frame::Cancel { head, text } => Item::new(format!("cancel {name}"))
                .with("trans", head.transaction)
                .showing("error", head.error, true)
                .with("seq", head.sequence)
                .saying(text, false),
            Frame::Flushed(flushed) => Item::new(format!("{name} flushed"))
                .showing("refused", flushed.refused, flushed.refused > 0)
                .with("seq", flushed.flush),
            Frame::Subscribed(it) => Item::new(format!("{name} subscribed {}", it.subscription))
                .showing(
                    "missing",
                    it.missing.map(|m| m.to_string().replace(' ', "-")).unwrap_or_default(),
                    it.missing.is_some(),
                )
                .with("at", it.at.number)
                .with("epoch", it.at.epoch),
            Frame::Unsubscribed(it) => {
                Item::new(format!("{name} unsubscribed {}", it.subscription))
                    .showing("dropped", it.dropped, it.dropped > 0)
                    .with("delivered", it.delivered)
            }
            Frame::Published(it) => Item::new(format!("{name} published"))
                .showing("subscriptions", it.subscriptions, true)
                .with("seq", it.publish)
                .with("at", it.at.number),
            Frame::Message { head, body } => show_message(name, &head, &body),
            Frame::CaughtUp(it) => Item::new(format!("{name} caught-up {}", it.subscription))
                .showing("dropped", it.dropped, it.dropped > 0)
                .with("kept", it.kept),
            Frame::Announced(it) => Item::new(format!("{name} announced"))
                .showing("displaced", "yes", it.displaced)
                .with("id", it.id)
                .with("incarnation", it.incarnation)
                .with("beat_ms", it.beat_ms)
                .with("activity_timeout_ms", it.activity_timeout_ms)
                .with("seq", it.sequence),
            Frame::BeatOk(it) => {
                let unknown: Vec<String> = it.unknown.iter().map(u64::to_string).collect();
                Item::new(format!("{name} beat-ok"))
                    .showing("unknown", unknown.join(","), !unknown.is_empty())
                    .with("beat", it.beat)
            }
            Frame::End => Item::new(format!("end {name}")),
            Frame::Reinit => Item::new(format!("reinit {name}")),
            Frame::Status { sequence } => {
                if let Some(end) = worker_id(name).and_then(|id| self.workers.get_mut(&id)) {
                    end.status = sequence;
                }
                Item::new(format!("ask {name} status")).with("seq", sequence)
            }
            Frame::ExecHello(hello) => {
                let token = hello.token.map(|claim| claim.token.to_string());
                Item::new(format!("hello {name}"))
                    .showing("token", token.as_deref().unwrap_or_default(), token.is_some())
                    .with("as", hello.host)
                    .with("broker", hello.broker)
            }
            Frame::ExecList => Item::new(format!("list {name}")),
            Frame::ExecStop(stop) => {
                Item::new(format!("stop {} at {name}", self.worker_name(stop.worker)))
                    .showing("grace", format!("{}ms", stop.grace_ms), true)
                    .with("run", stop.run)
            }
            Frame::ExecEnd(end) => Item::new(format!("end {name}")).showing(
                "grace",
                format!("{}ms", end.grace_ms),
                true,
            ),
            Frame::ExecRead(read) => {
                self.workers.entry(read.worker.0).or_default().read = read.request;
                Item::new(format!("read {name}"))
                    .with("worker", read.worker)
                    .with("lines", read.lines)
            }
            // The engine never sends these: they are the reactor's (`exec-start`) or the others'.
            Frame::Login(_)
            | Frame::Challenge(_)
            | Frame::Proof(_)
            | Frame::WorkerLogin(_)
            | Frame::Logout(_)
            | Frame::Flush { .. }
            | Frame::Subscribe(_)
            | Frame::Unsubscribe(_)
            | Frame::Publish { .. }
            | Frame::Announce(_)
            | Frame::StateChange(_)
            | Frame::Beat(_)
            | Frame::Withdraw(_)
            | Frame::StatusReply { .. }
            | Frame::ExecWelcome(_)
            | Frame::ExecStart(_)
            | Frame::ExecSignal(_)
            | Frame::ExecListed(_)
            | Frame::ExecStarted(_)
            | Frame::ExecFailed(_)
            | Frame::ExecExited(_)
            | Frame::ExecOutput(_)
            | Frame::ExecLines(_)
            | Frame::ExecMemory(_) => Item::new(format!("{name} gets {}", frame.kind())),
        }
    }

    fn show_request(&mut self, name: &str, head: &Header, body: &[u8]) -> Item {
        if let Some(end) = worker_id(name).and_then(|id| self.workers.get_mut(&id))
            && !end.has.contains(&head.transaction)
        {
            end.has.push_back(head.transaction);
        }
        let more = if head.more != 0 { " more" } else { "" };
        Item::new(format!("{name} gets {}{more}", words::body(body)))
            .showing("attempt", head.attempt, head.attempt > 1)
            .with("seq", head.sequence)
            .with("trans", head.transaction)
            .with("pri", head.priority)
            .with("left", format!("{}ms", head.deadline_ms))
            .with("reply", head.reply)
            .with("worker", head.workerid)
            .with("idempotent", if head.is_idempotent() { "yes" } else { "no" })
            .with("trace", hex::encode(head.trace_id))
            .with("span", head.span_id)
    }

    fn show_error(&self, name: &str, head: &Header, error: &ErrorBody) -> Item {
        let is_operator = name == OPERATOR;
        let head_text = if head.sequence == 0 {
            format!("{name} refused {}", error.code)
        } else if name.contains('#') {
            format!("{name} told {}", error.code)
        } else if is_operator {
            format!("error {}", error.code)
        } else {
            format!("{name} error {}", error.code)
        };
        let mut item = Item::new(head_text)
            .showing("ran", error.ran, !is_operator && head.sequence != 0)
            .showing("seq", head.sequence, !is_operator && self.has_many(name))
            .showing("retry_after", error.retry_after_ms, error.retry_after_ms > 0)
            .with("trans", head.transaction)
            .with("number", error.code.number())
            .with("whose", error.code.row().whose)
            .with("trace", hex::encode(head.trace_id));
        if error.code == ErrorCode::Intervention {
            item = item.with("body", String::from_utf8_lossy(&error.render()));
        }
        item.saying(&error.text, is_operator).answering(name, format!("{error}\n"))
    }

    /// Whether a client has used several sequences, so that an answer should say which it is about.
    fn has_many(&self, name: &str) -> bool {
        self.clients.get(name).is_some_and(|end| end.used.len() > 1)
    }
}

/// A message of a topic: which subscription, the topic, the payload, and what its lines say.
fn show_message(name: &str, head: &Header, body: &Bytes) -> Item {
    let Ok(message) = MessageLines::read(body) else {
        return Item::new(format!("{name} gets a message that is none"));
    };
    let kept = if head.more != 0 { " kept" } else { "" };
    if message.topic.starts_with("isect.state.") {
        let item = Item::new(format!("{name} message {} {}{kept}", head.sequence, message.topic));
        let lines = String::from_utf8_lossy(&body[message.payload_at..]);
        return show_state(item, &lines).with("at", head.transaction);
    }
    let payload = words::body(&body[message.payload_at..]);
    Item::new(format!("{name} message {} {} {payload}{kept}", head.sequence, message.topic))
        .showing("dropped", head.attempt, head.attempt > 0)
        .showing("removed", message.removed.map_or("", Removed::word), message.removed.is_some())
        .with("at", head.transaction)
        .with("retain", message.retain.word())
}

/// The keys of messages about states, and whether they are written unasked.
const STATE_KEYS: &[(&str, bool)] = &[
    ("name", false),
    ("id", true),
    ("incarnation", false),
    ("group", false),
    ("state", true),
    ("state_name", true),
    ("was", true),
    ("text", true),
    ("checkpoint", false),
    ("stalled", true),
    ("reason", true),
    ("joined", true),
    ("min", true),
    ("error", true),
    ("expected", true),
];

/// What a message says of the state of an instance or a group.
fn show_state(item: Item, lines: &str) -> Item {
    let pairs = lines.lines().map(|line| line.split_once(' ').unwrap_or((line, "")));
    pairs.fold(item, |item, (key, value)| {
        match STATE_KEYS.iter().find(|(known, _)| *known == key) {
            Some(&(key, is_shown)) => item.showing(key, value, is_shown),
            None => item.showing("unknown", key, true),
        }
    })
}

/// The id in `echo#1`.
pub(super) fn worker_id(name: &str) -> Option<u32> {
    name.split_once('#')?.1.parse().ok()
}
