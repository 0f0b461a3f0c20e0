//! A proxy that makes a connection half-open: it forwards bytes until it is told to stop; then it
//! reads everything, forwards nothing in either direction, and hides closes. Each side sees an open
//! connection and hears nothing. One thread, TCP on loopback. For other faults there is
//! `fault::proxy`.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A proxy to one address.
#[derive(Debug)]
pub struct Blackhole {
    /// Where to connect, `ADDR:PORT`.
    pub address: String,
    is_blackholing: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Pair {
    ends: [TcpStream; 2],
    /// This connection was there when the blackholing began: it stays half-open for good.
    is_lost: bool,
}

impl Blackhole {
    /// Listens on a port of the kernel's choice and connects each that comes to this address.
    pub fn before(address: &str) -> Self {
        let target: SocketAddr = address.parse().expect("ADDR:PORT");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("nonblocking");
        let address = listener.local_addr().expect("an address").to_string();
        let is_blackholing = Arc::new(AtomicBool::new(false));
        let is_over = Arc::new(AtomicBool::new(false));
        let (blackholing, over) = (Arc::clone(&is_blackholing), Arc::clone(&is_over));
        let run = move || pass_on(&listener, target, &blackholing, &over);
        let thread = std::thread::Builder::new().spawn(run).expect("a thread");
        Self { address, is_blackholing, is_over, thread: Some(thread) }
    }

    /// From now on the connections that are there carry nothing any more. New ones do.
    pub fn blackhole(&self) {
        self.is_blackholing.store(true, Ordering::SeqCst);
        // The thread takes it up at its next round.
        crate::proc::await_that("the proxy to blackhole", || {
            (!self.is_blackholing.load(Ordering::SeqCst)).then_some(())
        });
    }
}

impl Drop for Blackhole {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn pass_on(
    listener: &TcpListener,
    target: SocketAddr,
    blackholing: &AtomicBool,
    over: &AtomicBool,
) {
    let mut pairs: Vec<Pair> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while !over.load(Ordering::SeqCst) {
        if blackholing.swap(false, Ordering::SeqCst) {
            pairs.iter_mut().for_each(|pair| pair.is_lost = true);
        }
        let mut fds = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        for pair in &pairs {
            fds.extend(pair.ends.iter().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN)));
        }
        let _ = poll(&mut fds, PollTimeout::from(5_u8));
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        drop(fds);
        let mut index = 1;
        pairs.retain_mut(|pair| {
            let is_ready = [ready[index], ready[index + 1]];
            index += 2;
            (0..2).all(|from| !is_ready[from] || pair.carry(from, &mut buffer))
        });
        if let Ok((near, _)) = listener.accept()
            && let Ok(far) = TcpStream::connect(target)
        {
            let ends = [near, far];
            for end in &ends {
                end.set_nodelay(true).expect("no delay");
                end.set_nonblocking(true).expect("nonblocking");
            }
            pairs.push(Pair { ends, is_lost: false });
        }
    }
}

impl Pair {
    /// Takes what one end sent; `false` = the pair is done with.
    fn carry(&mut self, from: usize, buffer: &mut [u8]) -> bool {
        match self.ends[from].read(buffer) {
            // A lost one is not told of the other's end.
            Ok(0) => self.is_lost,
            Ok(_) if self.is_lost => true,
            Ok(size) => self.give(1 - from, &buffer[..size]),
            Err(error) => {
                self.is_lost
                    || matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
            }
        }
    }

    fn give(&mut self, to: usize, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match self.ends[to].write(bytes) {
                Ok(size) => bytes = &bytes[size..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(self.ends[to].as_fd(), PollFlags::POLLOUT)];
                    let _ = poll(&mut fds, PollTimeout::from(100_u8));
                }
                Err(_) => return false,
            }
        }
        true
    }
}
