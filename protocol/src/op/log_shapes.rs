//! TABLE of the parts of the answers of `logs`, data only.

use super::field::{Field, Shape, Type, array, field, object};
use super::shape::{TEXT, WORKER};

pub(super) const LOG_LINE: &[Field] = &[
    WORKER,
    field("number", Type::Number, "counts the lines of this worker; null: the line is not kept")
        .maybe(),
    field("at", Type::Time, "when its host read the line, by the host's clock"),
    field("stream", Type::Word(&["stdout", "stderr"]), "where it was written"),
    field("line", Type::Raw, "the line without its end"),
];

pub(super) const MISSING: Field =
    field("missing", Type::Number, "lines that were not kept, or not passed on");

/// All that `logs` answers.
pub(super) const LOGS: &[Shape] = &[
    array("lines", LOG_LINE),
    array("log_notes", &[WORKER.maybe(), TEXT]).sometimes(),
    array("missing", &[WORKER, MISSING]).sometimes(),
    object("following", &[TEXT]).sometimes(),
];
