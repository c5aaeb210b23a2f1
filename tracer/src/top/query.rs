//! What each table lists, and in which order.

use tracer_core::event::TcpState;

use crate::top::Tab;

/// The sort key of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// The worst first, as the command of the same name prints them.
    Worst,
    /// The time in the state, longest first.
    Age,
    /// The state, in the order of the protocol.
    State,
    /// The name of the process, then its id.
    Process,
    /// The local address and port.
    Local,
    /// The remote address and port.
    Remote,
    /// The duration of the handshake, longest first; in a group the 99th percentile.
    Handshake,
    /// The smoothed round-trip time, longest first.
    Rtt,
    /// Bytes sent per second, most first.
    SentRate,
    /// Bytes received per second, most first.
    ReceivedRate,
    /// Bytes sent, most first.
    Sent,
    /// Bytes received, most first.
    Received,
    /// Connections, most first.
    Connections,
    /// The name of the group.
    Group,
    /// Handshakes, most first.
    Count,
    /// Handshakes per second, most first.
    Rate,
    /// Failed handshakes, most first.
    Failed,
    /// Handshakes with resent segments, most first.
    Resent,
    /// Connections in the accept queue, most first.
    Queue,
    /// Half-open handshakes, most first.
    HalfOpen,
    /// Dropped segments, most first.
    Dropped,
    /// The 99th percentile of the wait for `accept()`, longest first.
    AcceptWait,
}

impl Sort {
    /// Returns the displayed name, which is also the one in a saved view.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Worst => "worst",
            Self::Age => "age",
            Self::State => "state",
            Self::Process => "process",
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Handshake => "handshake",
            Self::Rtt => "rtt",
            Self::SentRate => "sent/s",
            Self::ReceivedRate => "recv/s",
            Self::Sent => "sent",
            Self::Received => "recv",
            Self::Connections => "connections",
            Self::Group => "group",
            Self::Count => "count",
            Self::Rate => "rate",
            Self::Failed => "failed",
            Self::Resent => "resent",
            Self::Queue => "queue",
            Self::HalfOpen => "half-open",
            Self::Dropped => "dropped",
            Self::AcceptWait => "accept wait",
        }
    }
}

impl Tab {
    /// Returns the sort keys of the tab's table; the first is the default.
    pub(crate) const fn sorts(self) -> &'static [Sort] {
        match self {
            Self::Diagram | Self::Connections | Self::Stuck => &[
                Sort::Age,
                Sort::State,
                Sort::Process,
                Sort::Local,
                Sort::Remote,
                Sort::SentRate,
                Sort::ReceivedRate,
                Sort::Sent,
                Sort::Received,
                Sort::Rtt,
                Sort::Handshake,
            ],
            Self::Owners => &[Sort::Connections, Sort::Process, Sort::SentRate, Sort::ReceivedRate],
            Self::Handshakes => &[
                Sort::Worst,
                Sort::Group,
                Sort::Count,
                Sort::Rate,
                Sort::Failed,
                Sort::Resent,
                Sort::Handshake,
            ],
            Self::Listeners => &[
                Sort::Worst,
                Sort::Local,
                Sort::Queue,
                Sort::HalfOpen,
                Sort::Dropped,
                Sort::Count,
                Sort::Rate,
                Sort::Handshake,
                Sort::AcceptWait,
                Sort::Process,
            ],
        }
    }

    /// Returns whether the lines of the tab's table have states to filter by.
    pub(crate) const fn has_states(self) -> bool {
        !matches!(self, Self::Handshakes | Self::Listeners)
    }
}

/// What a table lists, and in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The sort key.
    pub sort: Sort,
    /// Reverses the order.
    pub reversed: bool,
    /// Lists only connections in this state, or groups with such connections.
    pub state: Option<TcpState>,
    /// Lists only lines that contain this text; case-insensitive.
    pub search: String,
}

impl Query {
    /// Returns the initial query of a tab: everything in the default order.
    pub(crate) const fn of(tab: Tab) -> Self {
        Self { sort: tab.sorts()[0], reversed: false, state: None, search: String::new() }
    }

    /// Selects the next sort key of the tab, with wraparound.
    pub(super) fn next_sort(&mut self, tab: Tab) {
        let sorts = tab.sorts();
        let now = sorts.iter().position(|sort| *sort == self.sort).unwrap_or(0);
        self.sort = sorts[(now + 1) % sorts.len()];
    }

    /// Returns whether a text matches the search.
    pub(super) fn matches(&self, text: &str) -> bool {
        self.search.is_empty() || text.to_lowercase().contains(&self.search.to_lowercase())
    }

    /// Returns the query for a title: the filters, then the order.
    pub(super) fn title(&self) -> String {
        let state = self.state.map(|state| format!(", {}", state.kernel_name())).unwrap_or_default();
        let search = if self.search.is_empty() { String::new() } else { format!(", /{}", self.search) };
        let order = if self.reversed { " reversed" } else { "" };
        format!("{state}{search}, by {}{order}", self.sort.name())
    }
}

/// The query of each table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queries([Query; Tab::ALL.len()]);

impl Default for Queries {
    fn default() -> Self {
        Self(Tab::ALL.map(Query::of))
    }
}

impl Queries {
    /// Returns the query of a tab. The diagram shows the connections, so both tabs have the same query.
    pub fn of(&self, tab: Tab) -> &Query {
        &self.0[index(tab)]
    }

    /// Returns the query of a tab, to be changed.
    pub fn of_mut(&mut self, tab: Tab) -> &mut Query {
        &mut self.0[index(tab)]
    }
}

const fn index(tab: Tab) -> usize {
    match tab {
        Tab::Diagram => Tab::Connections as usize,
        other => other as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tab_cycles_through_its_own_sort_keys() {
        for tab in Tab::ALL {
            let mut query = Query::of(tab);
            for expected in tab.sorts().iter().skip(1).chain(tab.sorts().first()) {
                query.next_sort(tab);
                assert_eq!(query.sort, *expected, "{tab:?}");
            }
            let mut names: Vec<&str> = tab.sorts().iter().map(|sort| sort.name()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), tab.sorts().len(), "{tab:?}");
        }
    }

    #[test]
    fn the_diagram_has_the_query_of_the_connections() {
        let mut queries = Queries::default();
        queries.of_mut(Tab::Diagram).search = "web".to_owned();
        assert_eq!(queries.of(Tab::Connections).search, "web");
        assert_eq!(queries.of(Tab::Stuck).search, "");
    }
}
