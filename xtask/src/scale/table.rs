//! Tables in Markdown, and numbers for people.

use std::fmt::Write as _;

/// A table with these titles. A title that begins with `>` is that of a column of numbers.
pub(super) fn table<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> String {
    let names = titles.map(|title| title.trim_start_matches('>'));
    let lines = titles.map(|title| if title.starts_with('>') { "---:" } else { "---" });
    let mut text = format!("| {} |\n|{}|\n", names.join(" | "), lines.join("|"));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

/// A whole number with its thousands apart.
pub(super) fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Two or three digits that count, and a unit in steps of a thousand: `4.2 MB`, `850 kB`.
pub(super) fn bytes(value: f64) -> String {
    let mut value = value;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            return format!("{} {unit}", short(value));
        }
        value /= 1000.0;
    }
    format!("{} PB", short(value))
}

/// A number with two digits that count, or all before the point.
pub(super) fn short(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value >= 9.95 => whole(value),
        value if value >= 0.095 => format!("{value:.1}"),
        value if value >= 0.0095 => format!("{value:.2}"),
        value => format!("{value:.4}"),
    }
}

/// A time in seconds, in the unit that reads best.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.9995 => format!("{} ms", whole(seconds * 1000.0)),
        seconds if seconds < 120.0 => format!("{} s", short(seconds)),
        seconds if seconds < 7200.0 => format!("{} min", whole(seconds / 60.0)),
        seconds => format!("{} h", whole(seconds / 3600.0)),
    }
}

#[test]
fn numbers_read_well() {
    assert_eq!([whole(0.0), whole(999.0), whole(1_234_567.4)], ["0", "999", "1,234,567"]);
    assert_eq!(
        [bytes(0.0), bytes(120.0), bytes(4_190_000.0), bytes(999_600.0)],
        ["0 B", "120 B", "4.2 MB", "1.0 MB"]
    );
    assert_eq!([short(0.25), short(0.042), short(9.95), short(0.0012)], ["0.2", "0.04", "10", "0.0012"]);
    assert_eq!([time(0.27), time(27.0), time(600.0), time(90_000.0)], ["270 ms", "27 s", "10 min", "25 h"]);
}
