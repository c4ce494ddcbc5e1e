//! A kind's declaration as data: what goes into the documentation and into a stream of frames.

use serde::{Deserialize, Serialize};
use tracer_common::kinds::{Header, schema as declared};

/// See [`declared::Kind`], without what is attached for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Schema {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) help: String,
    pub(crate) doc: String,
    pub(crate) since: (u8, u8),
    pub(crate) failure: Option<String>,
    pub(crate) record_size: usize,
    pub(crate) flags_at: usize,
    pub(crate) parts: Vec<usize>,
    pub(crate) fields: Vec<Field>,
    pub(crate) columns: Vec<Column>,
}

/// See [`declared::Field`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) value: Value,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) when: u16,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) steady: bool,
    pub(crate) doc: String,
}

/// See [`declared::Value`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub(crate) enum Value {
    Unsigned { at: usize, size: u8 },
    Signed { at: usize },
    FileDescriptor { at: usize },
    Errno { at: usize },
    Bits { at: usize, low: Vec<String>, bits: Vec<(u64, String)> },
    Choice { at: usize, names: Vec<(u8, String)> },
    Flag { mask: u16, only_true: bool },
    FirstFlag { names: Vec<(u16, String)> },
    Signal { at: usize },
    Nanoseconds { at: usize },
    Text { part: u8 },
    Texts { part: u8 },
    Bytes { part: u8 },
    Object { fields: Vec<Field> },
}

/// See [`declared::Column`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Column {
    pub(crate) title: String,
    pub(crate) width: u8,
    pub(crate) shows: Shows,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) wide: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) alarm: bool,
}

/// See [`declared::Shows`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Shows {
    Field(String),
    Ppid,
    Error(String),
    Letters(String, Vec<(String, String)>),
    CommandLine(String, String),
}

fn named<N: Copy, O: From<N>>(names: &[(N, &str)]) -> Vec<(O, String)> {
    names.iter().map(|(number, name)| ((*number).into(), (*name).to_owned())).collect()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl From<&declared::Kind> for Schema {
    fn from(kind: &declared::Kind) -> Self {
        Self {
            number: kind.number,
            name: kind.name.into(),
            help: kind.help.into(),
            doc: kind.doc.into(),
            since: kind.since,
            failure: kind.failure.map(str::to_owned),
            record_size: kind.record_size,
            flags_at: kind.flags_at,
            parts: kind.parts.to_vec(),
            fields: kind.fields.iter().map(Field::from).collect(),
            columns: kind.columns.iter().map(Column::from).collect(),
        }
    }
}

impl From<&declared::Field> for Field {
    fn from(field: &declared::Field) -> Self {
        Self {
            name: field.name.into(),
            value: Value::from(field.value),
            when: field.when,
            steady: field.steady,
            doc: field.doc.into(),
        }
    }
}

impl From<declared::Value> for Value {
    fn from(value: declared::Value) -> Self {
        match value {
            declared::Value::Unsigned { at, size } => Self::Unsigned { at, size },
            declared::Value::Signed(at) => Self::Signed { at },
            declared::Value::FileDescriptor(at) => Self::FileDescriptor { at },
            declared::Value::Errno(at) => Self::Errno { at },
            declared::Value::Bits { at, names } => Self::Bits {
                at,
                low: names.low.iter().map(|name| (*name).to_owned()).collect(),
                bits: named(names.bits),
            },
            declared::Value::Choice { at, names } => Self::Choice { at, names: named(names) },
            declared::Value::Flag { mask, only_true } => Self::Flag { mask, only_true },
            declared::Value::FirstFlag(names) => Self::FirstFlag { names: named(names) },
            declared::Value::Signal(at) => Self::Signal { at },
            declared::Value::Nanoseconds(at) => Self::Nanoseconds { at },
            declared::Value::Text(part) => Self::Text { part },
            declared::Value::Texts(part) => Self::Texts { part },
            declared::Value::Bytes(part) => Self::Bytes { part },
            declared::Value::Object(fields) => {
                Self::Object { fields: fields.iter().map(Field::from).collect() }
            }
        }
    }
}

impl From<&declared::Column> for Column {
    fn from(column: &declared::Column) -> Self {
        let shows = match column.shows {
            declared::Shows::Field(name) => Shows::Field(name.into()),
            declared::Shows::Ppid => Shows::Ppid,
            declared::Shows::Error(name) => Shows::Error(name.into()),
            declared::Shows::Letters(name, letters) => Shows::Letters(name.into(), named(letters)),
            declared::Shows::CommandLine(args, path) => Shows::CommandLine(args.into(), path.into()),
        };
        let declared::Column { title, width, wide, alarm, .. } = *column;
        Self { title: title.into(), width, shows, wide, alarm }
    }
}

/// Why a schema cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the schema of kind {kind:?} is invalid: {problem}")]
pub(crate) struct InvalidSchema {
    kind: String,
    problem: String,
}

impl InvalidSchema {
    pub(super) fn new(kind: &str, problem: impl Into<String>) -> Self {
        Self { kind: kind.chars().take(Schema::NAME_MAX).collect(), problem: problem.into() }
    }
}

impl Schema {
    /// The largest number of a kind.
    pub(crate) const NUMBER_MAX: u32 = 31;
    const NAME_MAX: usize = 64;
    const TEXT_MAX: usize = 4096;
    const RECORD_MAX: usize = 4096;
    /// More parts than any kind has. Events keep their ends without an allocation.
    pub(crate) const PARTS_MAX: usize = 4;
    const FIELDS_MAX: usize = 64;
    const NAMES_MAX: usize = 512;
    const DEPTH_MAX: usize = 2;
    const COLUMNS_MAX: usize = 32;
    const WIDTH_MAX: u8 = 128;

    /// Checks all that decoding and showing rely on: offsets are within the record, names are short, printable, and exist.
    pub(crate) fn validate(&self) -> Result<(), InvalidSchema> {
        self.check().map_err(|problem| InvalidSchema::new(&self.name, problem))
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=Self::NUMBER_MAX).contains(&self.number) {
            return Err(format!("its number is {}", self.number));
        }
        check_name(&self.name)?;
        let texts = [Some(&self.help), Some(&self.doc), self.failure.as_ref()];
        if texts.into_iter().flatten().any(|text| text.len() > Self::TEXT_MAX) {
            return Err(format!("a text is longer than {} bytes", Self::TEXT_MAX));
        }
        if !(size_of::<Header>()..=Self::RECORD_MAX).contains(&self.record_size) {
            return Err(format!("its records have {} bytes", self.record_size));
        }
        if self.parts.len() > Self::PARTS_MAX {
            return Err(format!("its records have {} parts", self.parts.len()));
        }
        self.check_offset(self.flags_at, 2)?;
        self.parts.iter().try_for_each(|at| self.check_offset(*at, 2))?;
        self.check_fields(&self.fields, 1)?;
        if self.columns.len() > Self::COLUMNS_MAX {
            return Err(format!("it has {} columns", self.columns.len()));
        }
        self.columns.iter().try_for_each(|column| self.check_column(column))
    }

    fn check_offset(&self, at: usize, size: usize) -> Result<(), String> {
        match at.checked_add(size) {
            Some(end) if end <= self.record_size => Ok(()),
            _ => Err(format!("offset {at} is outside of its records, which have {} bytes", self.record_size)),
        }
    }

    fn check_fields(&self, fields: &[Field], depth: usize) -> Result<(), String> {
        if fields.len() > Self::FIELDS_MAX || depth > Self::DEPTH_MAX {
            return Err("it has too many fields".into());
        }
        for (index, field) in fields.iter().enumerate() {
            check_name(&field.name)?;
            if fields[..index].iter().any(|other| other.name == field.name) {
                return Err(format!("it has two fields {:?}", field.name));
            }
            if field.doc.len() > Self::TEXT_MAX {
                return Err(format!("the text of field {:?} is too long", field.name));
            }
            self.check_value(&field.value, depth)?;
        }
        Ok(())
    }

    fn check_value(&self, value: &Value, depth: usize) -> Result<(), String> {
        match value {
            Value::Unsigned { at, size: size @ (1 | 2 | 4 | 8) } => {
                self.check_offset(*at, usize::from(*size))
            }
            Value::Unsigned { size, .. } => Err(format!("a number has {size} bytes")),
            Value::Signed { at } | Value::FileDescriptor { at } | Value::Errno { at } => {
                self.check_offset(*at, 4)
            }
            Value::Bits { at, low, bits } => {
                if !low.is_empty() && !low.len().is_power_of_two() {
                    return Err(format!("{} values have a name", low.len()));
                }
                check_names(low.iter().chain(bits.iter().map(|(_, name)| name)))?;
                self.check_offset(*at, 8)
            }
            Value::Choice { at, names } => {
                check_names(names.iter().map(|(_, name)| name))?;
                self.check_offset(*at, 1)
            }
            Value::Signal { at } => self.check_offset(*at, 1),
            Value::Nanoseconds { at } => self.check_offset(*at, 8),
            Value::Flag { .. } => Ok(()),
            Value::FirstFlag { names } => check_names(names.iter().map(|(_, name)| name)),
            Value::Text { part } | Value::Texts { part } | Value::Bytes { part } => {
                if usize::from(*part) < self.parts.len() {
                    Ok(())
                } else {
                    Err(format!("it has no part {part}"))
                }
            }
            Value::Object { fields } => self.check_fields(fields, depth + 1),
        }
    }

    fn check_column(&self, column: &Column) -> Result<(), String> {
        let Column { title, width, shows, wide: _, alarm: _ } = column;
        check_name(title)?;
        if *width > Self::WIDTH_MAX {
            return Err(format!("column {title} is {width} characters wide"));
        }
        let fields: Vec<&str> = match shows {
            Shows::Ppid => Vec::new(),
            Shows::Field(name) | Shows::Error(name) => vec![name],
            Shows::Letters(name, letters) => {
                check_names(letters.iter().flat_map(|(name, letter)| [name, letter]))?;
                vec![name]
            }
            Shows::CommandLine(args, path) => vec![args, path],
        };
        let is_missing = |name: &&&str| !self.fields.iter().any(|field| field.name == **name);
        match fields.iter().find(is_missing) {
            Some(missing) => Err(format!("column {title} shows a field {missing:?}, which it does not have")),
            None => Ok(()),
        }
    }
}

/// Names are shown as they are: letters and digits, and between them what some names need.
fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ' ' | '-');
    if name.is_empty() || name.len() > Schema::NAME_MAX || !name.chars().all(is_plain) {
        return Err(format!("{:?} is not a name", name.chars().take(Schema::NAME_MAX).collect::<String>()));
    }
    Ok(())
}

fn check_names<'a>(mut names: impl Iterator<Item = &'a String>) -> Result<(), String> {
    let mut count = 0;
    names.try_for_each(|name| {
        count += 1;
        if count > Schema::NAMES_MAX { Err("it has too many names".to_owned()) } else { check_name(name) }
    })
}

#[cfg(test)]
mod tests {
    use tracer_common::kinds::KINDS;

    use super::*;

    fn open() -> Schema {
        Schema::from(&KINDS[0])
    }

    #[test]
    fn schema_survives_json() {
        for kind in KINDS {
            let schema = Schema::from(kind);
            let json = serde_json::to_vec(&schema).unwrap();
            assert_eq!(serde_json::from_slice::<Schema>(&json).unwrap(), schema);
        }
    }

    #[test]
    fn what_decoding_relies_on_is_checked() {
        type Change = fn(&mut Schema);
        let changes: &[(&str, Change)] = &[
            ("number", |schema| schema.number = 32),
            ("number", |schema| schema.number = 0),
            ("name", |schema| schema.name = "\u{1b}[2J".into()),
            ("name", |schema| schema.fields[0].name = String::new()),
            ("two fields", |schema| schema.fields[1].name = "path".into()),
            ("bytes", |schema| schema.record_size = 63),
            ("bytes", |schema| schema.record_size = 4097),
            ("parts", |schema| schema.parts = vec![64; 5]),
            ("outside", |schema| schema.parts[0] = schema.record_size - 1),
            ("outside", |schema| schema.flags_at = usize::MAX),
            ("no part", |schema| schema.parts.truncate(1)),
            ("outside", |schema| schema.fields[1].value = Value::Nanoseconds { at: schema.record_size - 7 }),
            ("number has", |schema| schema.fields[1].value = Value::Unsigned { at: 0, size: 3 }),
            ("have a name", |schema| {
                schema.fields[1].value = Value::Bits { at: 64, low: vec!["A".into(); 3], bits: Vec::new() };
            }),
            ("too many fields", |schema| schema.fields = vec![schema.fields[0].clone(); 65]),
            ("too many fields", |schema| {
                for _ in 0..3 {
                    let fields = std::mem::take(&mut schema.fields);
                    let value = Value::Object { fields };
                    schema.fields =
                        vec![Field { name: "x".into(), value, when: 0, steady: false, doc: String::new() }];
                }
                schema.columns.clear();
            }),
            ("does not have", |schema| schema.columns[0].shows = Shows::Field("missing".into())),
            ("wide", |schema| schema.columns[0].width = 129),
        ];
        assert_eq!(open().validate(), Ok(()));
        for (problem, change) in changes {
            let mut schema = open();
            change(&mut schema);
            let error = schema.validate().unwrap_err().to_string();
            assert!(error.contains(problem), "{problem}: {error}");
        }
    }
}
