//! Documentation of the kinds, made from their declarations: `tracer kinds` and `docs/kinds.md`.

use std::fmt;

use serde::Serialize;
use tracer_common::kinds::{
    Kind as Declaration,
    schema::{Example, Function},
};

use super::{Cell, Field, Kinds, Schema, Value, companion};

/// A kind, described.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Description {
    name: String,
    summary: String,
    #[serde(rename = "description")]
    details: String,
    minimum_kernel: String,
    hooks: Vec<String>,
    /// What `--failed` selects.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
    fields: Vec<FieldDescription>,
    columns: Vec<String>,
    /// Columns for `wide` and `custom-columns` only.
    further_columns: Vec<String>,
    /// Those of them that `wide` has.
    wide_columns: Vec<String>,
    examples: Vec<ExampleDescription>,
}

#[derive(Debug, Serialize)]
struct ExampleDescription {
    description: &'static str,
    command: String,
}

#[derive(Debug, Serialize)]
struct FieldDescription {
    name: String,
    #[serde(rename = "type")]
    value_type: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    optional: bool,
    description: String,
    /// Of an object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<Self>,
}

impl Kinds {
    /// Descriptions of all kinds that this `tracer` declares, or of these.
    pub(crate) fn describe(&self) -> Vec<Description> {
        self.iter()
            .zip(self.declared())
            .map(|(kind, declaration)| {
                let Schema { name, help, doc, since: (major, minor), failure, fields, .. } = &kind.schema;
                let own = || kind.columns().iter();
                Description {
                    name: name.clone(),
                    summary: help.clone(),
                    details: doc.clone(),
                    minimum_kernel: format!("{major}.{minor}"),
                    hooks: hooks(declaration),
                    failed: failure.clone(),
                    fields: fields.iter().flat_map(FieldDescription::with_companion).collect(),
                    columns: titles(own().filter(|cell| !cell.wide)),
                    further_columns: titles(own().filter(|cell| cell.wide).chain(kind.further_columns())),
                    wide_columns: titles(own().filter(|cell| cell.wide)),
                    examples: declaration
                        .examples
                        .iter()
                        .map(|example| ExampleDescription {
                            description: example.shows,
                            command: command_line("tracer", name, example),
                        })
                        .collect(),
                }
            })
            .collect()
    }
}

/// The command line of an example of a kind.
pub(crate) fn command_line(program: &str, kind: &str, example: &Example) -> String {
    format!("{program} trace {kind} {}", example.options)
}

fn titles<'a>(cells: impl Iterator<Item = &'a Cell>) -> Vec<String> {
    cells.map(|cell| cell.title.clone()).collect()
}

/// What the kind's programs are attached to, on all architectures: the same text everywhere.
fn hooks(kind: &Declaration) -> Vec<String> {
    let mut hooks = Vec::new();
    if !kind.calls.is_empty() {
        hooks.push("tp_btf/sys_exit".to_owned());
    }
    for fexit in kind.fexit {
        for function in [fexit.x86_64, fexit.aarch64] {
            let (Function::Required(name) | Function::With(name, _)) = function else { continue };
            let hook = format!("fexit/{name}");
            if !hooks.contains(&hook) {
                hooks.push(hook);
            }
        }
    }
    hooks.extend(kind.tracepoints.iter().map(|program| format!("tp_btf/{}", program.tracepoint)));
    hooks
}

impl FieldDescription {
    /// A field, and what is shown beside it.
    fn with_companion(field: &Field) -> impl Iterator<Item = Self> {
        let of_error = matches!(field.value, Value::Errno { .. }).then(|| Self {
            name: companion(field),
            value_type: "string",
            optional: true,
            description: "name of the error number, if it has one: `ENOENT`".to_owned(),
            fields: Vec::new(),
        });
        [Self::new(field)].into_iter().chain(of_error)
    }

    fn new(field: &Field) -> Self {
        let fields = match &field.value {
            Value::Object { fields } => fields.iter().map(Self::new).collect(),
            _ => Vec::new(),
        };
        Self {
            name: field.name.clone(),
            value_type: field.value.type_name(),
            optional: field.is_optional(),
            description: field.doc.clone(),
            fields,
        }
    }
}

impl Field {
    /// Whether the field is absent from some events.
    pub(crate) fn is_optional(&self) -> bool {
        self.when != 0
            || matches!(
                self.value,
                Value::Flag { only_true: true, .. } | Value::FirstFlag { .. } | Value::Signal { .. }
            )
    }
}

impl Value {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Unsigned { .. }
            | Self::Signed { .. }
            | Self::FileDescriptor { .. }
            | Self::Errno { .. }
            | Self::Nanoseconds { .. } => "integer",
            Self::Bits { .. } | Self::Texts { .. } => "list of strings",
            Self::Choice { .. }
            | Self::FirstFlag { .. }
            | Self::Signal { .. }
            | Self::Text { .. }
            | Self::Bytes { .. } => "string",
            Self::Flag { .. } => "boolean",
            Self::Object { .. } => "object",
        }
    }
}

/// A table of the kinds, one line each.
pub(crate) fn table(kinds: &[Description]) -> String {
    let row = |kind: &str, kernel: &str, summary: &str| format!("{kind:<8}{kernel:<8}{summary}\n");
    let rows = kinds.iter().map(|kind| row(&kind.name, &kind.minimum_kernel, &kind.summary));
    row("KIND", "KERNEL", "DESCRIPTION") + &rows.collect::<String>()
}

/// The description as text, in the form of `kubectl explain`.
impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const INDENT: usize = 10;
        let Self { name, summary, details, minimum_kernel, hooks, failed, fields, columns, examples, .. } =
            self;
        let mut line = |label, text: &str| labelled(label, text, INDENT, f);
        line("KIND:", name)?;
        line("KERNEL:", &format!("{minimum_kernel} or later"))?;
        line("HOOKS:", &hooks.join(", "))?;
        if let Some(failed) = failed {
            line("FAILED:", failed)?;
        }
        line("COLUMNS:", &columns.join(", "))?;
        for (format, columns) in self.columns_beside() {
            line("", &format!("{format} also {}", columns.join(", ")))?;
        }
        writeln!(f, "\nDESCRIPTION:\n  {summary}\n")?;
        labelled("", details, 2, f)?;
        writeln!(f, "\nEXAMPLES:")?;
        for ExampleDescription { description, command } in examples {
            writeln!(f, "  # {description}\n  {command}")?;
        }
        writeln!(f, "\nFIELDS:")?;
        fields.iter().try_for_each(|field| field.write(2, f))
    }
}

impl FieldDescription {
    fn write(&self, indent: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value_type, optional, description, fields } = self;
        let optional = if *optional { ", optional" } else { "" };
        writeln!(f, "{:indent$}{name} <{value_type}{optional}>", "")?;
        labelled("", description, indent + 4, f)?;
        fields.iter().try_for_each(|field| field.write(indent + 2, f))
    }
}

/// Writes a label, and a paragraph beside it, `indent` characters from the left.
pub(crate) fn labelled(label: &str, text: &str, indent: usize, out: &mut impl fmt::Write) -> fmt::Result {
    /// Of lines.
    const WIDTH: usize = 80;
    write!(out, "{label:<indent$}")?;
    let mut column = indent;
    for (index, word) in text.split(' ').enumerate() {
        if index == 0 {
            // Nothing comes before it.
        } else if column + 1 + word.len() > WIDTH {
            write!(out, "\n{:indent$}", "")?;
            column = indent;
        } else {
            out.write_char(' ')?;
            column += 1;
        }
        out.write_str(word)?;
        column += word.len();
    }
    out.write_char('\n')
}

/// `docs/kinds.md`.
pub(crate) fn markdown(kinds: &[Description]) -> String {
    let row = |Description { name, summary, minimum_kernel, .. }: &Description| {
        format!("| [`{name}`](#{name}) | {minimum_kernel} | {summary} |\n")
    };
    let table: String = kinds.iter().map(row).collect();
    let sections: String = kinds.iter().map(Description::markdown).collect();
    format!(
        "# Kinds of events\n\n\
        <!-- Generated: `tracer kinds -o markdown > docs/kinds.md`. A test compares. -->\n\n\
        `tracer trace KIND[,KIND…]` traces these kinds. `tracer kinds KIND` shows a kind's description on the command line, \
        `tracer kinds -o json-schema` is a JSON Schema of the events. Fields that all events share are described in \
        [json.md](json.md#fields).\n\n\
        | kind | since Linux | description |\n|---|---|---|\n{table}{sections}"
    )
}

impl Description {
    /// Formats with columns beside the usual ones, and these.
    fn columns_beside(&self) -> impl Iterator<Item = (&'static str, Vec<String>)> {
        let Self { further_columns, wide_columns, .. } = self;
        let custom =
            further_columns.iter().filter(|column| !wide_columns.contains(column)).cloned().collect();
        [("wide", wide_columns.clone()), ("custom-columns", custom)]
            .into_iter()
            .filter(|(_, columns): &(_, Vec<_>)| !columns.is_empty())
    }

    fn markdown(&self) -> String {
        let Self { name, details, hooks, failed, fields, columns, examples, .. } = self;
        let code =
            |words: &[String]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let failed = match failed {
            Some(failed) => format!("`--failed` selects {failed}.\n\n"),
            None => String::new(),
        };
        let further: Vec<String> = self
            .columns_beside()
            .map(|(format, columns)| format!("; `{format}` also {}", code(&columns)))
            .collect();
        let lines: Vec<String> = examples
            .iter()
            .map(|ExampleDescription { description, command }| {
                format!("    # {description}\n    {command}\n")
            })
            .collect();
        let (further, lines) = (further.concat(), lines.concat());
        let rows: String = fields.iter().map(|field| field.markdown("")).collect();
        format!(
            "\n## {name}\n\n{details}\n\n{lines}\nHooks: {}.\n\n{failed}Columns: {}{further}.\n\n\
             | field of `{name}` | type | description |\n|---|---|---|\n{rows}",
            code(hooks),
            code(columns),
        )
    }
}

impl FieldDescription {
    fn markdown(&self, parent: &str) -> String {
        let Self { name, value_type, optional, description, fields } = self;
        let optional = if *optional { ", optional" } else { "" };
        let parent = &format!("{parent}{name}");
        let fields: String = fields.iter().map(|field| field.markdown(&format!("{parent}."))).collect();
        format!("| `{parent}` | {value_type}{optional} | {description} |\n{fields}")
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::kinds::KINDS;

    use super::*;

    fn all() -> Vec<Description> {
        Kinds::all().describe()
    }

    #[test]
    fn documentation_is_generated() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kinds.md");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == markdown(&all()), "run: tracer kinds -o markdown > docs/kinds.md");
    }

    #[test]
    fn every_declared_kind_is_described_with_its_hooks() {
        let kinds = all();
        assert_eq!(kinds.len(), KINDS.len());
        for kind in &kinds {
            assert!(!kind.hooks.is_empty() && !kind.fields.is_empty(), "{kind:?}");
            let text = kind.to_string();
            // Command lines are whole.
            let is_short = |line: &str| line.len() <= 80 || line.starts_with("  tracer ");
            assert!(text.lines().all(is_short), "{text}");
        }
        assert!(kinds[0].hooks.contains(&"fexit/__arm64_sys_openat2".to_owned()), "{:?}", kinds[0].hooks);
    }
}
