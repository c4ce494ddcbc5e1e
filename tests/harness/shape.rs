//! Checks JSON records against the JSON Schema that `tracer kinds -o json-schema` prints.

use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::{tracer, wait};

/// Of the binary under test.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let output =
        wait::output(Command::new(tracer::binary()).args(["kinds", "-o", "json-schema"]), wait::LIMIT);
    serde_json::from_str(&output.success().stdout).expect("a schema in JSON")
});

/// Fails unless `record` has exactly the fields of the schema.
#[track_caller]
pub fn check(record: &Value) {
    // The variant is chosen first: the error is then about the field, not about all variants.
    let variants = SCHEMA["oneOf"].as_array().expect("a list of variants");
    let variant = variants.iter().find(|variant| variant["properties"]["event"]["const"] == record["event"]);
    let variant = variant.unwrap_or_else(|| panic!("unknown event in {record}"));
    check_value(record, variant, "");
}

/// Fails unless `record` has exactly the fields that the contract gives to a container that is listed; with `watched`,
/// what happened to it as well.
#[track_caller]
pub fn check_listed(record: &Value, watched: bool) {
    let mut schema = json!({
        "type": "object",
        "properties": {
            "node": { "type": "string" },
            "k8s": { "anyOf": [{ "$ref": "#/$defs/k8s" }, { "type": "null" }] },
            "container": { "$ref": "#/$defs/container" },
            "pid": { "anyOf": [{ "type": "integer" }, { "type": "null" }] },
            "startedAt": { "anyOf": [{ "$ref": "#/$defs/timestamp" }, { "type": "null" }] },
        },
        "required": ["node", "k8s", "container", "pid", "startedAt"],
        "additionalProperties": false,
    });
    let mut require = |name: &str, value: Value| {
        schema["properties"][name] = value;
        schema["required"].as_array_mut().expect("it is above").push(json!(name));
    };
    if watched {
        require("event", json!({ "enum": ["added", "modified", "deleted"] }));
    }
    if record["event"] == "modified" {
        require("changed", json!({ "type": "array", "items": { "type": "string" } }));
    }
    if record["event"] == "deleted" {
        schema["properties"]["exitCode"] = json!({ "type": "integer" });
        schema["properties"]["exitSignal"] = json!({ "type": "string" });
    }
    check_value(record, &schema, "");
}

#[track_caller]
fn check_value(record: &Value, schema: &Value, path: &str) {
    if let Err(problem) = problem_of(record, schema, path) {
        panic!("{problem} in {record}");
    }
}

/// What of JSON Schema `tracer` uses.
fn problem_of(value: &Value, schema: &Value, path: &str) -> Result<(), String> {
    let wrong = || Err(format!("`{path}` is {value}, which is not {schema}"));
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        let fits = match &keyword[..] {
            "$ref" => {
                let name =
                    rule.as_str().and_then(|rule| rule.strip_prefix("#/$defs/")).expect("a definition");
                problem_of(value, &SCHEMA["$defs"][name], path)?;
                true
            }
            "anyOf" => {
                let any = rule.as_array().expect("a list");
                any.iter().any(|schema| problem_of(value, schema, path).is_ok())
            }
            "type" => match rule.as_str().expect("a type") {
                "string" => value.is_string(),
                "integer" => value.is_i64() || value.is_u64(),
                "boolean" => value.is_boolean(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                "null" => value.is_null(),
                other => panic!("type {other}"),
            },
            "const" => value == rule,
            "enum" => rule.as_array().expect("a list").contains(value),
            "minimum" => value.as_i64().is_none_or(|number| Some(number) >= rule.as_i64()),
            "pattern" => is_timestamp(value),
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    problem_of(item, rule, path)?;
                }
                true
            }
            "properties" => {
                for (name, schema) in rule.as_object().expect("properties are an object") {
                    if let Some(value) = value.get(name) {
                        problem_of(value, schema, &format!("{path}.{name}"))?;
                    }
                }
                true
            }
            "required" => {
                let missing = rule.as_array().expect("a list").iter().filter_map(Value::as_str);
                match missing.clone().find(|name| value.get(name).is_none()) {
                    Some(name) => return Err(format!("`{path}.{name}` is missing")),
                    None => true,
                }
            }
            "additionalProperties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    match (schema["properties"].get(name), rule) {
                        (None, Value::Bool(false)) => {
                            return Err(format!("`{path}.{name}` is not in the schema"));
                        }
                        (None, rule) => problem_of(value, rule, path)?,
                        _ => {}
                    }
                }
                true
            }
            "title" | "description" | "format" => true,
            other => panic!("keyword {other}"),
        };
        if !fits {
            return wrong();
        }
    }
    Ok(())
}

/// The only pattern: RFC 3339 in UTC with nanoseconds, `2026-11-20T22:15:01.123456789Z`.
fn is_timestamp(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    let pattern = "dddd-dd-ddTdd:dd:dd.dddddddddZ";
    text.len() == pattern.len()
        && text.chars().zip(pattern.chars()).all(|(c, p)| if p == 'd' { c.is_ascii_digit() } else { c == p })
}
