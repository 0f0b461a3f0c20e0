//! The worker of the fault run: writes the begin and the end of each request to a file of its own
//! process, and does what the request says.

use client::address::Address;
use client::error::Error;
use client::worker::{Request, Worker, WorkerOptions, own_args};
use isect_tests::fault::ask::{Act, Ask, Sum};
use isect_tests::fault::clock::pause;
use isect_tests::fault::history::Witness;
use nix::sys::signal::{Signal, raise};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

const USAGE: &str = "\
isdwitness is the worker of the fault run. The broker starts it:
usage: isdwitness HOST|unix:PATH PORT WORKER SERVICE history=DIR [via=ADDR:PORT] [wait=MS]
history=DIR    writes down there what it begins and ends
via=ADDR:PORT  looks for the broker there instead
wait=MS        logs in so much later";

/// How long something that sticks stays at most, should nobody end it.
const HANG: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let mut history: Option<PathBuf> = None;
    let (mut via, mut wait) = (None, 0);
    // In the role of a child of a worker: stay.
    if std::env::args().nth(1).as_deref() == Some("child") {
        pause(HANG);
        return ExitCode::SUCCESS;
    }
    for arg in own_args() {
        match arg.split_once('=') {
            Some(("history", folder)) => history = Some(PathBuf::from(folder)),
            Some(("via", address)) => via = Address::parse(address).ok(),
            Some(("wait", millis)) => wait = millis.parse().unwrap_or(0),
            _ => return client::worker::misused(&format!("'{arg}' is not understood"), USAGE),
        }
    }
    let Some(folder) = history else {
        return client::worker::misused("history=DIR is missing", USAGE);
    };
    let mut history = History::open(&folder);
    history.write("started");
    pause(Duration::from_millis(wait));
    match serve(via, &folder, &mut history) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// What this process did, line by line.
struct History(File);

impl History {
    fn open(folder: &Path) -> Self {
        let path = Witness::own().file(folder);
        let file = OpenOptions::new().create(true).append(true).open(path).expect("a history");
        Self(file)
    }

    /// One line, in one write: it is there whole or not at all, whatever happens to this process.
    fn write(&mut self, line: &str) {
        self.0.write_all(format!("{line}\n").as_bytes()).expect("a line of history");
    }
}

#[expect(clippy::disallowed_methods, reason = "the secret comes by the environment alone")]
fn serve(via: Option<Address>, folder: &Path, history: &mut History) -> Result<(), Error> {
    let secret = std::env::var("ISECT_WORKER_SECRET").unwrap_or_default();
    let mut options = WorkerOptions::from_args(std::env::args(), secret)?;
    options.connect_timeout = Duration::from_secs(1);
    options.start_timeout = Duration::from_secs(3);
    if let Some(via) = via {
        options.address = via;
    }
    let mut worker = Worker::connect(options)?;
    history.write("ready");
    while let Some(request) = worker.next()? {
        match Ask::of(&request.body) {
            Ok(ask) => work(&mut worker, folder, history, &ask, request)?,
            Err(why) => worker.fail(i16::MAX, &why)?,
        }
    }
    Ok(())
}

fn work(
    worker: &mut Worker,
    folder: &Path,
    history: &mut History,
    ask: &Ask,
    request: Request,
) -> Result<(), Error> {
    history.write(&format!("begin {} {}", ask.id, request.attempt()));
    let mut sum = Sum::default();
    let mut piece = Some(request);
    while let Some(got) = piece.take() {
        sum.add(&got.body);
        if got.more() {
            if ask.act == Act::Talk {
                worker.reply_piece(sum.answer(ask))?;
            }
            piece = worker.next_piece()?;
            if piece.is_none() {
                // Not all of it came in time. Should the client wait still, this is no success.
                worker.fail(8, "the rest of the request did not come")?;
                history.write(&format!("end {}", ask.id));
                return Ok(());
            }
        }
    }
    pause(Duration::from_micros(ask.work_us));
    match ask.act {
        Act::Answer | Act::Talk => worker.reply(sum.answer(ask))?,
        Act::Fail => worker.fail(7, "as it was asked to")?,
        Act::Die => {
            let _ = raise(Signal::SIGKILL);
        }
        Act::Hang => pause(HANG),
        Act::Child => {
            start_child(folder);
            worker.reply(sum.answer(ask))?;
        }
    }
    history.write(&format!("end {}", ask.id));
    Ok(())
}

/// Starts a process in this one's group that stays; whoever ends the worker ends it too.
#[expect(clippy::disallowed_methods, reason = "workers start programs of their own, too")]
fn start_child(folder: &Path) {
    let child = Command::new("/proc/self/exe")
        .arg("child")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    // It is nobody's to wait for: the end of the group is what is looked at.
    drop(child);
}
