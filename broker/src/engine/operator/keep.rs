//! `halt keep`: the broker ends, and leaves its workers to the next one.

use crate::engine::hub::Engine;
use crate::engine::keep;
use crate::engine::operator::result::{OpResult, refused};
use crate::engine::origin::Origin;
use protocol::OpReply;

/// Begins the end, unless there is one already, or no later broker could adopt the workers.
pub(crate) fn halt_keep(hub: &mut Engine, origin: &Origin) -> OpResult {
    if let Some(shutdown) = &hub.shutdown {
        return Err(refused(if shutdown.keeps {
            "isectd ends already, and leaves its workers; 'halt' ends them, too"
        } else {
            "isectd ends already, and its workers with it"
        }));
    }
    if let Some(obstacle) = keep::obstacle(hub) {
        return Err(refused(format!(
            "{obstacle}; 'halt' ends isectd and its workers; start it with --state DIR to keep \
             them the next time"
        )));
    }
    hub.noted(origin, "halt keep".into());
    keep::begin(hub, &format!("halt keep by {}", origin.who()));
    Ok(OpReply::line("halt", "isectd ends; its workers stay for the next one", vec![]))
}
