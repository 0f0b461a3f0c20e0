//! Each input of the engine, as it happens to the crowd.

use super::crowd::{Crowd, SERVICES, host, listed, script};
use super::{Case, first_topics};
use broker::engine::input::{Certificates, Close, Input, Peer, Report, TokenRights, Tokens};
use broker::engine::origin::Origin;
use bytes::Bytes;
use protocol::bodies::{ErrorBody, ExecExited, ExecFailed, ExecOutput, ExitCause, Login, Stream};
use protocol::decode::WireError;
use protocol::errors::ErrorCode;
use protocol::header::Header;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::names::{ServiceName, TokenName};
use protocol::process::StartClaim;
use protocol::proof::{Challenge, Claim, Proof};
use protocol::rights::Rights;
use protocol::time::Wall;
use std::collections::BTreeMap;

pub(super) fn case(
    name: &'static str,
    act: impl Fn(&mut Crowd) -> Result<(), String> + 'static,
) -> Case {
    Case { name: name.to_owned(), act: Box::new(act) }
}

/// An input that is made of a crowd, and what follows from it.
pub(super) fn one(
    name: &'static str,
    make: impl Fn(&mut Crowd) -> Result<Input, String> + 'static,
) -> Case {
    case(name, move |crowd| {
        let mut made = Err(String::new());
        crowd.quietly(|crowd| {
            made = make(crowd);
            Ok(())
        })?;
        crowd.give(made?);
        crowd.follow()
    })
}

/// What happens before the crowd is there: the start.
pub(super) fn start() -> Vec<Case> {
    vec![
        one("Script: a saved configuration of 4,801 lines", |_| {
            let (origin, text) = (Origin::State, script(SERVICES, 400));
            Ok(Input::Script { origin, text })
        }),
        one("Started: with 1,000 hosts", |_| Ok(Input::Started)),
        one("Listening: again", |_| Ok(Input::Listening(Box::default()))),
    ]
}

/// A host with all workers comes up for the first time.
pub(super) fn up() -> Case {
    case("Report: a host comes up, and 3,000 workers are started", |crowd| {
        let mut link = Err("the host is not dialled".to_owned());
        crowd.quietly(|crowd| {
            if crowd.takes_dial(&host(0)?) {
                link = Ok(crowd.greeted(&host(0)?));
            }
            Ok(())
        })?;
        let report = Box::new(listed(Vec::new()));
        crowd.give(Input::Report { link: link?, report });
        crowd.follow()
    })
}

/// Inputs of single peers.
pub(super) fn single() -> Vec<Case> {
    let mut cases = peers();
    cases.extend(logins());
    cases.extend(hosts());
    cases.extend(requests());
    cases.extend(first_topics::cases());
    cases
}

pub(super) fn client(crowd: &Crowd) -> LinkId {
    crowd.clients[crowd.clients.len() / 2]
}

fn requests() -> Vec<Case> {
    vec![
        case("Request: into the queue", |crowd| {
            let link = client(crowd);
            crowd.ask(link, &[1; 64]);
            crowd.follow()
        }),
        case("Reply: of a worker for which requests wait", |crowd| {
            crowd.reply()?;
            crowd.follow()
        }),
        one("StatusReply: that nobody asked for", |crowd| {
            let (_, link, _) = crowd.busy()?;
            Ok(Input::StatusReply { link, sequence: 77, text: "well".to_owned() })
        }),
        one("Congested: a worker", |crowd| Ok(Input::Congested { link: crowd.busy()?.1 })),
        one("Uncongested: a worker", |crowd| Ok(Input::Uncongested { link: crowd.busy()?.1 })),
        one("Closed: a worker with a request", |crowd| {
            let (_, link, _) = crowd.busy()?;
            Ok(Input::Closed { link, how: Close::Reset })
        }),
        one("Closed: a worker with a request that may be repeated", |crowd| {
            crowd.command("config service s0000 retry=3 retry_percent=100");
            crowd.follow()?;
            let (_, link, _) = crowd.busy()?;
            Ok(Input::Closed { link, how: Close::Eof })
        }),
        one("Stalled: a client", |crowd| Ok(Input::Stalled { link: client(crowd), bytes: 9 })),
        one("OutboxFull: a client", |crowd| {
            let link = crowd.clients[1];
            Ok(Input::OutboxFull { link, bytes: 9 })
        }),
        one("Garbage: of a client", |crowd| {
            let link = crowd.clients[2];
            let error = WireError::fatal(ErrorCode::BadFrame, "is no frame", 0);
            Ok(Input::Garbage { link, error })
        }),
        one("Logout: of a client", |crowd| {
            Ok(Input::Logout { link: crowd.clients[3], received: None })
        }),
        one("HalfClosed: a client", |crowd| Ok(Input::HalfClosed { link: crowd.clients[3] })),
        one("Cancel: of a client", |crowd| {
            Ok(Input::Cancel { link: crowd.clients[3], sequence: 1 })
        }),
        one("Flush: of a client", |crowd| Ok(Input::Flush { link: crowd.clients[3], sequence: 1 })),
        one("Closed: a client", |crowd| {
            let link = crowd.clients[4];
            Ok(Input::Closed { link, how: Close::Eof })
        }),
    ]
}

fn peers() -> Vec<Case> {
    vec![
        one("Deadline: nothing is due", |_| Ok(Input::Deadline)),
        one("Clock: was set", |_| Ok(Input::Clock { wall: Wall::default() })),
        one("ClientOpened: one more", |crowd| {
            Ok(Input::ClientOpened { link: crowd.link(), peer: Peer::default() })
        }),
        one("WorkerOpened: one more", |crowd| {
            Ok(Input::WorkerOpened { link: crowd.link(), peer: Peer::default() })
        }),
        one("Known: a peer", |crowd| {
            Ok(Input::Known { link: opened(crowd), uid: Some(1), is_owner: false })
        }),
        one("Ping: of a client", |crowd| Ok(Input::Ping { link: client(crowd), sequence: 1 })),
        one("Pong: of a client", |crowd| Ok(Input::Pong { link: client(crowd) })),
        one("Heard: a client", |crowd| Ok(Input::Heard { link: client(crowd) })),
        one("PeerError: of a host that has no such process", |crowd| {
            let link = *crowd.hosts.get(&host(0)?).ok_or("there is no host")?;
            let error = ErrorBody::new(ErrorCode::NotFound, "there is none");
            Ok(Input::PeerError { link, worker: WorkerId(3), run: RunId(3), error })
        }),
        one("Stored: a change", |crowd| {
            crowd.command("set last_bytes_max 100");
            let number = crowd.stores.pop_back().ok_or("nothing is stored")?;
            Ok(Input::Stored { number, result: Ok(()) })
        }),
        one("CertificatesRead: nobody asked", |_| {
            let found = Certificates::default();
            Ok(Input::CertificatesRead { requester: None, found, more: false })
        }),
        one("TokensRead: they can't be read", |_| {
            Ok(Input::TokensRead { requester: None, tokens: Err("no file".to_owned()) })
        }),
    ]
}

fn opened(crowd: &mut Crowd) -> LinkId {
    let link = crowd.link();
    crowd.give(Input::ClientOpened { link, peer: Peer::default() });
    link
}

fn claim() -> Result<Claim, String> {
    let token = TokenName::new("mine").map_err(|e| e.to_string())?;
    Ok(Claim { token, nonce: vec![7; 32] })
}

fn login(name: &str) -> Result<Box<Login>, String> {
    Ok(Box::new(Login::to(ServiceName::new(name).map_err(|e| e.to_string())?)))
}

fn logins() -> Vec<Case> {
    vec![
        one("Login: to a service", |crowd| {
            Ok(Input::Login { link: opened(crowd), login: login("s0000")? })
        }),
        one("Login: to a service that there is not", |crowd| {
            Ok(Input::Login { link: opened(crowd), login: login("s0000x")? })
        }),
        one("Login: to the beginning of all names", |crowd| {
            Ok(Input::Login { link: opened(crowd), login: login("s0")? })
        }),
        one("Login: to a long name", |crowd| {
            Ok(Input::Login { link: opened(crowd), login: login(&"s".repeat(32))? })
        }),
        one("StartLogin: with a secret that is not right", |crowd| {
            let claim = StartClaim { worker: WorkerId(1), secret: "1.2.3".to_owned() };
            let login = Box::new(Login { start: Some(Box::new(claim)), ..*login("s0000")? });
            Ok(Input::StartLogin { link: opened(crowd), login, proof: None })
        }),
        one("Proof: that nobody asked for", |crowd| {
            let proof = Box::new(Proof { proof: [0; 32], channel: None });
            Ok(Input::Proof { link: opened(crowd), proof })
        }),
        one("Proven: for nobody", |crowd| {
            Ok(Input::Proven { link: opened(crowd), proven: Ok("signature".to_owned()) })
        }),
        case("WorkerLogin: of a worker that lost its connection", |crowd| {
            let lost = crowd.workers.iter().find(|(_, worker)| worker.link.is_none());
            let lost = lost.map(|(&id, _)| id);
            let id = match lost {
                Some(id) => id,
                None => {
                    let (id, link, _) = crowd.busy()?;
                    crowd.quietly(|crowd| {
                        crowd.close(link, Close::Reset);
                        crowd.follow()
                    })?;
                    id
                }
            };
            crowd.log_in(id)?;
            crowd.follow()
        }),
    ]
}

fn challenge() -> Challenge {
    Challenge {
        salt: vec![1; 16],
        memory_kib: 65_536,
        passes: 3,
        lanes: 1,
        nonce: vec![1; 64],
        channels: None,
    }
}

fn hosts() -> Vec<Case> {
    let at = |crowd: &Crowd, index| {
        crowd.hosts.get(&host(index)?).copied().ok_or_else(|| "there is no such host".to_owned())
    };
    vec![
        one("Closed: a host without workers", move |crowd| {
            Ok(Input::Closed { link: at(crowd, 900)?, how: Close::Reset })
        }),
        one("HostRefused: the dial of a host", |crowd| {
            let name = host(901)?;
            let link = crowd.hosts.get(&name).copied().ok_or("there is no such host")?;
            crowd.close(link, Close::Reset);
            crowd.pass(40)?;
            let due = crowd.engine.next_deadline().ok_or("nothing is due")?;
            crowd.now = crowd.now.max(due.plus_millis(20));
            crowd.give(Input::Deadline);
            Ok(Input::HostRefused { host: name, why: "refused".to_owned() })
        }),
        one("HostOpened: a host that is not dialled", |crowd| {
            let link = crowd.link();
            Ok(Input::HostOpened { link, host: host(902)?, fd: 9, must: None })
        }),
        one("Claimed: again", move |crowd| {
            Ok(Input::Claimed { link: at(crowd, 903)?, claim: Some(claim()?) })
        }),
        one("Challenged: a host that is up", move |crowd| {
            Ok(Input::Challenged { link: at(crowd, 903)?, challenge: Box::new(challenge()) })
        }),
        one("Unproven: a host", move |crowd| {
            Ok(Input::Unproven { link: at(crowd, 904)?, why: "no token".to_owned() })
        }),
        one("Report: a line of output", move |crowd| {
            let (worker, _, _) = crowd.busy()?;
            let run = crowd.workers[&worker].run;
            let line = "a line".to_owned();
            let output =
                ExecOutput { worker, run, stream: Stream::Stderr, line, dropped: 0, number: 0 };
            Ok(Input::Report { link: at(crowd, 0)?, report: Box::new(Report::Output(output)) })
        }),
        one("Report: an exit", move |crowd| {
            let (worker, _, _) = crowd.busy()?;
            let run = crowd.workers[&worker].run;
            let exited = ExecExited {
                worker,
                run,
                pid: 1,
                exit_cause: ExitCause::Signal(9),
                cpu_ms: 0,
                rss_kib_max: 0,
                core: false,
                oom: false,
                tail: Vec::new(),
            };
            Ok(Input::Report { link: at(crowd, 0)?, report: Box::new(Report::Exited(exited)) })
        }),
        one("Report: a start that failed", move |crowd| {
            let (worker, _, _) = crowd.busy()?;
            let (run, text) = (crowd.workers[&worker].run, "no such program".to_owned());
            let failed = ExecFailed { worker, run, permanent: true, again_ms: 0, text };
            Ok(Input::Report { link: at(crowd, 0)?, report: Box::new(Report::Failed(failed)) })
        }),
    ]
}

/// Inputs that concern many.
pub(super) fn many() -> Vec<Case> {
    vec![
        case("StatusReply: of all workers", |crowd| {
            crowd.quietly(|crowd| {
                crowd.command("send all status");
                crowd.follow()
            })?;
            let sequence = crowd.status_sequence;
            let links: Vec<LinkId> = crowd.workers.values().filter_map(|w| w.link).collect();
            for link in links {
                crowd.give(Input::StatusReply { link, sequence, text: "well".to_owned() });
            }
            crowd.follow()
        }),
        case("Deadline: five seconds of heartbeats", |crowd| crowd.pass(5000)),
        case("Deadline: of all requests", |crowd| {
            crowd.pass(31_000)?;
            crowd.quietly(Crowd::fill)
        }),
        case("Deadline: the broker stood still, and all requests are late", |crowd| {
            crowd.now = crowd.now.plus_millis(31_000);
            crowd.give(Input::Deadline);
            crowd.follow()?;
            crowd.quietly(Crowd::fill)
        }),
        case("Reply: the broker stood still, and all requests are late", |crowd| {
            crowd.now = crowd.now.plus_millis(31_000);
            crowd.reply()?;
            crowd.follow()?;
            crowd.quietly(Crowd::fill)
        }),
        case("Closed: a host with 3,000 workers", |crowd| {
            let link = *crowd.hosts.get(&host(0)?).ok_or("there is no host")?;
            crowd.close(link, Close::Reset);
            Ok(())
        }),
        case("Report: a host returns with 3,000 workers", |crowd| {
            let mut link = None;
            crowd.quietly(|crowd| {
                for _ in 0..100 {
                    if crowd.takes_dial(&host(0)?) {
                        link = Some(crowd.greeted(&host(0)?));
                        return Ok(());
                    }
                    let due = crowd.engine.next_deadline().ok_or("nothing is due")?;
                    crowd.now = crowd.now.max(due);
                    crowd.give(Input::Deadline);
                }
                Err("the host is not dialled".to_owned())
            })?;
            let link = link.ok_or("there is no host")?;
            let report = Box::new(listed(crowd.children()));
            crowd.give(Input::Report { link, report });
            crowd.follow()
        }),
    ]
}

/// Files of `source`.
pub(super) fn files() -> Vec<Case> {
    let sourced = |name: &'static str, sequence: u32, text: String| {
        one(name, move |crowd| {
            let (link, path) = (crowd.operator, "/tmp/script".to_owned());
            let head = Header { sequence, reply: 1, ..Header::default() };
            Ok(Input::Sourced { link, head, path, script: Ok(text.clone()) })
        })
    };
    let service = |index| format!("config service s{:04} deadline_ms=30000\n", index % SERVICES);
    let one_each = (0..4801).map(service).collect();
    let many = "services\nworkers\nrequests\nqueue\nsave\nstatus\nlistevents\npause all\n\
                ready all\nreset\nset stall_ms 9000\npause s0000\nready s0000\nclients\n\
                config events 10\nworker 1\nstart 1\nstop 1\n";
    let none = "no-command-is-like-this\n";
    vec![
        sourced("Sourced: a file of 4,801 lines", u32::MAX, one_each),
        sourced("Sourced: a file of lines that concern many", u32::MAX - 1, many.repeat(20)),
        sourced("Sourced: a file of lines that are no commands", u32::MAX - 2, none.repeat(600)),
    ]
}

/// Inputs after which most peers are gone.
pub(super) fn ends() -> Vec<Case> {
    vec![
        case("Closed: the connections of all workers", |crowd| {
            let links: Vec<LinkId> = crowd.workers.values().filter_map(|w| w.link).collect();
            for link in links {
                crowd.close(link, Close::Reset);
            }
            crowd.follow()
        }),
        case("Deadline: workers that do not come back", |crowd| crowd.pass(20_000)),
        one("TokensRead: that shut all clients out", |crowd| {
            crowd.now = crowd.now.plus_millis(1);
            let rights = TokenRights { rights: Rights::all(), stamp: 1 };
            let token = TokenName::new("mine").map_err(|e| e.to_string())?;
            let tokens = Tokens {
                file: "/tokens".to_owned(),
                tokens: BTreeMap::from([(token, rights)]),
                anonymous: Rights::default(),
            };
            Ok(Input::TokensRead { requester: None, tokens: Ok(Box::new(tokens)) })
        }),
    ]
}

/// The signal that ends the broker.
pub(super) fn last() -> Vec<Case> {
    vec![
        one("Terminate: with all requests", |_| Ok(Input::Terminate { signal: "SIGTERM" })),
        case("Deadline: the time of the shutdown is over", |crowd| crowd.pass(30_000)),
        one("Request: while the broker ends", |crowd| {
            let link = client(crowd);
            let head = Header { len: 1, sequence: 9, reply: 1, ..Header::default() };
            Ok(Input::Request { link, head, body: Bytes::from_static(b"x") })
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! kinds {
        ($($kind:ident)+) => {
            /// The name of an input. One that is not listed does not compile.
            const fn kind(input: &Input) -> &'static str {
                match input {
                    $(Input::$kind { .. } => stringify!($kind),)+
                }
            }

            /// The names of all inputs.
            const KINDS: &[&str] = &[$(stringify!($kind),)+];
        };
    }

    kinds! {
        Deadline Clock Listening Started Script ClientOpened WorkerOpened HostOpened HostRefused
        Closed Congested Uncongested OutboxFull Stalled Garbage Known Login Proof Proven Claimed
        Challenged Unproven TokensRead CertificatesRead Logout HalfClosed Cancel Flush Request
        Reply StartLogin WorkerLogin StatusReply Subscribe Unsubscribe Publish Announce
        StateChange Beat Withdraw Report PeerError Ping Pong Heard Sourced Stored Terminate
    }

    #[test]
    fn each_input_has_a_case() {
        let cases = [start(), single(), many(), files(), ends(), last()].concat_names();
        for kind in KINDS {
            let begin = format!("{kind}:");
            assert!(cases.iter().any(|name| name.starts_with(&begin)), "{kind}");
        }
        assert_eq!(kind(&Input::Started), "Started");
    }

    trait Names {
        fn concat_names(self) -> Vec<String>;
    }

    impl Names for [Vec<Case>; 6] {
        fn concat_names(self) -> Vec<String> {
            self.into_iter().flatten().map(|case| case.name).collect()
        }
    }
}
