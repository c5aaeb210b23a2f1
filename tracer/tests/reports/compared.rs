//! Comparisons as text.

use tcptrace_bpf::report::{CompareTable, ComparedHosts, ComparisonRow, TableStyle};
use tracer_core::{
    analysis::{ComparePeriod, CompareReport, HandshakeAttempt, HandshakesBy},
    event::{Nanos, Timestamp},
    lifecycle::CloseReason,
};

use crate::attempts::{MS, SECOND, client, end, failed};

/// Returns a period of 40 handshakes to two services each; those to port 443 are refused or take longer by `extra`.
fn period(refused: bool, extra: u64) -> ComparePeriod {
    let mut period = ComparePeriod::new(HandshakesBy::Service);
    for number in 0..40 {
        let ended = Timestamp(number * SECOND);
        let (plain, tried) = (end("192.0.2.1", 80), end("192.0.2.1", 443));
        period.add_handshake(&HandshakeAttempt { ended, ..client(plain, 2 * MS) }, None);
        let attempt = if refused {
            failed(tried, CloseReason::Refused, MS)
        } else {
            HandshakeAttempt { duration: Some(Nanos(2 * MS + number + extra)), ..client(tried, 2 * MS) }
        };
        period.add_handshake(&HandshakeAttempt { ended, ..attempt }, None);
    }
    period
}

fn table(before: &ComparePeriod, after: &ComparePeriod) -> String {
    let report = CompareReport::new(before, after);
    let hosts = ComparedHosts { before: "web-1".to_owned(), after: "web-1".to_owned() };
    let mut text = String::new();
    let comparison = ComparisonRow::new(&report, before, after, &hosts);
    CompareTable { groups: 20, style: TableStyle::default() }.write(&comparison, &report, &mut text).unwrap();
    text
}

#[test]
fn the_first_line_answers_the_question() {
    let (plain, refused, slower) = (period(false, 0), period(true, 0), period(false, 3 * MS));
    for (before, after, answer) in [
        (&plain, &refused, "Worse: 192.0.2.1:443 (failed handshakes)"),
        (&refused, &plain, "Better: 192.0.2.1:443 (failed handshakes)"),
        (&plain, &slower, "Worse: 192.0.2.1:443 (handshake p50)"),
        (&plain, &plain, "No shift is proven"),
    ] {
        assert_eq!(table(before, after).lines().next(), Some(answer));
    }
}

#[test]
fn a_table_lists_the_measures_of_each_group() {
    let text = table(&period(false, 0), &period(true, 0));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[1],
        "Handshakes: 80 before, 80 after; groups: 2 in both, 0 only before, 0 only after; tests: 1"
    );
    let words: Vec<Vec<&str>> = lines[3..].iter().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        words,
        [
            vec!["VERDICT", "GROUP", "MEASURE", "BEFORE", "AFTER", "N", "BEFORE", "N", "AFTER", "P"],
            vec!["worse", "192.0.2.1:443", "failed", "handshakes", "0.00%", "100.00%", "40", "40", "<0.0001"],
        ]
    );
}
