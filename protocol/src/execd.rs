//! The bodies by which a broker and an execd find and leave each other: `exec-welcome` and
//! `exec-end`. All others are in [`bodies`](crate::bodies).

use crate::bodies::clean;
use crate::ids::WorkerId;
use crate::lines::{BodyError, Lines};
use crate::proof::signature;
use bytes::Bytes;

/// `exec-welcome`: execd's answer to the hello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecWelcome {
    /// execd's process id.
    pub hostpid: u32,
    /// execd's version.
    pub version: String,
    /// Most processes it will hold at once.
    pub children_max: u64,
    /// Digest of all that it enforces on the processes that it starts; empty = it does not say.
    pub policy: String,
    /// Digest of which program file it runs; empty = it does not say.
    pub binary: String,
    /// Whether it takes `exec-end` with `keep`: it ends, and the next one adopts its processes.
    pub hands_over: bool,
    /// Workers of the broker whose processes were started under another policy.
    pub older: Vec<WorkerId>,
    /// execd's proof that it knows the token, if one was proved.
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

    /// The body as bytes.
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

/// `exec-end`: the broker shuts down in order; end every process of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecEnd {
    /// Milliseconds between TERM and KILL.
    pub grace_ms: u64,
    /// End no process: execd itself ends, and the next one of its state directory adopts them. Only
    /// for one that said `hands_over`.
    pub keep: bool,
}

impl ExecEnd {
    /// Reads the body.
    ///
    /// # Errors
    /// The value is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let lines = Lines::parse(body)?;
        let keep = lines.number_or("keep", 0_u8)? != 0;
        Ok(Self { grace_ms: lines.number_or("grace_ms", 0)?, keep })
    }

    /// The body as bytes.
    pub fn render(&self) -> Bytes {
        let keep = self.keep.then_some(1);
        Lines::default().with("grace_ms", self.grace_ms).with_each("keep", keep).render()
    }
}
