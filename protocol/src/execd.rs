//! The bodies `exec-welcome` and `exec-end`, with which a connection of broker and execd begins and
//! ends. All other bodies are in [`bodies`](crate::bodies).

use crate::bodies::clean;
use crate::ids::WorkerId;
use crate::lines::{BodyError, Lines};
use crate::proof::signature;
use bytes::Bytes;

/// `exec-welcome`: execd's answer to the broker's `exec-hello`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecWelcome {
    /// Process id of execd on its host.
    pub hostpid: u32,
    /// Version of execd, as `isdexecd --version` prints it.
    pub version: String,
    /// Most processes that execd holds at once.
    pub children_max: u64,
    /// Digest of the rules that execd enforces on the processes it starts; empty = it does not say.
    pub policy: String,
    /// Digest of the program file that execd runs; empty = it does not say.
    pub binary: String,
    /// Whether execd accepts `exec-end` with `keep`.
    pub hands_over: bool,
    /// Workers of this broker whose processes were started under another policy.
    pub older: Vec<WorkerId>,
    /// Proves that execd knows the token (hexadecimal digits); `None` if the broker proved none.
    pub signature: Option<String>,
}

impl ExecWelcome {
    /// Reads the body.
    ///
    /// # Errors
    /// A key is missing or its value is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let lines = Lines::parse(body)?;
        Ok(Self {
            hostpid: lines.need_number("hostpid")?,
            version: clean(lines.get("version").unwrap_or_default()),
            children_max: lines.number_or("children_max", 0)?,
            policy: clean(lines.get("policy").unwrap_or_default()),
            binary: clean(lines.get("binary").unwrap_or_default()),
            hands_over: lines.number_or("hands_over", 0_u8)? != 0,
            older: lines.numbers("older")?.into_iter().map(WorkerId).collect(),
            signature: signature(&lines)?,
        })
    }

    /// Renders the body; [`parse`](Self::parse) reads it back.
    pub fn render(&self) -> Bytes {
        Lines::default()
            .with("hostpid", self.hostpid)
            .with("version", &self.version)
            .with("children_max", self.children_max)
            .with_each("policy", Some(&self.policy).filter(|policy| !policy.is_empty()))
            .with_each("binary", Some(&self.binary).filter(|binary| !binary.is_empty()))
            .with_each("hands_over", self.hands_over.then_some(1))
            .with_each("older", &self.older)
            .with_each("signature", &self.signature)
            .render()
    }
}

/// `exec-end`: the broker shuts down; execd ends every process of this broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecEnd {
    /// Milliseconds between TERM and KILL.
    pub grace_ms: u64,
    /// End no process: only execd ends, and the next one of its state directory adopts them. Only
    /// for an execd that said `hands_over`.
    pub keep: bool,
}

impl ExecEnd {
    /// Reads the body.
    ///
    /// # Errors
    /// A value can't be read.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let lines = Lines::parse(body)?;
        let keep = lines.number_or("keep", 0_u8)? != 0;
        Ok(Self { grace_ms: lines.number_or("grace_ms", 0)?, keep })
    }

    /// Renders the body; [`parse`](Self::parse) reads it back.
    pub fn render(&self) -> Bytes {
        let keep = self.keep.then_some(1);
        Lines::default().with("grace_ms", self.grace_ms).with_each("keep", keep).render()
    }
}
