//! Starts a program: a clean environment, three streams and nothing else, then the fork. `check`
//! decides whether the program may run; `launch` and `child_setup` have what the forked child does.

use super::check::{self, Policy, StartFailure, explain};
use super::child_setup::ChildAttributes;
use super::launch::{Ends, Launch, become_program};
use super::options::{Failure, Options};
use super::orphans;
use super::permit::PermittedUser;
use super::process_settings::{Permits, settle};
use super::user::{self, Account};
use crate::engine::limits::ENVIRONMENT_BYTES_MAX;
use crate::exit::Exit;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{ForkResult, Gid, Uid, fchown, fork, getgroups, pipe2};
use protocol::bodies::ExecStart;
use protocol::limits::{
    CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE, RUN_VARIABLE, WORKER_SECRET_VARIABLE,
};
use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Variables that children get from execd's own environment; all others stay with execd.
const KEPT: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    // Files with which a worker checks a tls:// address; these are paths, not secrets.
    CA_VARIABLE,
    CERT_VARIABLE,
    KEY_VARIABLE,
];

/// The `PATH` of children if execd has none.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// What is the same for all children.
#[derive(Debug)]
pub(super) struct SpawnConfig {
    pub(super) policy: Policy,
    pub(super) attributes: ChildAttributes,
    pub(super) environment: Vec<CString>,
    /// What the settings of a start may change of all that.
    pub(super) permits: Permits,
    files_max: u64,
    /// See [`orphans::directory_id`].
    pub(super) directory_id: String,
    /// The file of the directory id, which a child keeps open until its program runs.
    pub(super) directory_file: Option<OwnedFd>,
    /// The children's streams stay open when execd dies, so that the next one can read on.
    outlives: bool,
}

/// A forked process that will become the program.
#[derive(Debug)]
pub(super) struct Spawned {
    /// The id of the process, of its session and of its group.
    pub(super) pid: u32,
    /// execd's end of the pipe for stdout.
    pub(super) stdout: OwnedFd,
    /// execd's end of the pipe for stderr.
    pub(super) stderr: OwnedFd,
    /// Reports when the program runs, or why it does not.
    pub(super) launch: Launch,
}

impl SpawnConfig {
    /// Finds out what the options mean on this machine, and raises execd's own limit of descriptors
    /// as far as possible; children get the old limit.
    pub(super) fn new(options: &Options) -> Result<Self, Failure> {
        let failed = |errno: Errno| Failure::kernel("descriptor limit", errno);
        let own = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
        setrlimit(Resource::RLIMIT_NOFILE, own.1, own.1).map_err(failed)?;
        sys::descriptors::make_room();
        Self::settle(options, own)
    }

    /// Finds out what the options mean on this machine; children get this limit of descriptors.
    pub(super) fn settle(options: &Options, own: (u64, u64)) -> Result<Self, Failure> {
        let mut limits = vec![(Resource::RLIMIT_NOFILE, own.0, own.1)];
        for limit in &options.rlimits {
            limits.retain(|known| known.0 != limit.0.0);
            limits.push(limit.0);
        }
        let me = Uid::effective();
        let is_other = |user: &Account| user.uid != me || me.is_root() || user.is_with_group;
        let account = options.user.clone().filter(|user| is_other(user) && user::may_change());
        let mut trusted = vec![0, me.as_raw()];
        trusted.extend(account.as_ref().map(|account| account.uid.as_raw()));
        let policy = Policy {
            allow: check::resolve_allowed(&options.allow).map_err(usage)?,
            trusted,
            runs_as_self: account.is_none(),
            directory: std::path::absolute(&options.directory)
                .unwrap_or_else(|_| options.directory.clone()),
            own: options.built_in.then(Policy::own_file).flatten(),
        };
        let directory = CString::new(options.directory.as_os_str().as_bytes())
            .map_err(|_| usage("the working directory's name contains a NUL byte"))?;
        let permits = permits(options, account.as_ref())?;
        let environment = environment(options, account.as_ref())?;
        let (umask, batch) = (options.umask, options.batch);
        Ok(Self {
            policy,
            attributes: ChildAttributes { limits, account, directory, umask, batch, nice: None },
            environment,
            permits,
            files_max: own.1,
            directory_id: orphans::directory_id(),
            directory_file: None,
            outlives: options.state.is_some(),
        })
    }

    /// Everything that it sets for each process, one fact a line, always in the same order.
    pub(super) fn facts(&self) -> Vec<String> {
        let Self {
            policy,
            attributes,
            environment,
            permits,
            files_max: _,
            directory_id: _,
            directory_file: _,
            outlives,
        } = self;
        // What its own program is, the digest of that says.
        let Policy { allow, trusted, runs_as_self, directory: directory_of_policy, own: _ } =
            policy;
        let ChildAttributes { limits, account, directory, umask, batch, nice } = attributes;
        let mut allow: Vec<String> = allow.iter().map(|dir| format!("allow {dir:?}")).collect();
        allow.sort();
        allow.dedup();
        let mut limits: Vec<String> =
            limits.iter().map(|limit| format!("limit {limit:?}")).collect();
        limits.sort();
        let mut account = account.clone();
        if let Some(account) = &mut account {
            account.groups.sort_by_key(|group| group.as_raw());
        }
        let mut facts = vec![
            format!("trusted {trusted:?}, runs as self {runs_as_self}, outlives {outlives}"),
            format!("account {account:?}"),
            format!(
                "directory {directory:?} {directory_of_policy:?}, umask {umask:o}, batch {batch}"
            ),
            format!("nice {nice:?}"),
        ];
        facts.extend(allow);
        facts.extend(limits);
        facts.extend(environment.iter().map(|pair| format!("variable {pair:?}")));
        facts.extend(permits.facts());
        facts
    }

    /// Most descriptors that execd may have open.
    pub(super) const fn files_max(&self) -> u64 {
        self.files_max
    }

    /// Forks the process of a request. The child checks its program and does everything else that
    /// touches the file, because a file system that does not answer, or a process that gets no
    /// processor, must not make execd wait.
    pub(super) fn spawn(&self, start: ExecStart) -> Result<Spawned, StartFailure> {
        let path = Path::new(&start.path);
        let refused = |errno: Errno| explain(path, None, &io::Error::from(errno));
        let usual = (&self.policy, &self.attributes, &self.environment[..]);
        let settled = start.process.as_ref();
        let settled = settled.map(|process| settle(&start, process, &self.permits, usual));
        let settled = settled.transpose()?;
        let attributes = settled.as_ref().map_or(&self.attributes, |settled| &settled.attributes);
        let (stdout, child_stdout) = self.stream(attributes).map_err(refused)?;
        let (stderr, child_stderr) = self.stream(attributes).map_err(refused)?;
        let (answer, child_answer) = pipe2(OFlag::O_CLOEXEC).map_err(refused)?;
        fcntl(&answer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(refused)?;
        let ends = Ends { stdout: child_stdout, stderr: child_stderr, answer: child_answer };
        #[expect(unsafe_code, reason = "the child is made what it shall be between fork and exec")]
        // SAFETY: the other threads (one writes the log, one the state directory) hold no lock that
        // `become_program` takes; memory may be allocated in a forked child (the C library sees to
        // it). The child never returns from the call.
        let forked = unsafe { fork() }.map_err(refused)?;
        match forked {
            ForkResult::Child => become_program(self, &start, settled.as_ref(), &ends),
            ForkResult::Parent { child } => Ok(Spawned {
                pid: child.as_raw().unsigned_abs(),
                stdout,
                stderr,
                launch: Launch::new(answer, start, self.directory()),
            }),
        }
    }

    fn directory(&self) -> String {
        self.attributes.directory.to_string_lossy().into_owned()
    }

    /// A pipe: the end that execd reads (non-blocking) and the end that the child writes. The
    /// child's group may open it, so that the child can open `/dev/stderr`.
    ///
    /// If the child outlives execd, its end is opened for reading, too. Then the pipe never breaks,
    /// the child gets no SIGPIPE, and the next execd opens the pipe again through /proc. Until then
    /// the child can write what fits into a pipe (64 KiB), then it waits.
    fn stream(&self, attributes: &ChildAttributes) -> nix::Result<(OwnedFd, OwnedFd)> {
        let (read, mut write) = pipe2(OFlag::O_CLOEXEC)?;
        if self.outlives {
            let path = format!("/proc/self/fd/{}", write.as_raw_fd());
            write = open(path.as_str(), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        }
        if let Some(account) = &attributes.account {
            // Through the group, because the owner stays execd: otherwise the next execd could open
            // it again only with the right to open everybody's files.
            fchown(&write, None, Some(account.gid))?;
            fchmod(&write, Mode::from_bits_truncate(0o660))?;
        }
        fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((read, write))
    }
}

/// What the options let operators set of a start; `account` is the usual one.
fn permits(options: &Options, account: Option<&Account>) -> Result<Permits, Failure> {
    let with_environment = |user: &PermittedUser| -> Result<_, Failure> {
        Ok((user.clone(), environment(options, Some(&user.account))?))
    };
    // Nothing is looked up for execd's own user, whom it has been without that; root has one name.
    let own = || Account {
        uid: Uid::effective(),
        gid: Gid::effective(),
        groups: getgroups().unwrap_or_default(),
        is_with_group: false,
        variables: Vec::new(),
    };
    Ok(Permits {
        names: options.allow_env.clone(),
        users: options.allow_users.iter().map(with_environment).collect::<Result<_, _>>()?,
        usual: account.map_or_else(
            || PermittedUser {
                account: own(),
                name: Uid::effective().is_root().then(|| "root".to_owned()),
                groups: Vec::new(),
            },
            |account| PermittedUser::new(account.clone()),
        ),
        may_change: user::may_change(),
    })
}

fn usage(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, text)
}

/// The environment of the children: a short list of execd's own variables, variables of the user,
/// and those of `--env`.
fn environment(options: &Options, account: Option<&Account>) -> Result<Vec<CString>, Failure> {
    let mut variables: BTreeMap<OsString, OsString> = KEPT
        .iter()
        .filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)))
        .collect();
    variables.entry("PATH".into()).or_insert_with(|| PATH_DEFAULT.into());
    if let Some(account) = account {
        // The values of execd's own user would mislead the workers.
        for name in ["HOME", "USER", "LOGNAME", "SHELL", "TMPDIR"] {
            variables.remove(&OsString::from(name));
        }
        variables.extend(account.variables.iter().map(|(name, text)| (name.into(), text.into())));
    }
    for (name, value) in &options.env {
        if let Some(value) = value.clone().map(OsString::from).or_else(|| std::env::var_os(name)) {
            variables.insert(name.into(), value);
        }
    }
    let pair = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        CString::new(name.into_vec()).ok()
    };
    let list: Vec<CString> = variables
        .into_iter()
        .filter(|(name, _)| name != WORKER_SECRET_VARIABLE && name != RUN_VARIABLE)
        .filter_map(pair)
        .collect();
    let bytes: usize = list.iter().map(|pair| pair.as_bytes_with_nul().len()).sum();
    if bytes > ENVIRONMENT_BYTES_MAX {
        return Err(usage(format!(
            "the workers' environment has {bytes} bytes; at most {ENVIRONMENT_BYTES_MAX} are \
             allowed; pass less with --env"
        )));
    }
    Ok(list)
}
