//! Who plays the shell, and how actions are carried out.

use super::{Ask, TestShell, secret};
use crate::script::Item;
use broker::engine::action::{Action, BrokerExit};
use broker::engine::fact::Fact;
use broker::engine::input::{Input, Start};
use broker::engine::origin::Origin;
use broker::translate::outbound;
use protocol::bodies::Format;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::LinkId;
use protocol::op::reply::OpReply;

/// Most looks at the clock at one moment; more are an endless loop of the engine.
const LOOKS_MAX: u32 = 64;

/// What an action does to the world around the shell.
#[derive(Debug)]
pub enum Deed {
    /// A frame leaves.
    Send(LinkId, Frame),
    /// An operator is answered; [`outbound::answer`] makes a frame of it.
    Answer(LinkId, Header, Box<OpReply>, Format),
    /// The engine waits to be told something; `TestShell::asked` is a place to keep it.
    Ask(Ask),
    /// The engine closes a link; it is gone afterwards.
    Close(LinkId),
    /// Nothing more is written to a link.
    Shut(LinkId),
    /// The end of what a link sends is no end of the connection.
    HalfClose(LinkId),
    /// A link is read no further, or again.
    Read(LinkId, bool),
    /// A fact is recorded.
    Record(Box<Fact>),
    /// A script of commands is done, and these failed.
    ScriptDone(Origin, Vec<String>),
    /// The broker's process ends.
    End(BrokerExit),
}

/// What each action is: the link that it is for, its words in a script, what it does. This is the
/// only place in the tests that knows them all. In the words `{}` is the name of who is at the
/// link. A frame, an answer and a fact have none here: a script shows what is in them. `word`
/// begins the secret of a start.
fn known(action: Action, word: &str) -> (Option<LinkId>, Option<Item>, Deed) {
    let said = |words: &str| Some(Item::new(words));
    match action {
        Action::Send { link, frame } => (Some(link), None, Deed::Send(link, frame)),
        Action::Answer { link, head, reply, format } => {
            (Some(link), None, Deed::Answer(link, head, reply, format))
        }
        Action::Claim { link, host } => {
            let item = Item::new("look up the token of {}").quiet();
            (Some(link), Some(item), Deed::Ask(Ask::Claim(link, host)))
        }
        Action::Start { link, start, has_secret } => {
            let item = Item::new(format!("start {}#{} at {{}}", start.service, start.worker))
                .with("run", start.run)
                .with("path", &start.path)
                .with("args", start.args.join(" "))
                .with("secret", &start.secret)
                .with("has_secret", has_secret);
            let given = Start { run: start.run, digest: start.digest };
            let secret = if has_secret { secret(word, start.worker, given) } else { String::new() };
            (Some(link), Some(item), Deed::Send(link, outbound::start(*start, secret)))
        }
        Action::Challenge { link, role, target, claim } => {
            let item = Item::new(format!("challenge {{}} to prove {}", claim.token))
                .with("role", role)
                .with("target", target);
            (Some(link), Some(item), Deed::Ask(Ask::Challenge(link)))
        }
        Action::Verify { link, proof } => {
            (Some(link), said("verify {}"), Deed::Ask(Ask::Verify(link, proof)))
        }
        Action::Prove { link, challenge: _ } => {
            (Some(link), said("prove to {}"), Deed::Ask(Ask::Prove(link)))
        }
        Action::ReadTokens { requester } => {
            (None, said("read tokens"), Deed::Ask(Ask::Tokens(requester)))
        }
        Action::Source { link, head, path } => {
            let item = Item::new("read file").showing("path", &path, true);
            (Some(link), Some(item), Deed::Ask(Ask::File(link, head, path)))
        }
        Action::Dial { host, address } => {
            let item = Item::new(format!("dial {host}")).with("address", &address);
            (None, Some(item), Deed::Ask(Ask::Dial(host, address)))
        }
        Action::Store { number, lines: _ } => {
            (None, Some(Item::new("saved").quiet()), Deed::Ask(Ask::Store(number)))
        }
        Action::Close { link } => (Some(link), said("close {}"), Deed::Close(link)),
        Action::ShutWrite { link } => (Some(link), said("shut {}"), Deed::Shut(link)),
        Action::AllowHalfClose { link } => {
            (Some(link), said("let {} close its side"), Deed::HalfClose(link))
        }
        Action::StopReading { link } => {
            (Some(link), said("stop reading {}"), Deed::Read(link, false))
        }
        Action::ResumeReading { link } => {
            (Some(link), said("read {} again"), Deed::Read(link, true))
        }
        Action::Record(fact) => (None, None, Deed::Record(fact)),
        Action::ScriptDone { origin, failures, summary: _ } => {
            let item = Item::new("script done").showing("failures", failures.len(), true);
            let item = item.saying(failures.join("\n"), !failures.is_empty());
            (None, Some(item), Deed::ScriptDone(origin, failures))
        }
        Action::End(how) => {
            let item = match how {
                BrokerExit::Exit(status) => Item::new(format!("exit {status}")),
                BrokerExit::Abort => Item::new("abort"),
            };
            (None, Some(item), Deed::End(how))
        }
    }
}

/// A test that plays the shell: what it chooses, and below what all do alike.
pub trait Player: Sized {
    /// What it knows of the far end of a link.
    type End;

    /// The shell, while there is a broker.
    fn shell(&mut self) -> Option<&mut TestShell<Self::End>>;

    /// The engine broke a law.
    fn broken(&mut self, law: String);

    /// What becomes of an action.
    fn does(&mut self, deed: Deed);

    /// An action in words, for a test that shows them.
    fn sees(&mut self, _link: Option<LinkId>, _item: Item) {}

    /// Whether nobody looks at the engine's clock any more.
    fn has_ended(&self) -> bool {
        false
    }

    /// One input and its actions, with what a test looks at before and between.
    fn gives(&mut self, input: Input) {
        self.carry_out(input);
    }

    /// One input and what is due with it; then the laws must hold.
    fn turn(&mut self, input: Input) {
        self.gives(input);
        self.check();
    }

    /// Something happens: the engine is told, and then what follows from it.
    fn feed(&mut self, input: Input) {
        let Some(shell) = self.shell() else { return };
        shell.pending.push_back(input);
        if std::mem::replace(&mut shell.is_stepping, true) {
            return;
        }
        while let Some(input) = self.shell().and_then(TestShell::next_pending) {
            self.turn(input);
        }
        if let Some(shell) = self.shell() {
            shell.is_stepping = false;
        }
    }

    /// Checks the laws of the engine.
    fn check(&mut self) {
        if let Some(Err(law)) = self.shell().map(|shell| shell.engine.check_all()) {
            self.broken(law);
        }
    }

    /// Gives the engine an input and carries out its actions.
    fn carry_out(&mut self, input: Input) {
        match self.shell().map(|shell| shell.step(input)) {
            Some(Ok(actions)) => actions.into_iter().for_each(|action| self.take(action)),
            Some(Err(law)) => self.broken(law),
            None => {}
        }
    }

    /// Gives deadlines as long as something is due.
    fn look_at_clock(&mut self, give: fn(&mut Self, Input)) {
        let mut looks = 0;
        while !self.has_ended() && self.shell().is_some_and(|shell| shell.is_due()) {
            looks += 1;
            if looks > LOOKS_MAX {
                return self.broken("something stays due, again and again".into());
            }
            give(self, Input::Deadline);
        }
    }

    /// Carries out one action; one for a link that is gone breaks law 8.
    fn take(&mut self, action: Action) {
        let word = self.shell().map_or("", |shell| shell.choices.secret);
        let (link, item, deed) = known(action, word);
        if let Some(link) = link {
            let Some(shell) = self.shell() else { return };
            if !shell.ends.contains_key(&link) {
                return self.broken(format!("law 8: an action for link {link}, which is gone"));
            }
        }
        item.into_iter().for_each(|item| self.sees(link, item));
        if let (Deed::Read(link, is_on), Some(shell)) = (&deed, self.shell())
            && !shell.reads(*link, *is_on)
        {
            return self.broken(format!("link {link} is told to be read={is_on} twice"));
        }
        let closed = if let Deed::Close(link) = deed { Some(link) } else { None };
        self.does(deed);
        if let (Some(link), Some(shell)) = (closed, self.shell()) {
            shell.close(link);
        }
    }
}
