//! Events in columns, many of them: what [`Table`] shows, with the cells of a container and of a process written once for
//! many rows.

use std::{io, ops::Range};

use crate::{
    output::{
        ContainerTexts, Row, Table,
        columns::{Scope, end_line},
        events::Process,
    },
    text_cache::TextCache,
};

/// Writes events in columns.
#[derive(Debug)]
pub(crate) struct EventTable {
    table: Table,
    runs: Vec<Run>,
}

/// Columns next to each other whose cells are the same for as many rows.
#[derive(Debug)]
enum Run {
    /// For all of a container.
    Container(Range<usize>),
    /// For all of a process.
    Process(Range<usize>, TextCache<Process>),
    /// For one.
    Row(Range<usize>),
}

impl EventTable {
    pub(crate) fn new(table: Table) -> Self {
        let mut runs = Vec::new();
        let mut start = 0;
        let same = |a: &Scope, b: &Scope| a == b;
        for columns in table.scopes().collect::<Vec<_>>().chunk_by(same) {
            let range = start..start + columns.len();
            start = range.end;
            runs.push(match columns[0] {
                Scope::Container => Run::Container(range),
                Scope::Process => Run::Process(range, TextCache::new()),
                Scope::Row => Run::Row(range),
            });
        }
        Self { table, runs }
    }

    pub(crate) fn write_header(&self, out: &mut Vec<u8>) {
        self.table.write_header(out);
    }

    /// Appends an event's row.
    pub(crate) fn row(
        &mut self,
        row: &Row<'_>,
        texts_of_container: &mut ContainerTexts,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let Self { table, runs } = self;
        let mut texts = 0;
        for run in runs {
            match run {
                Run::Container(columns) => {
                    texts_of_container
                        .append(texts, out, |out| table.write_cells(columns.clone(), row, out))?;
                    texts += 1;
                }
                Run::Process(columns, processes) => {
                    let process = Process::of(&row.event.header);
                    processes.append(process, out, |out| table.write_cells(columns.clone(), row, out))?;
                }
                Run::Row(columns) => table.write_cells(columns.clone(), row, out)?,
            }
        }
        end_line(out);
        Ok(())
    }
}
