//! The state diagram: its layout in characters, as SVG, and the text of `diagram -o table`.

mod characters;
mod report;
mod svg;

pub use characters::{DIAGRAM_HEIGHT, DIAGRAM_WIDTH, Piece, PieceKind, diagram, diagram_lines};
pub use report::{diagram_title, write_diagram_text};
pub use svg::DiagramSvg;
