//! The state diagram in characters: for `diagram -o table` and for `top`.

use tracer_core::{
    analysis::{Edge, is_pathological},
    event::TcpState::{
        self, CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived,
        SynSent, TimeWait,
    },
};

use crate::report::text::style::{Mark, Palette};

/// Width of the diagram, columns.
pub const DIAGRAM_WIDTH: u16 = 80;
/// Height of the diagram, lines.
pub const DIAGRAM_HEIGHT: u16 = 18;

/// The lines and arrows.
const ART: [&str; DIAGRAM_HEIGHT as usize] = [
    "",
    "            ┌─────────────────────┴────────────────────┐",
    "                                                       │",
    "            │                                          │",
    "                     ◄─────────────────────────",
    "",
    "      ┌─────┤                                          │",
    "      │     └──────────────►             ◄─────────────┘",
    "      │",
    "      │     ┌─────────────────────┴────────────────────┐",
    "      └►",
    "",
    "            │        └────────────┐                    │",
    "",
    "",
    "            │                     │                    │",
    "            └────────────────►           ─────────────►",
    "",
];

/// Column and line of each state name; its detail stands below.
const STATES: [(TcpState, u16, u16); 12] = [
    (Closed, 32, 0),
    (Listen, 10, 2),
    (SynReceived, 8, 4),
    (SynSent, 51, 4),
    (Established, 29, 7),
    (FinWait1, 8, 10),
    (CloseWait, 50, 10),
    (FinWait2, 8, 13),
    (Closing, 31, 13),
    (LastAck, 51, 13),
    (TimeWait, 30, 16),
    (Closed, 55, 16),
];

/// Column and line of each edge label.
const EDGES: [(Edge, u16, u16); 24] = [
    ((Closed, Listen), 17, 1),
    ((Closed, SynSent), 42, 1),
    ((Listen, SynReceived), 14, 3),
    ((SynSent, SynReceived), 31, 4),
    ((SynReceived, FinWait1), 0, 8),
    ((SynReceived, Established), 14, 6),
    ((SynSent, Established), 57, 6),
    ((Established, FinWait1), 16, 9),
    ((Established, CloseWait), 42, 9),
    // The last column of the label, which is left of its line: another label is on the right.
    ((FinWait1, FinWait2), 11, 12),
    ((FinWait1, Closing), 24, 12),
    ((CloseWait, LastAck), 57, 12),
    ((FinWait2, TimeWait), 14, 15),
    ((Closing, TimeWait), 36, 15),
    ((LastAck, Closed), 57, 15),
    ((TimeWait, Closed), 43, 16),
    // Closed without a FIN exchange: beside the name of the state left.
    ((Listen, Closed), 18, 2),
    ((SynReceived, Closed), 17, 6),
    ((SynSent, Closed), 61, 4),
    ((Established, Closed), 57, 7),
    ((FinWait1, Closed), 18, 10),
    ((FinWait2, Closed), 18, 13),
    ((CloseWait, Closed), 61, 10),
    ((Closing, Closed), 39, 13),
];

/// The kind of a piece of the diagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceKind {
    /// A line or an arrow.
    Line,
    /// The name of a state.
    State(TcpState),
    /// The detail of a state.
    Detail(TcpState),
    /// The label of an edge.
    Edge(Edge),
    /// The label of an edge that no connection should take.
    Pathological(Edge),
}

/// A text and its position in the diagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Column of the first character.
    pub x: u16,
    /// Line.
    pub y: u16,
    /// The text.
    pub text: String,
    /// The kind.
    pub kind: PieceKind,
}

/// Lays out the diagram, with `detail` below each state and `label` at each edge. An empty text is left out.
pub fn diagram(detail: &dyn Fn(TcpState) -> String, label: &dyn Fn(Edge) -> String) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (y, line) in (0..).zip(ART) {
        if !line.is_empty() {
            pieces.push(Piece { x: 0, y, text: line.to_owned(), kind: PieceKind::Line });
        }
    }
    for (state, x, y) in STATES {
        pieces.push(Piece { x, y, text: state.kernel_name().to_owned(), kind: PieceKind::State(state) });
        let text = if state == Closed { String::new() } else { detail(state) };
        if !text.is_empty() {
            let (x, y) = if state == Listen { (x + 24, y) } else { (x, y + 1) };
            pieces.push(Piece { x, y, text, kind: PieceKind::Detail(state) });
        }
    }
    for (edge, x, y) in EDGES {
        let text = label(edge);
        if text.is_empty() {
            continue;
        }
        let (text, kind) = if is_pathological(edge) {
            (format!("✕ {text}"), PieceKind::Pathological(edge))
        } else if edge == (Listen, Closed) {
            (format!("↑ {text}"), PieceKind::Edge(edge))
        } else {
            (format!(" {text} "), PieceKind::Edge(edge))
        };
        let length = u16::try_from(text.chars().count()).unwrap_or(u16::MAX);
        let x = if edge == (FinWait1, FinWait2) { x.saturating_sub(length - 1) } else { x };
        pieces.push(Piece { x, y, text, kind });
    }
    pieces
}

/// Draws the pieces as lines of text.
pub fn diagram_lines(pieces: &[Piece], palette: Palette) -> Vec<String> {
    let mut canvas = vec![vec![(' ', Mark::Plain); usize::from(DIAGRAM_WIDTH)]; usize::from(DIAGRAM_HEIGHT)];
    for piece in pieces {
        for (x, character) in (usize::from(piece.x)..).zip(piece.text.chars()) {
            if let Some(cell) = canvas.get_mut(usize::from(piece.y)).and_then(|line| line.get_mut(x)) {
                *cell = (character, mark(piece.kind));
            }
        }
    }
    canvas.iter().map(|line| painted_line(line, palette)).collect()
}

/// Returns the text of a line, each run of characters in its style.
fn painted_line(line: &[(char, Mark)], palette: Palette) -> String {
    let end = line.iter().rposition(|(character, _)| *character != ' ').map_or(0, |last| last + 1);
    let runs = line[..end].chunk_by(|first, second| first.1 == second.1);
    runs.map(|run| {
        let text: String = run.iter().map(|(character, _)| *character).collect();
        palette.painted(text, run.first().map_or(Mark::Plain, |(_, mark)| *mark))
    })
    .collect()
}

/// Returns the mark of a piece: names stand out, and edges that no connection should take.
fn mark(kind: PieceKind) -> Mark {
    match kind {
        PieceKind::State(_) => Mark::Title,
        PieceKind::Pathological(_) => Mark::Bad,
        PieceKind::Line | PieceKind::Detail(_) | PieceKind::Edge(_) => Mark::Plain,
    }
}
