//! isect's protocol as the bench uses it: a client, and a worker that started itself.

use super::{ClientProtocol, Parsed, Protocol};
use crate::payload::Payload;
use protocol::bodies::{Login, WorkerLogin};
use protocol::encode;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::WorkerId;
use protocol::kinds::Kind;
use protocol::limits::HEADER_BYTES;
use protocol::names::{HostName, ServiceName};

const DATA: u16 = Kind::Data.number();
const LOGIN_OK: u16 = Kind::LoginOk.number();
const WORKER_LOGIN_OK: u16 = Kind::WorkerLoginOk.number();
const PING: u16 = Kind::Ping.number();
const END: u16 = Kind::End.number();

/// A client of a service.
#[derive(Debug)]
pub struct Client {
    service: ServiceName,
    deadline_ms: u32,
}

/// A worker that started itself.
#[derive(Debug)]
pub struct Worker {
    service: ServiceName,
    concurrency: u32,
}

pub(super) fn append(frame: Frame, out: &mut Vec<u8>) {
    let encoded = encode::encode(frame);
    out.extend_from_slice(&encoded.head);
    out.extend_from_slice(&encoded.body);
}

/// The header and the size of the whole frame at the front, if it is there.
pub(super) fn frame(bytes: &[u8]) -> Option<(Header, usize)> {
    let head = Header::read(bytes.first_chunk::<HEADER_BYTES>()?);
    let size = HEADER_BYTES + head.len as usize;
    (bytes.len() >= size).then_some((head, size))
}

pub(super) fn wrong(who: &str, head: &Header, body: &[u8]) -> String {
    let name = ErrorCode::of(head.error).map_or("no error", ErrorCode::name);
    format!(
        "the broker sent the {who} kind {} with error {} ({name}): {}",
        head.command,
        head.error,
        body[..body.len().min(200)].escape_ascii()
    )
}

impl Client {
    /// A client of this service whose requests have this deadline; 0 = the service's.
    pub const fn new(service: ServiceName, deadline_ms: u32) -> Self {
        Self { service, deadline_ms }
    }
}

impl Protocol for Client {
    fn hello(&mut self, out: &mut Vec<u8>) -> bool {
        append(Frame::Login(Login::to(self.service.clone())), out);
        false
    }

    fn parse(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Parsed, String> {
        let Some((head, used)) = frame(bytes) else {
            return Ok(Parsed::Part);
        };
        match head.command {
            DATA if head.error == 0 && head.more == 0 => {
                Ok(Parsed::Reply { used, number: Some(head.sequence), body: HEADER_BYTES..used })
            }
            LOGIN_OK => Ok(Parsed::Ready { used }),
            PING => {
                append(Frame::Pong { sequence: head.sequence }, out);
                Ok(Parsed::Passed { used })
            }
            _ => Err(wrong("client", &head, &bytes[HEADER_BYTES..used])),
        }
    }
}

impl ClientProtocol for Client {
    fn ask(&mut self, payload: Payload, out: &mut Vec<u8>) {
        let head = Header {
            len: payload.size as u32,
            sequence: payload.number,
            reply: 1,
            deadline_ms: self.deadline_ms,
            ..Header::default()
        };
        out.extend_from_slice(&head.write());
        payload.append(out);
    }
}

impl Worker {
    /// A worker of this service that takes so many requests at a time.
    pub const fn new(service: ServiceName, concurrency: u32) -> Self {
        Self { service, concurrency }
    }
}

impl Protocol for Worker {
    fn hello(&mut self, out: &mut Vec<u8>) -> bool {
        let Ok(host) = HostName::new("localhost") else {
            return false;
        };
        let login = WorkerLogin {
            worker: WorkerId(0),
            service: self.service.clone(),
            host,
            hostpid: std::process::id(),
            secret: String::new(),
            concurrency: self.concurrency,
            cancel: false,
            token: None,
        };
        append(Frame::WorkerLogin(login), out);
        false
    }

    fn parse(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Parsed, String> {
        let Some((head, used)) = frame(bytes) else {
            return Ok(Parsed::Part);
        };
        match head.command {
            DATA => {
                let reply = Header {
                    len: head.len,
                    sequence: head.sequence,
                    workerid: head.workerid,
                    transaction: head.transaction,
                    ..Header::default()
                };
                out.extend_from_slice(&reply.write());
                out.extend_from_slice(&bytes[HEADER_BYTES..used]);
                Ok(Parsed::Passed { used })
            }
            WORKER_LOGIN_OK => Ok(Parsed::Ready { used }),
            PING => {
                append(Frame::Pong { sequence: head.sequence }, out);
                Ok(Parsed::Passed { used })
            }
            END => Ok(Parsed::Passed { used }),
            _ => Err(wrong("worker", &head, &bytes[HEADER_BYTES..used])),
        }
    }
}
