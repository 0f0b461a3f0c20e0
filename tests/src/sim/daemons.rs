//! Simulated programs that are no workers (`protocol=none`): they run, end now and then, and never
//! connect to anything.

use super::plan::{Behaviour, Plan};
use super::procs::State;
use super::rng::Rng;
use super::world::World;
use protocol::bodies::{ExecStart, ExitCause};

/// The service of programs.
pub const DAEMON: &str = "daemon";
/// The only argument of each of them.
const ARGUMENT: &str = "--own";

/// What a seed chooses of programs.
#[derive(Clone, Debug, Default)]
pub struct DaemonPlan {
    /// Each program: its host, and how it behaves.
    pub programs: Vec<(usize, Behaviour)>,
    /// The setting `stable_ms`.
    pub stable_ms: u64,
}

impl DaemonPlan {
    /// The choice of a seed for this many hosts.
    pub fn of(seed: u64, hosts: usize) -> Self {
        let mut rng = Rng::new(seed.rotate_left(29) ^ 0x1f83_d9ab);
        if !rng.hits(300) {
            return Self::default();
        }
        let ways = [Behaviour::Echo, Behaviour::Crash, Behaviour::Quitter, Behaviour::Stubborn];
        let program = |rng: &mut Rng| (rng.index(hosts), rng.pick(&ways));
        let programs = (0..1 + rng.index(3)).map(|_| program(&mut rng)).collect();
        Self { programs, stable_ms: rng.pick(&[0, 100, 1000, 5000]) }
    }

    /// The commands that configure them.
    pub fn script(&self, host: impl Fn(usize) -> String) -> String {
        if self.programs.is_empty() {
            return String::new();
        }
        let stable = self.stable_ms;
        let mut script = format!("config service {DAEMON} protocol=none stable_ms={stable}\n");
        for (at, behaviour) in &self.programs {
            let path = behaviour.path();
            script += &format!("config worker {DAEMON} {} {path} {ARGUMENT}\n", host(*at));
        }
        script
    }
}

impl World {
    /// The law of the start of a program: no secret, and its own arguments alone.
    pub(super) fn check_daemon(&mut self, start: &ExecStart) {
        if !start.secret.is_empty() || start.args != [ARGUMENT] {
            let text = format!("program {} is started as a worker: {start:?}", start.worker);
            self.hold(Err(text));
        }
    }

    /// A program goes on for a while.
    pub(super) fn daemon_runs(&mut self, pid: u32) {
        let wait = self.rng.between(1000, 5_000_000);
        self.act_in(pid, wait, State::Daemon);
    }

    /// A program does what it had in mind.
    pub(super) fn daemon_acts(&mut self, pid: u32) {
        if self.is_bad(pid, Behaviour::Crash, 300) {
            self.kill_proc(pid, ExitCause::Signal(11));
        } else if self.is_bad(pid, Behaviour::Quitter, 300) {
            self.kill_proc(pid, ExitCause::Exit(0));
        } else if !self.is_quiescent {
            self.daemon_runs(pid);
        }
    }
}

/// How many services of a plan are started on demand; half of the seeds have none.
pub fn choose_demand(plan: &mut Plan) {
    use protocol::settings::ServiceSetting;
    let mut rng = Rng::new(plan.seed.rotate_left(41) ^ 0x5be0_cd19);
    if rng.hits(500) {
        return;
    }
    for service in &mut plan.services {
        if rng.hits(600) {
            let idle_stop_ms = rng.pick(&[0, 1, 20, 500, 5000]);
            service.settings.push((ServiceSetting::Start, 1));
            service.settings.push((ServiceSetting::IdleStopMs, idle_stop_ms));
        }
    }
}
