//! Colors of tables and messages: the styles, when they are used, and texts that contain them.
//!
//! A style never changes what a text says: without colors, nothing is missing.

use std::fmt::Write as _;

use anstream::stream::RawStream;
use anstyle::{AnsiColor, Style};

/// When to write colors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Also into pipes and files
    Always,
    /// Nowhere
    Never,
}

impl ColorChoice {
    /// Returns the styles for a stream.
    ///
    /// `Auto` has colors on a terminal, unless `NO_COLOR` is not empty (<https://no-color.org>) or `TERM` is `dumb`, and
    /// elsewhere with `CLICOLOR_FORCE`.
    pub fn palette(self, stream: &impl RawStream) -> Palette {
        let colors = match self {
            Self::Auto => anstream::AutoStream::choice(stream) != anstream::ColorChoice::Never,
            Self::Always => true,
            Self::Never => false,
        };
        Palette::new(colors)
    }
}

impl From<ColorChoice> for clap::ColorChoice {
    fn from(choice: ColorChoice) -> Self {
        match choice {
            ColorChoice::Auto => Self::Auto,
            ColorChoice::Always => Self::Always,
            ColorChoice::Never => Self::Never,
        }
    }
}

/// The meaning of a part of a text, which decides its style.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// No style.
    #[default]
    Plain,
    /// The header of a table, or the name of a group.
    Title,
    /// A failure, a culprit or a loss.
    Bad,
    /// A cost that is no failure: a segment sent again, a queue that fills, a state that waits for a process.
    Warning,
    /// A connection that is opening.
    Opening,
    /// The normal case, beside bad ones.
    Good,
}

impl Mark {
    /// Returns the mark if it applies, else no style.
    #[must_use]
    pub(in crate::report) const fn when(self, applies: bool) -> Self {
        if applies { self } else { Self::Plain }
    }

    /// Returns the style. The terminal's own four colors that are readable on dark and on light backgrounds: yellow and
    /// white are not on light ones, blue is not on dark ones.
    const fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Title => Style::new().bold(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Warning => AnsiColor::Magenta.on_default(),
            Self::Opening => AnsiColor::Cyan.on_default(),
            Self::Good => AnsiColor::Green.on_default(),
        }
    }
}

/// Adds styles to texts, or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Palette {
    colors: bool,
}

impl Palette {
    /// Creates a palette with or without colors. The default has none.
    pub const fn new(colors: bool) -> Self {
        Self { colors }
    }

    /// Returns whether it has colors.
    pub const fn has_colors(self) -> bool {
        self.colors
    }

    /// Styles the text from `start` to its end. An absent value (`-`) stays plain.
    pub(in crate::report) fn paint(self, text: &mut String, start: usize, mark: Mark) {
        if !self.colors || mark == Mark::Plain || matches!(&text[start..], "" | "-") {
            return;
        }
        let style = mark.style();
        text.insert_str(start, &style.to_string());
        // Writing to a string does not fail.
        let _ = write!(text, "{style:#}");
    }

    /// Removes the spaces at the end of a text, and styles it from `start` on.
    pub(in crate::report) fn paint_trimmed(self, text: &mut String, start: usize, mark: Mark) {
        text.truncate(start + text[start..].trim_end().len());
        self.paint(text, start, mark);
    }

    /// Returns a text with its style.
    pub fn painted(self, text: impl Into<String>, mark: Mark) -> String {
        let mut text = text.into();
        self.paint(&mut text, 0, mark);
        text
    }
}

/// Returns the positions of a text's visible characters: those outside of styles.
///
/// Text from outside is escaped, so that every escape character begins a style.
fn visible(text: &str) -> impl Iterator<Item = usize> + '_ {
    let mut is_style = false;
    text.char_indices().filter_map(move |(at, character)| {
        if is_style || character == '\u{1b}' {
            is_style = character != 'm';
            return None;
        }
        Some(at)
    })
}

/// Cuts a text from `start` on to `width` visible characters, at least one. An ellipsis marks the cut.
pub(in crate::report) fn cut(text: &mut String, start: usize, width: usize) {
    let width = width.max(1);
    let last = {
        let mut places = visible(&text[start..]);
        places.nth(width - 1).filter(|_| places.next().is_some())
    };
    let Some(last) = last else { return };
    text.truncate(start + last);
    text.push('\u{2026}');
    if text[start..].contains('\u{1b}') {
        text.push_str(&anstyle::Reset.to_string());
    }
}

/// Breaks a line between words so that it fits `width` visible characters. Further lines begin with `indent` spaces. A word
/// that is wider than a line stays whole, and a number stays with the word after it.
pub(crate) fn wrapped(line: &str, width: usize, indent: usize) -> String {
    let mut text = String::with_capacity(line.len() + line.len() / 8);
    let mut column = 0;
    for (index, word) in unbroken(line).enumerate() {
        let length = visible(word).count();
        if index > 0 && column > indent && column + 1 + length > width {
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
            text.push_str(&" ".repeat(indent));
            column = indent;
        } else if index > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text
}

/// Splits a line at the spaces at which it may break.
fn unbroken(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let mut from = 0;
        for (space, _) in line.match_indices(' ') {
            let word = &line[from..space];
            let is_number = !word.is_empty() && visible(word).all(|at| word.as_bytes()[at].is_ascii_digit());
            if !is_number {
                rest = Some(&line[space + 1..]);
                return Some(&line[..space]);
            }
            from = space + 1;
        }
        rest = None;
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Mark; 6] = [Mark::Plain, Mark::Title, Mark::Bad, Mark::Warning, Mark::Opening, Mark::Good];

    #[test]
    fn each_mark_has_its_style_and_plain_text_none() {
        let painted = ALL.map(|mark| Palette::new(true).painted("x", mark));
        assert_eq!(
            painted,
            [
                "x",
                "\u{1b}[1mx\u{1b}[0m",
                "\u{1b}[31mx\u{1b}[0m",
                "\u{1b}[35mx\u{1b}[0m",
                "\u{1b}[36mx\u{1b}[0m",
                "\u{1b}[32mx\u{1b}[0m"
            ]
        );
        for mark in ALL {
            assert_eq!(Palette::default().painted("x", mark), "x");
            assert_eq!(Palette::new(true).painted("-", mark), "-", "an absent value");
        }
    }

    #[test]
    fn a_style_ends_before_the_spaces() {
        let mut line = "A  B   ".to_owned();
        Palette::new(true).paint_trimmed(&mut line, 0, Mark::Title);
        assert_eq!(line, "\u{1b}[1mA  B\u{1b}[0m");
    }

    #[test]
    fn choices_do_not_depend_on_the_stream_but_auto_does() {
        // The stdout of a test is no terminal, or a captured one; only the fixed choices are certain.
        assert!(ColorChoice::Always.palette(&std::io::stdout()).has_colors());
        assert!(!ColorChoice::Never.palette(&std::io::stdout()).has_colors());
    }

    #[test]
    fn styles_have_no_width() {
        let red = |text: &str| Palette::new(true).painted(text, Mark::Bad);
        let cut_to = |text: &str, width| {
            let mut text = text.to_owned();
            cut(&mut text, 0, width);
            text
        };
        let line = format!("{} caf\u{e9}", red("one"));
        assert_eq!(visible(&line).count(), 8);
        assert_eq!(cut_to(&line, 8), line);
        assert_eq!(cut_to(&line, 7), format!("{} ca\u{2026}\u{1b}[0m", red("one")));
        assert_eq!(cut_to(&line, 2), "\u{1b}[31mo\u{2026}\u{1b}[0m");
        assert_eq!(cut_to("plain", 4), "pla\u{2026}");
        let mut second = format!("first line\n{line}");
        cut(&mut second, 11, 8);
        assert_eq!(second, format!("first line\n{line}"));
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrapped("one two three", 13, 2), "one two three");
        assert_eq!(wrapped("one two three", 12, 2), "one two\n  three");
        assert_eq!(wrapped("one two three four", 7, 2), "one two\n  three\n  four");
        assert_eq!(wrapped("found    name  detail of it", 20, 4), "found    name\n    detail of it");
        assert_eq!(wrapped("a-word-that-is-too-long x", 5, 2), "a-word-that-is-too-long\n  x");
        assert_eq!(wrapped("seen 12 times of 7", 8, 2), "seen\n  12 times\n  of 7");
        assert_eq!(wrapped("", 5, 2), "");
        let red = Palette::new(true).painted("two words", Mark::Bad);
        assert_eq!(wrapped(&format!("one {red} x"), 9, 2), "one \u{1b}[31mtwo\n  words\u{1b}[0m x");
        for width in 1..40 {
            let text = wrapped("none of these words is wide", width, 2);
            assert!(text.lines().all(|line| line.len() <= width.max(7)), "{width}: {text}");
        }
    }
}
