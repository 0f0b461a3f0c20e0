//! Simulated programs with instances: they announce, beat, change their states, hang, come back,
//! and die. Several want the same names, as the same user and as another one.

use super::links::{Peer, ReadResult};
use super::model::instances::Origin;
use super::plan::Sabotage;
use super::world::{Event, World};
use broker::engine::input::Peer as From;
use protocol::bodies::{Announce, Beat, Login, StateChange, Withdraw};
use protocol::decode;
use protocol::encode;
use protocol::frame::Frame;
use protocol::ids::LinkId;
use protocol::instances::{BeatOf, InstanceState, InstanceType};
use protocol::kinds::Role;
use protocol::names::ServiceName;
use protocol::peer_group::PeerGroup;
use protocol::time::Tick;
use std::collections::BTreeMap;

/// Names of instances.
const NAMES: [&str; 2] = ["pump", "valve"];
/// Groups that they may name.
const GROUPS: [&str; 3] = ["night", "day", "alpha"];

/// An instance as its program knows it.
#[derive(Clone, Copy, Debug)]
struct Own {
    checkpoint: u64,
    /// Its thread hangs: it does not beat.
    is_stuck: bool,
}

/// A program with instances.
#[derive(Debug)]
pub struct Program {
    /// Whether it is on the broker's machine, so that its user is known.
    is_near: bool,
    user: Option<u32>,
    conn: Option<u64>,
    is_known: bool,
    own: BTreeMap<u64, Own>,
    next_sequence: u32,
    beat_ms: u64,
    beats_next: Tick,
    hangs_until: Tick,
}

impl Program {
    /// The program of an index. Some are of one user, some of another, some of nobody known.
    pub fn new(index: usize) -> Self {
        Self {
            is_near: index % 3 != 2,
            user: [Some(1001), Some(1001), None, Some(1002), None][index % 5],
            conn: None,
            is_known: false,
            own: BTreeMap::new(),
            next_sequence: 0,
            beat_ms: 500,
            beats_next: Tick(0),
            hangs_until: Tick(0),
        }
    }
}

impl World {
    /// Where a program comes from. The model learns the truth.
    pub(super) fn program_from(&mut self, index: usize, link: LinkId) -> From {
        let program = &self.programs[index];
        let (address, machine) = if program.is_near {
            (format!("127.0.0.1:{}", 2000 + link.index), "localhost".to_owned())
        } else {
            (format!("10.0.0.7:{}", 2000 + link.index), "10.0.0.7".to_owned())
        };
        let user = program.user.filter(|_| program.is_near);
        self.model.instances.opened(link, Origin { machine, user });
        let uid = if self.plan.sabotage == Sabotage::OneUser { Some(1001) } else { user };
        From {
            address,
            fd: link.index as i32 + 5,
            uid,
            is_remote: !program.is_near,
            group: PeerGroup::V4(link.index),
            ..From::default()
        }
    }

    /// A program does something, and will again.
    pub fn program_acts(&mut self, index: usize) {
        let think = self.plan.bus.think_ms.min(self.programs[index].beat_ms / 2).max(1);
        let wait = self.rng.between(1, think * 1000);
        self.later(wait, Event::Program(index));
        let Some(conn) = self.programs[index].conn else { return self.program_connects(index) };
        let hangs = self.programs[index].hangs_until > self.now;
        if !self.programs[index].is_known || hangs && !self.is_quiescent {
            return;
        }
        self.program_beats(index, conn);
        let plan = &self.plan.bus;
        let (close, hang, wrong) = (plan.close, plan.hang, plan.wrong);
        if self.is_quiescent {
            return;
        }
        if self.rng.hits(close) {
            return self.program_ends(index, conn);
        }
        if self.rng.hits(hang) {
            let until = self.now.plus_millis(self.rng.between(1, 5000));
            self.model.count("programs that hang");
            self.programs[index].hangs_until = until;
            return;
        }
        if self.rng.hits(wrong) {
            return self.program_errs(index, conn);
        }
        match self.rng.below(12) {
            0 => self.program_announces(index, conn),
            1 => self.program_withdraws(index, conn),
            2 | 3 => self.program_turns(index, conn),
            4 if self.rng.hits(hang) => {
                let at = self.rng.index(3);
                if let Some(own) = self.programs[index].own.values_mut().nth(at) {
                    own.is_stuck = !own.is_stuck;
                }
            }
            _ => {}
        }
    }

    fn program_connects(&mut self, index: usize) {
        let Some(conn) = self.dial_broker(Role::Client, Peer::Program(index)) else { return };
        let heartbeat = self.rng.hits(300);
        let program = &mut self.programs[index];
        program.conn = Some(conn);
        program.is_known = false;
        program.own.clear();
        let login = Login { heartbeat, ..Login::to(ServiceName::bus()) };
        self.write_up(conn, encode::to_bytes(Frame::Login(login)));
    }

    /// It exits, in order or not.
    fn program_ends(&mut self, index: usize, conn: u64) {
        self.note(format_args!("program {index} ends"));
        if self.rng.hits(500) {
            let logout = protocol::bodies::Logout::default();
            self.write_up(conn, encode::to_bytes(Frame::Logout(logout)));
        }
        self.programs[index].conn = None;
        self.peer_closes(conn);
    }

    fn sequence(&mut self, index: usize) -> u32 {
        self.programs[index].next_sequence += 1;
        self.programs[index].next_sequence
    }

    fn program_beats(&mut self, index: usize, conn: u64) {
        let now = self.now;
        let beat = self.sequence(index);
        let program = &mut self.programs[index];
        if program.beats_next > now || program.own.is_empty() {
            return;
        }
        program.beats_next = now.plus_millis(program.beat_ms);
        let is_quiescent = self.is_quiescent;
        let live = program.own.iter_mut().filter(|(_, own)| !own.is_stuck || is_quiescent);
        let mut instances: Vec<BeatOf> = live
            .map(|(id, own)| {
                own.checkpoint += 1;
                BeatOf { id: *id, checkpoint: own.checkpoint / 4, is_idle: own.checkpoint % 8 < 2 }
            })
            .collect();
        if !self.is_quiescent && self.rng.hits(50) {
            instances.push(BeatOf { id: 77, checkpoint: 0, is_idle: false });
        }
        self.write_up(conn, encode::to_bytes(Frame::Beat(Beat { beat, instances })));
    }

    fn program_announces(&mut self, index: usize, conn: u64) {
        let id = self.rng.between(1, 3);
        let timeout = self.rng.pick(&[0, 300, 800, 2000]);
        let groups = self.rng.below(3);
        let mut groups: Vec<String> =
            (0..groups).map(|_| self.rng.pick(&GROUPS).to_owned()).collect();
        groups.sort();
        groups.dedup();
        let announce = Announce {
            sequence: self.sequence(index),
            name: self.rng.pick(&NAMES).to_owned(),
            id,
            kind: InstanceType::Data,
            groups,
            activity_timeout_ms: timeout,
            stalled_ms: self.rng.pick(&[0, 0, 500]),
            state: self.rng.pick(&[InstanceState::Starting, InstanceState::Running]),
            addresses: Vec::new(),
            meta: Vec::new(),
            state_names: Vec::new(),
        };
        self.note(format_args!("program {index}: {announce:?}"));
        self.model.count("instances announced");
        self.write_up(conn, encode::to_bytes(Frame::Announce(announce)));
    }

    fn program_turns(&mut self, index: usize, conn: u64) {
        let id = self.rng.between(1, 3);
        let states = [
            InstanceState::Running,
            InstanceState::Running,
            InstanceState::Own(100),
            InstanceState::Stopping,
            InstanceState::Stopped,
        ];
        let change = StateChange {
            sequence: self.sequence(index),
            id,
            state: self.rng.pick(&states),
            checkpoint: self.rng.hits(500).then_some(5),
            text: self.rng.pick(&["", "", "batch 7", "of 12"]).to_owned(),
        };
        self.write_up(conn, encode::to_bytes(Frame::StateChange(change)));
    }

    fn program_withdraws(&mut self, index: usize, conn: u64) {
        let id = self.rng.between(1, 3);
        let sequence = self.sequence(index);
        let withdraw = Withdraw { sequence, id, failed: self.rng.hits(300), text: String::new() };
        self.programs[index].own.remove(&id);
        self.write_up(conn, encode::to_bytes(Frame::Withdraw(withdraw)));
    }

    /// Something that must be refused.
    fn program_errs(&mut self, index: usize, conn: u64) {
        let sequence = self.sequence(index);
        let frame = if self.rng.hits(500) {
            let text = "long ".repeat(17);
            let (state, checkpoint) = (InstanceState::Running, None);
            Frame::StateChange(StateChange { sequence, id: 1, state, checkpoint, text })
        } else {
            Frame::Withdraw(Withdraw { sequence, id: 99, failed: true, text: String::new() })
        };
        self.write_up(conn, encode::to_bytes(frame));
    }

    /// Handles the frames that arrived at a program; one that hangs reads nothing.
    pub fn program_reads(&mut self, index: usize, id: u64) {
        while self.broken.is_none() {
            let program = &self.programs[index];
            if program.conn != Some(id) {
                return;
            }
            if program.hangs_until > self.now && !self.is_quiescent {
                let again = program.hangs_until;
                return self.at(again, Event::Down(id));
            }
            let Some(conn) = self.conns.get_mut(&id) else { return };
            match conn.down.pull(self.now, usize::MAX) {
                ReadResult::Nothing => return,
                ReadResult::Frame(kind, head, body) => match decode::frame(kind, head, body) {
                    Ok(frame) => self.program_hears(index, id, frame),
                    Err(error) => {
                        self.hold(Err(format!("the broker sent program {index} {error}")));
                    }
                },
                ReadResult::Bad(error) => {
                    self.hold(Err(format!("the broker sent program {index} {error}")));
                }
                ReadResult::Ended(_) => {
                    self.note(format_args!("program {index} lost its connection"));
                    self.programs[index].conn = None;
                    self.peer_closes(id);
                }
            }
        }
    }

    fn program_hears(&mut self, index: usize, conn: u64, frame: Frame) {
        let program = &mut self.programs[index];
        match frame {
            Frame::LoginOk(_) => program.is_known = true,
            Frame::Ping { sequence } => {
                self.write_up(conn, encode::to_bytes(Frame::Pong { sequence }));
            }
            Frame::Announced(said) => {
                program.beat_ms = said.beat_ms;
                program.own.insert(said.id, Own { checkpoint: 0, is_stuck: false });
            }
            Frame::BeatOk(said) => said.unknown.iter().for_each(|id| {
                program.own.remove(id);
            }),
            Frame::Error { error, .. } => {
                self.note(format_args!("program {index}: {error}"));
                self.model.count(&format!("program: {}", error.code));
            }
            Frame::Pong { .. } | Frame::End => {}
            other => self.hold(Err(format!("a {} came to program {index}", other.kind()))),
        }
    }

    /// Counts for the report what became of instances.
    pub(super) fn count_states(&mut self) {
        let names = ["timed out", "back after a time-out", "displaced"];
        let figures = names.into_iter().zip(self.model.instances.figures).filter(|(_, n)| *n > 0);
        self.model.figures.extend(figures.map(|(name, count)| (name.to_owned(), count)));
    }

    /// What is not right with instances yet, when every program beats again.
    pub(super) fn ailing_programs(&mut self) -> Option<String> {
        if self.programs.iter().any(|program| !program.is_known) {
            return Some("a program is not logged in".to_owned());
        }
        let silent = self.model.instances.silent().next();
        silent.map(|(name, id)| format!("instance {name} {id} is timed out"))
    }
}
