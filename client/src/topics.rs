//! Subscriptions of one connection after another: which frames ask for them, and what the frames of
//! the broker mean to their programs. Pure, as [`session`](crate::session) is;
//! [`bus`](crate::bus) gives it a socket.

use crate::error::Error;
use bytes::Bytes;
use protocol::bodies::{CaughtUp, Subscribe, Subscribed, Unsubscribed};
use protocol::messages::{
    MESSAGE_LINES_BYTES_MAX, MessageLines, MessageOf, Missing, Position, Removed, Retain,
};
use protocol::{ErrorCode, Frame, Header};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Most events of one subscription that are no messages and wait for the program.
const NOTES_MAX: usize = 1000;

/// Words of lines whose meaning isect knows.
const KNOWN: [&str; 4] = ["topic", "retain", "expires_ms", "removed"];

/// A message of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The topic that it was published to.
    pub topic: String,
    /// What its publisher sent.
    pub payload: Bytes,
    /// Lines of its publisher that isect does not know, each a word and its value.
    pub lines: Vec<(String, String)>,
    /// Whether it was published before the subscription, and is sent because it is kept.
    pub kept: bool,
    /// How many messages of the subscription were dropped right before it, because they were read
    /// too slowly.
    pub dropped: u64,
    /// Whether the broker keeps it as the value of its topic.
    pub retain: Retain,
    /// Why the value of the topic is kept no longer; the payload is empty then.
    pub removed: Option<Removed>,
    /// Its number in the broker's count.
    pub position: Position,
}

impl Message {
    fn read(head: &Header, body: &Bytes, epoch: u64) -> Result<Self, Error> {
        let known = MessageLines::read(body).map_err(|error| {
            let text = format!("the broker sent a message that is none: {error}");
            Error::new(ErrorCode::BadFrame, text)
        })?;
        let lines = std::str::from_utf8(&body[..known.payload_at]).unwrap_or_default().lines();
        let lines = lines.filter(|line| !line.is_empty()).filter_map(|line| {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            (!KNOWN.contains(&key)).then(|| (key.to_owned(), value.to_owned()))
        });
        Ok(Self {
            topic: known.topic.to_owned(),
            payload: body.slice(known.payload_at..),
            lines: lines.collect(),
            kept: head.more != 0,
            dropped: head.attempt.into(),
            retain: known.retain,
            removed: known.removed,
            position: Position { epoch, number: head.transaction },
        })
    }

    /// The payload as text; bytes that are no UTF-8 are replaced.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.payload)
    }

    /// Bytes that it takes while it waits for its program, about.
    fn weight(&self) -> usize {
        size_of::<Self>() + self.topic.len() + self.payload.len()
    }
}

/// What a subscription brings.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message.
    Message(Message),
    /// What was kept from before has come; what follows is new.
    CaughtUp {
        /// How many messages from before the broker sent.
        kept: u64,
        /// How many were dropped since the last message.
        dropped: u64,
    },
    /// Messages that can't be had any more, because the subscription was away for too long or the
    /// broker was started again. Values that are kept follow.
    Missing(Missing),
    /// The connection was lost; the library tries to connect again.
    Lost(Error),
    /// It is connected again, and the broker is at this position. What came since the last message
    /// follows, or [`Event::Missing`].
    Resumed(Position),
}

/// How a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// The position after which the messages are wanted; `None` = from now on.
    pub from: Option<Position>,
    /// Whether the values that are kept come first; of no effect where all that came since
    /// `from` can be had.
    pub retained: bool,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self { from: None, retained: true }
    }
}

/// How far the broker is with a subscription.
#[derive(Clone, Debug)]
enum Phase {
    /// It was asked, or is to be asked once there is a connection.
    Asked,
    /// Messages from before come. Those after a position come in the order of their numbers.
    CatchingUp { at: Position, is_gapless: bool },
    /// New messages come.
    Live,
    /// The program has ended it, and the broker has not answered yet.
    Unsubscribing,
    /// The broker's answer to that.
    Ended(Unsubscribed),
    /// It has ended for this reason.
    Refused(Error),
}

/// A subscription, and what came for it.
#[derive(Debug)]
struct Open {
    pattern: String,
    retained: bool,
    phase: Phase,
    /// The last message up to which nothing is missing at this side.
    received: Option<Position>,
    /// The same of what the program was given.
    taken: Option<Position>,
    /// Whether it was live or catching up on an earlier connection.
    was_open: bool,
    events: VecDeque<(Event, Option<Position>)>,
    /// How many of the events are messages, and their bytes.
    messages: usize,
    bytes: usize,
    /// Messages dropped here since the last one that is kept.
    dropped: u64,
    /// The numbers of messages from before, until all of them have come: if the connection is lost
    /// meanwhile, they come again.
    before: BTreeSet<u64>,
}

/// How much waits at this side for the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Most messages of one subscription.
    pub messages_max: usize,
    /// Most bytes of the messages of one subscription.
    pub bytes_max: usize,
}

/// The subscriptions of a program.
#[derive(Debug)]
pub struct Subscriptions {
    all: BTreeMap<u32, Open>,
    room: Room,
    epoch: u64,
}

/// What became of a subscribe.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It is not answered yet.
    Awaited,
    /// Messages come.
    Open,
    /// It was refused, or has ended.
    Refused(Error),
}

impl Subscriptions {
    /// No subscriptions; so much may wait for each.
    pub fn new(room: Room) -> Self {
        Self { all: BTreeMap::new(), room, epoch: 0 }
    }

    /// Notes a subscription with this number, which no other has, and makes the frame that asks.
    pub fn subscribe(&mut self, number: u32, pattern: &str, options: SubscribeOptions) -> Frame {
        let SubscribeOptions { from, retained } = options;
        let open = Open {
            pattern: pattern.to_owned(),
            retained,
            phase: Phase::Asked,
            received: from,
            taken: from,
            was_open: false,
            events: VecDeque::new(),
            messages: 0,
            bytes: 0,
            dropped: 0,
            before: BTreeSet::new(),
        };
        let frame = ask(number, &open);
        self.all.insert(number, open);
        frame
    }

    /// Removes a subscription and what waits for its program.
    pub fn remove(&mut self, number: u32) {
        self.all.remove(&number);
    }

    /// Whether a subscription has this number.
    pub fn has(&self, number: u32) -> bool {
        self.all.contains_key(&number)
    }

    /// What became of a subscribe.
    pub fn answer(&self, number: u32) -> Answer {
        match self.all.get(&number).map(|open| &open.phase) {
            Some(Phase::Asked) => Answer::Awaited,
            Some(Phase::CatchingUp { .. } | Phase::Live) => Answer::Open,
            Some(Phase::Refused(error)) => Answer::Refused(error.clone()),
            Some(Phase::Unsubscribing | Phase::Ended(_)) | None => Answer::Refused(gone(number)),
        }
    }

    /// The next event for the program.
    pub fn next(&mut self, number: u32) -> Option<Event> {
        let open = self.all.get_mut(&number)?;
        let (event, position) = open.events.pop_front()?;
        if let Event::Message(message) = &event {
            open.messages = open.messages.saturating_sub(1);
            open.bytes = open.bytes.saturating_sub(message.weight());
        }
        open.taken = position.or(open.taken);
        Some(event)
    }

    /// The number of the message that is next for the program; 0 = something else is next, `None` =
    /// nothing is there.
    pub fn peek(&self, number: u32) -> Option<u64> {
        let (event, _) = self.all.get(&number)?.events.front()?;
        Some(match event {
            Event::Message(message) => message.position.number,
            Event::CaughtUp { .. } | Event::Missing(_) | Event::Lost(_) | Event::Resumed(_) => 0,
        })
    }

    /// Why nothing more comes, once all that came is taken.
    pub fn refusal(&self, number: u32) -> Option<Error> {
        match self.answer(number) {
            Answer::Refused(error) => Some(error),
            Answer::Awaited | Answer::Open => None,
        }
    }

    /// The position from which a program goes on that has taken all events until now.
    pub fn position(&self, number: u32) -> Option<Position> {
        self.all.get(&number)?.taken
    }

    /// The answer to a subscribe.
    pub fn subscribed(&mut self, answer: &Subscribed) {
        let is_other = std::mem::replace(&mut self.epoch, answer.at.epoch) != answer.at.epoch;
        if is_other {
            self.all.values_mut().for_each(|open| open.before.clear());
        }
        let Some(open) = self.all.get_mut(&answer.subscription) else { return };
        if !matches!(open.phase, Phase::Asked) {
            return;
        }
        let is_gapless = open.received.is_some() && answer.missing.is_none();
        open.phase = Phase::CatchingUp { at: answer.at, is_gapless };
        if open.was_open {
            open.note(Event::Resumed(answer.at), None);
        }
        if let Some(missing) = answer.missing {
            open.note(Event::Missing(missing), None);
        }
    }

    /// A message.
    ///
    /// # Errors
    /// It is none.
    pub fn message(&mut self, head: &Header, body: &Bytes) -> Result<(), Error> {
        let (epoch, room) = (self.epoch, self.room);
        // It may have crossed the end of the subscription.
        let Some(open) = self.all.get_mut(&head.sequence) else { return Ok(()) };
        let mut message = Message::read(head, body, epoch)?;
        let is_next = match open.phase {
            Phase::Live => true,
            Phase::CatchingUp { is_gapless, .. } => is_gapless,
            Phase::Asked | Phase::Unsubscribing | Phase::Ended(_) | Phase::Refused(_) => {
                return Ok(());
            }
        };
        if !matches!(open.phase, Phase::Live) && !open.before.insert(head.transaction) {
            return Ok(());
        }
        let position = is_next.then_some(message.position);
        open.received = position.or(open.received);
        let dropped = std::mem::take(&mut open.dropped);
        message.dropped = message.dropped.saturating_add(dropped);
        open.messages += 1;
        open.bytes += message.weight();
        open.events.push_back((Event::Message(message), position));
        open.drop_oldest(room);
        Ok(())
    }

    /// All that was kept is sent.
    pub fn caught_up(&mut self, caught_up: CaughtUp) {
        let Some(open) = self.all.get_mut(&caught_up.subscription) else { return };
        if let Phase::CatchingUp { at, .. } = open.phase {
            let last = open.received.filter(|last| last.epoch == at.epoch);
            let at = last.map_or(at, |last| last.max(at));
            open.phase = Phase::Live;
            open.before = BTreeSet::new();
            open.was_open = true;
            open.received = Some(at);
            let CaughtUp { kept, dropped, .. } = caught_up;
            open.note(Event::CaughtUp { kept, dropped }, Some(at));
        }
    }

    /// The broker has ended a subscription.
    pub fn unsubscribed(&mut self, answer: Unsubscribed) {
        if let Some(open) = self.all.get_mut(&answer.subscription) {
            open.phase = Phase::Ended(answer);
        }
    }

    /// Notes that the program ends a subscription.
    pub fn end_one(&mut self, number: u32) {
        if let Some(open) = self.all.get_mut(&number) {
            open.phase = Phase::Unsubscribing;
        }
    }

    /// The end of a subscription that the program has ended; `None` = the broker has not answered.
    pub fn take_ended(&mut self, number: u32) -> Option<Result<Unsubscribed, Error>> {
        let ended = match &self.all.get(&number)?.phase {
            Phase::Ended(answer) => Ok(*answer),
            Phase::Refused(error) => Err(error.clone()),
            Phase::Asked | Phase::CatchingUp { .. } | Phase::Live | Phase::Unsubscribing => {
                return None;
            }
        };
        self.remove(number);
        Some(ended)
    }

    /// An error with this number; `false` = it is not about a subscription.
    pub fn failed(&mut self, number: u32, error: &Error) -> bool {
        let Some(open) = self.all.get_mut(&number) else { return false };
        open.phase = Phase::Refused(error.clone());
        true
    }

    /// The connection was lost.
    pub fn lost(&mut self, why: &Error) {
        for open in self.all.values_mut() {
            match open.phase {
                Phase::CatchingUp { .. } | Phase::Live => {
                    open.was_open = true;
                    open.phase = Phase::Asked;
                    open.note(Event::Lost(why.clone()), None);
                }
                Phase::Unsubscribing => open.phase = Phase::Refused(why.clone()),
                Phase::Asked | Phase::Ended(_) | Phase::Refused(_) => {}
            }
        }
    }

    /// No connection is made again: what is open ends with this reason.
    pub fn end(&mut self, why: &Error) {
        for open in self.all.values_mut() {
            if !matches!(open.phase, Phase::Refused(_)) {
                open.phase = Phase::Refused(why.clone());
            }
        }
    }

    /// The frames that ask again on a new connection.
    pub fn resume(&self) -> Vec<Frame> {
        let asked = self.all.iter().filter(|(_, open)| matches!(open.phase, Phase::Asked));
        asked.map(|(number, open)| ask(*number, open)).collect()
    }
}

impl Open {
    /// Adds an event that is no message. Of those that nobody takes, the oldest are forgotten.
    fn note(&mut self, event: Event, position: Option<Position>) {
        let is_note = |(event, _): &(Event, _)| !matches!(event, Event::Message(_));
        if self.events.iter().filter(|event| is_note(event)).count() >= NOTES_MAX
            && let Some(at) = self.events.iter().position(is_note)
        {
            self.events.remove(at);
        }
        self.events.push_back((event, position));
    }

    /// Drops messages that have no room, the oldest first, and has the next one say how many.
    fn drop_oldest(&mut self, room: Room) {
        while self.bytes > room.bytes_max || self.messages > room.messages_max {
            let is_message = |(event, _): &(Event, _)| matches!(event, Event::Message(_));
            let Some(at) = self.events.iter().position(is_message) else { return };
            // The newest waits in any case.
            if at + 1 == self.events.len() {
                return;
            }
            let Some((Event::Message(oldest), _)) = self.events.remove(at) else { return };
            self.messages = self.messages.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(oldest.weight());
            let mut later = self.events.iter_mut().skip(at).filter_map(|(event, _)| match event {
                Event::Message(message) => Some(&mut message.dropped),
                Event::CaughtUp { dropped, .. } => Some(dropped),
                Event::Missing(_) | Event::Lost(_) | Event::Resumed(_) => None,
            });
            let count = oldest.dropped.saturating_add(1);
            let dropped = later.next().unwrap_or(&mut self.dropped);
            // A broker may say any number.
            *dropped = dropped.saturating_add(count);
        }
    }
}

fn ask(number: u32, open: &Open) -> Frame {
    Frame::Subscribe(Subscribe {
        subscription: number,
        pattern: open.pattern.clone(),
        from: open.received,
        retained: open.retained,
    })
}

/// The body of a message to be published.
///
/// # Errors
/// It breaks a rule of messages.
pub(crate) fn message_body(message: &MessageOf<'_>) -> Result<Bytes, Error> {
    let wrong = |text: String| Error::new(ErrorCode::BadMessage, text);
    for (word, value) in message.lines {
        let is_word = !word.is_empty() && !word.contains(|c: char| c.is_whitespace());
        if !is_word || KNOWN.contains(word) {
            return Err(wrong(format!(
                "a line of a message begins with '{}'; it begins with a word that is none of {}",
                word.escape_debug(),
                KNOWN.join(", ")
            )));
        }
        if value.contains('\n') {
            return Err(wrong(format!("the value of the line '{word}' has a line break")));
        }
    }
    let body = message.body();
    let lines = body.len() - message.payload.len();
    if lines > MESSAGE_LINES_BYTES_MAX {
        return Err(wrong(format!(
            "the lines of the message have {lines} bytes; at most {MESSAGE_LINES_BYTES_MAX} are \
             allowed"
        )));
    }
    MessageLines::read(&body).map_err(|error| wrong(error.to_string()))?;
    Ok(body)
}

/// Whether the broker takes a message of this size.
///
/// # Errors
/// It is too large.
pub(crate) fn check_size(body: &Bytes, max: u64) -> Result<(), Error> {
    let size = body.len();
    if size as u64 <= max {
        return Ok(());
    }
    let text = format!("a message of {size} bytes with its lines exceeds body_bytes_max {max}");
    Err(Error::new(ErrorCode::BodyTooLarge, text))
}

fn gone(number: u32) -> Error {
    Error::new(ErrorCode::NotFound, format!("there is no subscription {number} any more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { messages_max: 3, bytes_max: 1 << 20 };

    fn at(number: u64) -> Position {
        Position { epoch: 7, number }
    }

    /// A subscription that the broker accepted when it was at this number.
    fn accepted(from: Option<Position>, newest: u64, missing: Option<Missing>) -> Subscriptions {
        let mut all = Subscriptions::new(ROOM);
        all.subscribe(1, "a.>", SubscribeOptions { from, retained: true });
        all.subscribed(&Subscribed { subscription: 1, at: at(newest), missing });
        all
    }

    fn live(newest: u64) -> Subscriptions {
        let mut all = accepted(None, newest, None);
        all.caught_up(CaughtUp { subscription: 1, kept: 0, dropped: 0 });
        assert!(matches!(all.next(1), Some(Event::CaughtUp { .. })));
        all
    }

    fn message(all: &mut Subscriptions, number: u64, dropped: u32, kept: bool) {
        let head = Header {
            sequence: 1,
            transaction: number,
            attempt: dropped,
            more: u16::from(kept),
            ..Header::default()
        };
        all.message(&head, &MessageOf::new("a.b", b"x").body()).unwrap();
    }

    /// The number of the next message, and how many were dropped before it.
    fn next(all: &mut Subscriptions) -> (u64, u64) {
        match all.next(1) {
            Some(Event::Message(message)) => (message.position.number, message.dropped),
            other => panic!("{other:?} is no message"),
        }
    }

    fn asks_from(all: &Subscriptions) -> Option<Position> {
        match all.resume().as_slice() {
            [Frame::Subscribe(subscribe)] => subscribe.from,
            other => panic!("{other:?} is no subscribe"),
        }
    }

    fn lost() -> Error {
        Error::new(ErrorCode::BrokerLost, "lost")
    }

    #[test]
    fn what_is_dropped_here_is_counted_with_what_the_broker_dropped() {
        let mut all = live(0);
        for number in 1..=3 {
            message(&mut all, number, 0, false);
        }
        message(&mut all, 9, 5, false);
        // One went for it; the one behind says so.
        assert_eq!([next(&mut all), next(&mut all), next(&mut all)], [(2, 1), (3, 0), (9, 5)]);
        for number in 10..20 {
            message(&mut all, number, u32::from(number == 12), false);
        }
        // 10 to 16 and the one that the broker had dropped.
        assert_eq!([next(&mut all), next(&mut all), next(&mut all)], [(17, 8), (18, 0), (19, 0)]);
        assert!(all.next(1).is_none());
    }

    #[test]
    fn the_end_of_what_was_kept_says_what_was_dropped_before_it() {
        let mut all = accepted(None, 9, None);
        message(&mut all, 4, 0, true);
        all.caught_up(CaughtUp { subscription: 1, kept: 1, dropped: 2 });
        for number in 10..13 {
            message(&mut all, number, 0, false);
        }
        assert!(matches!(all.next(1), Some(Event::CaughtUp { kept: 1, dropped: 3 })));
        assert_eq!([next(&mut all), next(&mut all), next(&mut all)], [(10, 0), (11, 0), (12, 0)]);
    }

    #[test]
    fn a_single_message_waits_however_large_it_is() {
        let mut all = Subscriptions::new(Room { messages_max: 3, bytes_max: 1 });
        all.subscribe(1, "a.>", SubscribeOptions::default());
        all.subscribed(&Subscribed { subscription: 1, at: at(0), missing: None });
        all.caught_up(CaughtUp { subscription: 1, kept: 0, dropped: 0 });
        assert!(matches!(all.next(1), Some(Event::CaughtUp { .. })));
        message(&mut all, 1, 0, false);
        message(&mut all, 2, 0, false);
        assert_eq!(next(&mut all), (2, 1));
        message(&mut all, 3, 0, false);
        assert_eq!(next(&mut all), (3, 0));
    }

    #[test]
    fn it_goes_on_from_what_is_complete() {
        // Live: after the last message, or where the broker was.
        let mut all = live(40);
        all.lost(&lost());
        assert_eq!(asks_from(&all), Some(at(40)));
        let mut all = live(40);
        message(&mut all, 44, 0, false);
        assert_eq!(all.position(1), Some(at(40)));
        assert_eq!(next(&mut all), (44, 0));
        assert_eq!(all.position(1), Some(at(44)));
        all.lost(&lost());
        assert_eq!(asks_from(&all), Some(at(44)));
        // What was not complete begins anew.
        let mut all = accepted(None, 40, None);
        message(&mut all, 7, 0, true);
        all.lost(&lost());
        assert_eq!(asks_from(&all), None);
        // After a position without a gap, half is worth keeping; with a gap it is not.
        let mut all = accepted(Some(at(30)), 40, None);
        message(&mut all, 33, 0, true);
        all.lost(&lost());
        assert_eq!(asks_from(&all), Some(at(33)));
        let mut all = accepted(Some(at(30)), 40, Some(Missing::Numbers(31, 35)));
        message(&mut all, 36, 0, true);
        all.lost(&lost());
        assert_eq!(asks_from(&all), Some(at(30)));
    }

    #[test]
    fn what_came_before_a_loss_does_not_come_again_after_it() {
        let mut all = accepted(Some(at(30)), 40, Some(Missing::Numbers(31, 35)));
        message(&mut all, 36, 0, true);
        message(&mut all, 7, 0, true);
        all.lost(&lost());
        let missing = Some(Missing::Numbers(31, 36));
        all.subscribed(&Subscribed { subscription: 1, at: at(44), missing });
        for number in [7, 36, 41] {
            message(&mut all, number, 0, true);
        }
        all.caught_up(CaughtUp { subscription: 1, kept: 3, dropped: 0 });
        let numbers: Vec<u64> = std::iter::from_fn(|| all.next(1))
            .filter_map(|event| match event {
                Event::Message(message) => Some(message.position.number),
                _ => None,
            })
            .collect();
        assert_eq!(numbers, [36, 7, 41]);
        // Another start of the broker counts anew.
        let mut all = accepted(None, 40, None);
        message(&mut all, 7, 0, true);
        all.lost(&lost());
        let newest = Position { epoch: 8, number: 9 };
        all.subscribed(&Subscribed { subscription: 1, at: newest, missing: None });
        message(&mut all, 7, 0, true);
        let count = std::iter::from_fn(|| all.next(1))
            .filter(|event| matches!(event, Event::Message(_)))
            .count();
        assert_eq!(count, 2);
    }

    #[test]
    fn after_a_restart_of_the_broker_its_count_is_another() {
        let mut all = live(40);
        all.lost(&lost());
        let newest = Position { epoch: 8, number: 2 };
        let missing = Some(Missing::Epoch);
        all.subscribed(&Subscribed { subscription: 1, at: newest, missing });
        all.caught_up(CaughtUp { subscription: 1, kept: 0, dropped: 0 });
        let events: Vec<Event> = std::iter::from_fn(|| all.next(1)).collect();
        assert!(
            matches!(
                events.as_slice(),
                [
                    Event::Lost(_),
                    Event::Resumed(_),
                    Event::Missing(Missing::Epoch),
                    Event::CaughtUp { .. }
                ]
            ),
            "{events:?}"
        );
        assert_eq!(all.position(1), Some(newest));
    }

    #[test]
    fn a_program_that_takes_nothing_costs_no_more_however_often_the_connection_is_lost() {
        let mut all = live(0);
        for round in 0..1000 {
            all.lost(&lost());
            // What nobody asked for changes nothing.
            for _ in 0..2 {
                all.subscribed(&Subscribed { subscription: 1, at: at(round), missing: None });
                all.caught_up(CaughtUp { subscription: 1, kept: 0, dropped: u64::MAX });
            }
            for _ in 0..3 {
                message(&mut all, round, u32::MAX, false);
            }
        }
        let events: Vec<Event> = std::iter::from_fn(|| all.next(1)).collect();
        assert!(events.len() <= NOTES_MAX + ROOM.messages_max, "{} events", events.len());
    }

    #[test]
    fn a_refused_one_is_not_asked_for_again() {
        let mut all = Subscriptions::new(ROOM);
        all.subscribe(1, "a.>", SubscribeOptions::default());
        assert!(all.failed(1, &Error::new(ErrorCode::Denied, "no")));
        assert!(!all.failed(2, &lost()));
        all.lost(&lost());
        assert!(all.resume().is_empty() && all.refusal(1).unwrap().is(ErrorCode::Denied));
    }
}
