//! Tests of two sessions over a simulated wire: ended anywhere, in small pieces, full, with invalid
//! bytes, without TLS at the other end.

mod common;

use common::{Authority, End, handshake, wire};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use transport::session::{AHEAD_BYTES_MAX, Fault, Session};

fn sessions(authority: &Authority) -> (Session, Session) {
    let (listener, caller) = authority.both();
    (listener.session().expect("a session"), caller.session("localhost").expect("a session"))
}

fn body(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8).collect()
}

/// Reads what is there.
fn read(session: &mut Session, end: &mut End, size: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; size];
    let count = session.read(end, &mut [IoSliceMut::new(&mut buffer)])?;
    buffer.truncate(count);
    Ok(buffer)
}

/// Moves bytes in one direction, with reads of this size.
fn carry(from: (&mut Session, &mut End), to: (&mut Session, &mut End), body: &[u8], size: usize) {
    let (mut sent, mut got) = (0, Vec::new());
    for _ in 0..10_000_000 {
        if sent < body.len() {
            match from.0.write(from.1, &[IoSlice::new(&body[sent..])]) {
                Ok(count) => sent += count,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        } else {
            let _ = from.0.flush(from.1);
        }
        match read(to.0, to.1, size) {
            Ok(bytes) => got.extend(bytes),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        if got.len() == body.len() {
            break;
        }
    }
    assert!(got == body, "{} of {} bytes came", got.len(), body.len());
}

#[test]
fn bytes_go_both_ways_in_crumbs_and_at_once() {
    let authority = Authority::new();
    for (most, room, size) in [(1, 0, 7), (5, 11, 64), (1000, 4000, 10_000), (0, 0, 300_000)] {
        let (mut listener, mut caller) = sessions(&authority);
        let (mut near, mut far) = wire();
        (near.most, far.most) = (most, most);
        near.output.borrow_mut().room = room;
        far.output.borrow_mut().room = room;
        let done = handshake((&mut listener, &mut near), (&mut caller, &mut far));
        assert!(done.0.is_ok() && done.1.is_ok(), "{done:?}");
        for count in [1, 64, 16_384, 16_385, 40_000] {
            let body = body(count);
            carry((&mut caller, &mut far), (&mut listener, &mut near), &body, size);
            carry((&mut listener, &mut near), (&mut caller, &mut far), &body, size);
        }
        if most == 0 {
            let body = body(3_000_000);
            carry((&mut caller, &mut far), (&mut listener, &mut near), &body, size);
        }
    }
}

#[test]
fn a_pause_at_any_byte_of_the_handshake_and_the_first_frames_changes_nothing() {
    let authority = Authority::new();
    let (listener, caller) = authority.both();
    for direction in [false, true] {
        let mut pause = 0;
        loop {
            let (mut one, mut other) =
                (listener.session().unwrap(), caller.session("localhost").unwrap());
            let (mut near, mut far) = wire();
            let pipe = if direction { &near.input } else { &far.input };
            pipe.borrow_mut().pause_at = Some(pause);
            let done = handshake((&mut one, &mut near), (&mut other, &mut far));
            assert!(done.0.is_ok() && done.1.is_ok(), "pause at {pause}: {done:?}");
            carry((&mut other, &mut far), (&mut one, &mut near), &body(64), 1000);
            carry((&mut one, &mut near), (&mut other, &mut far), &body(64), 1000);
            let pipe = if direction { &near.input } else { &far.input };
            if pipe.borrow().pause_at.is_some() {
                assert!(pause > 200, "the handshake has {pause} bytes");
                break;
            }
            pause += 1;
        }
    }
}

#[test]
fn an_end_without_its_word_is_a_break_at_any_byte() {
    let authority = Authority::new();
    let (listener, caller) = authority.both();
    let mut total = 0;
    for at in 0.. {
        let (mut one, mut other) =
            (listener.session().unwrap(), caller.session("localhost").unwrap());
        let (mut near, mut far) = wire();
        near.input.borrow_mut().end_at = Some(at);
        let done = handshake((&mut one, &mut near), (&mut other, &mut far));
        if let Err(error) = done.0 {
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "ended at {at}");
            continue;
        }
        other.write(&mut far, &[IoSlice::new(b"whole")]).unwrap();
        other.close();
        other.flush(&mut far).unwrap();
        total = far.output.borrow().passed + far.output.borrow().bytes.len();
        let first = read(&mut one, &mut near, 100);
        let mut last = first;
        if let Ok(bytes) = &last
            && !bytes.is_empty()
        {
            assert_eq!(bytes, b"whole", "ended at {at}");
            last = read(&mut one, &mut near, 100);
        }
        match last {
            Ok(bytes) => {
                assert!(bytes.is_empty());
                // Only after the very last byte the end is an orderly one.
                assert_eq!(at, total);
                break;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "ended at {at}"),
        }
    }
    assert!(total > 300);
}

#[test]
fn the_end_is_known_although_the_socket_stays_open() {
    let authority = Authority::new();
    let (mut one, mut other) = sessions(&authority);
    let (mut near, mut far) = wire();
    let done = handshake((&mut one, &mut near), (&mut other, &mut far));
    assert!(done.0.is_ok() && done.1.is_ok());
    other.write(&mut far, &[IoSlice::new(b"bye")]).unwrap();
    other.close();
    other.flush(&mut far).unwrap();
    assert_eq!(read(&mut one, &mut near, 100).unwrap(), b"bye");
    assert!(one.has_more(), "the end waits");
    assert!(read(&mut one, &mut near, 100).unwrap().is_empty());
    // The other direction is still open: a worker is asked to end this way.
    carry((&mut one, &mut near), (&mut other, &mut far), b"late", 100);
}

#[test]
fn what_waits_in_a_session_is_bounded() {
    let authority = Authority::new();
    let (mut one, mut other) = sessions(&authority);
    let (mut near, mut far) = wire();
    let done = handshake((&mut one, &mut near), (&mut other, &mut far));
    assert!(done.0.is_ok() && done.1.is_ok());
    far.output.borrow_mut().room = 1000;
    let large = body(1_000_000);
    let mut taken = 0;
    while let Ok(count) = other.write(&mut far, &[IoSlice::new(&large)]) {
        taken += count;
        assert!(taken <= AHEAD_BYTES_MAX, "{taken} bytes taken and none has left");
    }
    assert_eq!(taken, AHEAD_BYTES_MAX);
    // A reader with a small buffer takes a part and gets the rest later.
    far.output.borrow_mut().room = 0;
    other.flush(&mut far).unwrap();
    let mut got = Vec::new();
    while got.len() < taken {
        let before = near.input.borrow().passed;
        let bytes = read(&mut one, &mut near, 10).unwrap();
        assert_eq!(bytes.len(), 10.min(taken - got.len()));
        assert!(near.input.borrow().passed - before <= 2 * transport::session::SCRATCH_BYTES);
        got.extend(bytes);
    }
    assert!(got == large[..taken]);
}

#[test]
fn who_speaks_no_tls_is_told_so_in_plain_words() {
    let authority = Authority::new();
    let (mut one, mut other) = sessions(&authority);
    let (mut near, mut far) = wire();
    io::Write::write_all(&mut far, &[0; 64]).unwrap();
    let error = read(&mut one, &mut near, 100).unwrap_err();
    assert_eq!((error.kind(), one.fault()), (ErrorKind::InvalidData, Some(&Fault::Plain)));
    assert!(error.to_string().contains("tls://HOST:PORT"), "{error}");
    assert_eq!(one.write(&mut near, &[IoSlice::new(b"plain words")]).unwrap(), 11);
    let said: Vec<u8> = far.input.borrow().bytes.iter().copied().collect();
    assert_eq!(said, b"plain words");
    let error = other.handshake(&mut far).unwrap_err();
    assert_eq!(other.fault(), Some(&Fault::Plain));
    assert!(error.to_string().contains("leave out 'tls://'"), "{error}");
}

#[test]
fn garbage_gets_an_alert_and_nothing_of_frames() {
    let authority = Authority::new();
    let almost = [0x16, 0x03, 0x01, 0x00, 0x05, 1, 2, 3, 4, 5];
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &almost] {
        let (mut one, _) = sessions(&authority);
        let (mut near, mut far) = wire();
        io::Write::write_all(&mut far, garbage).unwrap();
        let error = read(&mut one, &mut near, 100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        assert_eq!(one.write(&mut near, &[IoSlice::new(b"secret")]).unwrap(), 6);
        let said: Vec<u8> = far.input.borrow().bytes.iter().copied().collect();
        let wants = one.has_unsent();
        assert_eq!(said.get(..2), Some(&[0x15, 0x03][..]), "an alert: {error} {wants} {one:?}");
        assert!(!said.windows(6).any(|part| part == b"secret"));
    }
}

#[test]
fn a_bit_that_flips_anywhere_never_gets_through() {
    let authority = Authority::new();
    let (listener, caller) = authority.both();
    for at in (0..900).step_by(3) {
        let (mut one, mut other) =
            (listener.session().unwrap(), caller.session("localhost").unwrap());
        let (mut near, mut far) = wire();
        let mut results = (Ok(()), Ok(()));
        for _ in 0..20 {
            results = (one.handshake(&mut near), other.handshake(&mut far));
            let pipe = &far.input;
            let passed = pipe.borrow().passed;
            if let Some(byte) = at_checked(at, passed)
                .and_then(|i| pipe.borrow().bytes.get(i).copied().map(|byte| (i, byte)))
            {
                pipe.borrow_mut().bytes[byte.0] = byte.1 ^ 0x10;
            }
        }
        // TLS 1.3 may ignore a changed record type of a record that stands alone.
        if results.0.is_ok() && results.1.is_ok() {
            carry((&mut other, &mut far), (&mut one, &mut near), b"hello", 100);
        }
    }
}

fn at_checked(at: usize, passed: usize) -> Option<usize> {
    at.checked_sub(passed)
}

#[test]
fn both_ends_of_a_connection_have_one_channel_and_no_other_connection_has_it() {
    let authority = Authority::new();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let (mut listener, mut caller) = sessions(&authority);
        assert!(listener.channel().is_err() && caller.channel().is_err(), "before the handshake");
        let (mut near, mut far) = wire();
        let done = handshake((&mut listener, &mut near), (&mut caller, &mut far));
        assert!(done.0.is_ok() && done.1.is_ok(), "{done:?}");
        let channel = listener.channel().expect("it is through");
        assert_eq!(caller.channel(), Ok(channel));
        assert!(!seen.contains(&channel) && channel != [0; 32]);
        seen.push(channel);
    }
}
