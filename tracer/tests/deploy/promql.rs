//! A PromQL scanner that finds the series and labels of an expression.

use std::collections::BTreeSet;

use crate::reference::Reference;

/// The series and labels of an expression.
#[derive(Debug, Default)]
pub(crate) struct Query {
    /// Each series with its matchers as label and value; a regular expression gives one matcher per alternative.
    pub(crate) series: Vec<(String, Vec<(String, String)>)>,
    /// The labels in `by`, `on` and similar clauses.
    pub(crate) grouped: BTreeSet<String>,
}

/// Keywords before a list of labels.
const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Parses an expression.
pub(crate) fn read(expression: &str) -> Query {
    let mut query = Query::default();
    let mut rest = expression;
    while let Some(start) = rest.find(|it: char| it.is_ascii_alphabetic() || it == '_' || it == '"') {
        // The suffix of a number or a duration is not a name.
        let after_digit = rest[..start].ends_with(|it: char| it.is_ascii_digit());
        rest = &rest[start..];
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted.split_once('"').expect("a closing quote").1;
            continue;
        }
        let end = rest.find(|it: char| !is_name(it)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        let next = after.trim_start();
        if after_digit {
            continue;
        }
        if LISTS.contains(&word) {
            if let Some(list) = next.strip_prefix('(') {
                let (list, after) = list.split_once(')').expect("a closing parenthesis");
                query
                    .grouped
                    .extend(list.split(',').map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()));
                rest = after;
            }
        } else if let Some(matchers) = after.strip_prefix('{') {
            let (matchers, after) = matchers.split_once('}').expect("a closing brace");
            query.series.push((word.to_owned(), matchers_of(matchers)));
            rest = after;
        } else if is_series(word) && !next.starts_with('(') {
            query.series.push((word.to_owned(), Vec::new()));
        }
    }
    query
}

fn is_name(it: char) -> bool {
    it.is_ascii_alphanumeric() || it == '_' || it == ':'
}

/// Returns whether a word without braces is a series, rather than a function or an operator.
fn is_series(word: &str) -> bool {
    word.contains(':') || ["tcptrace_", "process_"].iter().any(|prefix| word.starts_with(prefix))
}

fn matchers_of(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((label, after)) = rest.split_once(['=', '!']) {
        let (operator, quoted) = after.split_once('"').expect("an opening quote");
        let (value, after) = quoted.split_once('"').expect("a closing quote");
        let label = label.trim_matches([' ', ',', '!', '\n']).to_owned();
        let alternatives = if operator.contains('~') { value.split('|').collect() } else { vec![value] };
        found.extend(alternatives.into_iter().map(|value| (label.clone(), value.to_owned())));
        rest = after;
    }
    found
}

/// Requires that all series, labels and values exist. A name with a colon must be in `recorded`, the recording rules.
pub(crate) fn check(place: &str, expression: &str, reference: &Reference, recorded: &[String]) {
    let query = read(expression);
    assert!(!query.series.is_empty(), "{place}: no series in {expression}");
    let mut has_recorded = false;
    for (series, matchers) in &query.series {
        if series.contains(':') {
            assert!(recorded.contains(series), "{place}: no rule records {series}");
            has_recorded = true;
            continue;
        }
        assert!(reference.has(series), "{place}: there is no {series}");
        for (label, value) in matchers {
            assert!(reference.has_label(series, label), "{place}: {series} has no label {label}");
            let variable = value.starts_with('$');
            assert!(
                variable || reference.has_value(series, label, value),
                "{place}: {label} of {series} is never {value}"
            );
        }
    }
    for label in query.grouped.iter().filter(|label| !label.starts_with('$')) {
        let known = has_recorded || query.series.iter().any(|(series, _)| reference.has_label(series, label));
        assert!(known, "{place}: no series of {expression} has the label {label}");
    }
}

#[test]
fn series_and_labels_are_found() {
    let query = read(
        r#"1 - sum by (job, le) (rate(tcptrace_a_bucket{le="0.95", role!~"x|y"}[5m])) / on (job) group_left ()
           (instance:tcptrace_b:rate5m > 0.5e3 offset 30m) and up{job="z"} == 0 or tcptrace_c"#,
    );
    let pair = |label: &str, value: &str| (label.to_owned(), value.to_owned());
    assert_eq!(
        query.series,
        [
            ("tcptrace_a_bucket".to_owned(), vec![pair("le", "0.95"), pair("role", "x"), pair("role", "y")]),
            ("instance:tcptrace_b:rate5m".to_owned(), vec![]),
            ("up".to_owned(), vec![pair("job", "z")]),
            ("tcptrace_c".to_owned(), vec![]),
        ]
    );
    assert_eq!(query.grouped, BTreeSet::from(["job".to_owned(), "le".to_owned()]));
}
