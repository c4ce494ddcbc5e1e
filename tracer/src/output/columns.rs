//! Columns, and the table that they make.

use std::{borrow::Cow, fmt::Debug, io, ops::Range};

use unicode_width::UnicodeWidthChar;

use crate::{
    model::Container,
    output::{
        Events,
        fit::{Fitted, fit},
        look::{Look, Mark, write_heading, write_mark},
    },
    sanitize,
};

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

/// Appends the value of a column that depends on the node and the container.
type WriteOfContainer = fn(&str, Option<&Container>, &mut Vec<u8>) -> io::Result<()>;

/// Where a column's value comes from.
#[derive(Clone, Debug)]
enum Source<K: Rows> {
    Container(WriteOfContainer),
    Row(WriteValue<K>),
    /// The kind of event: see [`Rows::write_cell_of_kind`].
    Kind(Vec<Option<usize>>),
}

/// A column.
#[derive(Clone, Debug)]
pub(crate) struct Column<K: Rows = Events> {
    name: Cow<'static, str>,
    /// How wide it is where there is room: for usual values, or for the widest one so far.
    width: usize,
    mark: Mark,
    scope: Scope,
    source: Source<K>,
}

impl<K: Rows> Column<K> {
    /// The width that it has where there is room.
    pub(crate) const fn width(&self) -> usize {
        self.width
    }

    /// A column that is `width` characters wide if there is room, and writes what `value` appends.
    #[must_use]
    pub(crate) const fn new(name: &'static str, width: usize, value: WriteValue<K>) -> Self {
        let (scope, source) = (Scope::Row, Source::Row(value));
        Self { name: Cow::Borrowed(name), width, mark: Mark::None, scope, source }
    }

    /// A column whose value depends on nothing but the container and the node.
    #[must_use]
    pub(crate) const fn of_container(name: &'static str, width: usize, value: WriteOfContainer) -> Self {
        let (scope, source) = (Scope::Container, Source::Container(value));
        Self { name: Cow::Borrowed(name), width, mark: Mark::None, scope, source }
    }

    /// A column whose value depends on nothing but the process in the header of an event.
    #[must_use]
    pub(crate) const fn of_process(name: &'static str, width: usize, value: WriteValue<K>) -> Self {
        let (scope, source) = (Scope::Process, Source::Row(value));
        Self { name: Cow::Borrowed(name), width, mark: Mark::None, scope, source }
    }

    /// A column of kinds of events, with the index of its cell at the position of each.
    pub(crate) fn of_kinds(name: &str, width: usize, cells: Vec<Option<usize>>) -> Self {
        let (scope, source) = (Scope::Row, Source::Kind(cells));
        Self { name: Cow::Owned(name.to_owned()), width, mark: Mark::None, scope, source }
    }

    /// Marks its values where there are colours.
    #[must_use]
    pub(crate) const fn marked(mut self, mark: Mark) -> Self {
        self.mark = mark;
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// Shown where there is no value, so that columns can be separated by blanks.
const NOTHING: &str = "-";
/// No column is made wider for what it has: one long value does not move all others to the right.
const WIDTH_MAX: usize = 128;

/// The name of the column with the values of several kinds.
pub(crate) const DETAILS: &str = "DETAILS";

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

/// The names of columns, as `custom-columns` takes them.
#[derive(Debug)]
pub(crate) struct ColumnNames {
    /// Those of `columns`.
    pub(crate) narrow: Vec<String>,
    /// Those that `wide` has besides.
    pub(crate) wide: Vec<String>,
    /// Those that only `custom-columns` has.
    pub(crate) further: Vec<String>,
}

impl<K: Rows> Columns<K> {
    /// Their names.
    pub(super) fn names(&self) -> ColumnNames {
        let names = |columns: &[Column<K>]| -> Vec<String> {
            columns.iter().map(|column| column.name().to_owned()).collect()
        };
        let narrow = names(&self.narrow);
        let mut wide = names(&self.wide);
        wide.retain(|name| !narrow.contains(name));
        ColumnNames { narrow, wide, further: names(&self.further) }
    }
}

/// How many rows are between two headings at least: about a screen.
const ROWS_MIN: usize = 24;

/// A table, its columns as wide as there is room for.
#[derive(Debug)]
pub(crate) struct Table<K: Rows = Events> {
    columns: Vec<Column<K>>,
    /// The widths that they have now.
    fitted: Vec<Fitted>,
    /// Whether columns may be left out.
    may_hide: bool,
    look: Look,
    /// Counts the changes of the layout: what was written for another one is out of line.
    layout: u32,
    /// Whether columns have to be wider, or the terminal is another.
    is_outdated: bool,
    /// Whether the columns have moved since the last heading.
    heading_is_outdated: bool,
    /// Rows since the last heading; none if there was no heading yet.
    rows: Option<usize>,
    /// A value that is not safe to show as it is, and what is shown of it.
    value: Vec<u8>,
    cell: String,
}

impl<K: Rows> Table<K> {
    /// A table of some of `all` columns.
    pub(crate) fn of_columns(
        layout: &Layout,
        all: Columns<K>,
        node: &str,
        look: Look,
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
        let mut table = Self {
            columns,
            fitted: Vec::new(),
            may_hide: !matches!(layout, Layout::Custom(_)),
            look,
            layout: 0,
            is_outdated: false,
            heading_is_outdated: false,
            rows: None,
            value: Vec::new(),
            cell: String::new(),
        };
        table.fit();
        Ok(table)
    }

    /// Has the columns of containers no wider than those need that [`Self::expect`] is called with.
    pub(crate) fn narrow_containers(&mut self) {
        for column in self.columns.iter_mut().filter(|column| column.scope == Scope::Container) {
            if column.name() != NODE {
                column.width = column.name.len();
            }
        }
        self.fit();
    }

    /// Makes the columns as wide as what they have in `rows`; narrower than they were only if no `more` rows are to
    /// come, or if they can become wider later.
    pub(crate) fn fit_to(&mut self, rows: &[K::Row<'_>], more: bool) -> io::Result<()> {
        if self.look.terminal.is_some() {
            self.narrow_containers();
        }
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

    /// Rows of this container follow: its columns will be as wide as it needs.
    pub(crate) fn expect(&mut self, node: &str, container: Option<&Container>) -> io::Result<()> {
        let mut cell = Vec::new();
        for index in 0..self.columns.len() {
            let Source::Container(write) = &self.columns[index].source else { continue };
            cell.clear();
            write(node, container, &mut cell)?;
            let width = self.make_safe(0, &mut cell).min(WIDTH_MAX);
            if width > self.columns[index].width {
                self.columns[index].width = width;
                self.is_outdated = true;
            }
        }
        Ok(())
    }

    /// The terminal may be another. `width` is not called if there is none.
    pub(crate) fn resize(&mut self, width: impl FnOnce() -> Option<usize>) {
        if let Some(before) = self.look.terminal
            && let Some(now) = width()
            && now != before
        {
            self.look.terminal = Some(now);
            self.fit();
            // What follows fits at once; the heading above it does not any more.
            self.rows = self.rows.map(|_| ROWS_MIN);
            self.heading_is_outdated = true;
        }
    }

    /// The number of the layout that the next row has. It fits what is expected at once; a terminal has a heading for it at
    /// most once a screen.
    pub(crate) fn next_row(&mut self, out: &mut Vec<u8>) -> u32 {
        if std::mem::take(&mut self.is_outdated) {
            let before = self.layout;
            self.fit();
            self.heading_is_outdated |= self.layout != before;
        }
        let is_terminal = self.look.terminal.is_some();
        let rows = self.rows.map(|rows| rows + 1);
        self.rows = rows.or(Some(0));
        if rows.is_none_or(|rows| is_terminal && self.heading_is_outdated && rows >= ROWS_MIN) {
            self.rows = Some(0);
            self.heading_is_outdated = false;
            self.write_header(out);
        }
        self.layout
    }

    /// Writes the heading now, if it need not wait for the widths of the first row.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if self.look.terminal.is_none() {
            self.rows = Some(0);
            self.write_header(out);
        }
    }

    fn fit(&mut self) {
        let fitted = fit(&self.columns, self.look.terminal, self.may_hide);
        if fitted != self.fitted {
            self.fitted = fitted;
            self.layout += 1;
        }
    }

    /// What the columns depend on, in their order.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.columns.iter().map(|column| column.scope)
    }

    fn write_header(&self, out: &mut Vec<u8>) {
        if !self.look.header {
            return;
        }
        let start = out.len();
        for (index, column) in self.columns.iter().enumerate() {
            if let Fitted::Width(_) = self.fitted[index] {
                out.extend_from_slice(column.name.as_bytes());
                fill(out, column.name.len(), self.width_at(index));
            }
        }
        end_line(out);
        if self.look.color {
            out.pop();
            write_heading(start, out);
            out.push(b'\n');
        }
    }

    /// Appends the cells of some columns, each filled up to its width and with a blank behind.
    pub(crate) fn write_cells(
        &mut self,
        columns: Range<usize>,
        row: &K::Row<'_>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        for index in columns {
            if let Fitted::Width(room) = self.fitted[index] {
                let width = self.write_fitted_cell(index, room, row, out)?;
                fill(out, width, self.width_at(index));
            }
        }
        Ok(())
    }

    /// Appends a row. A value that is wider than its column takes the blanks of the columns behind it, so that the
    /// row is back in line as soon as it can be. On a terminal, columns are as wide as the containers so far need.
    pub(crate) fn write_row_in_line(&mut self, row: &K::Row<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        if self.look.terminal.is_some() {
            self.expect(K::node(row), K::container(row))?;
            self.next_row(out);
        }
        // How far the cells so far reach beyond their columns.
        let mut excess = 0;
        for index in 0..self.columns.len() {
            let Fitted::Width(room) = self.fitted[index] else { continue };
            let width = self.write_fitted_cell(index, room, row, out)?;
            fill(out, width, self.width_at(index).saturating_sub(excess));
            excess = (excess + width).saturating_sub(room);
        }
        end_line(out);
        Ok(())
    }

    /// Appends what a column has in a row, on a terminal no wider than `room`. Returns how wide it is.
    fn write_fitted_cell(
        &mut self,
        index: usize,
        room: usize,
        row: &K::Row<'_>,
        out: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let start = out.len();
        let mut width = self.write_cell(index, row, out)?;
        // Elsewhere than on a terminal nothing is left out.
        if self.look.terminal.is_some() && width > room {
            width = self.shorten_cell(index, start, room, out);
        }
        if self.look.color {
            write_mark(self.columns[index].mark, start, out);
        }
        Ok(width)
    }

    /// Appends what a column has in a row, safe to show. Returns how wide it is.
    fn write_cell(&mut self, index: usize, row: &K::Row<'_>, out: &mut Vec<u8>) -> io::Result<usize> {
        let start = out.len();
        match &self.columns[index].source {
            Source::Container(write) => write(K::node(row), K::container(row), out)?,
            Source::Row(write) => write(row, out)?,
            Source::Kind(cells) => K::write_cell_of_kind(row, cells, out)?,
        }
        Ok(self.make_safe(start, out))
    }

    /// Makes the value that begins at `start` safe to show. Returns how wide it is.
    fn make_safe(&mut self, start: usize, out: &mut Vec<u8>) -> usize {
        let value = &out[start..];
        if value.is_empty() {
            out.extend_from_slice(NOTHING.as_bytes());
            return NOTHING.len();
        }
        if sanitize::is_plain(value) {
            return value.len();
        }
        self.value.clear();
        self.value.extend_from_slice(value);
        self.cell.clear();
        sanitize::write(&self.value, &mut self.cell);
        out.truncate(start);
        out.extend_from_slice(self.cell.as_bytes());
        text_width(&self.cell)
    }

    /// Leaves out the middle of the cell that begins at `start`. Returns how wide it is then.
    #[cold]
    fn shorten_cell(&mut self, index: usize, start: usize, room: usize, out: &mut Vec<u8>) -> usize {
        self.cell.clear();
        self.cell.push_str(&String::from_utf8_lossy(&out[start..]));
        out.truncate(start);
        let head = if self.columns[index].name() == DETAILS { HEAD_OF_DETAILS } else { HEAD };
        let (head, tail) = shorten(&self.cell, room, head);
        for part in [head, "…", tail] {
            out.extend_from_slice(part.as_bytes());
        }
        text_width(head) + text_width("…") + text_width(tail)
    }

    /// The width that the column at `index` is filled up to: the last one is not.
    fn width_at(&self, index: usize) -> usize {
        match self.fitted[index] {
            Fitted::Width(width) if index + 1 < self.columns.len() => width,
            _ => 0,
        }
    }
}

fn find<K: Rows>(all: &[Column<K>], name: &str) -> Result<Column<K>, String> {
    all.iter().find(|column| column.name.eq_ignore_ascii_case(name)).cloned().ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(Column::name).collect();
        format!("unknown column {name:?}; expected one of: {}", names.join(", "))
    })
}

/// The width of a text on a terminal: the sum of its characters' widths. Few terminals render the ligatures that would make
/// it narrower.
fn text_width(text: &str) -> usize {
    text.chars().filter_map(UnicodeWidthChar::width).sum()
}

/// How many tenths of what is left of a shortened text are its head: both ends of a path or of a pod's name tell more than the
/// middle. Of details, the names of the values come first.
const HEAD: usize = 5;
const HEAD_OF_DETAILS: usize = 7;

/// What is left of a text whose middle is left out.
fn shorten(text: &str, width: usize, tenths_of_head: usize) -> (&str, &str) {
    let room = width.saturating_sub(1);
    let head_room = (room * tenths_of_head).div_ceil(10);
    let head: usize = within(text.chars(), head_room);
    let tail: usize = within(text.chars().rev(), room - head_room);
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
        assert_eq!(shorten("coredns-6d4b75cb6d-kcxd4", 11, HEAD), ("cored", "kcxd4"));
        assert_eq!(shorten("日本日本", 4, HEAD), ("日", ""));
        let details = "fd=-1 err=ENOENT path=/a/path/that/does/not/end/here.conf";

        assert_eq!(shorten(details, 40, HEAD_OF_DETAILS), ("fd=-1 err=ENOENT path=/a/pat", "d/here.conf"));
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
            let (head, tail) = shorten(&text, width, HEAD_OF_DETAILS);
            prop_assert!(text_width(head) + 1 + text_width(tail) <= width);
        }
    }
}
