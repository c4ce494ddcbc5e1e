//! Kinds of events at run time: decoding records, and writing their fields, by the kind's schema.
//!
//! A kind is declared in `tracer-common/src/kinds/`. Here is the generic code that the declaration drives: nothing in it knows
//! any single kind. A schema may also come with a stream of frames, from a `tracer` of another version or architecture, so it
//! is validated before use.

mod cell;
mod describe;
mod errno;
mod event;
mod json;
mod schema;
mod signal;
mod text;

use std::sync::Arc;

use tracer_common::kinds::{KINDS, Kind as Declaration};

pub(crate) use cell::Cell;
pub(crate) use describe::{command_line, labelled, markdown, table};
pub(crate) use event::Event;
pub(crate) use json::{FieldCache, companion};
pub(crate) use schema::{Field, InvalidSchema, Schema, Value};
pub(crate) use signal::Signal;
pub(crate) use text::{Hex, Text, write_number};

use json::Step;

/// A kind of event, ready to decode and show its records.
#[derive(Debug)]
pub(crate) struct Kind {
    /// What the kind declares.
    pub(crate) schema: Schema,
    /// Position among the kinds of the run.
    pub(crate) index: usize,
    /// What a column can show of it: the declared columns first, then all other fields.
    cells: Vec<Cell>,
    /// How many of the cells are declared columns.
    columns: usize,
    /// How its JSON object is written.
    steps: Vec<Step>,
}

/// The kinds of a run.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    all: Vec<Kind>,
    /// Indices into `all` by [`Schema::number`].
    by_number: [Option<u8>; Schema::NUMBER_MAX as usize + 1],
    /// How many texts the JSON of all kinds caches.
    caches: usize,
}

impl Kinds {
    /// The kinds that these schemas declare.
    pub(crate) fn new(schemas: Vec<Schema>) -> Result<Arc<Self>, InvalidSchema> {
        let mut kinds = Self { all: Vec::new(), by_number: [None; _], caches: 0 };
        for schema in schemas {
            schema.validate()?;
            let index = kinds.all.len();
            let (cells, columns) = Cell::all_of(&schema);
            let steps = json::plan(&schema.fields, &mut kinds.caches);
            let known = &mut kinds.by_number[schema.number as usize];
            if known.is_some() {
                return Err(InvalidSchema::new(&schema.name, "another kind has its number"));
            }
            *known = u8::try_from(index).ok();
            kinds.all.push(Kind { schema, index, cells, columns, steps });
        }
        Ok(Arc::new(kinds))
    }

    /// The kinds with these names, in the order of their declaration; `None` if one of them does not exist.
    pub(crate) fn by_name(names: &[impl AsRef<str>]) -> Option<Arc<Self>> {
        let is_known = |name: &str| KINDS.iter().any(|kind| kind.name == name);
        if !names.iter().all(|name| is_known(name.as_ref())) {
            return None;
        }
        let chosen = KINDS.iter().filter(|kind| names.iter().any(|name| name.as_ref() == kind.name));
        Self::new(chosen.map(Schema::from).collect()).ok()
    }

    /// All kinds that this `tracer` declares.
    pub(crate) fn all() -> Arc<Self> {
        Self::new(KINDS.iter().map(Schema::from).collect()).unwrap_or_default()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Kind> {
        self.all.iter()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Their only one, if it is one.
    pub(crate) fn single(&self) -> Option<&Kind> {
        match &self.all[..] {
            [kind] => Some(kind),
            _ => None,
        }
    }

    /// The kind at that position.
    pub(crate) fn get(&self, index: usize) -> Option<&Kind> {
        self.all.get(index)
    }

    /// The kind with that number.
    fn by_number(&self, number: u32) -> Option<&Kind> {
        let index = *self.by_number.get(usize::try_from(number).ok()?)?;
        self.all.get(usize::from(index?))
    }

    /// Room for the texts that the JSON of all kinds caches.
    pub(crate) fn field_caches(&self) -> Vec<FieldCache> {
        (0..self.caches).map(|_| FieldCache::new()).collect()
    }

    /// Their declarations, in the same order; of kinds that this `tracer` declares.
    pub(crate) fn declared(&self) -> Vec<&'static Declaration> {
        let declaration = |kind: &Kind| KINDS.iter().find(|declared| declared.number == kind.schema.number);
        self.all.iter().filter_map(declaration).collect()
    }

    /// Names, separated by commas.
    pub(crate) fn names(&self) -> String {
        self.all.iter().map(|kind| kind.schema.name.as_str()).collect::<Vec<_>>().join(",")
    }
}

impl Kind {
    /// Name, as `tracer trace` takes it and the JSON field `event` shows it.
    pub(crate) fn name(&self) -> &str {
        &self.schema.name
    }

    /// The columns that a table of this kind alone has.
    pub(crate) fn columns(&self) -> &[Cell] {
        &self.cells[..self.columns]
    }

    /// The columns that it can have besides.
    pub(crate) fn further_columns(&self) -> &[Cell] {
        &self.cells[self.columns..]
    }

    /// The cell with that title.
    pub(crate) fn cell(&self, title: &str) -> Option<usize> {
        self.cells.iter().position(|cell| cell.title == title)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_declared_kind_is_valid_and_has_a_number_of_its_own() {
        let kinds = Kinds::new(KINDS.iter().map(Schema::from).collect()).unwrap();
        assert_eq!(kinds.len(), KINDS.len());
        for kind in KINDS {
            assert_eq!(kinds.by_number(kind.number).unwrap().name(), kind.name);
        }
        assert!(kinds.by_number(0).is_none() && kinds.by_number(u32::MAX).is_none());
    }

    #[test]
    fn kinds_are_found_by_name_and_unknown_names_are_not() {
        let kinds = Kinds::by_name(&["exec", "open"]).unwrap();
        assert_eq!(kinds.names(), "open,exec");
        assert!(Kinds::by_name(&["open", "opened"]).is_none());
    }
}
