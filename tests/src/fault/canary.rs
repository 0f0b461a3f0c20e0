//! Canaries: simple requests after the faults are over and everything is quiescent, which must all
//! succeed. Each service is asked once in each way; a new worker is configured, serves and is
//! removed without a trace. No failure here is excused.

use super::ask::{Act, Ask, Sum};
use super::conn::{Conn, Endpoint, Received};
use super::history::{Asked, Got, Outcome};
use super::load::{DEADLINE_MS, Load, SERVICES};
use super::quiescence::QUIESCENCE_MAX;
use super::world::World;
use crate::proc::within;
use bytes::Bytes;
use client::caller::{Caller, Options};
use client::error::{Code, Error};
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::names::ServiceName;
use std::time::Duration;

/// The service of the new workers.
const FRESH: &str = "fresh";
/// Time limit for a reply without other load from the test, on a loaded machine.
const ANSWER_MAX: Duration = Duration::from_millis(DEADLINE_MS);

/// The way a canary sends its request.
#[derive(Clone, Debug)]
enum Way {
    /// By a raw client, at this endpoint.
    Hand(Endpoint),
    /// By the client library, through the proxy.
    Library(Endpoint),
}

/// Sends all canaries; returns the failures in words.
pub fn fly(world: &World, load: &Load) -> Vec<String> {
    let mut wrong = Vec::new();
    // Each kind of endpoint once; the first is the proxy's.
    let mut endpoints = load.endpoints.clone();
    endpoints.dedup();
    let hands = endpoints.iter().cloned().map(Way::Hand);
    let ways: Vec<Way> = hands.chain([Way::Library(endpoints[0].clone())]).collect();
    for (index, service) in SERVICES.iter().enumerate() {
        for way in &ways {
            if let Err(why) = ask(load, way, (index, service.name)) {
                wrong.push(format!("canary: {} by {way:?}: {why}", service.name));
            }
        }
    }
    for is_far in [false, true] {
        if let Err(why) = employ(world, load, &ways, is_far) {
            wrong.push(format!("canary: a new worker, far = {is_far}: {why}"));
        }
    }
    wrong
}

/// Configures a service with one worker, sends it a request, and removes both again.
fn employ(world: &World, load: &Load, ways: &[Way], is_far: bool) -> Result<(), String> {
    let op = |command: &str| world.op(command).map_err(|e| format!("'{command}': {e}"));
    op(&format!("config service {FRESH}"))?;
    op(&world.worker(FRESH, is_far, 0))?;
    op(&format!("start {FRESH}"))?;
    for way in ways {
        ask(load, way, (SERVICES.len(), FRESH)).map_err(|why| format!("by {way:?}: {why}"))?;
    }
    let workers = world.json("workers");
    let ids: Vec<u64> = ["lazy", "idle", "busy"]
        .iter()
        .filter_map(|list| workers[list].as_array())
        .flatten()
        .filter(|worker| worker["service"] == FRESH)
        .filter_map(|worker| worker["worker"].as_u64())
        .collect();
    let [id] = ids[..] else { return Err(format!("its workers are {ids:?} of {workers}")) };
    op(&format!("stop {FRESH}"))?;
    // It is asked to end first.
    let mut last = String::new();
    for command in [format!("delete worker {id}"), format!("delete service {FRESH}")] {
        let done = within(QUIESCENCE_MAX, || op(&command).map_err(|why| last = why).ok());
        done.ok_or_else(|| last.clone())?;
    }
    Ok(())
}

/// Logs in anew and asks once; the checker hears of it as of any other request.
fn ask(load: &Load, way: &Way, (index, name): (usize, &str)) -> Result<(), String> {
    let ask = Ask { id: load.id(), work_us: 1000, act: Act::Answer, filling: 100 };
    let body = ask.to_string().into_bytes();
    let mut sum = Sum::default();
    sum.add(&body);
    let wanted = sum.answer(&ask);
    let mut last = String::new();
    // After many wrong proofs the broker may look at one login a second only.
    let sent = load.clock.now();
    let got = within(QUIESCENCE_MAX, || {
        let got = match way {
            Way::Hand(endpoint) => by_hand(load, endpoint, name, &body),
            Way::Library(endpoint) => by_library(load, endpoint, name, &body),
        };
        match got {
            Err(why) if why.contains("login_limited") => {
                last = why;
                None
            }
            got => Some(got),
        }
    });
    let got = got.ok_or(last)?;
    let is_right = got.as_ref().is_ok_and(|answer| *answer == wanted);
    let outcome = Outcome { at: load.clock.now(), blind: 0, got: Got::Answer { right: is_right } };
    load.keep([Asked {
        id: ask.id,
        service: index,
        idempotent: false,
        reply: true,
        deadline: u64::try_from(QUIESCENCE_MAX.as_micros()).unwrap_or(u64::MAX),
        sent,
        behind: 0,
        port: 0,
        library: matches!(way, Way::Library(_)),
        changing: false,
        outcomes: vec![outcome],
        end: None,
    }]);
    match got {
        Ok(_) if is_right => Ok(()),
        Ok(answer) => Err(format!("the answer is {:?}", String::from_utf8_lossy(&answer))),
        Err(why) => Err(why),
    }
}

fn by_hand(
    load: &Load,
    endpoint: &Endpoint,
    service: &str,
    body: &[u8],
) -> Result<Vec<u8>, String> {
    let secrets = load.secrets.as_deref().filter(|_| !matches!(endpoint, Endpoint::Unix(_)));
    let token = secrets.map(|secrets| secrets.token(true));
    let conn = Conn::open(endpoint, secrets, load.clock).map_err(|e| e.to_string())?;
    let mut conn = conn.log_in(service, (false, false), token.as_ref())?;
    let head = Header { sequence: 1, reply: 1, ..Header::default() };
    conn.send(Frame::data(head, Bytes::copy_from_slice(body)));
    loop {
        match conn.next(ANSWER_MAX) {
            Received::Frame(Frame::Data { body, .. }, _) => return Ok(body.to_vec()),
            Received::Frame(Frame::Ping { sequence }, _) => {
                conn.send(Frame::Pong { sequence });
            }
            other => return Err(format!("{other:?}")),
        }
    }
}

fn by_library(
    load: &Load,
    endpoint: &Endpoint,
    service: &str,
    body: &[u8],
) -> Result<Vec<u8>, String> {
    let mut options = Options::new(ServiceName::new(service).expect("a service name"));
    if let Some(secrets) = &load.secrets {
        options.trust = Some(secrets.trust());
        options.token = Some(secrets.library_token());
    }
    let shown = |error: Error| match error.code {
        Code::Isect(code) => format!("{}: {error}", code.name()),
        Code::Application(_) | Code::Newer(_) => error.to_string(),
    };
    let mut caller =
        Caller::login(&[endpoint.address(load.secrets.is_some())], options).map_err(shown)?;
    let answer = caller.call(body.to_vec(), Some(ANSWER_MAX)).map_err(shown)?;
    Ok(answer.to_vec())
}
