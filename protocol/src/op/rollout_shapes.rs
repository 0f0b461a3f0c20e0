//! The parts of answers about workers that are replaced.

use super::field::{Field, Type, field};
use super::shape::SERVICE;

pub(super) const RESTARTED: &[Field] = &[
    SERVICE,
    field("workers", Type::Number, "workers that were replaced"),
    field("notes", Type::Texts, "further remarks, a sentence each"),
];
