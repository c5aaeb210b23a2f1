//! Draws a table of connections, with the columns that fit.

use ratatui::{
    layout::Constraint,
    style::Style,
    text::Line,
    widgets::{Cell, Row, Table},
};
use tracer_core::event::TcpState;

use crate::{
    report::{bytes_text, duration_text, endpoint_text},
    top::{
        ConnectionLine, Sort, Theme,
        tables::{fitted, process_text, shortened_process, table},
    },
};

const STATE: u16 = 11;
const AGE: u16 = 9;
/// Widths of the process, which is shortened within them before a column is left out.
const PROCESS: (u16, u16) = (8, 17);
/// Widths of an address with its port, likewise. The longest of IPv4 has 21 characters.
const ADDRESS: (u16, u16) = (6, 23);

/// A column that a narrow table leaves out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    SentRate,
    ReceivedRate,
    Rtt,
    Sent,
    Received,
    Handshake,
}

impl Column {
    /// Every column, as they stand in the table.
    const ALL: [Self; 6] =
        [Self::SentRate, Self::ReceivedRate, Self::Rtt, Self::Sent, Self::Received, Self::Handshake];
    /// Every column, the first to be shown first.
    const BY_PRIORITY: [Self; 6] =
        [Self::Rtt, Self::SentRate, Self::ReceivedRate, Self::Handshake, Self::Sent, Self::Received];

    const fn title(self) -> &'static str {
        match self {
            Self::SentRate => "SENT/S",
            Self::ReceivedRate => "RECV/S",
            Self::Rtt => "RTT",
            Self::Sent => "SENT",
            Self::Received => "RECV",
            Self::Handshake => "HANDSHAKE",
        }
    }

    const fn width(self) -> u16 {
        match self {
            Self::SentRate | Self::ReceivedRate | Self::Sent | Self::Received => 7,
            Self::Rtt => 8,
            Self::Handshake => 9,
        }
    }

    const fn sort(self) -> Sort {
        match self {
            Self::SentRate => Sort::SentRate,
            Self::ReceivedRate => Sort::ReceivedRate,
            Self::Rtt => Sort::Rtt,
            Self::Sent => Sort::Sent,
            Self::Received => Sort::Received,
            Self::Handshake => Sort::Handshake,
        }
    }

    fn text(self, line: &ConnectionLine) -> String {
        let counters = line.reading.map(|reading| reading.counters);
        match self {
            Self::SentRate => bytes_text(line.sent_rate()),
            Self::ReceivedRate => bytes_text(line.received_rate()),
            Self::Rtt => duration_text(line.rtt()),
            Self::Sent => bytes_text(counters.map(|counters| counters.bytes_sent)),
            Self::Received => bytes_text(counters.map(|counters| counters.bytes_received)),
            Self::Handshake => duration_text(line.handshake),
        }
    }
}

/// Widths of the process and of both addresses.
#[derive(Debug, PartialEq, Eq)]
struct Widths {
    process: u16,
    local: u16,
    remote: u16,
}

/// The columns of a table.
struct Columns {
    widths: Widths,
    shown: Vec<Column>,
}

impl Columns {
    /// Chooses the columns for `width` characters. `content` has the widths of the longest texts. The column that the table is
    /// sorted by is shown first; `reads_bytes` is false where bytes and round-trip times are never known.
    fn new(width: u16, content: &Widths, sort: Sort, reads_bytes: bool) -> Self {
        let clamped = |width: u16, (least, most): (u16, u16)| width.clamp(least, most);
        let process = clamped(content.process, PROCESS);
        let (local, remote) = (clamped(content.local, ADDRESS), clamped(content.remote, ADDRESS));
        let mut left = width.saturating_sub(STATE + AGE + 4);
        let mut shown = Vec::new();
        let of_sort = |column: &Column| column.sort() == sort;
        if let Some(column) = Column::ALL.into_iter().find(of_sort) {
            left = left.saturating_sub(column.width() + 1);
            shown.push(column);
        }
        // Both addresses share what is left beside the process.
        let for_addresses = left.saturating_sub(process);
        let local = local.min(for_addresses / 2 + (for_addresses / 2).saturating_sub(remote));
        let remote = remote.min(for_addresses.saturating_sub(local));
        let mut widths = Widths { process, local, remote };
        left = for_addresses.saturating_sub(local + remote);
        let by_priority = Column::BY_PRIORITY.into_iter();
        for column in by_priority.filter(|column| reads_bytes || *column == Column::Handshake) {
            if !shown.contains(&column) && column.width() < left {
                left -= column.width() + 1;
                shown.push(column);
            }
        }
        for (width, content) in [
            (&mut widths.remote, content.remote),
            (&mut widths.local, content.local),
            (&mut widths.process, content.process.min(40)),
        ] {
            let more = content.saturating_sub(*width).min(left);
            *width += more;
            left -= more;
        }
        Self { widths, shown: Column::ALL.into_iter().filter(|column| shown.contains(column)).collect() }
    }
}

/// Returns the table of these connections for `width` characters, without a border.
pub(super) fn connections(
    width: u16,
    lines: &[ConnectionLine],
    sort: Sort,
    reads_bytes: bool,
    theme: Theme,
) -> Table<'static> {
    let processes: Vec<String> = lines.iter().map(|line| process_text(line.process)).collect();
    let locals: Vec<String> = lines.iter().map(|line| endpoint_text(line.local)).collect();
    let remotes: Vec<String> = lines.iter().map(|line| endpoint_text(line.remote)).collect();
    let content = Widths { process: fitted(&processes), local: fitted(&locals), remote: fitted(&remotes) };
    let Columns { widths: Widths { process, local, remote }, shown } =
        Columns::new(width, &content, sort, reads_bytes);
    let right = |text: String| Cell::from(Line::from(text).right_aligned());
    let rows: Vec<Row<'static>> = lines
        .iter()
        .zip(processes.iter().zip(locals.iter().zip(&remotes)))
        .map(|(line, (process_text, (local_text, remote_text)))| {
            let style = if is_suspicious(line.state) { theme.bad() } else { Style::new() };
            let mut cells = vec![
                Cell::from(shortened_process(process_text, process)),
                Cell::from(shortened_address(local_text, local)),
                Cell::from(shortened_address(remote_text, remote)),
                Cell::from(line.state.kernel_name()).style(style),
                right(age_text(line)),
            ];
            cells.extend(shown.iter().map(|column| right(column.text(line))));
            Row::new(cells)
        })
        .collect();
    let titles = ["PROCESS", "LOCAL", "REMOTE", "STATE"].map(Cell::from);
    let columns = shown.iter().map(|column| right(column.title().to_owned()));
    let head: Vec<Cell<'static>> =
        titles.into_iter().chain([right("AGE".to_owned())]).chain(columns).collect();
    let widths: Vec<Constraint> = [process, local, remote, STATE, AGE]
        .into_iter()
        .chain(shown.iter().map(|column| column.width()))
        .map(Constraint::Length)
        .collect();
    table(rows, &widths, head, theme)
}

/// Returns the time in the state; `>` marks a lower bound, and `-` an unknown time.
pub(super) fn age_text(line: &ConnectionLine) -> String {
    let age = duration_text(line.age);
    if line.at_least && line.age.is_some() { format!(">{age}") } else { age }
}

/// Cuts the beginning of an address, so that its port stays.
fn shortened_address(text: &str, width: u16) -> String {
    let (count, width) = (text.chars().count(), usize::from(width));
    if count <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().skip(count + 1 - width.max(1)).collect();
    format!("…{kept}")
}

/// Returns whether a state is short-lived on a healthy host.
fn is_suspicious(state: TcpState) -> bool {
    matches!(state, TcpState::CloseWait | TcpState::Closing | TcpState::LastAck | TcpState::SynSent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(
        width: u16,
        content: (u16, u16, u16),
        sort: Sort,
        reads_bytes: bool,
    ) -> (Vec<&'static str>, Widths) {
        let (process, local, remote) = content;
        let columns = Columns::new(width, &Widths { process, local, remote }, sort, reads_bytes);
        let used: u16 = columns.shown.iter().map(|column| column.width() + 1).sum();
        let Widths { process, local, remote } = columns.widths;
        assert!(process + local + remote + STATE + AGE + 4 + used <= width, "{width}");
        (columns.shown.iter().map(|column| column.title()).collect(), columns.widths)
    }

    #[test]
    fn both_addresses_fit_at_80_columns() {
        let (shown, widths) = titles(78, (15, 15, 15), Sort::Age, true);
        assert_eq!(shown, ["RTT"]);
        assert_eq!(widths, Widths { process: 15, local: 15, remote: 15 });
        let (shown, widths) = titles(78, (12, 21, 21), Sort::Age, true);
        assert_eq!((shown.len(), widths), (0, Widths { process: 12, local: 21, remote: 21 }));
        let (_, widths) = titles(78, (25, 47, 47), Sort::Age, true);
        assert_eq!(widths, Widths { process: 17, local: 18, remote: 19 });
        let (_, widths) = titles(78, (25, 8, 47), Sort::Age, true);
        assert_eq!((widths.local, widths.remote), (8, 29), "the shorter one leaves its room");
    }

    #[test]
    fn the_column_of_the_order_is_always_shown() {
        for column in Column::ALL {
            let (shown, _) = titles(78, (25, 47, 47), column.sort(), true);
            assert_eq!(shown, [column.title()]);
        }
    }

    #[test]
    fn a_wide_table_has_every_column_and_long_addresses() {
        let (shown, widths) = titles(198, (25, 40, 40), Sort::Age, true);
        assert_eq!(shown, ["SENT/S", "RECV/S", "RTT", "SENT", "RECV", "HANDSHAKE"]);
        assert_eq!(widths, Widths { process: 25, local: 40, remote: 40 });
        let (shown, _) = titles(198, (25, 40, 40), Sort::Age, false);
        assert_eq!(shown, ["HANDSHAKE"], "a replay reads no bytes");
    }

    #[test]
    fn a_long_address_keeps_its_port() {
        assert_eq!(shortened_address("192.168.100.100:54321", 15), "….100.100:54321");
        assert_eq!(shortened_address("10.0.0.1:80", 11), "10.0.0.1:80");
        assert_eq!(shortened_address("10.0.0.1:80", 0), "…");
    }
}
