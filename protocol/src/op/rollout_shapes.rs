//! The parts of answers about workers that are replaced.

use super::field::{Field, Shape, Type, array, field, object};
use super::shape::{CLONED_FROM, SERVICE, WORKER};

pub(super) const RESTARTED: &[Field] = &[
    SERVICE,
    field("workers", Type::Number, "workers that were replaced"),
    field("notes", Type::Texts, "further remarks, a sentence each"),
];

/// Of `clone`: the manual's answer, or one for each of many.
pub(super) const CLONED: &[Shape] = &[
    object("cloned", &[WORKER, CLONED_FROM]).sometimes(),
    array("clones", &[WORKER, CLONED_FROM]).sometimes(),
];
