//! The broker's rooms and the arrows between them: bytes come in through `reactor`, become words in
//! `protocol`, inputs in [`translate`], decisions in [`engine`], and leave the same way.
//! What is pure compiles without the feature `os`.

pub mod engine;
