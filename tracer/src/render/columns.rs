//! Columns: a table of constants, and a layout that fits them to a terminal.

use std::{fmt::Debug, io};

use serde::Serialize;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::{Events, sanitize};
use crate::containers::Container;

/// A kind of rows: what they are made of, and what all kinds have.
pub trait Rows: Copy + Debug + 'static {
    /// All that is shown in one row.
    type Row<'a>;
    /// The same as JSON and YAML have it.
    type Line<'r>: Serialize;

    /// The node's name.
    fn node<'r>(row: &'r Self::Row<'_>) -> &'r str;
    /// The container; none for host processes.
    fn container<'r>(row: &'r Self::Row<'_>) -> Option<&'r Container>;
    /// The row as JSON and YAML have it.
    fn line<'r>(row: &'r Self::Row<'_>) -> Self::Line<'r>;
}

/// Appends a column's value, as it is: unsafe to show.
type Value<K> = fn(&<K as Rows>::Row<'_>, &mut Vec<u8>) -> io::Result<()>;

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column<K: Rows = Events> {
    name: &'static str,
    width: usize,
    value: Value<K>,
}

impl<K: Rows> Column<K> {
    /// A column that is `width` characters wide where there is room, and writes what `value` appends.
    #[must_use]
    pub const fn new(name: &'static str, width: usize, value: Value<K>) -> Self {
        Self { name, width, value }
    }

    pub(super) const fn name(&self) -> &'static str {
        self.name
    }
}

/// Stands where there is nothing to show, so that columns can be told apart by blanks.
const NOTHING: &str = "-";
/// No column is made narrower, or not to this anyway where its name is longer.
const WIDTH_MIN: usize = 8;
/// No column is made wider for what it has: one long value does not move all others to the right.
const WIDTH_MAX: usize = 128;

/// The name of the column that is as wide as the node's name.
pub(super) const NODE: &str = "NODE";

/// Which columns a table has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The usual ones.
    Narrow,
    /// More of them.
    Wide,
    /// Those with these names.
    Custom(Vec<String>),
}

/// The columns of a kind of rows.
#[derive(Debug)]
pub(super) struct Columns<K: Rows> {
    /// Those of `columns`.
    pub(super) narrow: Vec<Column<K>>,
    /// Those of `wide`.
    pub(super) wide: Vec<Column<K>>,
    /// Those that `custom-columns` has besides the ones of `wide`.
    pub(super) further: Vec<Column<K>>,
}

/// A table, its columns as wide as there is room for.
#[derive(Debug)]
pub struct Table<K: Rows = Events> {
    columns: Vec<Column<K>>,
    terminal: Option<usize>,
    header: bool,
    value: Vec<u8>,
    cell: String,
}

impl<K: Rows> Table<K> {
    /// A table of some of `all` columns. `terminal` is the width of the terminal that it is shown on, if one.
    pub(super) fn of_columns(
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
            if column.name == NODE {
                column.width = node.width();
            }
            column.width = column.width.max(column.name.len());
        }
        let mut table = Self { columns, terminal, header, value: Vec::new(), cell: String::new() };
        table.fit();
        Ok(table)
    }

    /// Makes the columns as wide as what they have in `rows`; narrower than they were only if no `more` rows are to
    /// come.
    pub(super) fn fit_to(&mut self, rows: &[K::Row<'_>], more: bool) -> io::Result<()> {
        for index in 0..self.columns.len() {
            let Column { name, width, .. } = self.columns[index];
            let mut widest = if more { width } else { name.len() };
            for row in rows {
                self.fill_cell(index, row)?;
                widest = widest.max(self.cell.width().min(WIDTH_MAX));
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

    /// Puts what a column has in a row into the cell, safe to show.
    fn fill_cell(&mut self, index: usize, row: &K::Row<'_>) -> io::Result<()> {
        self.value.clear();
        (self.columns[index].value)(row, &mut self.value)?;
        self.cell.clear();
        sanitize::write(&self.value, &mut self.cell);
        if self.cell.is_empty() {
            self.cell.push_str(NOTHING);
        }
        Ok(())
    }

    pub(super) fn write_header(&self, out: &mut Vec<u8>) {
        if !self.header {
            return;
        }
        for (index, column) in self.columns.iter().enumerate() {
            push_cell(out, column.name, column.name.len(), self.width_at(index));
        }
        end_line(out);
    }

    pub(super) fn write_row(&mut self, row: &K::Row<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        for index in 0..self.columns.len() {
            self.fill_cell(index, row)?;
            let mut width = self.cell.width();
            let room = self.columns[index].width;
            // Elsewhere than on a terminal nothing is left out.
            if self.terminal.is_some() && width > room {
                self.cell = shorten(&self.cell, room);
                width = self.cell.width();
            }
            push_cell(out, &self.cell, width, self.width_at(index));
        }
        end_line(out);
        Ok(())
    }

    /// The width that the column at `index` is filled up to: the last one is not.
    fn width_at(&self, index: usize) -> usize {
        if index + 1 == self.columns.len() { 0 } else { self.columns[index].width }
    }
}

fn find<K: Rows>(all: &[Column<K>], name: &str) -> Result<Column<K>, String> {
    all.iter().find(|column| column.name.eq_ignore_ascii_case(name)).copied().ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|column| column.name).collect();
        format!("there is no column {name:?}; there are {}", names.join(", "))
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

/// Leaves out the middle: both ends of a path or of a pod's name tell more.
fn shorten(text: &str, width: usize) -> String {
    let room = width.saturating_sub(1);
    let head = take_width(text.chars(), room.div_ceil(2));
    let tail: Vec<char> = take_width(text.chars().rev(), room / 2);
    head.into_iter().chain(['…']).chain(tail.into_iter().rev()).collect()
}

fn take_width(chars: impl Iterator<Item = char>, width: usize) -> Vec<char> {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= width
        })
        .collect()
}

fn push_cell(out: &mut Vec<u8>, text: &str, text_width: usize, width: usize) {
    out.extend_from_slice(text.as_bytes());
    out.resize(out.len() + width.saturating_sub(text_width) + 1, b' ');
}

fn end_line(out: &mut Vec<u8>) {
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
        assert_eq!(shorten("coredns-6d4b75cb6d-kcxd4", 11), "cored…kcxd4");
        assert_eq!(shorten("日本日本", 4), "日…");
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
            prop_assert!(shorten(&text, width).width() <= width);
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
