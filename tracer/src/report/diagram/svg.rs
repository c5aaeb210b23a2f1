//! The state diagram as SVG, laid out like RFC 9293, figure 5.

use std::fmt::{self, Write as _};

use tracer_core::{
    analysis::{Edge, EdgeStats, LiveCounts, StateGraph, is_pathological},
    event::TcpState::{
        self, CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived,
        SynSent, TimeWait,
    },
};

use crate::report::text::quantity::spaced_duration;

const WIDTH: i32 = 1240;
const BOX: (i32, i32) = (176, 58);
/// Height of a line of text.
const LINE: i32 = 15;

/// Centers of the states' boxes. CLOSE appears twice: where connections start and where they end.
const STATES: [(TcpState, i32, i32); 12] = [
    (Closed, 620, 100),
    (Listen, 620, 220),
    (SynReceived, 300, 340),
    (SynSent, 940, 340),
    (Established, 620, 470),
    (FinWait1, 300, 600),
    (CloseWait, 940, 600),
    (FinWait2, 300, 740),
    (Closing, 620, 740),
    (LastAck, 940, 740),
    (TimeWait, 620, 880),
    (Closed, 940, 880),
];

/// The `text-anchor` of a label.
#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

struct Route {
    edge: Edge,
    path: &'static str,
    label: (i32, i32, Anchor),
}

const fn route(edge: Edge, path: &'static str, label: (i32, i32, Anchor)) -> Route {
    Route { edge, path, label }
}

const ROUTES: [Route; 24] = [
    route((Closed, Listen), "M620 129V187", (630, 155, Anchor::Start)),
    route((Closed, SynSent), "M708 100H940V307", (950, 200, Anchor::Start)),
    route((Listen, SynReceived), "M532 220H300V307", (310, 260, Anchor::Start)),
    route((SynSent, SynReceived), "M852 340H392", (620, 296, Anchor::Middle)),
    route((SynReceived, FinWait1), "M240 369V567", (230, 464, Anchor::End)),
    route((SynReceived, Established), "M300 369V470H528", (310, 430, Anchor::Start)),
    route((SynSent, Established), "M940 369V470H712", (930, 430, Anchor::End)),
    route((Established, FinWait1), "M550 499V588H392", (540, 548, Anchor::End)),
    route((Established, CloseWait), "M690 499V588H848", (700, 548, Anchor::Start)),
    route((FinWait1, FinWait2), "M300 629V707", (310, 665, Anchor::Start)),
    route((FinWait1, Closing), "M388 614H620V707", (630, 665, Anchor::Start)),
    route((CloseWait, LastAck), "M940 629V707", (950, 665, Anchor::Start)),
    route((FinWait2, TimeWait), "M300 769V880H528", (310, 825, Anchor::Start)),
    route((Closing, TimeWait), "M620 769V847", (630, 805, Anchor::Start)),
    route((LastAck, Closed), "M940 769V847", (950, 805, Anchor::Start)),
    route((TimeWait, Closed), "M708 880H848", (778, 905, Anchor::Middle)),
    route((Listen, Closed), "M708 220H744", (752, 217, Anchor::Start)),
    route((SynReceived, Closed), "M212 340H176", (168, 337, Anchor::End)),
    route((SynSent, Closed), "M1028 340H1064", (1072, 337, Anchor::Start)),
    route((Established, Closed), "M620 499V522", (620, 546, Anchor::Middle)),
    route((FinWait1, Closed), "M212 600H176", (168, 597, Anchor::End)),
    route((FinWait2, Closed), "M212 740H176", (168, 737, Anchor::End)),
    route((CloseWait, Closed), "M1028 600H1064", (1072, 597, Anchor::Start)),
    route((Closing, Closed), "M708 740H734", (740, 737, Anchor::Start)),
];

/// The state diagram; displays as SVG.
#[derive(Clone, Copy, Debug)]
pub struct DiagramSvg<'a> {
    /// The transitions.
    pub graph: &'a StateGraph,
    /// Connections in each state now.
    pub live: &'a LiveCounts,
    /// The line above the diagram, such as host, time, and length of the window.
    pub title: &'a str,
}

impl fmt::Display for DiagramSvg<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others: Vec<(Edge, &EdgeStats)> =
            self.graph.edges().filter(|(edge, _)| !ROUTES.iter().any(|route| route.edge == *edge)).collect();
        let height = 960 + LINE * i32::try_from(others.len()).unwrap_or(0);
        writeln!(
            formatter,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\">"
        )?;
        formatter.write_str(HEAD)?;
        writeln!(formatter, "<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>")?;
        writeln!(
            formatter,
            "<text x=\"24\" y=\"36\" font-size=\"18\" font-weight=\"bold\">TCP states</text>"
        )?;
        writeln!(formatter, "<text x=\"24\" y=\"58\" fill=\"#555\">{}</text>", xml(self.title))?;
        for (y, line) in (0..).zip(LEGEND) {
            let y = 84 + y * LINE;
            writeln!(formatter, "<text x=\"24\" y=\"{y}\" fill=\"#555\">{line}</text>")?;
        }
        for route in &ROUTES {
            self.route(formatter, route)?;
        }
        for (state, x, y) in STATES {
            self.state(formatter, state, x, y)?;
        }
        for (line, ((from, to), stats)) in (0..).zip(others) {
            let label = format!("also {} → {}: {}", from.kernel_name(), to.kernel_name(), counted(stats));
            writeln!(
                formatter,
                "<text x=\"24\" y=\"{}\" fill=\"#b00020\">{}</text>",
                950 + line * LINE,
                xml(&label)
            )?;
        }
        formatter.write_str("</svg>\n")
    }
}

/// The meaning of the numbers and colors.
const LEGEND: [&str; 3] = [
    "At each edge: connections that took it, and the median and the 99th",
    "percentile of the time spent in the state left.",
    "Red: a connection closed without a FIN exchange.",
];

/// The arrow heads of used, unused, and pathological edges.
const HEAD: &str = "<defs>\n\
<marker id=\"used\" viewBox=\"0 0 8 8\" refX=\"6\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8Z\" fill=\"#1a1a1a\"/></marker>\n\
<marker id=\"unused\" viewBox=\"0 0 8 8\" refX=\"6\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8Z\" fill=\"#c4c4c4\"/></marker>\n\
<marker id=\"bad\" viewBox=\"0 0 8 8\" refX=\"6\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8Z\" fill=\"#b00020\"/></marker>\n\
</defs>\n";

impl DiagramSvg<'_> {
    fn route(&self, formatter: &mut fmt::Formatter<'_>, route: &Route) -> fmt::Result {
        let stats = self.graph.edge(route.edge);
        let out = route.edge.1 == Closed && !matches!(route.edge.0, LastAck | TimeWait);
        let (marker, color, width) = match stats {
            None if out => return Ok(()),
            None => ("unused", "#c4c4c4", 1),
            Some(_) if is_pathological(route.edge) => ("bad", "#b00020", 2),
            Some(_) => ("used", "#1a1a1a", 2),
        };
        writeln!(
            formatter,
            "<path d=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\" marker-end=\"url(#{marker})\"/>",
            route.path
        )?;
        let Some(stats) = stats else { return Ok(()) };
        let mut lines = vec![if out { format!("CLOSE: {}", stats.count) } else { stats.count.to_string() }];
        if let (Some(p50), Some(p99)) = (stats.durations.quantile(0.5), stats.durations.quantile(0.99)) {
            lines.push(format!("p50 {}", spaced_duration(p50)));
            lines.push(format!("p99 {}", spaced_duration(p99)));
        }
        if stats.failures > 0 && !is_pathological(route.edge) {
            lines.push(format!("{} failed", stats.failures));
        }
        let (x, y, anchor) = route.label;
        for (index, line) in (0..).zip(lines) {
            let weight = if index == 0 { " font-weight=\"bold\"" } else { "" };
            writeln!(
                formatter,
                "<text x=\"{x}\" y=\"{}\" text-anchor=\"{}\" fill=\"{color}\"{weight}>{}</text>",
                y + index * LINE,
                anchor.name(),
                xml(&line)
            )?;
        }
        Ok(())
    }

    fn state(&self, formatter: &mut fmt::Formatter<'_>, state: TcpState, x: i32, y: i32) -> fmt::Result {
        let (width, height) = BOX;
        let live = if state == Closed { 0 } else { self.live.of(state) };
        let fill = if live > 0 { "#dbe9ff" } else { "#f4f4f4" };
        writeln!(
            formatter,
            "<rect x=\"{}\" y=\"{}\" width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"{fill}\" stroke=\"#1a1a1a\"/>",
            x - width / 2,
            y - height / 2,
        )?;
        let mut detail = String::new();
        if live > 0 {
            write!(detail, "{live} now")?;
        }
        let name_y = if detail.is_empty() { y + 5 } else { y - 3 };
        writeln!(
            formatter,
            "<text x=\"{x}\" y=\"{name_y}\" text-anchor=\"middle\" font-size=\"15\" font-weight=\"bold\">{}</text>",
            state.kernel_name()
        )?;
        if !detail.is_empty() {
            writeln!(formatter, "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{detail}</text>", y + 16)?;
        }
        Ok(())
    }
}

fn counted(stats: &EdgeStats) -> String {
    match stats.durations.quantile(0.5) {
        Some(p50) => format!("{}, p50 {}", stats.count, spaced_duration(p50)),
        None => stats.count.to_string(),
    }
}

/// Escapes a text for XML.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // Not allowed in XML 1.0, not even escaped.
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}
