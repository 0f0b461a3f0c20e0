//! The execd that is built into isectd: what the broker is told of it, and the process that plays
//! it. Of the broker's files only this one and `main` name execd's library.

use broker::config::cli::{Args, WorkerArgs};
use broker::engine::input::Expected;
use broker::exit::{self, Fatal};
use broker::reactor::Log;
use broker::reactor::built_in_execd::{ExecdOptions, ExecdProgram};
use execd::engine::limits::Limits;
use execd::os::options::{Listen, Options, variable};
use execd::os::permit::{NamePattern, PermittedNames, PermittedUser};
use execd::os::policy::{self, Identity};
use execd::os::rlimits::RLimit;
use execd::os::run::run;
use execd::os::user::Account;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use sys::stderr::last_words;

/// With `--state none`: how long execd waits for the broker that started it.
const NO_BROKER_IDLE_MS: u64 = 5000;

/// The built-in execd, for the broker.
pub(crate) const EXECD: ExecdProgram = ExecdProgram { check, expected, user };

fn check(execd: &ExecdOptions) -> Result<(), Fatal> {
    let listen = Listen::parse(&execd.address).map_err(Fatal::Usage)?;
    options(&execd.workers, listen)?.check().map_err(|failure| Fatal::Usage(failure.text))
}

fn expected(execd: &ExecdOptions) -> Result<Expected, String> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|e| e.to_string())?;
    let options = role_options(&execd.workers, &execd.address, execd.exits_with_broker)
        .map_err(|e| e.to_string())?;
    let Identity { policy, binary } =
        policy::expected(&options, (execd.descriptors.min(hard), hard))
            .map_err(|e| e.to_string())?;
    Ok(Expected { policy, binary })
}

fn user(workers: &WorkerArgs) -> Option<u32> {
    let user = workers.worker_user.as_deref().and_then(|user| Account::find(user).ok());
    user.map(|user| user.uid.as_raw())
}

/// Converts the options for workers to the built-in execd's options.
fn options(workers: &WorkerArgs, listen: Listen) -> Result<Options, Fatal> {
    let WorkerArgs {
        allow,
        worker_user,
        allow_user: _,
        allow_env: _,
        allow_root_workers: _,
        worker_limit,
        worker_env,
        worker_scheduling,
        orphan_ms,
    } = workers;
    let usage = |option: &str, error: String| Fatal::Usage(format!("{option}: {error}"));
    let user = worker_user.as_deref().map(Account::find).transpose();
    let limits = worker_limit.iter().map(|text| RLimit::parse(text)).collect::<Result<_, _>>();
    let env = worker_env.iter().map(|text| variable(text)).collect::<Result<_, _>>();
    let (allow_users, allow_env) = permitted(workers)?;
    // Without `--allow`, operators may start any program.
    let allow = if allow.is_empty() { vec!["/".into()] } else { allow.clone() };
    Ok(Options {
        built_in: true,
        allow,
        user: user.map_err(|error| usage("--worker-user", error))?,
        allow_users,
        allow_env,
        // The broker warns, and is started by root in tests and demonstrations.
        allow_root_workers: true,
        batch: worker_scheduling != "inherit",
        rlimits: limits.map_err(|error| usage("--worker-limit", error))?,
        env: env.map_err(|error| usage("--worker-env", error))?,
        limits: Limits { orphan_ms: *orphan_ms, ..Limits::default() },
        ..Options::new(listen)
    })
}

/// The users and variables that operators may name.
fn permitted(workers: &WorkerArgs) -> Result<(Vec<PermittedUser>, PermittedNames), Fatal> {
    let usage = |option: &str, error: String| Fatal::Usage(format!("{option}: {error}"));
    let users = workers.allow_user.iter().map(|text| PermittedUser::find(text));
    let users: Vec<_> =
        users.collect::<Result<_, _>>().map_err(|error| usage("--allow-user", error))?;
    if users.iter().any(PermittedUser::is_root) && !workers.allow_root_workers {
        let text = "operators could run workers as root; name another user, or say \
                    --allow-root-workers, too";
        return Err(usage("--allow-user", text.into()));
    }
    let patterns = workers.allow_env.iter().map(|text| NamePattern::parse(text));
    let patterns =
        patterns.collect::<Result<_, _>>().map_err(|error| usage("--allow-env", error))?;
    // Who may start every program there may give it every harmless variable.
    Ok((users, PermittedNames { patterns, is_open: workers.allow.is_empty() }))
}

/// The options of the built-in execd at this address; `exits_with_broker` = it ends with the
/// broker.
fn role_options(
    workers: &WorkerArgs,
    address: &str,
    exits_with_broker: bool,
) -> Result<Options, Fatal> {
    let listen = Listen::parse(address).map_err(Fatal::Usage)?;
    let beside = match &listen {
        Listen::Unix(path) => path.parent().map(|dir| dir.join("execd")),
        Listen::Tcp(_) | Listen::Tls(_) | Listen::Fd(_) => None,
    };
    let mut options = options(workers, listen)?;
    options.exits_with_broker = exits_with_broker;
    options.state = beside.filter(|_| !exits_with_broker);
    if exits_with_broker {
        // If the broker is killed before it connects, execd must end by itself.
        options.limits.idle_ms = NO_BROKER_IDLE_MS;
    }
    Ok(options)
}

/// Runs this process in the role of the built-in execd; the exit status.
///
/// # Errors
/// It can't listen, or the system refuses something.
pub(crate) fn be_execd(args: &Args, address: &str) -> Result<u8, Fatal> {
    // execd's children must not inherit the broker's signal mask and descriptor limit.
    SigSet::empty().thread_set_mask().map_err(|e| Fatal::System(format!("signal mask: {e}")))?;
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let soft = args.role_descriptors.min(hard);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard)
            .map_err(|e| Fatal::System(format!("descriptor limit: {e}")))?;
    }
    let log = Log::start(args.log, args.log_format);
    let options = role_options(&args.workers, address, args.role_exits_with_broker)?;
    let ended = run(options);
    log.flush();
    match ended {
        Ok(()) => Ok(exit::DONE),
        Err(failure) => {
            last_words(&format!("isectd (built-in execd): {failure}"));
            Ok(failure.exit.status())
        }
    }
}
