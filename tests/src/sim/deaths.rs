//! What the broker keeps of deaths is true: each that a fact names is kept, and its requests were
//! given to that process, byte by byte.

use super::links::Peer;
use super::world::World;
use broker::engine::fact::Fact;
use bytes::Bytes;
use protocol::header::Header;

impl World {
    /// A frame goes to a worker.
    pub(super) fn given_to(&mut self, conn: u64, head: &Header, body: &Bytes) {
        let peer = self.conns.get(&conn).map(|conn| conn.peer);
        let Some(Peer::Proc(pid)) = peer else { return };
        if let Some(broker) = &mut self.broker {
            broker.given.entry((head.transaction, pid)).or_insert_with(|| body.clone());
        }
    }

    /// The broker says that a worker died.
    pub(super) fn says_died(&mut self, fact: &Fact) {
        let Some(id) = fact.about.values.death else { return };
        let Some(broker) = &self.broker else { return };
        let Some(death) = broker.shell.engine.death_view(id) else {
            self.hold(Err(format!("death {id} is named and not kept: {}", fact.text)));
            return;
        };
        let mut verdict = Ok(());
        if Some(death.worker) != fact.about.worker {
            verdict = Err(format!("death {id} is of worker {}: {}", death.worker, fact.text));
        }
        for (transaction, bytes) in &death.requests {
            let given = broker.given.get(&(transaction.0, death.pid));
            // The process id is not known of one whose end nobody saw.
            if death.pid != 0 && !given.is_some_and(|body| body.starts_with(bytes)) {
                verdict = Err(format!(
                    "death {id} of pid {} has {} bytes of transaction {transaction}, which it was \
                     not given so",
                    death.pid,
                    bytes.len()
                ));
            }
        }
        let count = death.requests.len() as u64;
        self.hold(verdict);
        self.model.count("deaths that were told");
        *self.model.figures.entry("requests of deaths".to_owned()).or_default() += count;
    }
}
