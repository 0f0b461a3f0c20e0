//! Sends every number of a frame to the broker's engine at the edges of its range: nothing
//! overflows, nothing stops, the laws hold, and the worker is started again afterwards. Numbers in
//! files are tested where the files are read; frames of execd and of the library in their crates.

use broker::engine::action::Action;
use broker::engine::input::{Close, Input, Listening, Peer, Signature, Start};
use broker::engine::origin::Origin;
use broker::engine::{Engine, EngineOptions};
use broker::translate::inbound::{self, Arrived};
use bytes::Bytes;
use protocol::decode::{self, Limits};
use protocol::header::Header;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::kinds::{Kind, Role};
use protocol::names::HostName;
use protocol::settings::{ServiceSetting, Setting};
use protocol::time::Tick;

const EDGES: [&str; 16] = [
    "0",
    "1",
    "2",
    "254",
    "255",
    "256",
    "65534",
    "65535",
    "2147483647",
    "2147483648",
    "4294967294",
    "4294967295",
    "9223372036854775807",
    "18446744073709551614",
    "18446744073709551615",
    "18446744073709551616",
];

const HOST: LinkId = LinkId { index: 1, generation: 0 };
const WORKER: LinkId = LinkId { index: 2, generation: 0 };
const CLIENT: LinkId = LinkId { index: 3, generation: 0 };
const OPERATOR: LinkId = LinkId { index: 4, generation: 0 };

/// An engine with a host, a started worker, a client and an operator, as far as a test needs them.
struct World {
    engine: Engine,
    now: Tick,
    /// Run and digest of the last start that the engine asked for.
    run: u64,
    digest: u32,
    started: u32,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            engine: Engine::new(EngineOptions { run_base: 1000, ..EngineOptions::default() }),
            now: Tick(0),
            run: 0,
            digest: 0,
            started: 0,
        };
        let execd = Some("unix:/x/execd".to_owned());
        world.step(Input::Listening(Box::new(Listening { execd, ..Listening::default() })));
        let text =
            "config service echo prefetch=1\nconfig worker echo localhost /bin/echo\nstart 1";
        world.step(Input::Script { origin: Origin::State, text: text.to_owned() });
        world.step(Input::Started);
        world
    }

    fn step(&mut self, input: Input) {
        let shown = format!("{input:?}");
        let mut actions = Vec::new();
        self.engine.step(self.now, input, &mut actions);
        for action in actions {
            if let Action::Start { start, .. } = action {
                (self.run, self.digest) = (start.run.0, start.digest);
                self.started += 1;
            }
        }
        self.engine.check_all().unwrap_or_else(|law| panic!("{law} after {shown}"));
    }

    /// Gives the engine a frame. One that this role may not send is garbage, as in the reactor.
    fn frame(&mut self, link: LinkId, role: Role, kind: Kind, head: Header, body: &str) {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let head = Header { command: kind.number(), len: body.len() as u32, ..head };
        let read = decode::head(&head.write(), Limits::new(usize::MAX));
        let start = Start { run: RunId(self.run), digest: self.digest };
        let input = match read {
            Err(error) => Input::Garbage { link, error },
            Ok((kind, head)) => {
                let prove = |_: WorkerId, secret: &str| (secret == "right").then_some(start);
                let check = |_: Option<&str>| Signature::Missing;
                inbound::input(Arrived { link, role, kind, head, body }, prove, check)
                    .unwrap_or_else(|error| Input::Garbage { link, error })
            }
        };
        self.step(input);
    }

    fn say(&mut self, link: LinkId, role: Role, kind: Kind, body: &str) {
        self.frame(link, role, kind, Header::default(), body);
    }

    fn host(&mut self, steps: usize) {
        if steps > 0 {
            let host = HostName::new("localhost").expect("a name");
            self.step(Input::HostOpened { link: HOST, host, fd: 9, must: None });
        }
        if steps > 1 {
            self.say(HOST, Role::Host, Kind::ExecWelcome, "hostpid 1\n");
        }
        if steps > 2 {
            self.say(HOST, Role::Host, Kind::ExecListed, "");
        }
    }

    fn worker(&mut self) {
        self.host(3);
        let body = format!("worker 1\nrun {}\npid 5\n", self.run);
        self.say(HOST, Role::Host, Kind::ExecStarted, &body);
        self.step(Input::WorkerOpened { link: WORKER, peer: Peer::default() });
        let login = "worker 1\nservice echo\nhost localhost\nhostpid 5\nsecret right\n";
        self.say(WORKER, Role::Worker, Kind::WorkerLogin, login);
    }

    fn client(&mut self, link: LinkId, service: &str) {
        let peer = Peer { is_owner: true, uid: Some(0), ..Peer::default() };
        self.step(Input::ClientOpened { link, peer });
        self.say(link, Role::Client, Kind::Login, &format!("service {service}\n"));
    }

    /// Lets time pass, closes all links, and has the host come back without processes. If the
    /// worker is then started again, its run number must be higher than the last one.
    fn goes_on(&mut self) {
        for wait in [1, 1000, 100_000] {
            self.now = self.now.plus_millis(wait);
            self.step(Input::Deadline);
        }
        let (before, started) = (self.run, self.started);
        for link in [WORKER, CLIENT, OPERATOR, HOST] {
            self.step(Input::Closed { link, how: Close::Reset });
        }
        self.now = self.now.plus_millis(1_000_000);
        self.step(Input::Deadline);
        let host = HostName::new("localhost").expect("a name");
        let link = LinkId { index: 1, generation: 1 };
        self.step(Input::HostOpened { link, host, fd: 9, must: None });
        self.say(link, Role::Host, Kind::ExecWelcome, "hostpid 1\n");
        self.say(link, Role::Host, Kind::ExecListed, "");
        for _ in 0..3 {
            self.now = self.now.plus_millis(400);
            self.step(Input::Deadline);
        }
        if self.started > started {
            assert!(self.run > before && self.run < 1_000_000, "run {} after {before}", self.run);
        }
    }
}

/// Copies of a body in which one number at a time is replaced by each edge of its range.
fn at_the_edges(body: &str) -> Vec<String> {
    let words: Vec<&str> = body.split_inclusive([' ', '\n']).collect();
    let mut all = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let end = &word[word.trim_end().len()..];
        if word.trim_end().parse::<i64>().is_err() {
            continue;
        }
        for edge in EDGES.into_iter().chain(["-1", "-32768", "-2147483648"]) {
            let mut words = words.clone();
            let new = format!("{edge}{end}");
            words[at] = &new;
            all.push(words.concat());
        }
    }
    all
}

#[test]
fn whatever_numbers_a_host_names_the_broker_goes_on() {
    for steps in 1..=3 {
        for (kind, body) in [
            (Kind::ExecWelcome, "hostpid 7\nversion 1\nchildren_max 5\n"),
            (Kind::ExecListed, "child 1 1001 77 5\n"),
            (Kind::ExecListed, "child 1 900 77\nchild 1 901 78\n"),
            (Kind::ExecStarted, "worker 1\nrun 1001\npid 5\n"),
            (Kind::ExecFailed, "worker 1\nrun 1001\nlasting no\nagain_ms 5\n\nno\n"),
            (Kind::ExecFailed, "worker 1\nrun 1001\nlasting yes\nagain_ms 5\n\nno\n"),
            (
                Kind::ExecExited,
                "worker 1\nrun 1001\npid 5\nending exit 0\ncpu_ms 1\nrss_kib_max 1\ntail x\n",
            ),
            (
                Kind::ExecExited,
                "worker 1\nrun 1001\npid 5\nending signal 9\ncpu_ms 1\nrss_kib_max 1\n",
            ),
            (Kind::ExecOutput, "worker 1\nrun 1001\nstream stdout\nline x\ndropped 3\n"),
        ] {
            for body in at_the_edges(body) {
                let mut world = World::new();
                world.host(steps);
                world.say(HOST, Role::Host, kind, &body);
                world.say(HOST, Role::Host, kind, &body);
                world.goes_on();
            }
        }
    }
}

/// Headers in which one number at a time has each edge of its range.
fn heads() -> Vec<Header> {
    let mut all = Vec::new();
    let plain = Header { reply: 1, ..Header::default() };
    for wide in [0, 1, 2, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        let (word, half, byte) = (wide as u32, wide as u16, wide as u8);
        all.extend([
            Header { sequence: word, ..plain },
            Header { reply: half, ..plain },
            Header { error: half as i16, ..plain },
            Header { error: i16::MIN, ..plain },
            Header { workerid: word, ..plain },
            Header { more: half, ..plain },
            Header { priority: byte, ..plain },
            Header { flags: byte, ..plain },
            Header { transaction: wide, ..plain },
            Header { transaction: 1, workerid: word, more: half, ..plain },
            Header { deadline_ms: word, ..plain },
            Header { attempt: word, ..plain },
            Header { span_id: wide, ..plain },
        ]);
    }
    all
}

#[test]
fn whatever_numbers_stand_in_a_header_the_broker_goes_on() {
    for head in heads() {
        for kind in [Kind::Data, Kind::Error, Kind::Ping, Kind::StatusReply, Kind::Logout] {
            let mut world = World::new();
            world.worker();
            world.client(CLIENT, "echo");
            world.client(OPERATOR, "op");
            world.frame(CLIENT, Role::Client, Kind::Data, Header { reply: 1, ..head }, "hi");
            world.frame(CLIENT, Role::Client, kind, head, "");
            world.frame(OPERATOR, Role::Client, Kind::Data, head, "send all status");
            world.frame(WORKER, Role::Worker, kind, head, "");
            world.frame(HOST, Role::Host, kind, Header { error: -34, ..head }, "");
            world.goes_on();
        }
    }
}

#[test]
fn whatever_numbers_stand_in_a_login_the_broker_goes_on() {
    for body in at_the_edges("service echo\npriority 5\nhostpid 7\nloghost x\n") {
        let mut world = World::new();
        world.worker();
        world.step(Input::ClientOpened { link: CLIENT, peer: Peer::default() });
        world.say(CLIENT, Role::Client, Kind::Login, &body);
        world.say(CLIENT, Role::Client, Kind::Data, "hi");
        world.goes_on();
    }
    for body in at_the_edges("worker 1\nservice echo\nhost localhost\nhostpid 5\nsecret right\n") {
        let mut world = World::new();
        world.host(3);
        world.step(Input::WorkerOpened { link: WORKER, peer: Peer::default() });
        world.say(WORKER, Role::Worker, Kind::WorkerLogin, &body);
        world.goes_on();
    }
}

/// Operators are trusted, but none of their numbers may stop the broker; neither may a file of
/// commands that was changed.
#[test]
fn whatever_numbers_stand_in_a_command_the_broker_goes_on() {
    let mut commands: Vec<String> = [
        "config worker #7 echo localhost /bin/echo",
        "config service #7 other",
        "buckets 5 6",
        "config events 10",
        "listevents 10",
        "poison 5",
        "pri 0 5",
        "idle 1",
        "last 1",
        "clone 1",
        "start 1",
        "stop 1",
        "block 1",
        "client 1",
        "worker 1",
        "delete worker 1",
        "shutdown 5",
    ]
    .map(str::to_owned)
    .to_vec();
    commands.extend(Setting::ALL.iter().map(|setting| format!("set {} 5", setting.row().name)));
    let names = ServiceSetting::ALL.iter().map(|setting| setting.row().name);
    commands.extend(names.map(|name| format!("config service echo {name}= 5")));
    for command in commands {
        for command in at_the_edges(&command.replace('#', "# ")) {
            let command = command.replace("# ", "#").replace("= ", "=");
            let mut world = World::new();
            world.worker();
            world.client(CLIENT, "echo");
            world.client(OPERATOR, "op");
            world.say(CLIENT, Role::Client, Kind::Data, "hi");
            for origin in [Origin::State, Origin::File("x".into())] {
                world.step(Input::Script { origin, text: command.clone() });
            }
            world.say(OPERATOR, Role::Client, Kind::Data, &command);
            // A new service, a new worker and a request must still work.
            for text in ["config service new", "config worker new localhost /bin/x", "clone 1"] {
                world.step(Input::Script { origin: Origin::Broker, text: text.into() });
            }
            world.say(CLIENT, Role::Client, Kind::Data, "hi");
            for wait in [1, 1000, 5000] {
                world.now = world.now.plus_millis(wait);
                world.step(Input::Deadline);
            }
        }
    }
}

/// `run_base` says where run numbers begin; when there are no further ones, nothing is started.
#[test]
fn at_the_end_of_all_numbers_nothing_is_started() {
    for run_base in [0, 1, u64::MAX - 1, u64::MAX] {
        let mut world = World::new();
        world.engine = Engine::new(EngineOptions { run_base, ..EngineOptions::default() });
        let execd = Some("unix:/x/execd".to_owned());
        world.step(Input::Listening(Box::new(Listening { execd, ..Listening::default() })));
        let text = "config service echo\nconfig worker echo localhost /bin/echo\nstart 1";
        world.step(Input::Script { origin: Origin::State, text: text.to_owned() });
        world.step(Input::Started);
        world.host(3);
        world.step(Input::Script { origin: Origin::Broker, text: "clone 1\nstart 2".into() });
        let expected = u64::MAX - run_base;
        assert_eq!(u64::from(world.started), expected.min(2), "{run_base}");
    }
}
