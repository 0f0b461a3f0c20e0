//! The operator's command language: what there is ([`table`]), how it is understood ([`parse`]),
//! how it is explained ([`help`]), how it is written ([`mod@write`]), how an answer looks
//! ([`reply`]). Not what a command does: that is the engine.

mod args;
mod foreign;
pub mod help;
pub mod json;
mod layout;
pub mod parse;
pub mod reply;
pub mod shape;
pub mod spec;
pub mod table;
mod text;
mod view;
mod words;
pub mod write;
