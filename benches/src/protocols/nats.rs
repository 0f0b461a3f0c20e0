//! NATS request and reply: the workers are one queue group, each client has one wildcard inbox.

use super::{ClientProtocol, Parsed, Protocol, line, number};
use crate::payload::Payload;
use std::io::Write;
use std::ops::Range;

const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":false}\r\n";

/// A client; its inbox has its number.
#[derive(Debug)]
pub struct Client {
    inbox: usize,
}

/// A worker of the queue group.
#[derive(Debug, Default)]
pub struct Worker;

/// A message of the server, parsed.
enum ServerMessage<'a> {
    Part,
    Info { used: usize },
    Ping { used: usize },
    Pong { used: usize },
    Message { used: usize, subject: &'a str, reply: Option<&'a str>, body: Range<usize> },
}

fn said(bytes: &[u8]) -> Result<ServerMessage<'_>, String> {
    let Some((text, at)) = line(bytes)? else {
        return Ok(ServerMessage::Part);
    };
    let mut words = text.split(' ');
    match words.next().unwrap_or_default() {
        "INFO" => Ok(ServerMessage::Info { used: at }),
        "PING" => Ok(ServerMessage::Ping { used: at }),
        "PONG" => Ok(ServerMessage::Pong { used: at }),
        "MSG" => {
            let words: Vec<&str> = words.collect();
            let (subject, reply, size) = match words.as_slice() {
                [subject, _, size] => (*subject, None, *size),
                [subject, _, reply, size] => (*subject, Some(*reply), *size),
                _ => return Err(format!("nats-server sent '{text}'")),
            };
            let end = at + number::<usize>(size)?;
            if bytes.len() < end + 2 {
                return Ok(ServerMessage::Part);
            }
            Ok(ServerMessage::Message { used: end + 2, subject, reply, body: at..end })
        }
        _ => Err(format!("nats-server sent '{text}'")),
    }
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing into memory does not fail.
    let _ = out.write_fmt(text);
}

impl Client {
    /// A client with this inbox.
    pub const fn new(inbox: usize) -> Self {
        Self { inbox }
    }
}

impl Protocol for Client {
    fn hello(&mut self, out: &mut Vec<u8>) -> bool {
        write(out, format_args!("{CONNECT}SUB _I.{}.* 1\r\nPING\r\n", self.inbox));
        false
    }

    fn parse(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Parsed, String> {
        Ok(match said(bytes)? {
            ServerMessage::Part => Parsed::Part,
            ServerMessage::Info { used } => Parsed::Passed { used },
            ServerMessage::Pong { used } => Parsed::Ready { used },
            ServerMessage::Ping { used } => {
                out.extend_from_slice(b"PONG\r\n");
                Parsed::Passed { used }
            }
            ServerMessage::Message { used, subject, body, .. } => {
                let tag = subject.rsplit('.').next().unwrap_or_default();
                Parsed::Reply { used, number: Some(number(tag)?), body }
            }
        })
    }
}

impl ClientProtocol for Client {
    fn ask(&mut self, payload: Payload, out: &mut Vec<u8>) {
        let Payload { number, size, .. } = payload;
        write(out, format_args!("PUB echo _I.{}.{number} {size}\r\n", self.inbox));
        payload.append(out);
        out.extend_from_slice(b"\r\n");
    }
}

impl Protocol for Worker {
    fn hello(&mut self, out: &mut Vec<u8>) -> bool {
        write(out, format_args!("{CONNECT}SUB echo workers 1\r\nPING\r\n"));
        false
    }

    fn parse(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Parsed, String> {
        Ok(match said(bytes)? {
            ServerMessage::Part => Parsed::Part,
            ServerMessage::Info { used } => Parsed::Passed { used },
            ServerMessage::Pong { used } => Parsed::Ready { used },
            ServerMessage::Ping { used } => {
                out.extend_from_slice(b"PONG\r\n");
                Parsed::Passed { used }
            }
            ServerMessage::Message { used, reply, body, .. } => {
                let inbox = reply.ok_or("nats-server sent a request without an inbox")?;
                write(out, format_args!("PUB {inbox} {}\r\n", body.len()));
                out.extend_from_slice(&bytes[body]);
                out.extend_from_slice(b"\r\n");
                Parsed::Passed { used }
            }
        })
    }
}
