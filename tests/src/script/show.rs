//! Turns an action of the engine into an item of a script. Meanwhile it stores in the world what
//! later lines need: which run was started, which transaction a worker has.

use super::item::Item;
use super::words;
use super::world::{OPERATOR, World};
use broker::engine::action::{Action, BrokerExit};
use protocol::bodies::ErrorBody;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::{LinkId, WorkerId};

impl World {
    /// An action as an item.
    ///
    /// # Errors
    /// It is about a link that is gone.
    pub(super) fn show(&mut self, action: Action) -> Result<Item, String> {
        Ok(match action {
            Action::Send { link, frame } => {
                let name = self.name(link)?;
                self.show_frame(&name, frame)
            }
            Action::Answer { link, head, reply, format } => {
                let name = self.name(link)?;
                let text = reply.render(format);
                let more = if head.more != 0 { " more" } else { "" };
                let prefix =
                    if name == OPERATOR { String::new() } else { format!("{name} answered ") };
                let lines: Vec<String> = text.lines().map(str::to_owned).collect();
                let seq = head.sequence;
                match lines.as_slice() {
                    [only] => Item::new(format!("{prefix}{}{more}", words::quote(only))),
                    _ => Item { text: lines, ..Item::new(format!("{prefix}text{more}")) },
                }
                .with("seq", seq)
                .answering(&name, text)
            }
            Action::Start { link, start } => {
                let host = self.name(link)?;
                let end = self.workers.entry(start.worker.0).or_default();
                end.run = start.run.0;
                end.digest = start.digest;
                end.pid = 0;
                end.has.clear();
                self.services.insert(start.worker.0, start.service.to_string());
                Item::new(format!("start {}#{} at {host}", start.service, start.worker))
                    .with("run", start.run)
                    .with("path", &start.path)
                    .with("args", start.args.join(" "))
                    .with("secret", &start.secret)
            }
            Action::Close { link } => {
                let name = self.name(link)?;
                self.unlink(link);
                Item::new(format!("close {name}"))
            }
            Action::ShutWrite { link } => Item::new(format!("shut {}", self.name(link)?)),
            Action::StopReading { link } => Item::new(format!("stop reading {}", self.name(link)?)),
            Action::ResumeReading { link } => Item::new(format!("read {} again", self.name(link)?)),
            Action::Dial { host, address } => {
                self.dialled.insert(host.to_string());
                Item::new(format!("dial {host}")).with("address", address)
            }
            Action::Persist => Item::new("saved").quiet(),
            Action::Challenge { link, role, target, claim } => {
                Item::new(format!("challenge {} to prove {}", self.name(link)?, claim.token))
                    .with("role", role)
                    .with("target", target)
            }
            Action::Verify { link, proof: _ } => Item::new(format!("verify {}", self.name(link)?)),
            Action::Greet { link, hello } => {
                let name = self.name(link)?;
                self.show_frame(&name, Frame::ExecHello(*hello))
            }
            Action::Prove { link, .. } => Item::new(format!("prove to {}", self.name(link)?)),
            Action::ReadTokens { requester } => {
                self.reloading.extend(requester);
                Item::new("read tokens")
            }
            Action::Source { link, head, path } => {
                let item = Item::new("read file").showing("path", &path, true);
                self.reading = Some((link, head, path));
                item
            }
            Action::Record(fact) => {
                let about = &fact.about;
                let mut item = Item::new(format!("fact {}", fact.kind.row().name)).quiet();
                for (key, value) in [
                    ("client", about.client.map(|id| id.to_string())),
                    ("worker", about.worker.map(|id| id.to_string())),
                    ("service", about.service.as_ref().map(ToString::to_string)),
                    ("host", about.host.as_ref().map(ToString::to_string)),
                    ("trans", about.transaction.map(|id| id.to_string())),
                    ("who", about.who.clone()),
                ] {
                    if let Some(value) = value {
                        item = item.with(key, value);
                    }
                }
                item.saying(&fact.text, false)
            }
            Action::ScriptDone { origin: _, failures } => {
                let item = Item::new("script done").showing("failures", failures.len(), true);
                item.saying(failures.join("\n"), !failures.is_empty())
            }
            Action::End(BrokerExit::Exit(status)) => Item::new(format!("exit {status}")),
            Action::End(BrokerExit::Abort) => Item::new("abort"),
        })
    }

    /// The name at the other end of a link.
    fn name(&self, link: LinkId) -> Result<String, String> {
        self.names
            .get(&link)
            .cloned()
            .ok_or_else(|| format!("law 8: an action for link {link}, which is gone"))
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
                    .with("trace", hex(&head.trace_id))
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
                .with("signature", ok.signature.unwrap_or_default()),
            Frame::Ping { sequence } => {
                Item::new(format!("ping {name}")).with("seq", sequence).quiet()
            }
            Frame::Pong { sequence } => Item::new(format!("pong {name}")).with("seq", sequence),
            Frame::End => Item::new(format!("end {name}")),
            Frame::Reinit => Item::new(format!("reinit {name}")),
            Frame::Status { sequence } => {
                if let Some(end) = worker_id(name).and_then(|id| self.workers.get_mut(&id)) {
                    end.status = sequence;
                }
                Item::new(format!("ask {name} status")).with("seq", sequence)
            }
            Frame::ExecHello(hello) => Item::new(format!("hello {name}"))
                .with("as", hello.host)
                .with("broker", hello.broker),
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
            // The engine never sends these: they are the reactor's (`exec-start`) or the others'.
            Frame::Login(_)
            | Frame::Challenge(_)
            | Frame::Proof(_)
            | Frame::WorkerLogin(_)
            | Frame::Logout
            | Frame::StatusReply { .. }
            | Frame::ExecWelcome(_)
            | Frame::ExecStart(_)
            | Frame::ExecSignal(_)
            | Frame::ExecListed(_)
            | Frame::ExecStarted(_)
            | Frame::ExecFailed(_)
            | Frame::ExecExited(_)
            | Frame::ExecOutput(_) => Item::new(format!("{name} gets {}", frame.kind())),
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
            .with("trace", hex(&head.trace_id))
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
            .with("trans", head.transaction)
            .with("number", error.code.number())
            .with("whose", error.code.row().whose)
            .with("trace", hex(&head.trace_id));
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

/// The id in `echo#1`.
pub(super) fn worker_id(name: &str) -> Option<u32> {
    name.split_once('#')?.1.parse().ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
