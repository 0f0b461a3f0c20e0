//! The subscribers and their publisher, and what came of each message.

use super::{DRAIN, Trial};
use crate::clock;
use crate::payload::Payload;
use crate::peers::{Alone, Hub};
use crate::protocols::topics::{Message, What};
use crate::stop::Stop;
use crate::topics::{Conns, LIMIT, histogram};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// What all subscribe to.
const TOPIC: &str = "bench.all";
/// What fills the buffers of the one that stops: it alone, and one that reads, get it.
const FILL: &str = "bench.fill";
/// Matches both.
const BOTH: &str = "bench.*";
const FILL_BYTES: usize = 64 * 1024;
/// More than the buffers of the system and of isect's subscription take.
const FILLS: u32 = 256;
/// Fills on their way at a time, so that the one that reads drops none.
const FILL_WINDOW: u32 = 16;
/// Messages that can be on their way: those of which it is remembered when they left.
const RING: usize = 4096;
/// The payload of a fill has this in place of a publisher's index.
const FILLER: u32 = 1;

/// What was measured.
pub(super) struct Tally {
    pub(super) deliveries: u64,
    pub(super) latency: Histogram<u64>,
    pub(super) span: Duration,
    pub(super) unsent: u64,
}

/// What each subscriber got.
struct Got {
    /// The last message of each.
    last: Vec<u32>,
    size: usize,
    /// When a message left, or was meant to.
    left: Vec<Instant>,
    /// How many subscribers have it.
    times: Vec<u32>,
    sent: u32,
    /// All subscribers have it and those before.
    complete: u32,
    fills: u32,
    deliveries: u64,
    latency: Histogram<u64>,
    /// Of the one that stops: messages that it got, and that it was told were dropped.
    late: u64,
    dropped: u64,
    late_last: u32,
}

/// See the head of this file.
pub(super) struct Crowd {
    conns: Conns,
    got: Got,
    hub: Hub,
    /// Subscribers that read; the publisher is after them, then the one that reads fills, then the
    /// one that stops.
    count: usize,
    window: u32,
}

impl Got {
    /// A message came to a subscriber.
    fn message(&mut self, index: usize, message: &Message, bytes: &[u8]) -> Result<(), String> {
        let body = &bytes[message.payload.clone()];
        let count = self.last.len();
        if index == count + 1 {
            self.fills += 1;
            return self.none_dropped(index, message);
        }
        if index == count + 2 {
            self.late += 1;
            self.dropped += u64::from(message.dropped);
            if body.len() == self.size {
                self.late_last = Payload::number_in(body).unwrap_or_default();
            }
            return Ok(());
        }
        let number = self.last[index] + 1;
        self.none_dropped(index, message)?;
        if !(Payload { conn: 0, number, size: self.size }).is(body) {
            return Err(format!(
                "subscriber {index} got message {:?} of {} bytes, and not {number}",
                Payload::number_in(body),
                body.len()
            ));
        }
        self.last[index] = number;
        self.deliveries += 1;
        let slot = number as usize % RING;
        self.times[slot] += 1;
        let begun = self.left[slot];
        self.latency.saturating_record(clock::nanos(begun, clock::now()).max(1));
        while self.complete < self.sent
            && self.times[(self.complete + 1) as usize % RING] as usize == count
        {
            self.complete += 1;
        }
        Ok(())
    }

    fn none_dropped(&self, index: usize, message: &Message) -> Result<(), String> {
        match message.dropped {
            0 => Ok(()),
            dropped => Err(format!("the broker dropped {dropped} messages to subscriber {index}")),
        }
    }

    fn take(&mut self, index: usize, what: &What, bytes: &[u8]) -> Result<(), String> {
        match what {
            What::Message(message) => self.message(index, message, bytes),
            _ => Ok(()),
        }
    }
}

impl Crowd {
    /// All subscribed.
    pub(super) fn new(
        (hub, alone): (Hub, &Alone),
        trial: &Trial,
        stop: &Stop,
    ) -> Result<Self, String> {
        let count = trial.subscribers;
        if trial.payload < 4 {
            return Err("a payload of less than 4 bytes has no room for its number".into());
        }
        let mut conns = Conns::open((hub, alone), count + 3, stop)?;
        for index in 0..count {
            conns.subscribe(index, 1, TOPIC);
        }
        conns.subscribe(count + 1, 1, FILL);
        conns.subscribe(count + 2, 1, BOTH);
        let mut ready = 0;
        conns.until(
            ("all subscriptions", LIMIT),
            &mut ready,
            |_, ready| stop.check().map(|()| *ready == count + 2),
            |ready, _, what, _| {
                *ready += usize::from(what == What::Subscribed(1));
                Ok(())
            },
        )?;
        let got = Got {
            last: vec![0; count],
            size: trial.payload,
            left: vec![clock::now(); RING],
            times: vec![0; RING],
            sent: 0,
            complete: 0,
            fills: 0,
            deliveries: 0,
            latency: histogram()?,
            late: 0,
            dropped: 0,
            late_last: 0,
        };
        Ok(Self { conns, got, hub, count, window: trial.window })
    }

    fn publish(&mut self, left: Instant) {
        let got = &mut self.got;
        got.sent += 1;
        let slot = got.sent as usize % RING;
        (got.left[slot], got.times[slot]) = (left, 0);
        let payload = Payload { conn: 0, number: got.sent, size: got.size };
        self.conns.publish(self.count, TOPIC, payload);
    }

    /// Publishes for so long: at a rate, or (rate 0) with a window; then waits for the last ones.
    pub(super) fn go(&mut self, rate: u64, span: Duration, stop: &Stop) -> Result<Tally, String> {
        let begun = clock::now();
        self.got.latency.reset();
        self.got.deliveries = 0;
        let mut unsent = 0;
        self.conns.begin(rate)?;
        loop {
            let now = clock::now();
            if now >= begun + span {
                break;
            }
            stop.check()?;
            if rate == 0 {
                while self.got.sent - self.got.complete < self.window {
                    self.publish(now);
                }
            }
            while let Some((_, meant)) = self.conns.next_due(now) {
                // One that does not leave at the rate is told, and not sent later.
                if ((self.got.sent - self.got.complete) as usize) < RING {
                    self.publish(meant);
                } else {
                    unsent += 1;
                }
            }
            let got = &mut self.got;
            self.conns.turn(&mut |index, what, bytes: &[u8]| got.take(index, &what, bytes))?;
        }
        let (deliveries, span) = (self.got.deliveries, clock::now() - begun);
        self.conns.begin(0)?;
        self.drain(stop)?;
        Ok(Tally { deliveries, latency: self.got.latency.clone(), span, unsent })
    }

    /// Waits until every subscriber has every message.
    fn drain(&mut self, stop: &Stop) -> Result<(), String> {
        self.conns.until(
            ("the last messages at all subscribers", DRAIN),
            &mut self.got,
            |_, got| stop.check().map(|()| got.complete == got.sent),
            |got, index, what, bytes| got.take(index, &what, bytes),
        )
    }

    /// One subscriber stops to read, and its buffers are filled.
    pub(super) fn stop_one(&mut self, stop: &Stop) -> Result<(), String> {
        self.conns.stop_reading(self.count + 2);
        let publisher = self.count;
        let mut next = 0;
        self.conns.until(
            ("what fills the buffers of one subscriber", LIMIT),
            &mut self.got,
            |conns, got| {
                while next < FILLS && next < got.fills + FILL_WINDOW {
                    next += 1;
                    let payload = Payload { conn: FILLER, number: next, size: FILL_BYTES };
                    conns.publish(publisher, FILL, payload);
                }
                stop.check().map(|()| got.fills == FILLS)
            },
            |got, index, what, bytes| got.take(index, &what, bytes),
        )
    }

    /// It reads again: what it got. Of isect, all that it did not get must be counted.
    pub(super) fn resume_one(&mut self, stop: &Stop) -> Result<String, String> {
        let (index, sent) = (self.count + 2, self.got.sent);
        let begun = clock::now();
        let got = &mut self.got;
        let mut each = |index: usize, what: What, bytes: &[u8]| got.take(index, &what, bytes);
        let mut state = self.conns.resume(index, &mut each);
        while matches!(state, Ok(true)) && self.got.late_last != sent {
            stop.check()?;
            if clock::now() > begun + DRAIN {
                state = Err("it did not get the last message".to_owned());
                break;
            }
            let got = &mut self.got;
            let turned =
                self.conns.turn(&mut |index, what, bytes: &[u8]| got.take(index, &what, bytes));
            state = turned.map(|()| true);
        }
        let Got { late, dropped, .. } = self.got;
        let all = u64::from(sent + FILLS);
        let text = format!("it got {late} of {all}, {dropped} were dropped");
        match state {
            Ok(true) if self.hub.is_isect() && late + dropped != all => {
                Err(format!("the stopped subscriber: {text}: {} are not counted", all - late))
            }
            Ok(true) => Ok(text),
            Ok(false) | Err(_) if self.hub.is_isect() => {
                Err(format!("the stopped subscriber: {text}: {state:?}"))
            }
            Ok(false) | Err(_) => Ok(format!("closed by the broker; {text}")),
        }
    }
}
