//! What columns show of a kind's own fields.

use std::io::{self, Write as _};

use super::{
    Event, Field, Hex, Kind, Schema, Value, errno,
    json::{Texts, error_number, file_descriptor, for_each_name},
    schema::Shows,
    write_number,
};

/// What a column shows of a kind.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) title: String,
    pub(crate) width: usize,
    /// Whether it is one of `wide` and `custom-columns` only.
    pub(crate) wide: bool,
    /// Whether any value but 0 marks a failure.
    pub(crate) alarm: bool,
    shows: CellValue,
}

#[derive(Debug)]
enum CellValue {
    Field(Field),
    Ppid,
    Error(Field),
    /// Letters for the values of the lowest bits of a number at this offset, and for its other bits.
    Letters {
        at: usize,
        low: Vec<String>,
        bits: Vec<(u64, String)>,
    },
    /// Arguments, and the path that stands in for them.
    CommandLine(Field, Field),
}

/// Width of a column that shows a field without a column of its own.
const WIDTH: usize = 12;

impl Cell {
    /// All of a kind: its columns, how many these are, and then every other field, titled by its name in capitals.
    pub(super) fn all_of(schema: &Schema) -> (Vec<Self>, usize) {
        let field = |name: &String| schema.fields.iter().find(|field| field.name == *name).cloned();
        let mut cells = Vec::new();
        for column in &schema.columns {
            let shows = match &column.shows {
                Shows::Ppid => Some(CellValue::Ppid),
                Shows::Field(name) => field(name).map(CellValue::Field),
                Shows::Error(name) => field(name).map(CellValue::Error),
                Shows::Letters(name, letters) => {
                    field(name).and_then(|field| CellValue::letters(&field, letters))
                }
                Shows::CommandLine(args, path) => {
                    field(args).zip(field(path)).map(|(args, path)| CellValue::CommandLine(args, path))
                }
            };
            // Validation has found each field.
            cells.extend(shows.map(|shows| Self {
                title: column.title.clone(),
                width: column.width.into(),
                wide: column.wide,
                alarm: column.alarm,
                shows,
            }));
        }
        let columns = cells.len();
        for field in &schema.fields {
            let title = field.name.to_ascii_uppercase();
            if !cells.iter().any(|cell| cell.title == title) {
                let shows = CellValue::Field(field.clone());
                cells.push(Self { title, width: WIDTH, wide: false, alarm: false, shows });
            }
        }
        (cells, columns)
    }
}

impl Kind {
    /// Appends what a cell shows, as it is: unsafe to show. Nothing if the field is absent.
    pub(crate) fn write_cell(&self, index: usize, event: &Event<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        match self.cells.get(index) {
            Some(cell) => cell.shows.write(event, out),
            None => Ok(()),
        }
    }

    /// Appends the kind's columns as `title=value`.
    pub(crate) fn write_details(&self, event: &Event<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        let mut is_first = true;
        for cell in self.cells[..self.columns].iter().filter(|cell| !cell.wide) {
            let start = out.len();
            if !is_first {
                out.push(b' ');
            }
            out.extend(cell.title.bytes().map(|byte| byte.to_ascii_lowercase()));
            out.push(b'=');
            let value = out.len();
            cell.shows.write(event, out)?;
            if out.len() == value && !cell.shows.is_text() {
                out.truncate(start);
                continue;
            }
            if cell.shows.is_text() {
                quote(value, out);
            }
            is_first = false;
        }
        Ok(())
    }
}

impl CellValue {
    /// Letters for those bits of a field that have one.
    fn letters(field: &Field, letters: &[(String, String)]) -> Option<Self> {
        let Value::Bits { at, low, bits } = &field.value else { return None };
        let letter =
            |name: &String| letters.iter().find(|(known, _)| known == name).map(|(_, letter)| letter.clone());
        Some(Self::Letters {
            at: *at,
            low: low.iter().map(|name| letter(name).unwrap_or_default()).collect(),
            bits: bits.iter().filter_map(|(bits, name)| Some((*bits, letter(name)?))).collect(),
        })
    }

    fn write(&self, event: &Event<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Field(field) => write_field(field, event, out),
            Self::Ppid => write_number(event.header.ppid, out),
            Self::Error(field) => match field.value {
                Value::Errno { at } => {
                    let errno = error_number(event.i32_at(at));
                    match errno::name(errno) {
                        Some(name) => out.extend_from_slice(name.as_bytes()),
                        None => write_number(errno, out)?,
                    }
                    Ok(())
                }
                _ => write_field(field, event, out),
            },
            Self::Letters { at, low, bits } => {
                let number = event.u64_at(*at);
                let low_bits = u64::try_from(low.len().saturating_sub(1)).unwrap_or(0);
                let of_low = usize::try_from(number & low_bits).ok().and_then(|index| low.get(index));
                let of_bits =
                    bits.iter().filter(|(bits, _)| number & bits == *bits).map(|(_, letter)| letter);
                of_low.into_iter().chain(of_bits).for_each(|letter| out.extend_from_slice(letter.as_bytes()));
                Ok(())
            }
            Self::CommandLine(args, path) => {
                let start = out.len();
                write_field(args, event, out)?;
                if out.len() == start
                    && let Value::Text { part } = path.value
                {
                    write_word(event.part(part), out);
                }
                Ok(())
            }
        }
    }

    /// Whether it may have blanks of its own, and is quoted among other values.
    fn is_text(&self) -> bool {
        match self {
            Self::Field(field) => matches!(field.value, Value::Text { .. } | Value::Texts { .. }),
            Self::CommandLine(..) => true,
            Self::Ppid | Self::Error(_) | Self::Letters { .. } => false,
        }
    }
}

fn write_field(field: &Field, event: &Event<'_>, out: &mut Vec<u8>) -> io::Result<()> {
    if field.when != 0 && event.flags & field.when == 0 {
        return Ok(());
    }
    match &field.value {
        Value::Unsigned { at, size } => write_number(event.unsigned_at(*at, *size), out),
        Value::Signed { at } => write_number(event.i32_at(*at), out),
        Value::FileDescriptor { at } => write_number(file_descriptor(event.i32_at(*at)), out),
        Value::Errno { at } => write_number(error_number(event.i32_at(*at)), out),
        Value::Nanoseconds { at } => write_duration(event.u64_at(*at), out),
        Value::Bits { at, low, bits } => {
            let start = out.len();
            for_each_name(event.u64_at(*at), low, bits, |name| {
                write!(out, "{}{name}", if out.len() > start { "|" } else { "" })
            })
        }
        Value::Choice { at, names } => {
            let number = event.u8_at(*at);
            let name = names.iter().find(|(known, _)| *known == number);
            out.extend_from_slice(name.map_or(b"", |(_, name)| name.as_bytes()));
            Ok(())
        }
        Value::Flag { mask, only_true } => {
            let text: &[u8] = match (event.flags & mask != 0, only_true) {
                (true, _) => b"true",
                (false, false) => b"false",
                (false, true) => b"",
            };
            out.extend_from_slice(text);
            Ok(())
        }
        Value::FirstFlag { names } => {
            let name = names.iter().find(|(flag, _)| event.flags & flag != 0);
            out.extend_from_slice(name.map_or(b"", |(_, name)| name.as_bytes()));
            Ok(())
        }
        Value::Signal { at } => event.signal_at(*at).map_or(Ok(()), |name| write!(out, "{name}")),
        Value::Text { part } => {
            out.extend_from_slice(event.part(*part));
            Ok(())
        }
        Value::Texts { part } => {
            for (index, text) in Texts(event.part(*part)).iter().enumerate() {
                if index > 0 {
                    out.push(b' ');
                }
                write_word(text, out);
            }
            Ok(())
        }
        Value::Bytes { part } => write!(out, "{}", Hex(event.part(*part))),
        Value::Object { fields } => {
            for (index, field) in fields.iter().enumerate() {
                write!(out, "{}{}=", if index > 0 { "," } else { "" }, field.name)?;
                write_field(field, event, out)?;
            }
            Ok(())
        }
    }
}

/// Appends a word, in quotes if it could be taken for something else: an empty one, one with blanks.
fn write_word(word: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(word);
    quote(start, out);
}

/// Puts what begins at `start` in quotes if it could be taken for something else than one word. A quote within is doubled, since
/// a backslash gets one more when the line is made safe to show.
fn quote(start: usize, out: &mut Vec<u8>) {
    let word = &out[start..];
    if !word.is_empty() && !word.contains(&b' ') && !word.contains(&b'"') {
        return;
    }
    // From the end, in place: arguments with blanks are common, and nothing is allocated for an event.
    let quotes = word.iter().map(|byte| usize::from(*byte == b'"')).sum::<usize>();
    let end = out.len();
    out.resize(end + quotes + 2, b'"');
    let mut to = out.len() - 1;
    for from in (start..end).rev() {
        let byte = out[from];
        to -= 1;
        out[to] = byte;
        if byte == b'"' {
            to -= 1;
            out[to] = byte;
        }
    }
    out[start] = b'"';
}

/// Appends a time in two units at the most.
fn write_duration(nanoseconds: u64, out: &mut Vec<u8>) -> io::Result<()> {
    const SECOND: u64 = 1_000_000_000;
    match nanoseconds {
        0..1_000_000 => write!(out, "{}us", nanoseconds / 1000),
        1_000_000..SECOND => write!(out, "{}ms", nanoseconds / 1_000_000),
        _ => {
            let seconds = nanoseconds / SECOND;
            match seconds {
                0..60 => write!(out, "{seconds}.{}s", nanoseconds % SECOND / 100_000_000),
                60..3600 => write!(out, "{}m{}s", seconds / 60, seconds % 60),
                3600..86_400 => write!(out, "{}h{}m", seconds / 3600, seconds % 3600 / 60),
                _ => write!(out, "{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&[u8]]) -> String {
        let mut out = Vec::new();
        for (index, word) in words.iter().enumerate() {
            if index > 0 {
                out.push(b' ');
            }
            write_word(word, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn command_line_distinguishes_one_argument_from_two() {
        assert_eq!(line(&[b"sh", b"-c", b"echo hi", b""]), r#"sh -c "echo hi" """#);
        assert_eq!(line(&[b"a\"b"]), r#""a""b""#);
        assert_eq!(line(&[b"\"", b"\"\"x "]), r#""""" """""x ""#);
    }

    #[test]
    fn durations_have_two_units_at_the_most() {
        for (nanoseconds, text) in [
            (0, "0us"),
            (999_999, "999us"),
            (1_000_000, "1ms"),
            (999_999_999, "999ms"),
            (1_250_000_000, "1.2s"),
            (59_999_999_999, "59.9s"),
            (61_000_000_000, "1m1s"),
            (3_661_000_000_000, "1h1m"),
            (90_000_000_000_000, "1d1h"),
        ] {
            let mut out = Vec::new();
            write_duration(nanoseconds, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
