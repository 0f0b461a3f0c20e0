//! Tests the checker: hand-made histories with one violation each that it must find, and similar
//! histories without a violation.

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
    Outcome { at, blind: 0, got: Got::Answer { right: true } }
}

fn error(code: ErrorCode, ran: Ran) -> Outcome {
    Outcome { at: 10 * SECOND + 5, blind: 0, got: Got::Error { code: code.number(), ran } }
}

fn begun(times: u32) -> Vec<Begun> {
    (1..=times).map(|attempt| Begun { id: 1, pid: 100 + attempt, attempt }).collect()
}

fn sees(asked: Asked, begun: &[Begun], excuses: &[Excuse], incidents: &[Incident]) -> Vec<Broken> {
    let case = Case { asked: &[asked], begun, rules: &RULES, excuses, incidents, slow: &[] };
    check(&case).violations.iter().map(|violation| violation.broken).collect()
}

/// What the checker says of one request that one worker began.
fn verdict(asked: Asked, excuses: &[Excuse], slow: &[Slow]) -> Verdict {
    let begun = &begun(1);
    check(&Case { asked: &[asked], begun, rules: &RULES, excuses, incidents: &[], slow })
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
    let verdict = verdict(asked(), &[], &[]);
    assert_eq!((verdict.checked, verdict.excused), (1, 0));
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
fn what_is_given_up_while_the_broker_is_stopped_is_no_fault_of_it() {
    let stop = |until| Excuse { cause: Cause::Stopped, ..killed(11 * SECOND, until) };
    let gave_up = |behind, at| Asked {
        outcomes: Vec::new(),
        behind,
        end: Some((at, End::GaveUp)),
        ..asked()
    };
    let sees = |asked, excuses: &[Excuse]| sees(asked, &begun(0), excuses, &[]);
    // It may come until 12 s, so it is 4 s late when it is given up.
    let (none, at) = ([Broken::NoOutcome], 16 * SECOND);
    assert_eq!(sees(gave_up(0, at), &[]), none);
    assert_eq!(sees(gave_up(0, at), &[stop(15 * SECOND)]), []);
    assert_eq!(sees(gave_up(0, at), &[stop(15 * SECOND - 1)]), none);
    // What waits behind another has its time when that one has ended.
    assert_eq!(sees(gave_up(14 * SECOND, at), &[]), []);
    assert_eq!(sees(gave_up(14 * SECOND - 1, at), &[]), none);
}

#[test]
fn no_outcome_is_seen_unless_the_proxy_dropped_it() {
    let none = Asked { outcomes: Vec::new(), ..asked() };
    assert_eq!(sees(none.clone(), &begun(1), &[], &[]), [Broken::NoOutcome]);
    let gave_up = Asked { end: Some((16 * SECOND, End::GaveUp)), ..none.clone() };
    assert_eq!(sees(gave_up.clone(), &[], &[], &[]), [Broken::NoOutcome]);
    assert_eq!(sees(gave_up.clone(), &[], &[], &[incident(Kind::HalfOpen)]), []);
    let elsewhere = Incident { port: 8, ..incident(Kind::HalfOpen) };
    assert_eq!(sees(gave_up, &[], &[], &[elsewhere]), [Broken::NoOutcome]);
    let unwanted = Asked { reply: false, end: Some((16 * SECOND, End::GaveUp)), ..none };
    assert_eq!(sees(unwanted, &begun(1), &[], &[]), []);
}

#[test]
fn a_connection_that_ended_for_nothing_is_seen() {
    let lost = Asked { outcomes: Vec::new(), end: Some((11 * SECOND, End::Lost)), ..asked() };
    assert_eq!(sees(lost.clone(), &begun(1), &[], &[]), [Broken::LostForNothing]);
    assert_eq!(sees(lost.clone(), &begun(1), &[], &[incident(Kind::Reset)]), []);
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
    assert_eq!(sees(late, &begun(1), &[], &[incident(Kind::Closed)]), [Broken::Late]);
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
    for kind in [Kind::Closed, Kind::Throttled, Kind::Stalled, Kind::HalfOpen] {
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

/// Late by 300 ms.
fn late() -> Asked {
    Asked { outcomes: vec![answer(12 * SECOND + 300_000)], ..asked() }
}

#[test]
fn lateness_is_excused_by_as_much_as_somebody_else_stood_still_and_no_more() {
    let span = |cause, size| Excuse { cause, from: 11 * SECOND, until: 11 * SECOND + size };
    for cause in [Cause::Killed, Cause::Stopped, Cause::Machine, Cause::Starved, Cause::Proxy] {
        assert_eq!(sees(late(), &begun(1), &[span(cause, 300_000)], &[]), [], "{cause:?}");
        let less = span(cause, 299_999);
        assert_eq!(sees(late(), &begun(1), &[less], &[]), [Broken::Late], "{cause:?}");
        let before = Excuse { from: 9 * SECOND, until: 10 * SECOND, ..less };
        assert_eq!(sees(late(), &begun(1), &[before], &[]), [Broken::Late], "{cause:?}");
    }
    // Many short waits for a CPU are one long one; what two say of one moment counts once.
    let waits: Vec<Excuse> = (0..300)
        .map(|at| Excuse {
            from: 11 * SECOND + at * 2000,
            ..span(Cause::Starved, at * 2000 + 1000)
        })
        .collect();
    assert_eq!(sees(late(), &begun(1), &waits, &[]), []);
    assert_eq!(sees(late(), &begun(1), &waits[1..], &[]), [Broken::Late]);
    let twice = [span(Cause::Starved, 200_000), span(Cause::Machine, 200_000)];
    assert_eq!(sees(late(), &begun(1), &twice, &[]), [Broken::Late]);
    // The proxy stands on the way of those alone who go through it.
    let other = Asked { port: 0, ..late() };
    let proxy = [span(Cause::Proxy, 900_000)];
    assert_eq!(sees(other, &begun(1), &proxy, &[]), [Broken::Late]);
}

#[test]
fn a_client_that_did_not_look_blames_nobody_for_what_may_have_been_there() {
    let blind = |blind| Asked { outcomes: vec![Outcome { blind, ..late().outcomes[0] }], ..late() };
    assert_eq!(sees(blind(300_000), &begun(1), &[], &[]), []);
    assert_eq!(sees(blind(299_999), &begun(1), &[], &[]), [Broken::Late]);
    // It looks every 20 ms: so much is no excuse, it is how it looks.
    let little = Outcome { blind: BLIND_US, ..answer(12 * SECOND + 1) };
    let little = Asked { outcomes: vec![little], ..asked() };
    assert_eq!(sees(little, &begun(1), &[], &[]), [Broken::Late]);
}

#[test]
fn the_report_says_who_was_late() {
    let starved = Excuse { cause: Cause::Starved, from: 11 * SECOND, until: 11 * SECOND + 310_000 };
    let slow = [Slow {
        from: 11 * SECOND,
        until: 11 * SECOND + 320_000,
        ran: 9000,
        stolen: 0,
        seen: "; seen".to_owned(),
    }];
    let said = verdict(late(), &[starved], &slow);
    assert_eq!((said.excused, said.violations.len()), (1, 0));
    assert_eq!(
        said.causes.into_iter().collect::<Vec<_>>(),
        [("the broker waited for a CPU".to_owned(), 1)]
    );
    assert_eq!(
        said.latest,
        Some((
            300_000,
            "request 1 came 300.000 ms later than its deadline and a second; in its 2300.000 ms: \
             the broker waited for a CPU for 310.000 ms, the broker's loop answered no ping for \
             320 ms, of which it ran 9 ms and 0 ms were stolen from the machine; seen"
                .to_owned()
        ))
    );
    // The loop did not turn although it had a CPU: that is the broker's own.
    let said = verdict(late(), &[], &slow);
    let text = &said.violations[0].text;
    assert!(text.contains("2300.000 ms: the broker's loop answered no ping for 320"), "{text}");
    // Neither loop nor checker nor machine: what was done with this request was late.
    let text = &verdict(late(), &[], &[]).violations[0].text;
    assert!(text.contains("answered all pings within 50 ms"), "{text}");
}

#[test]
fn the_news_of_a_killed_broker_may_take_as_long_longer_as_the_machine_stood_still() {
    let at = 13 * SECOND + 1;
    let lost = Asked { outcomes: Vec::new(), end: Some((at, End::Lost)), ..asked() };
    let killed = killed(11 * SECOND, 12 * SECOND);
    let stood = Excuse { cause: Cause::Machine, from: 12 * SECOND, until: 12 * SECOND + 1 };
    assert_eq!(sees(lost.clone(), &[], &[killed], &[]), [Broken::LostForNothing]);
    assert_eq!(sees(lost, &[], &[killed, stood], &[]), []);
}
