//! Events and containers as text: columns for people, JSON and YAML for programs. Knows nothing of where the text goes.

mod age;
mod columns;
mod containers;
mod event_table;
mod events;
mod fit;
mod format;
mod json;
mod json_lines;
mod json_schema;
pub(crate) mod kyaml;
mod look;
mod losses;
mod shared;
mod timestamp;
mod yaml;

use std::borrow::Cow;

use serde::Serialize;

pub(crate) use columns::{ColumnNames, Layout, Table};
pub(crate) use containers::{
    ContainerEvent, ContainerRenderer, ContainerRow, ListOf, container_columns, container_fields,
};
pub(crate) use event_table::EventTable;
pub(crate) use events::{ContainerTexts, EventRenderer, Events, Row, event_columns};
pub(crate) use format::{COLUMNS, Document, FORMATS, Format, HELP};
pub(crate) use json_lines::JsonLines;
pub(crate) use json_schema::{json_schema, shared_fields};
pub(crate) use look::Look;
pub(crate) use losses::Losses;

/// What was lost: events, or what tells whose they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Lost {
    /// How many.
    pub(crate) count: u64,
    /// Of events `buffer-full`, `program-skipped`, `unattributed`, `malformed`, `output`; of what becomes of containers
    /// `lifecycle-full`, `process-map-full`, `slots-full`, `lifecycle-crowded`, `program-skipped`.
    pub(crate) reason: Cow<'static, str>,
    /// The hook that they were lost at: the traced kind's name, or `lifecycle`.
    pub(crate) hook: Cow<'static, str>,
}
