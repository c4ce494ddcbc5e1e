//! Columns: a table of constants, and a layout that fits them to a terminal.

use std::io::{self, Write as _};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::{Row, format_timestamp, sanitize};
use crate::{containers::Pod, trace::Tracer};

/// Appends a column's value, as it is: unsafe to show.
type Value = fn(&Row<'_>, &mut Vec<u8>) -> io::Result<()>;

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    name: &'static str,
    width: usize,
    value: Value,
}

impl Column {
    /// A column that is `width` characters wide where there is room, and writes what `value` appends.
    #[must_use]
    pub const fn new(name: &'static str, width: usize, value: Value) -> Self {
        Self { name, width, value }
    }
}

/// Stands where there is nothing to show, so that columns can be told apart by blanks.
const NOTHING: &str = "-";
/// No column is made narrower, or not to this anyway where its name is longer.
const WIDTH_MIN: usize = 8;

fn pod(row: &Row<'_>, out: &mut Vec<u8>, field: fn(&Pod) -> Option<&str>) -> io::Result<()> {
    let value = row.container.and_then(|container| container.pod.as_ref()).and_then(field);
    out.write_all(value.unwrap_or_default().as_bytes())
}

const TIMESTAMP: Column =
    Column::new("TIMESTAMP", 30, |row, out| out.write_all(format_timestamp(row.timestamp).as_bytes()));
const NODE: Column = Column::new("NODE", 16, |row, out| out.write_all(row.node.as_bytes()));
const NAMESPACE: Column = Column::new("NAMESPACE", 16, |row, out| pod(row, out, |pod| Some(&pod.namespace)));
const POD: Column = Column::new("POD", 32, |row, out| pod(row, out, |pod| Some(&pod.name)));
const CONTAINER: Column =
    Column::new("CONTAINER", 16, |row, out| pod(row, out, |pod| pod.container.as_deref()));
const PID: Column = Column::new("PID", 7, |row, out| write!(out, "{}", row.event.header.pid));
const TID: Column = Column::new("TID", 7, |row, out| write!(out, "{}", row.event.header.tid));
const PPID: Column = Column::new("PPID", 7, |row, out| write!(out, "{}", row.event.header.ppid));
const CONTAINER_PID: Column =
    Column::new("CONTAINERPID", 12, |row, out| write!(out, "{}", row.event.header.container_pid));
const UID: Column = Column::new("UID", 5, |row, out| write!(out, "{}", row.event.header.uid));
const GID: Column = Column::new("GID", 5, |row, out| write!(out, "{}", row.event.header.gid));
const COMM: Column = Column::new("COMM", 15, |row, out| out.write_all(row.event.comm()));
const RUNTIME: Column = Column::new("RUNTIME", 10, |row, out| {
    out.write_all(row.container.map_or("", |container| &container.runtime).as_bytes())
});
const CONTAINER_ID: Column = Column::new("CONTAINERID", 14, |row, out| {
    out.write_all(row.container.map_or("", |container| &container.id).as_bytes())
});
const TYPE: Column = Column::new("TYPE", 9, |row, out| {
    out.write_all(row.container.map_or("", |container| container.kind.as_str()).as_bytes())
});
const IMAGE: Column = Column::new("IMAGE", 24, |row, out| {
    out.write_all(
        row.container.and_then(|container| container.image.as_deref()).unwrap_or_default().as_bytes(),
    )
});
const SOURCE: Column = Column::new("SOURCE", 6, |row, out| {
    out.write_all(row.container.map_or("", |container| container.source.as_str()).as_bytes())
});

/// The columns of `columns`, before the kind's own.
const NARROW: [Column; 6] = [NODE, NAMESPACE, POD, CONTAINER, PID, COMM];
/// The columns of `wide`, before the kind's own.
const WIDE: [Column; 13] =
    [NODE, NAMESPACE, POD, CONTAINER, RUNTIME, CONTAINER_ID, IMAGE, SOURCE, PID, PPID, UID, GID, COMM];
/// Columns that `custom-columns` has besides.
const FURTHER: [Column; 4] = [TIMESTAMP, TID, CONTAINER_PID, TYPE];

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

/// A table, its columns as wide as there is room for.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    /// Whether values that are too long are shortened: on a terminal. Elsewhere nothing is left out.
    shorten: bool,
    header: bool,
    value: Vec<u8>,
    cell: String,
}

impl Table {
    /// A table for events of a kind. `terminal` is the width of the terminal that it is shown on, if one.
    pub fn new(
        layout: &Layout,
        tracer: &dyn Tracer,
        node: &str,
        terminal: Option<usize>,
        header: bool,
    ) -> Result<Self, String> {
        let own = tracer.columns();
        let is_own = |column: &Column| own.iter().any(|other| other.name == column.name);
        let mut columns = match layout {
            Layout::Narrow => [&NARROW, own].concat(),
            Layout::Wide => WIDE.iter().filter(|column| !is_own(column)).chain(own).copied().collect(),
            Layout::Custom(names) => {
                let all: Vec<Column> = WIDE
                    .iter()
                    .chain(&FURTHER)
                    .filter(|column| !is_own(column))
                    .chain(own)
                    .copied()
                    .collect();
                names.iter().map(|name| find(&all, name)).collect::<Result<_, _>>()?
            }
        };
        for column in &mut columns {
            if column.name == NODE.name {
                column.width = node.width();
            }
            column.width = column.width.max(column.name.len());
        }
        if let Some(width) = terminal {
            fit(&mut columns, width);
        }
        Ok(Self { columns, shorten: terminal.is_some(), header, value: Vec::new(), cell: String::new() })
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

    pub(super) fn write_row(&mut self, row: &Row<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        for index in 0..self.columns.len() {
            let column = self.columns[index];
            self.value.clear();
            (column.value)(row, &mut self.value)?;
            self.cell.clear();
            sanitize::write(&self.value, &mut self.cell);
            if self.cell.is_empty() {
                self.cell.push_str(NOTHING);
            }
            let mut width = self.cell.width();
            if self.shorten && width > column.width {
                self.cell = shorten(&self.cell, column.width);
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

fn find(all: &[Column], name: &str) -> Result<Column, String> {
    all.iter().find(|column| column.name.eq_ignore_ascii_case(name)).copied().ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|column| column.name).collect();
        format!("there is no column {name:?}; there are {}", names.join(", "))
    })
}

/// Takes from the widest columns until all fit; what is left over goes to the last, which has no end.
fn fit(columns: &mut [Column], terminal: usize) {
    let total = |columns: &[Column]| columns.iter().map(|column| column.width + 1).sum::<usize>() - 1;
    while total(columns) > terminal {
        let narrowable = |column: &&mut Column| column.width > WIDTH_MIN.max(column.name.len());
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
        let error = find(&NARROW, "Namspace").unwrap_err();
        assert!(error.contains("\"Namspace\"") && error.contains("NAMESPACE"), "{error}");
        assert_eq!(find(&NARROW, "namespace").unwrap().name, "NAMESPACE");
    }

    proptest! {
        #[test]
        fn a_shortened_text_is_never_wider(text: String, width in 1..50_usize) {
            prop_assert!(shorten(&text, width).width() <= width);
        }

        #[test]
        fn columns_fit_any_terminal_that_has_room(widths in prop::collection::vec(1..60_usize, 1..12), terminal in 0..300_usize) {
            let mut columns: Vec<Column> =
                widths.iter().map(|width| Column::new("X", *width, PID.value)).collect();
            fit(&mut columns, terminal);
            let total: usize = columns.iter().map(|column| column.width + 1).sum::<usize>() - 1;
            let least: usize = widths.iter().map(|width| (*width).min(WIDTH_MIN) + 1).sum::<usize>() - 1;
            prop_assert_eq!(total, terminal.max(least));
        }
    }
}
