//! Columns, and a layout that fits them to a terminal.

use std::{borrow::Cow, fmt::Debug, io, ops::Range};

use unicode_width::UnicodeWidthChar;

use crate::{model::Container, output::Events, sanitize};

/// A type of rows: what they are made of, and what all types have.
pub(crate) trait Rows: Copy + Debug + 'static {
    /// All that is shown in one row.
    type Row<'a>;

    /// The node's name.
    fn node<'r>(row: &'r Self::Row<'_>) -> &'r str;
    /// The container; none for host processes.
    fn container<'r>(row: &'r Self::Row<'_>) -> Option<&'r Container>;

    /// Appends a cell that the row's kind of event defines: at the position of the kind the cell's index.
    fn write_cell_of_kind(
        _row: &Self::Row<'_>,
        _cells: &[Option<usize>],
        _out: &mut Vec<u8>,
    ) -> io::Result<()> {
        Ok(())
    }
}

/// Appends a column's value, as it is: unsafe to show.
type WriteValue<K> = fn(&<K as Rows>::Row<'_>, &mut Vec<u8>) -> io::Result<()>;

/// What a column's value depends on: it is the same in all rows of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The node and the container.
    Container,
    /// A process of an event, as its header has it.
    Process,
    /// The row alone.
    Row,
}

/// Where a column's value comes from.
#[derive(Clone, Debug)]
enum Source<K: Rows> {
    Row(WriteValue<K>),
    /// The kind of event: see [`Rows::write_cell_of_kind`].
    Kind(Vec<Option<usize>>),
}

/// A column.
#[derive(Clone, Debug)]
pub(crate) struct Column<K: Rows = Events> {
    name: Cow<'static, str>,
    width: usize,
    scope: Scope,
    source: Source<K>,
}

impl<K: Rows> Column<K> {
    /// A column that is `width` characters wide if there is room, and writes what `value` appends.
    #[must_use]
    pub(crate) const fn new(name: &'static str, width: usize, value: WriteValue<K>) -> Self {
        Self { name: Cow::Borrowed(name), width, scope: Scope::Row, source: Source::Row(value) }
    }

    /// A column whose value depends on nothing but the container and the node.
    #[must_use]
    pub(crate) const fn of_container(name: &'static str, width: usize, value: WriteValue<K>) -> Self {
        Self { name: Cow::Borrowed(name), width, scope: Scope::Container, source: Source::Row(value) }
    }

    /// A column whose value depends on nothing but the process in the header of an event.
    #[must_use]
    pub(crate) const fn of_process(name: &'static str, width: usize, value: WriteValue<K>) -> Self {
        Self { name: Cow::Borrowed(name), width, scope: Scope::Process, source: Source::Row(value) }
    }

    /// A column of kinds of events, with the index of its cell at the position of each.
    pub(crate) fn of_kinds(name: &str, width: usize, cells: Vec<Option<usize>>) -> Self {
        Self { name: Cow::Owned(name.to_owned()), width, scope: Scope::Row, source: Source::Kind(cells) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// Shown where there is no value, so that columns can be separated by blanks.
const NOTHING: &str = "-";
/// No column is made narrower, or not to this anyway where its name is longer.
const WIDTH_MIN: usize = 8;
/// No column is made wider for what it has: one long value does not move all others to the right.
const WIDTH_MAX: usize = 128;

/// The name of the column that is as wide as the node's name.
pub(crate) const NODE: &str = "NODE";

/// Which columns a table has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// The usual ones.
    Narrow,
    /// More of them.
    Wide,
    /// Those with these names.
    Custom(Vec<String>),
}

/// The columns of a kind of rows.
#[derive(Debug)]
pub(crate) struct Columns<K: Rows> {
    /// Those of `columns`.
    pub(crate) narrow: Vec<Column<K>>,
    /// Those of `wide`.
    pub(crate) wide: Vec<Column<K>>,
    /// Those that `custom-columns` has besides the ones of `wide`.
    pub(crate) further: Vec<Column<K>>,
}

/// A table, its columns as wide as there is room for.
#[derive(Debug)]
pub(crate) struct Table<K: Rows = Events> {
    columns: Vec<Column<K>>,
    terminal: Option<usize>,
    header: bool,
    /// A value that is not safe to show as it is, and what is shown of it.
    value: Vec<u8>,
    cell: String,
}

impl<K: Rows> Table<K> {
    /// A table of some of `all` columns. `terminal` is the width of the terminal that it is shown on, if one.
    pub(crate) fn of_columns(
        layout: &Layout,
        all: Columns<K>,
        node: &str,
        terminal: Option<usize>,
        header: bool,
    ) -> Result<Self, String> {
        let mut columns = match layout {
            Layout::Narrow => all.narrow,
            Layout::Wide => all.wide,
            Layout::Custom(names) => {
                let all = [all.wide, all.further].concat();
                names.iter().map(|name| find(&all, name)).collect::<Result<_, _>>()?
            }
        };
        for column in &mut columns {
            if column.name() == NODE {
                column.width = text_width(node);
            }
            column.width = column.width.max(column.name.len());
        }
        let mut table = Self { columns, terminal, header, value: Vec::new(), cell: String::new() };
        table.fit();
        Ok(table)
    }

    /// Makes the columns as wide as what they have in `rows`; narrower than they were only if no `more` rows are to
    /// come.
    pub(crate) fn fit_to(&mut self, rows: &[K::Row<'_>], more: bool) -> io::Result<()> {
        let mut cell = Vec::new();
        for index in 0..self.columns.len() {
            let Column { name, width, .. } = &self.columns[index];
            let mut widest = if more { *width } else { name.len() };
            for row in rows {
                cell.clear();
                widest = widest.max(self.write_cell(index, row, &mut cell)?.min(WIDTH_MAX));
            }
            self.columns[index].width = widest;
        }
        self.fit();
        Ok(())
    }

    fn fit(&mut self) {
        if let Some(width) = self.terminal {
            fit(&mut self.columns, width);
        }
    }

    /// What the columns depend on, in their order.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.columns.iter().map(|column| column.scope)
    }

    pub(crate) fn write_header(&self, out: &mut Vec<u8>) {
        if !self.header {
            return;
        }
        for (index, column) in self.columns.iter().enumerate() {
            out.extend_from_slice(column.name.as_bytes());
            fill(out, column.name.len(), self.width_at(index));
        }
        end_line(out);
    }

    /// Appends the cells of some columns, each filled up to its width and with a blank behind.
    pub(crate) fn write_cells(
        &mut self,
        columns: Range<usize>,
        row: &K::Row<'_>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        for index in columns {
            let width = self.write_fitted_cell(index, row, out)?;
            fill(out, width, self.width_at(index));
        }
        Ok(())
    }

    /// Appends a row. A value that is wider than its column takes the blanks of the columns behind it, so that the
    /// row is back in line as soon as it can be.
    pub(crate) fn write_row_in_line(&mut self, row: &K::Row<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        // How far the cells so far reach beyond their columns.
        let mut excess = 0;
        for index in 0..self.columns.len() {
            let width = self.write_fitted_cell(index, row, out)?;
            fill(out, width, self.width_at(index).saturating_sub(excess));
            excess = (excess + width).saturating_sub(self.columns[index].width);
        }
        end_line(out);
        Ok(())
    }

    /// Appends what a column has in a row, on a terminal no wider than the column. Returns how wide it is.
    fn write_fitted_cell(&mut self, index: usize, row: &K::Row<'_>, out: &mut Vec<u8>) -> io::Result<usize> {
        let start = out.len();
        let width = self.write_cell(index, row, out)?;
        let room = self.columns[index].width;
        // Elsewhere than on a terminal nothing is left out.
        let is_too_wide = self.terminal.is_some() && width > room;
        Ok(if is_too_wide { self.shorten_cell(start, room, out) } else { width })
    }

    /// Appends what a column has in a row, safe to show. Returns how wide it is.
    fn write_cell(&mut self, index: usize, row: &K::Row<'_>, out: &mut Vec<u8>) -> io::Result<usize> {
        let start = out.len();
        match &self.columns[index].source {
            Source::Row(write) => write(row, out)?,
            Source::Kind(cells) => K::write_cell_of_kind(row, cells, out)?,
        }
        let value = &out[start..];
        if value.is_empty() {
            out.extend_from_slice(NOTHING.as_bytes());
            return Ok(NOTHING.len());
        }
        if sanitize::is_plain(value) {
            return Ok(value.len());
        }
        self.value.clear();
        self.value.extend_from_slice(value);
        self.cell.clear();
        sanitize::write(&self.value, &mut self.cell);
        out.truncate(start);
        out.extend_from_slice(self.cell.as_bytes());
        Ok(text_width(&self.cell))
    }

    /// Leaves out the middle of the cell that begins at `start`. Returns how wide it is then.
    #[cold]
    fn shorten_cell(&mut self, start: usize, room: usize, out: &mut Vec<u8>) -> usize {
        self.cell.clear();
        self.cell.push_str(&String::from_utf8_lossy(&out[start..]));
        out.truncate(start);
        let (head, tail) = shorten(&self.cell, room);
        for part in [head, "…", tail] {
            out.extend_from_slice(part.as_bytes());
        }
        text_width(head) + text_width("…") + text_width(tail)
    }

    /// The width that the column at `index` is filled up to: the last one is not.
    fn width_at(&self, index: usize) -> usize {
        if index + 1 == self.columns.len() { 0 } else { self.columns[index].width }
    }
}

fn find<K: Rows>(all: &[Column<K>], name: &str) -> Result<Column<K>, String> {
    all.iter().find(|column| column.name.eq_ignore_ascii_case(name)).cloned().ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(Column::name).collect();
        format!("unknown column {name:?}; expected one of: {}", names.join(", "))
    })
}

/// Takes from the widest columns until all fit; what is left over goes to the last, which has no end.
fn fit<K: Rows>(columns: &mut [Column<K>], terminal: usize) {
    let total = |columns: &[Column<K>]| columns.iter().map(|column| column.width + 1).sum::<usize>() - 1;
    while total(columns) > terminal {
        let narrowable = |column: &&mut Column<K>| column.width > WIDTH_MIN.max(column.name.len());
        match columns.iter_mut().filter(narrowable).max_by_key(|column| column.width) {
            Some(widest) => widest.width -= 1,
            // A terminal too narrow for anything: lines will wrap.
            None => return,
        }
    }
    let left = terminal - total(columns);
    if let Some(last) = columns.last_mut() {
        last.width += left;
    }
}

/// How many places a text takes on a terminal: its characters' together. Hardly one knows of the ligatures that would make it
/// narrower.
fn text_width(text: &str) -> usize {
    text.chars().filter_map(UnicodeWidthChar::width).sum()
}

/// What is left of a text whose middle is left out: both ends of a path or of a pod's name tell more.
fn shorten(text: &str, width: usize) -> (&str, &str) {
    let room = width.saturating_sub(1);
    let head: usize = within(text.chars(), room.div_ceil(2));
    let tail: usize = within(text.chars().rev(), room / 2);
    (&text[..head], &text[text.len() - tail..])
}

/// How many bytes the first characters have that are no wider than this.
fn within(chars: impl Iterator<Item = char>, width: usize) -> usize {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= width
        })
        .map(char::len_utf8)
        .sum()
}

/// Fills a cell up with blanks, and appends one that tells it from the next.
fn fill(out: &mut Vec<u8>, text_width: usize, width: usize) {
    out.resize(out.len() + width.saturating_sub(text_width) + 1, b' ');
}

pub(crate) fn end_line(out: &mut Vec<u8>) {
    // The blank behind the last cell.
    out.pop();
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_middle_is_left_out() {
        assert_eq!(shorten("coredns-6d4b75cb6d-kcxd4", 11), ("cored", "kcxd4"));
        assert_eq!(shorten("日本日本", 4), ("日", ""));
        // A ligature of Arabic, which takes one place only where it is drawn as one.
        assert_eq!(text_width(&"\u{644}\u{627}".repeat(5)), 10);
    }

    #[test]
    fn an_unknown_column_is_an_error_that_lists_all() {
        let all = [Column::<Events>::NAMESPACE, Column::POD];
        let error = find(&all, "Namspace").unwrap_err();
        assert!(error.contains("\"Namspace\"") && error.contains("NAMESPACE"), "{error}");
        assert_eq!(find(&all, "namespace").unwrap().name, "NAMESPACE");
    }

    proptest! {
        #[test]
        fn a_shortened_text_is_never_wider(text: String, width in 1..50_usize) {
            let (head, tail) = shorten(&text, width);
            prop_assert!(text_width(head) + 1 + text_width(tail) <= width);
        }

        #[test]
        fn columns_fit_any_terminal_that_has_room(widths in prop::collection::vec(1..60_usize, 1..12), terminal in 0..300_usize) {
            let column = |width: &usize| Column::<Events>::new("X", *width, |_, _| Ok(()));
            let mut columns: Vec<Column> = widths.iter().map(column).collect();
            fit(&mut columns, terminal);
            let total: usize = columns.iter().map(|column| column.width + 1).sum::<usize>() - 1;
            let least: usize = widths.iter().map(|width| (*width).min(WIDTH_MIN) + 1).sum::<usize>() - 1;
            prop_assert_eq!(total, terminal.max(least));
        }
    }
}
