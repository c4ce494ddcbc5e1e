//! How output looks: for people on a terminal, or for what reads a pipe.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};

/// How a table looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// The width of the terminal that it is shown on, if there is one.
    pub(crate) terminal: Option<usize>,
    /// Whether it has a heading.
    pub(crate) header: bool,
    /// Whether it has colours.
    pub(crate) color: bool,
    /// Whether each event has its time.
    pub(crate) timestamps: bool,
}

impl Look {
    /// With a heading, without colours.
    pub(crate) const fn plain(terminal: Option<usize>) -> Self {
        Self { terminal, header: true, color: false, timestamps: false }
    }
}

/// How the values of a column are marked where there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Not at all.
    None,
    /// Each value in a colour that it always has.
    Hue,
    /// Red, unless it is 0 or absent.
    Alarm,
}

/// Headings.
const HEADING: Style = Style::new().bold();
const ALARM: Style = AnsiColor::Red.on_default();
/// Red is for failures; black and white may be the background.
const HUES: [Style; 5] = [
    AnsiColor::Green.on_default(),
    AnsiColor::Yellow.on_default(),
    AnsiColor::Blue.on_default(),
    AnsiColor::Magenta.on_default(),
    AnsiColor::Cyan.on_default(),
];

/// Makes what begins at `start` a heading.
pub(super) fn write_heading(start: usize, out: &mut Vec<u8>) {
    surround(start, HEADING, out);
}

/// Marks the value that begins at `start`.
pub(super) fn write_mark(mark: Mark, start: usize, out: &mut Vec<u8>) {
    let value = &out[start..];
    match mark {
        Mark::None => {}
        Mark::Alarm if matches!(value, b"0" | b"-") => {}
        Mark::Alarm => surround(start, ALARM, out),
        Mark::Hue if value == b"-" => {}
        Mark::Hue => surround(start, HUES[hash(value) % HUES.len()], out),
    }
}

fn surround(start: usize, style: Style, out: &mut Vec<u8>) {
    let end = out.len();
    // Writing to a vector cannot fail.
    let _ = write!(out, "{style}");
    let code = out.len() - end;
    out[start..].rotate_right(code);
    let _ = write!(out, "{style:#}");
}

/// FNV-1a (draft-eastlake-fnv): the same in every run, so that a pod keeps its colour.
fn hash(value: &[u8]) -> usize {
    let hash =
        value.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    // The lowest bits are the least mixed.
    usize::try_from(hash >> 8).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(mark: Mark, value: &str) -> String {
        let mut out = b"before ".to_vec();
        let start = out.len();
        out.extend_from_slice(value.as_bytes());
        write_mark(mark, start, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn failures_are_red_and_pods_keep_their_colour() {
        assert_eq!(marked(Mark::Alarm, "ENOENT"), "before \u{1b}[31mENOENT\u{1b}[0m");
        for value in ["0", "-"] {
            assert_eq!(marked(Mark::Alarm, value), format!("before {value}"));
        }
        assert_eq!(marked(Mark::None, "x"), "before x");
        assert_eq!(marked(Mark::Hue, "web-0"), marked(Mark::Hue, "web-0"));
        let colours: std::collections::HashSet<String> =
            (0..50).map(|n| marked(Mark::Hue, &format!("web-{n}"))[8..12].to_owned()).collect();
        assert_eq!(colours.len(), HUES.len(), "{colours:?}");
    }
}
