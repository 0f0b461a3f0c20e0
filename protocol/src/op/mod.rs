//! The operator's command language: what there is ([`table`]), how it is understood ([`parse`]), how it
//! is explained ([`help`]), how an answer looks ([`reply`]). Not what a command does: that is the engine.

pub mod help;
pub mod json;
pub mod parse;
pub mod reply;
pub mod spec;
pub mod table;
