//! A broker as its clients and operators see it: logins, commands, and waits until a page says what
//! is waited for.

use super::broker::Broker;
use super::programs::{Done, program, run};
use super::wait::{TIMEOUT, await_that, within};
use broker::engine::fact::{FACTS, FactKind, FactRow};
use client::caller::{Caller, Options};
use client::error::Error;
use protocol::names::ServiceName;

impl Broker {
    /// Logs in.
    ///
    /// # Errors
    /// What the library says.
    pub fn try_login(&self, service: &str) -> Result<Caller, Error> {
        let name = ServiceName::new(service).expect("a service name");
        let options = Options { trust: self.trust.clone(), ..Options::new(name) };
        Caller::login(&[self.address()], options)
    }

    /// Logs in to a service that is there.
    pub fn login(&self, service: &str) -> Caller {
        self.try_login(service).unwrap_or_else(|e| panic!("login to {service}: {e}"))
    }

    /// Runs an operator command.
    ///
    /// # Errors
    /// What the broker answers.
    pub fn try_op(&self, command: &str) -> Result<String, Error> {
        let answer = self.try_login("op")?.call(command.to_owned(), Some(TIMEOUT))?;
        Ok(String::from_utf8(answer.to_vec()).expect("UTF-8"))
    }

    /// Runs an operator command that succeeds.
    pub fn op(&self, command: &str) -> String {
        self.try_op(command).unwrap_or_else(|e| panic!("'{command}': {e}"))
    }

    /// Has the broker remember the events to come, but for the logins and logouts of clients: each
    /// command of a test that looks again and again makes two of those, and they would push out
    /// what it looks for.
    pub fn remember_events(&self) {
        let is_news =
            |row: &&FactRow| !matches!(row.kind, FactKind::ClientIn | FactKind::ClientOut);
        let kinds: Vec<&str> = FACTS.iter().filter(is_news).map(|row| row.name).collect();
        self.op(&format!("config events 1000 {}", kinds.join(" ")));
    }

    /// A number of a page (`worker->hostpid`, `isdData.IdleWorkers`).
    pub fn number(&self, command: &str, key: &str) -> i64 {
        let page = self.op(command);
        let line =
            page.lines().find(|line| line.split(" =").next().is_some_and(|k| k.trim_end() == key));
        let value = line
            .and_then(|line| line.split("= ").nth(1))
            .unwrap_or_else(|| panic!("no {key} in\n{page}"));
        value.trim().parse().unwrap_or_else(|_| panic!("{key} of '{command}' is {value}"))
    }

    /// The process of the built-in execd, once it is up.
    ///
    /// # Panics
    /// If it does not come.
    pub fn execd_pid(&self) -> u32 {
        self.await_page("host localhost", "host->state = up");
        u32::try_from(self.number("host localhost", "host->hostpid")).expect("a pid")
    }

    /// The process id of a worker; 0 if it has none.
    pub fn worker_pid(&self, id: u32) -> u32 {
        u32::try_from(self.number(&format!("worker {id}"), "worker->hostpid"))
            .expect("a process id")
    }

    /// Waits until that many workers are idle.
    pub fn await_idle(&self, count: i64) {
        await_that(&format!("{count} idle workers:\n{}", self.op("workers")), || {
            (self.number("", "isdData.IdleWorkers") == count).then_some(())
        });
    }

    /// Runs a command until its page contains a text; the page.
    pub fn await_page(&self, command: &str, part: &str) -> String {
        let mut page = String::new();
        let found = within(TIMEOUT, || {
            page = self.op(command);
            page.contains(part).then_some(())
        });
        assert!(found.is_some(), "no '{part}' in '{command}':\n{page}");
        page
    }

    /// Waits until a worker is ready.
    pub fn await_ready(&self, id: u32) -> String {
        self.await_page(&format!("worker {id}"), "worker->state = \"ready\"")
    }

    /// Waits until a worker is failed.
    pub fn await_failed(&self, id: u32) -> String {
        self.await_page(&format!("worker {id}"), "worker->state = \"down, failed\"")
    }

    /// Waits until a worker is ready with another process than this one; the new one.
    pub fn await_new_pid(&self, id: u32, old: u32) -> u32 {
        await_that(&format!("a new process of worker {id}"), || {
            let page = self.op(&format!("worker {id}"));
            let is_ready = page.contains("worker->state = \"ready\"");
            let pid = self.worker_pid(id);
            (is_ready && pid != old && pid != 0).then_some(pid)
        })
    }

    /// Runs `isdclient` against this broker.
    pub fn isdclient(&self, args: &[&str], input: &str) -> Done {
        let address = self.port("client");
        run("isdclient", &[&["-h", &address], args].concat(), input.as_bytes())
    }

    /// Configures a service with workers of a sample program on `localhost`, starts it, waits until
    /// they are idle.
    pub fn with_workers(&self, service: &str, program_and_args: &str, count: usize) {
        let (name, args) = program_and_args.split_once(' ').unwrap_or((program_and_args, ""));
        let before = self.number("", "isdData.IdleWorkers");
        // It may be there already, with settings of the test's own.
        drop(self.try_op(&format!("config service {service}")));
        for _ in 0..count {
            self.op(&format!(
                "config worker {service} localhost {} {args}",
                program(name).display()
            ));
        }
        self.op(&format!("start {service}"));
        // One of another service may have been between two runs before.
        await_that(&format!("{count} idle workers of {service}:\n{}", self.op("workers")), || {
            (self.number("", "isdData.IdleWorkers") >= before + count as i64).then_some(())
        });
    }
}
