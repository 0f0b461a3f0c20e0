//! A sample worker for tests of failures. It dies in the way that its arguments name, on the first
//! request or after some good answers.

use client::worker::{self, Worker, own_args};
use nix::sys::signal::{Signal, raise};
use protocol::bodies::Logout;
use protocol::{Frame, encode};
use std::process::ExitCode;
use std::time::Duration;
use sys::signals::default_faults;
use sys::stderr::last_words;

const USAGE: &str = "\
isdcrash answers like isdecho until it dies as its arguments say. The broker starts it:
  isdclient -c 'config worker frail localhost /path/of/isdcrash [after N] [stderr TEXT] HOW'
after N      N requests are answered well first
stderr TEXT  TEXT is written on stderr before it dies; may be repeated
HOW is one of
  exit N     ends with status N instead of answering
  signal N   kills itself with signal N instead of answering
  memory N   takes N MiB of memory instead of answering, and stays
  hang       never answers
  garbage    answers with bytes that are no frame, and ends
  half       answers with half a frame, and ends
  close      closes its connection instead of answering, and stays
  logout     answers, having logged out before, and ends in order
  login      ends with status 1 before it logs in
usage: isdcrash HOST|unix:PATH PORT WORKER SERVICE [after N] [stderr TEXT]... HOW";

/// Longest time that a hanging worker stays if nobody ends it.
const HANG: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy)]
enum How {
    Exit(i32),
    Signal(Signal),
    Memory(usize),
    Hang,
    Garbage,
    Half,
    Close,
    Logout,
    Login,
}

struct Plan {
    after: u64,
    stderr: Vec<String>,
    how: How,
}

fn main() -> ExitCode {
    default_faults();
    if let Some(status) = worker::help(USAGE) {
        return status;
    }
    let plan = match plan(&own_args()) {
        Ok(plan) => plan,
        Err(why) => return worker::misused(&why, USAGE),
    };
    if matches!(plan.how, How::Login) {
        die(&plan, None);
    }
    worker::run(USAGE, |worker| {
        let mut answered = 0;
        while let Some(request) = worker.next()? {
            if answered == plan.after {
                if !matches!(plan.how, How::Logout) {
                    die(&plan, Some(worker));
                }
                // The broker reads it before the answer, so it gives no request meanwhile.
                let logout = Frame::Logout(Logout { received: u32::try_from(answered + 1).ok() });
                worker.write_raw(&encode::to_bytes(logout));
            }
            answered += 1;
            worker.reply(request.body)?;
        }
        Ok(())
    })
}

fn plan(args: &[String]) -> Result<Plan, String> {
    let mut plan = Plan { after: 0, stderr: Vec::new(), how: How::Hang };
    let mut words = args.iter().map(String::as_str);
    let number = |word: Option<&str>| -> Result<i32, String> {
        let word = word.unwrap_or_default();
        word.parse().map_err(|_| format!("'{word}' stands where a number must stand"))
    };
    loop {
        plan.how = match words.next() {
            Some("after") => {
                plan.after = number(words.next())?.unsigned_abs().into();
                continue;
            }
            Some("stderr") => {
                plan.stderr.push(words.next().unwrap_or_default().to_owned());
                continue;
            }
            Some("exit") => How::Exit(number(words.next())?),
            Some("signal") => {
                let signal = number(words.next())?;
                How::Signal(Signal::try_from(signal).map_err(|_| format!("no signal {signal}"))?)
            }
            Some("memory") => {
                let megabytes = number(words.next())?;
                How::Memory(usize::try_from(megabytes).map_err(|e| e.to_string())?)
            }
            Some("hang") => How::Hang,
            Some("garbage") => How::Garbage,
            Some("half") => How::Half,
            Some("close") => How::Close,
            Some("logout") => How::Logout,
            Some("login") => How::Login,
            Some(other) => return Err(format!("'{other}' is no way to die")),
            None => return Err("it is not said how to die".to_owned()),
        };
        return match words.next() {
            None => Ok(plan),
            Some(word) => Err(format!("'{word}' stands behind the way to die")),
        };
    }
}

fn die(plan: &Plan, worker: Option<&mut Worker>) -> ! {
    for text in &plan.stderr {
        // Nobody may read the text; the program ends all the same.
        last_words(text);
    }
    match (plan.how, worker) {
        (How::Exit(status), _) => std::process::exit(status),
        (How::Signal(signal), _) => {
            // An ignored signal, or one that stops the process, does not end it; then it hangs.
            let _ = raise(signal);
        }
        (How::Garbage, Some(worker)) => {
            worker.write_raw(&[0xa5; 200]);
            std::process::exit(0);
        }
        (How::Half, Some(worker)) => {
            worker.write_raw(&[0; 32]);
            std::process::exit(0);
        }
        (How::Close, Some(worker)) => worker.drop_connection(),
        (How::Memory(megabytes), _) => {
            // Bytes other than zero, so that the kernel has to give the memory.
            let taken: Vec<Vec<u8>> = (0..megabytes).map(|_| vec![1; 1 << 20]).collect();
            last_words(&format!("it has {} MiB", taken.len()));
            std::mem::forget(taken);
        }
        (How::Hang, _) => {}
        // It does not die.
        (How::Logout, _) => std::process::exit(0),
        (How::Login | How::Garbage | How::Half | How::Close, _) => std::process::exit(1),
    }
    stay()
}

#[expect(clippy::disallowed_methods, reason = "to hang is what was asked for")]
fn stay() -> ! {
    std::thread::sleep(HANG);
    std::process::exit(0);
}
