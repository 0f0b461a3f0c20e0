//! What happens before the loop begins: it checks the options, takes signals, computes limits, and
//! tells whoever waits where execd listens: readers of the ports file, and a program that gave it a
//! pipe (`ready`). The broker waits for neither, and dials its built-in execd until it answers.

use super::options::{Failure, Options};
use super::output::OutputKeeper;
use super::output_files::OPEN_MAX;
use super::permit::PermittedUser;
use super::run::LINGERING_MAX;
use super::user;
use crate::engine::kept::KeptNumbers;
use crate::engine::limits::Limits;
use crate::exit::Exit;
use nix::unistd::{Gid, Uid, getgroups};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use sys::processes;
use sys::signals::SignalReader;
use tracing::warn;

/// Descriptors of execd that are not for children: streams, listener, signals, state, programs
/// being checked; files of kept output.
const FILES_RESERVED: u64 = 64 + OPEN_MAX as u64;

/// Descriptors for each child: two pipes, and one that watches it if it was adopted.
const FILES_A_CHILD: u64 = 3;

/// Refuses options that contradict each other or are too dangerous to be meant.
pub(super) fn check_options(options: &Options) -> Result<(), Failure> {
    if options.allow.is_empty() {
        return Err(usage(
            "nothing is allowed, so nothing could be started: name the directories of the worker \
             programs with --allow DIR (--allow / for every program of this machine)",
        ));
    }
    // Only whether each is a directory; `spawn` keeps what they resolve to.
    super::check::resolve_allowed(&options.allow).map_err(usage)?;
    if !options.directory.is_dir() {
        let shown = options.directory.display();
        return Err(usage(format!("working directory {shown} does not exist; make it")));
    }
    let me = Uid::effective();
    let uid = options.user.as_ref().map_or(me, |user| user.uid);
    if uid.is_root() && !options.allow_root_workers {
        return Err(usage(
            "the workers would run as root: name the user they shall run as with --user NAME, or \
             say --allow-root-workers",
        ));
    }
    if uid != me && !user::may_change() {
        return Err(usage(format!(
            "--user: only root can start workers as user {uid}; this is user {me}; run execd as \
             root, or as user {uid} without --user"
        )));
    }
    for permitted in &options.allow_users {
        check_permitted(permitted, options.allow_root_workers)?;
    }
    // Another group gives other rights, also to one's own user.
    if let Some(account) = options.user.as_ref().filter(|_| uid == me && !user::may_change())
        && account.is_with_group
        && !has_just(account.gid)
    {
        return Err(usage(format!(
            "--user: only root can start workers with group {} alone; leave the group away to start \
             them with the groups of execd",
            account.gid
        )));
    }
    Ok(())
}

/// Refuses a user that operators may name and that nobody could run as, or should.
fn check_permitted(permitted: &PermittedUser, may_be_root: bool) -> Result<(), Failure> {
    if permitted.is_root() && !may_be_root {
        return Err(usage(
            "--allow-user: operators could run workers as root; name another user, or say \
             --allow-root-workers, too",
        ));
    }
    if !user::may_change() {
        return Err(usage(format!(
            "--allow-user: only root can start workers as another user; this is user {}; run execd \
             as root, or leave --allow-user away",
            Uid::effective()
        )));
    }
    Ok(())
}

/// Whether this process has that group and no other.
pub(super) fn has_just(gid: Gid) -> bool {
    let others = getgroups().unwrap_or_default();
    Gid::effective() == gid && others.iter().all(|other| *other == gid)
}

/// Opens the directory in which the output of workers is kept, if there is one.
pub(super) fn keep_output(
    options: &Options,
) -> Result<Option<(OutputKeeper, KeptNumbers)>, Failure> {
    let Some(directory) = options.output_directory() else { return Ok(None) };
    let opened = OutputKeeper::start(&directory, options.output_total_bytes);
    opened.map(Some).map_err(|error| {
        let shown = directory.display();
        let text = format!(
            "the output of workers can't be kept in {shown}: {error}; name another directory with \
             --output-dir, or none"
        );
        Failure::new(Exit::State, text)
    })
}

/// Starts to receive signals for the loop.
pub(super) fn take_signals() -> Result<SignalReader, Failure> {
    processes::default_sigchld();
    SignalReader::open_with_children().map_err(|error| Failure::kernel("signalfd", error))
}

fn usage(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, text)
}

/// Lowers the limits to what the number of descriptors allows.
pub(super) fn fit(limits: Limits, files_max: u64) -> Limits {
    let for_links = FILES_RESERVED + (limits.links_max + LINGERING_MAX) as u64;
    let fitting = files_max.saturating_sub(for_links) / FILES_A_CHILD;
    let fitting = usize::try_from(fitting).unwrap_or(usize::MAX).max(1);
    if fitting < limits.children_max {
        warn!(children_max = fitting, files_max, "fewer children: the descriptor limit is low");
    }
    Limits { children_max: limits.children_max.min(fitting), ..limits }
}

/// Writes the address to the ports file and to the ready pipe.
pub(super) fn announce(
    address: &str,
    ports_file: Option<&Path>,
    ready: Option<OwnedFd>,
) -> Result<(), Failure> {
    let json = format!("{}\n", serde_json::json!({ "execd": address }));
    if let Some(file) = ports_file {
        // Never half a file: whoever polls for it reads all of it or nothing.
        auth::private::replace_target(file)
            .and_then(|file| auth::private::replace(&file, &json))
            .map_err(|error| Failure::new(Exit::Report, format!("ports file {error}")))?;
    }
    if let Some(ready) = ready {
        // If nobody waits any more, execd runs all the same.
        if let Err(error) = File::from(ready).write_all(json.as_bytes()) {
            warn!(%error, "nobody reads the ready line");
        }
    }
    Ok(())
}
