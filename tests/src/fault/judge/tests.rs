//! Canaries: histories made by hand, each with one violation that the judge must see, and their
//! neighbours in which there is none.

use super::*;
use crate::fault::history::Outcome;

const SECOND: u64 = 1_000_000;
const RULES: [Rules; 2] =
    [Rules { retry: 0, retry_idempotent: 3 }, Rules { retry: 2, retry_idempotent: 3 }];

fn asked() -> Asked {
    Asked {
        id: 1,
        service: 0,
        idempotent: false,
        reply: true,
        deadline: SECOND,
        sent: 10 * SECOND,
        behind: 0,
        port: 7,
        library: false,
        changing: false,
        outcomes: vec![answer(10 * SECOND + 5)],
        end: None,
    }
}

fn answer(at: u64) -> Outcome {
    Outcome { at, got: Got::Answer { right: true } }
}

fn error(code: ErrorCode, ran: Ran) -> Outcome {
    Outcome { at: 10 * SECOND + 5, got: Got::Error { code: code.number(), ran } }
}

fn begun(times: u32) -> Vec<Begun> {
    (1..=times).map(|attempt| Begun { id: 1, pid: 100 + attempt, attempt }).collect()
}

fn sees(asked: Asked, begun: &[Begun], excuses: &[Excuse], incidents: &[Incident]) -> Vec<Broken> {
    let case = Case { asked: &[asked], begun, rules: &RULES, excuses, incidents };
    judge(&case).violations.iter().map(|violation| violation.broken).collect()
}

fn incident(kind: Kind) -> Incident {
    Incident { port: 7, kind, from: 9 * SECOND, until: u64::MAX }
}

fn killed(from: u64, until: u64) -> Excuse {
    Excuse { cause: Cause::Killed, from, until }
}

#[test]
fn a_good_history_is_good() {
    assert_eq!(sees(asked(), &begun(1), &[], &[]), []);
    let case =
        Case { asked: &[asked()], begun: &begun(1), rules: &RULES, excuses: &[], incidents: &[] };
    let verdict = judge(&case);
    assert_eq!((verdict.judged, verdict.excused), (1, 0));
    assert_eq!(verdict.outcomes.into_iter().collect::<Vec<_>>(), [("answered".to_owned(), 1)]);
}

#[test]
fn two_outcomes_are_seen() {
    let mut two = asked();
    two.outcomes.push(answer(10 * SECOND + 6));
    assert_eq!(sees(two.clone(), &begun(1), &[], &[]), [Broken::TwoOutcomes]);
    two.outcomes[1] = error(ErrorCode::WorkerDied, Ran::Maybe);
    assert_eq!(sees(two, &begun(1), &[], &[]), [Broken::TwoOutcomes]);
}

#[test]
fn no_outcome_is_seen_unless_the_proxy_swallowed_it() {
    let none = Asked { outcomes: Vec::new(), ..asked() };
    assert_eq!(sees(none.clone(), &begun(1), &[], &[]), [Broken::NoOutcome]);
    let gave_up = Asked { end: Some((16 * SECOND, End::GaveUp)), ..none.clone() };
    assert_eq!(sees(gave_up.clone(), &[], &[], &[]), [Broken::NoOutcome]);
    assert_eq!(sees(gave_up.clone(), &[], &[], &[incident(Kind::Vanished)]), []);
    let elsewhere = Incident { port: 8, ..incident(Kind::Vanished) };
    assert_eq!(sees(gave_up, &[], &[], &[elsewhere]), [Broken::NoOutcome]);
    let unwanted = Asked { reply: false, end: Some((16 * SECOND, End::GaveUp)), ..none };
    assert_eq!(sees(unwanted, &begun(1), &[], &[]), []);
}

#[test]
fn a_connection_that_ended_for_nothing_is_seen() {
    let lost = Asked { outcomes: Vec::new(), end: Some((11 * SECOND, End::Lost)), ..asked() };
    assert_eq!(sees(lost.clone(), &begun(1), &[], &[]), [Broken::LostForNothing]);
    assert_eq!(sees(lost.clone(), &begun(1), &[], &[incident(Kind::CutRst)]), []);
    assert_eq!(sees(lost.clone(), &begun(1), &[killed(11 * SECOND - 1, 12 * SECOND)], &[]), []);
    let other = killed(5 * SECOND, 6 * SECOND);
    assert_eq!(sees(lost.clone(), &begun(1), &[other], &[]), [Broken::LostForNothing]);
    let stopped = Excuse { cause: Cause::Stopped, ..killed(10 * SECOND, 12 * SECOND) };
    assert_eq!(sees(lost, &begun(1), &[stopped], &[]), [Broken::LostForNothing]);
}

#[test]
fn ran_no_that_lied_is_seen() {
    let no = Asked { outcomes: vec![error(ErrorCode::Deadline, Ran::No)], ..asked() };
    assert_eq!(sees(no.clone(), &[], &[], &[]), []);
    assert_eq!(sees(no.clone(), &begun(1), &[], &[]), [Broken::RanNoLied]);
    let maybe = Asked { outcomes: vec![error(ErrorCode::Deadline, Ran::Maybe)], ..asked() };
    assert_eq!(sees(maybe, &begun(1), &[], &[]), []);
    let library = Asked { library: true, idempotent: true, ..no };
    assert_eq!(sees(library, &begun(1), &[], &[]), [Broken::RanNoLied]);
    let partial = Asked { outcomes: Vec::new(), end: Some((11 * SECOND, End::Partial)), ..asked() };
    assert_eq!(sees(partial.clone(), &[], &[], &[]), []);
    assert_eq!(sees(partial, &begun(1), &[], &[]), [Broken::RanNoLied]);
}

#[test]
fn running_too_often_is_seen() {
    assert_eq!(sees(asked(), &begun(2), &[], &[]), [Broken::RanTooOften]);
    let retry = Asked { service: 1, ..asked() };
    assert_eq!(sees(retry.clone(), &begun(3), &[], &[]), []);
    assert_eq!(sees(retry, &begun(4), &[], &[]), [Broken::RanTooOften]);
    let idempotent = Asked { idempotent: true, ..asked() };
    assert_eq!(sees(idempotent.clone(), &begun(4), &[], &[]), []);
    assert_eq!(sees(idempotent.clone(), &begun(5), &[], &[]), [Broken::RanTooOften]);
    let library = Asked { library: true, ..idempotent };
    assert_eq!(sees(library, &begun(9), &[], &[]), []);
    let once = Asked { library: true, ..asked() };
    assert_eq!(sees(once, &begun(2), &[], &[]), [Broken::RanTooOften]);
    // Also where no answer was wanted, or none came.
    let unwanted = Asked { reply: false, outcomes: Vec::new(), ..asked() };
    assert_eq!(sees(unwanted, &begun(2), &[], &[]), [Broken::RanTooOften]);
}

#[test]
fn an_outcome_that_comes_too_late_is_seen() {
    let at = |at| Asked { outcomes: vec![answer(at)], ..asked() };
    assert_eq!(sees(at(12 * SECOND), &begun(1), &[], &[]), []);
    let late = at(12 * SECOND + 1);
    assert_eq!(sees(late.clone(), &begun(1), &[], &[]), [Broken::Late]);
    assert_eq!(sees(late.clone(), &begun(1), &[], &[incident(Kind::Throttled)]), []);
    assert_eq!(sees(late, &begun(1), &[], &[incident(Kind::CutFin)]), [Broken::Late]);
    let behind = Asked { behind: 11 * SECOND, ..at(13 * SECOND) };
    assert_eq!(sees(behind.clone(), &begun(1), &[], &[]), []);
    let behind = Asked { behind: 11 * SECOND - 1, ..behind };
    assert_eq!(sees(behind, &begun(1), &[], &[]), [Broken::Late]);
    // A stop excuses as much as it took, once.
    let stop = |from, until| Excuse { cause: Cause::Stopped, from, until };
    let later = at(13 * SECOND);
    let stops = [stop(11 * SECOND, 12 * SECOND), stop(11 * SECOND, 12 * SECOND)];
    assert_eq!(sees(later.clone(), &begun(1), &stops, &[]), []);
    assert_eq!(sees(later, &begun(1), &[stop(9 * SECOND, 10 * SECOND)], &[]), [Broken::Late]);
    assert_eq!(sees(at(13 * SECOND + 1), &begun(1), &stops, &[]), [Broken::Late]);
}

#[test]
fn a_wrong_answer_and_one_by_nobody_are_seen() {
    let wrong = Outcome { got: Got::Answer { right: false }, ..answer(10 * SECOND + 5) };
    let wrong = Asked { outcomes: vec![wrong], ..asked() };
    assert_eq!(sees(wrong, &begun(1), &[], &[]), [Broken::WrongAnswer]);
    assert_eq!(sees(asked(), &[], &[], &[]), [Broken::NobodyAnswered]);
    let own = Outcome { got: Got::Error { code: 7, ran: Ran::Yes }, ..answer(10 * SECOND + 5) };
    let own = Asked { outcomes: vec![own], ..asked() };
    assert_eq!(sees(own.clone(), &begun(1), &[], &[]), []);
    assert_eq!(sees(own, &[], &[], &[]), [Broken::NobodyAnswered]);
}

#[test]
fn what_was_not_wanted_and_what_nobody_asked_is_seen() {
    let unwanted = Asked { reply: false, ..asked() };
    assert_eq!(sees(unwanted, &begun(1), &[], &[]), [Broken::Unwanted]);
    let mut more = begun(1);
    more.push(Begun { id: 99, pid: 4, attempt: 1 });
    assert_eq!(sees(asked(), &more, &[], &[]), [Broken::Invented]);
}

#[test]
fn a_connection_that_ends_although_it_was_only_delayed_or_split_is_seen() {
    let at = 10 * SECOND + 7;
    let lost = Asked { outcomes: Vec::new(), end: Some((at, End::Lost)), ..asked() };
    for kind in [Kind::Delayed, Kind::Split] {
        assert_eq!(sees(lost.clone(), &[], &[], &[incident(kind)]), [Broken::LostForNothing]);
    }
    for kind in [Kind::CutFin, Kind::Throttled, Kind::Stalled, Kind::Vanished] {
        assert_eq!(sees(lost.clone(), &[], &[], &[incident(kind)]), []);
    }
}

#[test]
fn to_be_shut_out_without_a_new_token_is_seen() {
    let from = 10 * SECOND;
    let renewed = Excuse { cause: Cause::Renewed, from, until: from + 2 };
    let long_ago = Excuse { from: from - 5 * SECOND, until: from - 4 * SECOND, ..renewed };
    let end = Some((from + 7, End::Lost));
    let lost = Asked { outcomes: Vec::new(), end, changing: true, ..asked() };
    let out = vec![error(ErrorCode::BadToken, Ran::Maybe)];
    let told = Asked { outcomes: out, changing: true, ..asked() };
    for asked in [lost, told] {
        assert_eq!(sees(asked.clone(), &[], &[renewed], &[]), []);
        assert_eq!(sees(asked.clone(), &[], &[], &[]), [Broken::LostForNothing]);
        assert_eq!(sees(asked.clone(), &[], &[long_ago], &[]), [Broken::LostForNothing]);
        // The news of it was held back.
        let slow = Incident { until: from + 6, ..incident(Kind::Stalled) };
        assert_eq!(sees(asked.clone(), &[], &[long_ago], &[slow]), []);
        let steady = Asked { changing: false, ..asked };
        assert_eq!(sees(steady, &[], &[renewed], &[]), [Broken::LostForNothing]);
    }
    // It excuses nothing else.
    let late = Asked { outcomes: vec![answer(13 * SECOND)], changing: true, ..asked() };
    let long = Excuse { until: u64::MAX, ..renewed };
    assert_eq!(sees(late, &begun(1), &[long], &[]), [Broken::Late]);
}
