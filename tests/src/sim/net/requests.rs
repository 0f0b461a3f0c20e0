//! The model is told of the requests that come in and go out, and of all that is said about them.

use crate::sim::body::PieceId;
use crate::sim::links::Peer;
use crate::sim::plan::{Sabotage, ServicePlan};
use crate::sim::world::World;
use bytes::Bytes;
use protocol::bodies::Flushed;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::LinkId;
use protocol::kinds::{Kind, Role};
use protocol::limits::DEADLINE_MS_MAX;
use protocol::settings::ServiceSetting;

/// A request whose first frame came in just now.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstFrame {
    uid: u64,
    /// How many the broker had accepted or refused before.
    before: u64,
}

impl World {
    /// A frame comes in. Says which request it begins.
    pub(super) fn comes(
        &mut self,
        (id, link, role): (u64, LinkId, Role),
        kind: Kind,
        head: &Header,
        body: &Bytes,
    ) -> Option<FirstFrame> {
        match (role, kind) {
            (Role::Client, _) if self.is_wild(id) => None,
            (Role::Client, _) if self.is_bus(id) => {
                self.bus_comes(link, kind, head, body);
                None
            }
            (Role::Client, Kind::Data) => self.comes_in(link, head, body),
            (Role::Client, Kind::Cancel) => {
                self.model.cancels(link, head.sequence, self.now);
                None
            }
            (Role::Client, Kind::Flush) => {
                self.model.flushes(link, head.sequence, self.now);
                if self.plan.sabotage == Sabotage::FlushEarly && self.model.waits_to_be_taken(link)
                {
                    let flushed = Flushed { flush: head.sequence, refused: 0 };
                    self.sent(link, Frame::Flushed(flushed));
                }
                None
            }
            (Role::Worker, Kind::Data) => {
                let parks = self.service_at(id).is_some_and(ServicePlan::is_open_ended);
                self.model.worker_said(link, head.transaction, head.more == 0, parks);
                None
            }
            _ => None,
        }
    }

    fn comes_in(&mut self, link: LinkId, head: &Header, body: &Bytes) -> Option<FirstFrame> {
        let Ok(Some(PieceId { uid, part: 0, turn: 0, .. })) = PieceId::read(body) else {
            return None;
        };
        let deadline_ms = match head.deadline_ms {
            0 => ServiceSetting::DeadlineMs.row().default,
            asked => u64::from(asked).min(DEADLINE_MS_MAX),
        };
        self.access.asks(link, uid);
        let due = self.now.plus_millis(deadline_ms);
        self.model.came_in((link, head.sequence), uid, self.now, due);
        Some(FirstFrame { uid, before: self.taken_in()? })
    }

    /// How many requests the broker has accepted or refused.
    fn taken_in(&self) -> Option<u64> {
        let totals = self.broker.as_ref()?.shell.engine.totals();
        Some(totals.accepted + totals.refused)
    }

    /// Whether a request that wants no reply is lost on purpose.
    pub(super) fn loses(&mut self, head: &Header, came: FirstFrame) -> bool {
        let is_lost = self.plan.sabotage == Sabotage::LoseOneWay && head.reply == 0;
        if is_lost {
            self.is_accounted_for(came);
        }
        is_lost
    }

    /// A request that came in is accepted or refused at once, unless its link is gone.
    pub(super) fn is_taken_in(&mut self, id: u64, came: Option<FirstFrame>) {
        let is_open = self.conns.get(&id).is_some_and(|conn| conn.at_broker);
        if let Some(came) = came.filter(|_| is_open) {
            self.is_accounted_for(came);
        }
    }

    fn is_accounted_for(&mut self, came: FirstFrame) {
        if self.taken_in().is_some_and(|now| now != came.before + 1) {
            let text = format!("request {} is neither accepted nor refused", came.uid);
            self.hold(Err(text));
        }
    }

    /// The service of a worker at a connection.
    pub(in crate::sim) fn service_at(&self, id: u64) -> Option<&ServicePlan> {
        let Peer::Proc(pid) = self.conns.get(&id)?.peer else { return None };
        let proc = self.procs.get(&pid)?;
        self.plan.services.iter().find(|service| service.name == proc.service())
    }

    /// A frame leaves, for a worker perhaps: it takes a request. An operator may have taken others
    /// away from it.
    pub(in crate::sim) fn gives_work(&mut self, id: u64, frame: &Frame) {
        let Some(conn) = self.conns.get(&id).filter(|conn| conn.role == Role::Worker) else {
            return;
        };
        let link = conn.link;
        let Frame::Data { head, body } = frame else { return };
        match PieceId::read(body) {
            Ok(Some(PieceId { uid, part: 0, turn: 0, .. })) => self.model.taken(uid),
            Ok(Some(PieceId { uid, .. })) if head.more == 0 => self.model.awaits_worker(uid),
            Ok(_) | Err(_) => {}
        }
        if self.plan.operator_ms == 0
            && !self.is_quiescent
            && let Some(service) = self.service_at(id).cloned()
        {
            let verdict = self.model.is_given((link, &service), head.transaction);
            self.hold(verdict);
        }
    }

    /// A part of an answer may make its request a conversation without a deadline, or put its
    /// deadline off.
    pub(super) fn goes_on(
        &mut self,
        (link, sequence): (LinkId, u32),
        head: &Header,
    ) -> Result<(), String> {
        if head.more == 0 {
            return Ok(());
        }
        let mut services = self.plan.services.iter();
        let is_open_ended = if self.plan.operator_ms == 0 {
            let service = self.model.service_of(link, sequence);
            service.map(|service| self.plan.services[service].is_open_ended())
        } else if services.any(ServicePlan::is_open_ended) {
            // The operator may have moved the client to another service.
            None
        } else {
            Some(false)
        };
        self.model.goes_on((link, sequence), is_open_ended, head.deadline_ms, self.now)
    }
}
