//! Each operator command, as it is asked of the crowd.

use super::Case;
use super::crowd::Crowd;
use protocol::op::spec::Command;
use protocol::op::table::COMMANDS;

/// When a command is run among the cases: what it leaves behind decides that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum When {
    /// First: nothing changes, or little.
    First,
    /// After the inputs of single peers: all workers, or many requests, are changed.
    Late,
    /// Then: all workers are stopped.
    Stop,
    /// Last: the broker ends.
    Last,
    /// In another crowd: with many values that are kept and many subscriptions.
    Topics,
    /// With many instances.
    Instances,
}

use When::{First, Instances, Last, Late, Stop, Topics};

/// What is asked. A command that is not here does not compile.
const fn asked(command: Command) -> &'static [(When, &'static str)] {
    match command {
        Command::Abort => &[(Last, "abort")],
        Command::Block => &[(First, "block 7")],
        Command::Unblock => &[(First, "unblock 7")],
        Command::Buckets => &[(First, "buckets"), (First, "buckets 1440 60")],
        Command::Cancel => &[(First, "cancel 100"), (First, "cancel 7 1"), (First, "cancel 1")],
        Command::Client => &[(First, "client 7")],
        Command::Clients => &[(First, "clients")],
        Command::Clone => &[(First, "clone 1")],
        Command::ConfigEvents => &[(Late, "config events 10")],
        Command::ConfigGroup => &[
            (First, "config group s0000 min=2 pump"),
            (Instances, "config group night min=5"),
            (Instances, "config group night min=7 pump"),
            (Instances, "config group other pump"),
        ],
        Command::ConfigHost => &[(First, "config host h9 unix:/run/h9")],
        Command::ConfigService => &[
            (First, "config service new"),
            (First, "config service s0000 deadline_ms=30000"),
            (Late, "config service s0000 prefetch=1"),
            (Late, "config service s0000 prefetch=0"),
        ],
        Command::ConfigWorker => &[(First, "config worker s0000 h0999 /usr/bin/program")],
        Command::DeleteWorker => &[(First, "delete worker 3001"), (First, "delete worker 3002")],
        Command::DeleteClient => &[(First, "delete client 8")],
        Command::DeleteGroup => &[
            (First, "delete group s0000"),
            (Instances, "delete group other"),
            (Instances, "delete group night"),
        ],
        Command::DeleteHost => &[(First, "delete host h9"), (First, "delete host h0000")],
        Command::DeleteService => &[(First, "delete service new"), (First, "delete service s2999")],
        Command::DrainHost => &[(First, "drain host h0001")],
        Command::UndrainHost => &[(First, "undrain host h0001")],
        Command::Group => &[
            (First, "group s0000"),
            (First, "group s000"),
            (Instances, "group night"),
            (Instances, "group nights"),
        ],
        Command::Groups => &[(First, "groups"), (Instances, "groups")],
        Command::Halt => &[(Last, "halt")],
        Command::Idle => &[(First, "idle 1")],
        Command::Instance => &[
            (First, "instance s0000 1"),
            (First, "instance s000"),
            (Instances, "instance pump 7"),
            (Instances, "instance pump"),
        ],
        Command::Instances => &[
            (First, "instances"),
            (First, "instances s0000"),
            (First, "instances group s0000"),
            (First, "instances history"),
            (Instances, "instances"),
            (Instances, "instances pump"),
            (Instances, "instances group night"),
            (Instances, "instances history"),
            (Instances, "instances all"),
        ],
        Command::Death => &[(First, "death 1")],
        Command::Deaths => &[(First, "deaths"), (First, "deaths 1000"), (Late, "deaths clear")],
        Command::ListEvents => &[
            (First, "listevents"),
            (First, "listevents 10"),
            (First, "listevents kind=worker_died since=1d"),
        ],
        Command::Pause => &[(Late, "pause s0000"), (Late, "pause all"), (First, "pause 2")],
        Command::Ready => &[(First, "ready 2"), (Late, "ready s0000"), (Late, "ready all")],
        Command::Services => &[(First, "services")],
        Command::Preempt => &[(First, "preempt on"), (First, "preempt off")],
        Command::Pri => &[(First, "pri 9 10")],
        Command::Reject => &[(First, "reject on"), (First, "reject off")],
        Command::Reset => &[(Late, "reset")],
        Command::Restart => &[(Late, "restart s0001"), (Late, "restart 5"), (Late, "restart all")],
        Command::Scale => &[(First, "scale s0002 20"), (Late, "scale s0002 1")],
        Command::Send => &[(Late, "send all status"), (Late, "send all reinit")],
        Command::Service => &[(First, "service s0000"), (First, "service 9 s0001")],
        Command::Shutdown => &[(First, "shutdown 5000"), (Late, "shutdown all")],
        Command::Start => &[(First, "start 3"), (Late, "start s0000"), (Late, "start all")],
        Command::Stop => &[(First, "stop 4"), (Stop, "stop s0000"), (Stop, "stop all")],
        Command::Subscriptions => &[
            (Topics, "subscriptions"),
            (Topics, "subscriptions client 7"),
            (Topics, "subscriptions bench.all"),
        ],
        Command::Topics => &[
            (Topics, "topics"),
            (Topics, "topics kept.*.item77"),
            (Topics, "topics kept.area5.item5"),
        ],
        Command::Worker => &[(First, "worker 1500"), (First, "worker 99999")],
        Command::Workers => &[(First, "workers"), (First, "workers busy")],
        Command::Status => &[(First, "status")],
        Command::Help => &[(First, "help"), (First, "help queue"), (First, "hlep")],
        Command::Host => &[(First, "host h0000"), (First, "host h000")],
        Command::Hosts => &[(First, "hosts")],
        Command::Last => &[(First, "last 1")],
        Command::Logs => &[(First, "logs s0000"), (First, "logs all -n 10000 -f")],
        Command::Latency => &[(First, "latency"), (First, "latency s0000")],
        Command::Load => &[(First, "load"), (First, "load s000")],
        Command::Poison => &[(First, "poison"), (First, "poison 1"), (First, "poison clear")],
        Command::Queue => &[(First, "queue"), (First, "queue s0000"), (First, "queue s0001")],
        Command::Reload => &[(First, "reload")],
        Command::Requests => &[
            (First, "requests"),
            (First, "requests s0000"),
            (First, "requests s0001"),
            (First, "requests client 9"),
            (First, "requests worker 1"),
        ],
        Command::Save => &[(First, "save")],
        Command::Set => &[
            (First, "set heartbeat_ms 900"),
            (First, "set heartbeat_ms 1000"),
            (First, "set poison_max 10"),
        ],
        Command::Settings => &[(First, "settings"), (First, "settings s0000")],
        Command::Source => &[(First, "source /tmp/script")],
        Command::Summary => &[(First, "summary")],
        Command::Version => &[(First, "version")],
        Command::Watch => &[(First, "watch worker_died")],
        Command::Why => &[
            (First, "why"),
            (First, "why 101"),
            (First, "why 7 2"),
            (First, "why trace 7"),
            (First, "why 999999999"),
        ],
        Command::Whoami => &[(First, "whoami")],
    }
}

/// The cases of the commands that are run then, in the order of the table.
pub(super) fn cases(when: When) -> Vec<Case> {
    let all = COMMANDS.iter().flat_map(|row| asked(row.command));
    all.filter(|(of, _)| *of == when).map(|&(_, text)| case(text)).collect()
}

/// `start all` after `stop all`: each worker is started.
pub(super) fn start_again() -> Case {
    Case { name: "start all, after they were stopped".to_owned(), ..case("start all") }
}

/// A command, and what follows from it.
pub(super) fn case(text: &'static str) -> Case {
    let act = move |crowd: &mut Crowd| {
        crowd.command(text);
        crowd.follow()
    };
    Case { name: text.to_owned(), act: Box::new(act) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_asked() {
        for row in COMMANDS {
            let first = row.name.split(' ').next().unwrap();
            let asked = asked(row.command);
            assert!(asked.iter().any(|(_, text)| text.starts_with(first)), "{}", row.name);
        }
    }
}
