//! Records facts: gives each its number, keeps the last ones for `listevents`, shows them to
//! operators who watch, and limits how many a peer may cause (`quotas`). The net logs what it gets
//! as `Action::Record`.

use super::action::Action;
use super::fact::{About, Fact, FactField, FactKind};
use super::fact_filter::FactFilter;
use super::quotas::{FACT_BYTES_MAX, Quotas};
use super::recent::Recent;
use super::wall_clock::WallClock;
use protocol::{
    Block, ClientId, FactSeq, Format, Header, LinkId, Micros, OpReply, Tick, Value, show,
};

/// An operator who watches: facts reach it as pieces of the reply to its `watch`.
#[derive(Debug)]
struct Watcher {
    client: ClientId,
    link: LinkId,
    /// Sequence of the command; each fact is a piece of its reply.
    sequence: u32,
    format: Format,
    /// Which ones it wants.
    filter: FactFilter,
    /// Facts that it did not get because it reads too slowly, since the last one that it got.
    skipped: u64,
    /// It reads too slowly now.
    is_congested: bool,
}

/// What a new watcher is made of; see [`Watcher`].
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) link: LinkId,
    pub(crate) sequence: u32,
    pub(crate) format: Format,
    pub(crate) filter: FactFilter,
    pub(crate) is_congested: bool,
}

/// The facts so far, and who gets the next one.
#[derive(Debug, Default)]
pub(crate) struct FactLog {
    /// Number of the last fact.
    last: u64,
    recent: Recent,
    quotas: Quotas,
    /// By client id.
    watchers: Vec<Watcher>,
    /// Facts are to be published, too. Independent of all else: somebody subscribes to topics of
    /// the broker.
    is_published: bool,
}

impl FactLog {
    /// The last facts.
    pub(crate) const fn recent(&self) -> &Recent {
        &self.recent
    }

    /// The same, to configure it.
    pub(crate) const fn recent_mut(&mut self) -> &mut Recent {
        &mut self.recent
    }

    /// How much more peers may cause.
    pub(crate) const fn quotas_mut(&mut self) -> &mut Quotas {
        &mut self.quotas
    }

    /// Whether facts are published.
    pub(crate) const fn is_published(&self) -> bool {
        self.is_published
    }

    /// Whether facts are to be published from now on.
    pub(crate) const fn set_published(&mut self, is_published: bool) {
        self.is_published = is_published;
    }

    /// Records a fact at `now`. Returns it if it is to be published.
    pub(crate) fn record(
        &mut self,
        (now, wall_clock): (Tick, &WallClock),
        (kind, about): (FactKind, About),
        text: String,
        out: &mut Vec<Action>,
    ) -> Option<Box<Fact>> {
        self.last += 1;
        // Parts of the text may come from workers and hosts.
        let text = match text.len() {
            ..=FACT_BYTES_MAX => show::one_line(text),
            _ => show::brief(&text, FACT_BYTES_MAX),
        };
        debug_assert!(
            FactField::ALL.iter().all(|f| kind.row().fields.contains(f) || !about.has(*f)),
            "the table has no such field for {kind:?}: {about:?}"
        );
        let at = wall_clock.wall(now);
        let fact = Fact { seq: FactSeq(self.last), at, kind, about, text };
        self.recent.add(&fact);
        for watcher in &mut self.watchers {
            if watcher.filter.passes(&fact) {
                out.extend(watcher.show(&fact));
            }
        }
        let message = self.is_published.then(|| Box::new(fact.clone()));
        out.push(Action::Record(Box::new(fact)));
        message
    }

    /// How many operators watch.
    pub(crate) const fn watchers(&self) -> usize {
        self.watchers.len()
    }

    /// Whether a client watches, and as the reply to which sequence.
    pub(crate) fn watch_of(&self, client: ClientId) -> Option<u32> {
        let at = self.watchers.binary_search_by_key(&client, |watcher| watcher.client).ok()?;
        Some(self.watchers[at].sequence)
    }

    /// A client that does not watch yet begins to.
    pub(crate) fn watch(&mut self, client: ClientId, watch: Watch) {
        let at = self.watchers.partition_point(|watcher| watcher.client < client);
        let Watch { link, sequence, format, filter, is_congested } = watch;
        let watcher = Watcher { client, link, sequence, format, filter, skipped: 0, is_congested };
        self.watchers.insert(at, watcher);
    }

    /// A client is gone.
    pub(crate) fn unwatch(&mut self, client: ClientId) {
        self.watchers.retain(|watcher| watcher.client != client);
    }

    /// Too much waits to be sent to a link, or no more.
    pub(crate) fn congested(&mut self, link: LinkId, is_congested: bool) {
        for watcher in self.watchers.iter_mut().filter(|watcher| watcher.link == link) {
            watcher.is_congested = is_congested;
        }
    }
}

impl Watcher {
    /// The next piece of its reply; none while it reads too slowly: it gets the number of facts
    /// that it missed.
    fn show(&mut self, fact: &Fact) -> Option<Action> {
        if self.is_congested {
            self.skipped += 1;
            return None;
        }
        let mut reply = OpReply::block(line(fact));
        let skipped = std::mem::take(&mut self.skipped);
        if skipped > 0 {
            let text = format!("({skipped} facts were left out: this connection reads too slowly)");
            let fields = vec![("skipped", Value::Number(skipped.into()))];
            reply.blocks.insert(0, Block::Line { name: "left_out", text, fields });
        }
        let head = Header { sequence: self.sequence, more: 1, ..Header::default() };
        let (link, format) = (self.link, self.format);
        Some(Action::Answer { link, head, reply: Box::new(reply), format })
    }
}

/// A fact as a line with its time and ids. JSON has all its fields.
pub(crate) fn line(fact: &Fact) -> Block {
    let about = &fact.about;
    let values = &about.values;
    let number = |id: u64| Value::Number(id.into());
    let name = |name: Option<&str>| name.map_or(Value::None, |name| Value::Text(name.to_owned()));
    let span = |span: Option<Micros>| span.map_or(Value::None, |span| Value::Micros(span.0));
    let mut line = format!("{} {} {}", fact.at.local(), fact.kind.row().name, fact.text);
    for (word, id) in [
        ("transaction", about.transaction.map(|id| id.0.to_string())),
        ("client", about.client.map(|id| id.0.to_string())),
        ("by", about.who.clone()),
    ] {
        if let Some(id) = id {
            line += &format!(" [{word} {id}]");
        }
    }
    let fields = vec![
        ("seq", number(fact.seq.0)),
        ("at", Value::Time(fact.at)),
        ("kind", Value::Word(fact.kind.row().name)),
        ("text", Value::Text(fact.text.clone())),
        ("client", about.client.map_or(Value::None, |id| number(id.0.into()))),
        ("worker", about.worker.map_or(Value::None, |id| number(id.0.into()))),
        ("service", name(about.service.as_ref().map(|name| name.as_str()))),
        ("host", name(about.host.as_ref().map(|name| name.as_str()))),
        ("transaction", about.transaction.map_or(Value::None, |id| number(id.0))),
        ("instance", name(about.instance.as_deref())),
        ("who", name(about.who.as_deref())),
        ("waited_us", span(values.waited)),
        ("worked_us", span(values.worked)),
        ("delay_us", span(values.delay)),
        ("attempt", values.attempt.map_or(Value::None, |count| number(count.into()))),
        ("deaths", values.deaths.map_or(Value::None, number)),
        ("death", values.death.map_or(Value::None, number)),
        ("error", values.error.map_or(Value::None, |code| Value::Word(code.name()))),
        ("ran", values.ran.map_or(Value::None, |ran| Value::Word(ran.word()))),
    ];
    Block::Line { name: "events", text: line, fields }
}
