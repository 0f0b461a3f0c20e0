//! Starts the loop from the configuration: opens the state directory and the listeners, makes the
//! engine, runs the scripts, and writes the ports file.

use super::Reactor;
use super::alarm::Alarm;
use super::buffer_pool::BufferPool;
use super::built_in_execd::{BuiltInExecd, ExecdOptions, ExecdProgram};
use super::clock::Clock;
use super::helpers::Helpers;
use super::io::{Io, Limits};
use super::keeper::Keeper;
use super::links::Ready;
use super::listen::Listener;
use super::memory_trim::MemoryTrim;
use super::signals::Signals;
use super::state_dir::StateDir;
use super::tls_config::TlsConfig;
use crate::config::checked_args::Endpoint;
use crate::config::load::Config;
use crate::engine::builtin::BuiltInProgram;
use crate::engine::input::{Input, Listening};
use crate::engine::origin::Origin;
use crate::engine::{Engine, EngineOptions};
use crate::exit::Fatal;
use auth::private;
use mio::{Events, Poll, Waker};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::gethostname;
use protocol::frame_reader::ReadBuffer;
use protocol::kinds::Role;
use protocol::limits::TLS_PREFIX;
use serde_json::json;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;

/// Events taken in one turn.
const EVENTS_MAX: usize = 1024;
/// Most bytes taken from a connection in one read.
const READ_BYTES: usize = 256 * 1024;
/// Most descriptors that are asked for, whatever the hard limit is.
const DESCRIPTORS_MAX: u64 = 1 << 20;

/// The file of `--ports-file`, written once everything listens.
#[derive(Debug)]
pub(super) struct PortsFile {
    path: PathBuf,
    text: String,
}

fn system(what: &str, error: impl std::fmt::Display) -> Fatal {
    Fatal::System(format!("{what}: {error}"))
}

impl Reactor {
    /// Opens files and sockets; the engine gets no input yet.
    ///
    /// # Errors
    /// The state directory can't be used, an address is taken, or the system refuses something.
    pub(super) fn open(
        config: &Config,
        signals: Signals,
        execd: ExecdProgram,
    ) -> Result<Self, Fatal> {
        let clock = Clock::start();
        let (soft, descriptors_max) = raise_descriptors();
        sys::descriptors::make_room();
        let (tls_config, certificates) =
            TlsConfig::open(config.tls.clone()).map_err(Fatal::Usage)?;
        let state = StateDir::open(config.state.as_deref())?;
        let poll = Poll::new().map_err(|e| system("epoll", e))?;
        let registry = poll.registry().try_clone().map_err(|e| system("epoll", e))?;
        let waker = Waker::new(&registry, Ready::Wake.token()).map_err(|e| system("eventfd", e))?;
        signals.register(&registry, Ready::Signal.token()).map_err(|e| system("signalfd", e))?;
        let alarm = Alarm::new().map_err(|e| system("timerfd", e))?;
        alarm.register(&registry, Ready::Alarm.token()).map_err(|e| system("timerfd", e))?;
        let mut listeners = listen(config, &state)?;
        for (index, listener) in listeners.iter_mut().enumerate() {
            listener.register(&registry, index).map_err(|e| system("epoll", e))?;
        }
        let limits = Limits::of(&config.settings);
        let address = format!("unix:{}", state.paths.execd().display());
        let is_private = state.is_private;
        // Starts of workers have numbers that no earlier broker gave.
        let run_base = state.run_base(clock.told().epoch_ms)?;
        let mut io = Io::new(registry, state, Helpers::new(waker), limits);
        io.acceptor.descriptors_max = descriptors_max;
        let options = ExecdOptions {
            address,
            exits_with_broker: is_private,
            descriptors: soft,
            workers: config.workers.clone(),
        };
        (execd.check)(&options)?;
        io.built_in_execd = Some(BuiltInExecd::new(execd, options, &log_words(config)));
        if tls_config.files().is_some() {
            let found = certificates;
            io.tell(None, Input::CertificatesRead { requester: None, found, more: false });
        }
        io.tls_config = tls_config;
        let options = EngineOptions {
            settings: config.settings.clone(),
            run_base,
            transaction_base: run_base,
        };
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            clock,
            alarm,
            signals,
            listeners,
            engine: Engine::new(options),
            actions: Vec::new(),
            io,
            buffer: ReadBuffer::new(READ_BYTES),
            buffer_pool: BufferPool::default(),
            memory_trim: MemoryTrim::default(),
            ports_file: None,
            is_asked: false,
            is_hurried: false,
        })
    }

    /// Tells the engine its addresses, and gives it the saved configuration and the command files.
    ///
    /// # Errors
    /// A command of a file failed; nothing is started or saved then.
    pub(super) fn start(&mut self, config: Config) -> Result<(), Fatal> {
        self.io.now = self.clock.now();
        let (saved, mended) = self.keep()?;
        let mut listening = self.listening(config.worker_host.as_deref());
        listening.mended = mended;
        listening.builtin = self.builtin(config.with.clone());
        self.ports_file = config.ports_file.map(|path| PortsFile { path, text: self.addresses() });
        self.step(Input::Listening(Box::new(listening)));
        self.io.authenticator.file = config.token_file;
        self.io.authenticator.host_file = config.host_token_file;
        let has_tokens = config.tokens.is_some();
        if let Some(list) = config.tokens {
            self.io.put_tokens(None, Ok(list));
            self.settle();
        }
        if !saved.is_empty() {
            let is_set = saved.lines().any(|line| line.starts_with("set "));
            self.step(Input::Script { origin: Origin::State, text: saved });
            // The command line wins over what was saved.
            let mut text = String::new();
            for (setting, value) in config.set.iter().filter(|(setting, _)| setting.row().live) {
                let _ = writeln!(text, "set {} {value}", setting.row().name);
            }
            if is_set && !text.is_empty() {
                self.step(Input::Script { origin: Origin::Broker, text });
            }
        }
        for (path, text) in config.sources {
            self.step(Input::Script { origin: Origin::File(path), text });
        }
        if !self.io.failures.is_empty() {
            self.listeners.clear();
            self.io.state.clean();
            return Err(Fatal::Source(format!(
                "--source: {}; nothing was started or saved",
                self.io.failures.join("\nisectd: --source: ")
            )));
        }
        if !has_tokens {
            // No tokens were in force before, or `--tokens none` is given.
            self.io.state.note_tokens(None);
        }
        self.io.is_starting = false;
        self.io.store_first();
        self.step(Input::Started);
        Ok(())
    }

    /// Reads the saved configuration and starts to keep it. Returns the script to begin with, and
    /// what was found wrong with it and left out.
    fn keep(&mut self) -> Result<(String, Option<String>), Fatal> {
        let state = &self.io.state;
        if state.is_private {
            return Ok((String::new(), None));
        }
        let kept = state.paths.kept()?;
        let mended = (kept.torn_bytes > 0).then(|| {
            format!(
                "{}: the last {} bytes are half a change, which nobody was told was saved; they are \
                 left out, and the changes up to number {} are in force",
                state.paths.journal().display(),
                kept.torn_bytes,
                kept.number
            )
        });
        if let Some(mended) = &mended {
            tracing::warn!("saved configuration: {mended}");
        }
        let execd = self.io.built_in_execd.as_ref().map(|local| local.options.address.clone());
        let (keeper, script, failures) = Keeper::new(state.paths.clone(), &kept, execd);
        for failure in &failures {
            tracing::error!("saved configuration: {failure}");
        }
        if !failures.is_empty() {
            match state.keep_bad(&kept.text) {
                Ok(path) => tracing::error!(
                    "lines of the saved configuration failed; it is left as it is until the \
                     next change, and a copy is kept as {}",
                    path.display()
                ),
                Err(why) => tracing::error!("no copy of the saved configuration: {why}"),
            }
        }
        let lock = Arc::clone(&state.lock);
        self.io.storing.start(keeper, lock, self.io.helpers.result_sender())?;
        Ok((script, mended))
    }

    /// Writes the file of addresses, once, after the first dials have ended and what files of
    /// `--source` have changed is stored.
    pub(super) fn write_ports_file(&mut self) -> Result<(), Fatal> {
        let is_dialling = self.io.dials_done == 0 && !self.io.redials.is_empty();
        if self.ports_file.is_none() || is_dialling || self.io.storing.is_busy() {
            return Ok(());
        }
        let Some(PortsFile { path, text }) = self.ports_file.take() else { return Ok(()) };
        private::replace(&path, &text).map_err(|e| Fatal::System(format!("--ports-file {e}")))
    }

    fn first(&self, role: Role) -> Option<(&Listener, SocketAddr)> {
        self.listeners
            .iter()
            .filter(|listener| listener.role() == role)
            .find_map(|listener| Some((listener, listener.address()?)))
    }

    fn listening(&self, worker_host: Option<&str>) -> Listening {
        let host = gethostname().unwrap_or_default().to_string_lossy().into_owned();
        let worker = self.first(Role::Worker);
        let client = self.first(Role::Client);
        let worker_host = match (worker_host, worker) {
            (Some(said), _) => said.to_owned(),
            // A link-local address needs its zone; without it nobody can connect.
            (None, Some((_, SocketAddr::V6(at)))) if at.scope_id() != 0 => {
                format!("{}%{}", at.ip(), at.scope_id())
            }
            (None, Some((_, at))) if !at.ip().is_unspecified() => at.ip().to_string(),
            (None, Some(_) | None) => host.clone(),
        };
        let is_tls = worker.is_some_and(|(listener, _)| listener.is_tls());
        let worker_host = if is_tls { format!("{TLS_PREFIX}{worker_host}") } else { worker_host };
        let paths = &self.io.state.paths;
        let execd = self.io.built_in_execd.as_ref();
        Listening {
            host,
            worker_fd: worker.map_or(-1, |(listener, _)| listener.fd()),
            worker_port: worker.map_or(0, |(_, address)| address.port()),
            worker_host,
            worker_unix: execd
                .is_some_and(BuiltInExecd::is_own_user)
                .then(|| format!("unix:{}", paths.worker().display())),
            local_warning: execd.and_then(BuiltInExecd::warning),
            client_fd: client.map_or(-1, |(listener, _)| listener.fd()),
            client_port: client.map_or(0, |(_, address)| address.port()),
            descriptors_max: self.io.acceptor.descriptors_max,
            execd: execd.map(|execd| execd.options.address.clone()),
            is_state_kept: !self.io.state.is_private,
            directory_id: self.io.state.key.directory_id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: process::id(),
            wall: self.clock.told(),
            mended: None,
            builtin: BuiltInProgram::default(),
        }
    }

    /// The program of the built-in services of these names, and where they log in: at the Unix
    /// socket, unless workers run as another user, who may not open it.
    fn builtin(&self, names: Vec<&'static str>) -> BuiltInProgram {
        let is_own_user = self.io.built_in_execd.as_ref().is_some_and(BuiltInExecd::is_own_user);
        let client = match self.first(Role::Client) {
            Some((listener, mut address)) if !is_own_user => {
                if address.ip().is_unspecified() {
                    let is_v4 = address.is_ipv4();
                    address.set_ip(if is_v4 {
                        Ipv4Addr::LOCALHOST.into()
                    } else {
                        Ipv6Addr::LOCALHOST.into()
                    });
                }
                let prefix = if listener.is_tls() { TLS_PREFIX } else { "" };
                format!("{prefix}{address}")
            }
            Some(_) | None => format!("unix:{}", self.io.state.paths.client().display()),
        };
        let path = std::env::current_exe().unwrap_or_default().display().to_string();
        BuiltInProgram { path, client, names }
    }

    /// The addresses as one JSON object.
    fn addresses(&self) -> String {
        let tcp = |role| {
            self.first(role).map(|(listener, address)| {
                let prefix = if listener.is_tls() { TLS_PREFIX } else { "" };
                format!("{prefix}{address}")
            })
        };
        let unix = |path: PathBuf| format!("unix:{}", path.display());
        let paths = &self.io.state.paths;
        format!(
            "{{\"client\":{},\"client_unix\":{},\"worker\":{},\"worker_unix\":{},\"web\":null,\
             \"execd\":{},\"pid\":{}}}\n",
            json!(tcp(Role::Client)),
            json!(unix(paths.client())),
            json!(tcp(Role::Worker)),
            json!(unix(paths.worker())),
            json!(unix(paths.execd())),
            process::id()
        )
    }
}

/// Opens the listeners, on the ports of the last time where any port will do.
fn listen(config: &Config, state: &StateDir) -> Result<Vec<Listener>, Fatal> {
    let mut listeners = Vec::new();
    let mut ports = Vec::new();
    let mut tcp = |name: String, role, address: SocketAddr| {
        let listener = Listener::tcp(role, address, state.port(&name))?;
        if let Some(bound) = listener.address().filter(|_| address.port() == 0) {
            ports.push((name, bound.port()));
        }
        Ok(listener)
    };
    let mut network = |name: &str, role, address: SocketAddr, is_tls: bool| {
        let name = format!("{name} {}", address.ip());
        let listener = tcp(name, role, address)?;
        Ok(if is_tls { listener.with_tls() } else { listener })
    };
    match &config.worker_listen {
        Endpoint::Tcp(address) => listeners.push(network("worker", Role::Worker, *address, false)?),
        Endpoint::Tls(address) => listeners.push(network("worker", Role::Worker, *address, true)?),
        Endpoint::Unix(path) => listeners.push(Listener::unix(Role::Worker, path)?),
    }
    for (index, endpoint) in config.listen.iter().enumerate() {
        listeners.push(match endpoint {
            Endpoint::Tcp(address) => {
                network(&format!("client {index}"), Role::Client, *address, false)?
            }
            Endpoint::Tls(address) => {
                network(&format!("client {index}"), Role::Client, *address, true)?
            }
            Endpoint::Unix(path) => Listener::unix(Role::Client, path)?,
        });
    }
    listeners.push(Listener::unix(Role::Worker, &state.paths.worker())?);
    listeners.push(Listener::unix(Role::Client, &state.paths.client())?);
    state.remember_ports(&ports);
    Ok(listeners)
}

/// Raises the soft limit of descriptors to the hard one; returns the old soft limit and the new
/// one.
fn raise_descriptors() -> (u64, u64) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return (1024, 1024) };
    let wanted = hard.min(DESCRIPTORS_MAX).max(soft);
    match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) {
        Ok(()) => (soft, wanted),
        Err(_) => (soft, soft),
    }
}

/// The arguments that make the built-in execd log as the broker does.
fn log_words(config: &Config) -> Vec<String> {
    use clap::ValueEnum;
    let name = |value: Option<clap::builder::PossibleValue>| {
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    };
    vec![
        format!("--log={}", name(config.log.to_possible_value())),
        format!("--log-format={}", name(config.log_format.to_possible_value())),
    ]
}
