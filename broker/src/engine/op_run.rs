//! Runs the commands of operators, from clients of `op` and from scripts, and answers them.
//! `op_read` and `op_show` make what commands show; `op_change` and `op_config` carry out changes.

use super::action::{Action, Origin};
use super::clients::Watch;
use super::fact::{About, FACTS, Fact, FactKind};
use super::keys::ClientKey;
use super::links::End;
use super::op_read::counted;
use super::save::set_unsaved;
use super::{Engine, Out};
use bytes::Bytes;
use protocol::bodies::{ErrorBody, Format};
use protocol::errors::ErrorCode;
use protocol::header::Header;
use protocol::ids::LinkId;
use protocol::op::help;
use protocol::op::parse::{self, OpError};
use protocol::op::reply::{Block, OpReply, Value};
use protocol::op::spec::{Effect, OpRequest, SendWhat};
use protocol::settings::Setting;

/// The answer to a command, or the error that is sent in its place.
pub(crate) type OpResult = Result<OpReply, OpError>;

/// The error for a command that can't be carried out now.
pub(crate) fn refused(text: impl Into<String>) -> OpError {
    OpError { code: ErrorCode::Refused, text: text.into() }
}

/// The error for a command that names something that does not exist.
pub(crate) fn not_found(text: impl Into<String>) -> OpError {
    OpError { code: ErrorCode::NotFound, text: text.into() }
}

impl Engine {
    /// Handles a data frame for `op`. A command is one frame: a command in pieces is refused,
    /// because a part of it may read as another command.
    pub(crate) fn on_command(
        &mut self,
        client: ClientKey,
        head: Header,
        body: &Bytes,
        out: Out<'_>,
    ) {
        if head.more == 0 {
            self.on_op(client, head, body, out);
        } else if self.may_come_in_pieces(client, out) {
            self.clients[client].discard_rest(head.sequence, self.now);
            let text = "a command comes in one frame; this one has more = 1, and is dropped up to \
                        the frame with more = 0";
            let link = self.clients[client].link;
            self.answer_error(link, &head, ErrorBody::new(ErrorCode::Usage, text), out);
        }
    }

    /// Runs one command of a client, if the client has the rights for it, and answers it now or
    /// later.
    fn on_op(&mut self, client: ClientKey, head: Header, body: &Bytes, out: Out<'_>) {
        let link = self.clients[client].link;
        let origin = self.origin_of(client);
        let request = parse::parse_bytes(body);
        let asked = request.as_ref().ok().map(OpRequest::command);
        let answer = match request {
            Err(error) => Err(error),
            Ok(request) if !self.rights_of(&self.clients[client].peer).may(request.effect()) => {
                self.not_allowed(client, &request, out)
            }
            Ok(OpRequest::Whoami) => Ok(self.show_whoami(client)),
            Ok(OpRequest::Reload) => {
                out.push(Action::ReadTokens { requester: Some((link, head)) });
                return;
            }
            Ok(list @ (OpRequest::Clients | OpRequest::Workers(_) | OpRequest::Queue(_))) => {
                match self.list(link, head, &list) {
                    Some(answer) => answer,
                    None => return,
                }
            }
            Ok(OpRequest::Watch(kinds)) => self.watch(client, &head, &kinds),
            Ok(OpRequest::Source(path)) => {
                out.push(Action::Source { link, head, path });
                return;
            }
            Ok(OpRequest::Send(target, SendWhat::Status)) => {
                match self.ask_status(client, head, &target, out) {
                    Ok(None) => return,
                    Ok(Some(reply)) => Ok(reply),
                    Err(error) => Err(error),
                }
            }
            Ok(request) => self.run_recorded(&origin, request, out),
        };
        let answer = answer.map(|reply| match asked {
            Some(command) => reply.complete(command),
            None => reply,
        });
        // `halt` and `delete client` may have closed the client that asked.
        if self.links.get(link).is_some() {
            self.answer(client, &head, answer, out);
        }
    }

    /// Runs one command; a change that is refused is recorded like one that is made. The answer
    /// says if the configuration can't be saved.
    fn run_recorded(&mut self, origin: &Origin, request: OpRequest, out: Out<'_>) -> OpResult {
        if request.effect() == Effect::Read {
            return self.run(origin, request, out);
        }
        let command = request.to_string();
        let mut answer = self.run(origin, request, out);
        if let (Ok(reply), Some(why)) = (&mut answer, &self.unsaved) {
            set_unsaved(reply, Some(why));
        }
        if let Err(error) = &answer {
            let about = About { who: Some(Self::who(origin)), ..About::default() };
            let first = error.text.lines().next().unwrap_or_default();
            self.record(FactKind::Refused, about, format!("{command}: {first}"), out);
        }
        answer
    }

    /// The origin of a client's commands, for facts.
    pub(crate) fn origin_of(&self, client: ClientKey) -> Origin {
        let client = &self.clients[client];
        let from = format!("{} pid {} at {}", client.loghost, client.hostpid, client.peer.address);
        let (uid, token) = (client.peer.uid, client.peer.token.clone());
        Origin::Operator { client: client.id, from, uid, token }
    }

    /// Sends a client of `op` the answer to a command, or the error.
    pub(crate) fn answer(
        &mut self,
        client: ClientKey,
        head: &Header,
        answer: OpResult,
        out: Out<'_>,
    ) {
        let client = &self.clients[client];
        let link = client.link;
        match answer {
            Ok(reply) if head.reply != 0 => {
                let is_watch =
                    client.watch.as_ref().is_some_and(|watch| watch.sequence == head.sequence);
                let head = Header {
                    sequence: head.sequence,
                    more: u16::from(is_watch),
                    ..Header::default()
                };
                out.push(Action::Answer {
                    link,
                    head,
                    reply: Box::new(reply),
                    format: client.format,
                });
            }
            Ok(_) => {}
            Err(error) => {
                self.answer_error(link, head, ErrorBody::new(error.code, error.text), out)
            }
        }
    }

    /// Runs one command. Commands whose answer comes later or goes to one connection (`watch`,
    /// `source`, `send … status`, `whoami`, `reload`) are refused here, as no script may have them.
    fn run(&mut self, origin: &Origin, request: OpRequest, out: Out<'_>) -> OpResult {
        match request {
            OpRequest::Status => Ok(self.show_status()),
            OpRequest::Help(topic) => Ok(help::answer(topic.as_deref())),
            OpRequest::Client(id) => self.show_client(id),
            OpRequest::Clients | OpRequest::Queue(_) | OpRequest::Workers(_) => {
                self.list_whole(&request)
            }
            OpRequest::Host(name) => self.show_host(&name),
            OpRequest::Hosts => Ok(self.show_hosts()),
            OpRequest::Last(id) => self.show_last(id),
            OpRequest::Load(service) => self.show_load(service.as_ref()),
            OpRequest::Latency(service) => self.show_latency(service.as_ref()),
            OpRequest::ListEvents(count) => Ok(self.show_events(count)),
            OpRequest::Poison(what) => self.run_poison(origin, what, out),
            OpRequest::Save => {
                Ok(OpReply::block(Block::Text { name: "script", text: self.save_script() }))
            }
            OpRequest::Services => Ok(self.show_services()),
            OpRequest::Settings(of) => self.show_settings(&of),
            OpRequest::ServicePage(name) => self.show_service(&name),
            OpRequest::Version => Ok(self.show_version()),
            OpRequest::Worker(id) => self.show_worker(id),
            OpRequest::Abort => Ok(self.abort(origin, out)),
            OpRequest::Halt => Ok(self.halt(origin, out)),
            OpRequest::Block(id) => self.change_blocked(origin, id, true, out),
            OpRequest::Unblock(id) => self.change_blocked(origin, id, false, out),
            OpRequest::Buckets(size) => Ok(self.change_buckets(origin, size, out)),
            OpRequest::Clone(id) => self.clone_worker(origin, id, out),
            OpRequest::ConfigService { id, name, settings } => {
                self.config_service(origin, (id, name), &settings, out)
            }
            OpRequest::ConfigWorker { id, service, host, path, args } => {
                self.config_worker(origin, id, (service, host), (path, args), out)
            }
            OpRequest::ConfigHost { name, address } => {
                self.config_host(origin, &name, &address, out)
            }
            OpRequest::ConfigEvents { count, kinds } => {
                self.config_events(origin, count, &kinds, out)
            }
            OpRequest::DeleteWorker(id) => self.delete_worker(origin, id, out),
            OpRequest::DeleteClient(id) => self.delete_client_command(origin, id, out),
            OpRequest::DeleteService(name) => self.delete_service(origin, &name, out),
            OpRequest::DeleteHost(name) => self.delete_host(origin, &name, out),
            OpRequest::Idle(id) => self.idle(origin, id, out),
            OpRequest::Pause(target) => self.pause(origin, &target, out),
            OpRequest::Ready(target) => self.ready(origin, &target, out),
            OpRequest::Start(target) => self.start(origin, &target, out),
            OpRequest::Stop(target) => self.stop(origin, &target, out),
            OpRequest::Preempt(on) => Ok(self.preempt(origin, on, out)),
            OpRequest::Pri(id, priority) => self.pri(origin, id, priority, out),
            OpRequest::Reject(on) => Ok(self.reject(origin, on, out)),
            OpRequest::Reset => Ok(self.reset(origin, out)),
            OpRequest::Send(target, SendWhat::Reinit) => self.send_reinit(origin, &target, out),
            OpRequest::Service(id, name) => self.change_service(origin, id, &name, out),
            OpRequest::Set(setting, value) => self.change_setting(origin, setting, value, out),
            OpRequest::Shutdown(what) => self.shutdown(origin, what, out),
            request @ (OpRequest::Send(_, SendWhat::Status)
            | OpRequest::Source(_)
            | OpRequest::Watch(_)
            | OpRequest::Whoami
            | OpRequest::Reload) => Err(refused(format!(
                "'{request}' answers one operator and can't stand in a script; leave it out, and \
                 say it with isdclient"
            ))),
        }
    }

    /// Runs a script of the state directory or the command line.
    pub(crate) fn on_script(&mut self, origin: Origin, text: &str, out: Out<'_>) {
        let (_, failures) = self.run_script(&origin, text, out);
        out.push(Action::ScriptDone { origin, failures });
    }

    /// Runs the commands of a script in order; one that fails does not stop the rest. Returns how
    /// many succeeded, and the texts of the failures.
    fn run_script(&mut self, origin: &Origin, text: &str, out: Out<'_>) -> (usize, Vec<String>) {
        let mut failures = Vec::new();
        let mut done = 0;
        for (number, line) in parse::parse_script(text) {
            match parse::parse(line).and_then(|request| self.run(origin, request, out)) {
                Ok(_) => done += 1,
                Err(error) => {
                    // The help that follows an unknown command would hide the other failures.
                    let first = error.text.lines().next().unwrap_or_default();
                    failures.push(format!("line {number}: {first}"));
                }
            }
        }
        if !failures.is_empty() {
            let text = format!(
                "{} of {} commands failed; first: {}",
                failures.len(),
                failures.len() + done,
                failures[0]
            );
            let about = About { who: Some(Self::who(origin)), ..About::default() };
            self.record(FactKind::ScriptFailed, about, text, out);
        }
        (done, failures)
    }

    /// Runs the file of a `source` that was read, and answers the operator.
    pub(crate) fn on_sourced(
        &mut self,
        link: LinkId,
        head: Header,
        path: String,
        script: Result<String, String>,
        out: Out<'_>,
    ) {
        let Some(End::Client(client)) = self.links.get(link).map(|slot| slot.end) else {
            return;
        };
        let answer = match script {
            Err(why) => Err(refused(format!(
                "file {path} can't be read: {}; isectd reads it on its machine, 'isdclient < FILE' on yours",
                why.strip_prefix(&format!("{path}: ")).unwrap_or(&why)
            ))),
            Ok(text) => {
                let origin = self.origin_of(client);
                let (done, failures) = self.run_script(&origin, &text, out);
                if failures.is_empty() {
                    let fields = vec![("commands", Value::Number(done as i128))];
                    Ok(OpReply::line(
                        "sourced",
                        format!("{} done", counted(done, "command")),
                        fields,
                    ))
                } else {
                    Err(refused(format!(
                        "{} done, {} failed:\n{}",
                        counted(done, "command"),
                        failures.len(),
                        failures.join("\n")
                    )))
                }
            }
        };
        if self.links.get(link).is_some() {
            self.answer(client, &head, answer, out);
        }
    }

    /// `watch`: from now on, facts of these kinds are sent, each as a piece of this reply.
    fn watch(&mut self, client: ClientKey, head: &Header, kinds: &[String]) -> OpResult {
        let kinds = fact_kinds(kinds)?;
        let max = self.settings.get(Setting::WatchersMax);
        let entry = &mut self.clients[client];
        if entry.watch.is_some() {
            return Err(refused("this connection watches already; end it and begin again"));
        }
        if head.reply == 0 {
            return Err(refused("watch needs a reply; set 'reply' to 1 in its header"));
        }
        if self.watchers as u64 >= max {
            return Err(refused(format!(
                "{max} operators watch already (watchers_max); one of them is to end, or 'set watchers_max=N' allows more"
            )));
        }
        self.watchers += 1;
        entry.watch = Some(Watch { sequence: head.sequence, kinds, skipped: 0 });
        Ok(OpReply::line("watching", "watching; end with Ctrl-C", vec![]))
    }

    /// Sends a fact to the operators who watch. One whose link is congested does not get it, and is
    /// told later how many it missed.
    pub(crate) fn show_watchers(&mut self, fact: &Fact, out: Out<'_>) {
        let watching: Vec<ClientKey> =
            self.clients.by_id().filter(|(_, c)| c.watch.is_some()).map(|(key, _)| key).collect();
        for key in watching {
            let link = self.clients[key].link;
            let is_congested = self.links.is_congested(link);
            let Some(watch) = &mut self.clients[key].watch else { continue };
            if !(watch.kinds.is_empty() || watch.kinds.contains(&fact.kind)) {
                continue;
            }
            if is_congested {
                watch.skipped += 1;
                continue;
            }
            let (sequence, skipped) = (watch.sequence, std::mem::take(&mut watch.skipped));
            let format: Format = self.clients[key].format;
            let mut reply = OpReply::block(self.fact_line(fact));
            if skipped > 0 {
                let text =
                    format!("({skipped} facts were left out: this connection reads too slowly)");
                let fields = vec![("skipped", Value::Number(skipped.into()))];
                reply.blocks.insert(0, Block::Line { name: "left_out", text, fields });
            }
            let head = Header { sequence, more: 1, ..Header::default() };
            out.push(Action::Answer { link, head, reply: Box::new(reply), format });
        }
    }
}

/// The kinds of facts with these names.
///
/// # Errors
/// A name is not in the table; the error suggests a similar one.
pub(crate) fn fact_kinds(names: &[String]) -> Result<Vec<FactKind>, OpError> {
    let kind = |name: &String| {
        FACTS.iter().find(|row| row.name == name).map(|row| row.kind).ok_or_else(|| {
            let near = parse::nearest(name, FACTS.iter().map(|row| row.name));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
            not_found(format!("'{name}' is no kind of fact{hint}; docs/facts.md lists them"))
        })
    };
    names.iter().map(kind).collect()
}
