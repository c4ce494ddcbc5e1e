//! A JSON Schema (draft 2020-12) of the events and losses that `-o json` emits.

use serde_json::{Map, Value as Json, json};

use crate::kinds::{Field, Kinds, Schema, Value, companion};

/// The schema of a line with an event of these kinds, or with a loss.
pub(crate) fn json_schema(kinds: &Kinds) -> Json {
    let events = kinds.iter().map(|kind| event(&kind.schema));
    let all: Vec<Json> = events.chain([loss()]).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Events of tracer",
        "oneOf": all,
        "$defs": definitions(),
    })
}

/// What records of all kinds have.
fn definitions() -> Json {
    json!({ "timestamp": timestamp(), "k8s": pod(), "container": container(), "nested": nested(), "process": process() })
}

/// Names of the fields of an object that records of all kinds have: `k8s`, `container`, `process`.
pub(crate) fn shared_fields(object: &str) -> Vec<String> {
    let definitions = definitions();
    let fields = definitions[object]["properties"].as_object();
    fields.map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
}

fn event(schema: &Schema) -> Json {
    let name = &schema.name;
    let mut event = object(&[
        ("timestamp", reference("timestamp")),
        ("event", json!({ "const": name })),
        ("node", json!({ "type": "string" })),
        ("k8s", or_null(&reference("k8s"))),
        ("container", or_null(&reference("container"))),
        ("process", reference("process")),
    ]);
    event["title"] = json!(name);
    event["description"] = json!(schema.doc);
    event["properties"][name] = of_fields(&schema.fields);
    if let Some(required) = event["required"].as_array_mut() {
        required.push(json!(name));
    }
    event
}

/// Fields of a kind, or of an object in it.
fn of_fields(fields: &[Field]) -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in fields {
        let Field { name, value, doc, .. } = field;
        let mut property = of_value(value);
        property["description"] = json!(doc);
        if matches!(value, Value::Text { .. } | Value::Texts { .. }) {
            let mut hex = of_value(value);
            hex["description"] =
                json!(format!("the bytes of `{name}` in hexadecimal digits, if they are not UTF-8"));
            properties.insert(companion(field), hex);
        }
        if matches!(value, Value::Errno { .. }) {
            properties.insert(companion(field), text("name of the error number, if it has one"));
        }
        properties.insert(name.clone(), property);
        if !field.is_optional() {
            required.push(json!(name));
        }
    }
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn of_value(value: &Value) -> Json {
    match value {
        Value::Unsigned { .. } | Value::Errno { .. } | Value::Nanoseconds { .. } => {
            json!({ "type": "integer", "minimum": 0 })
        }
        Value::FileDescriptor { .. } => json!({ "type": "integer", "minimum": -1 }),
        Value::Signed { .. } => json!({ "type": "integer" }),
        Value::Bits { .. } | Value::Texts { .. } => json!({ "type": "array", "items": { "type": "string" } }),
        Value::Choice { names: known, .. } => one_of(known),
        Value::FirstFlag { names: known } => one_of(known),
        Value::Flag { only_true: true, .. } => json!({ "const": true }),
        Value::Flag { .. } => json!({ "type": "boolean" }),
        Value::Signal { .. } | Value::Text { .. } | Value::Bytes { .. } => json!({ "type": "string" }),
        Value::Object { fields } => of_fields(fields),
    }
}

fn one_of<N>(names: &[(N, String)]) -> Json {
    let names: Vec<&String> = names.iter().map(|(_, name)| name).collect();
    json!({ "type": "string", "enum": names })
}

fn loss() -> Json {
    let mut lost = object(&[
        ("count", integer("how many events")),
        ("reason", text("why they were lost")),
        ("hook", text("the kind, or lifecycle")),
    ]);
    lost["properties"]["remedy"] = text("what helps, if anything does");
    let mut loss = object(&[
        ("timestamp", reference("timestamp")),
        ("event", json!({ "const": "lost" })),
        ("node", json!({ "type": "string" })),
        ("lost", lost),
    ]);
    loss["title"] = json!("lost");
    loss["description"] = json!("Events that were lost, instead of them.");
    loss
}

fn timestamp() -> Json {
    json!({
        "type": "string",
        "format": "date-time",
        "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{9}Z$",
    })
}

fn pod() -> Json {
    object(&[
        ("namespace", text("the pod's namespace")),
        ("pod", text("the pod's name")),
        ("podUid", or_null(&text("the pod's uid; null if the engine does not annotate it"))),
        ("container", or_null(&text("the container's name; null for a sandbox"))),
        ("labels", or_null(&json!({ "type": "object", "additionalProperties": { "type": "string" } }))),
    ])
}

fn container() -> Json {
    let mut container = object(&[
        ("id", text("the container's id")),
        ("runtime", or_null(&text("file name of its runtime"))),
        ("type", or_null(&text("container or sandbox"))),
        ("image", or_null(&text("its image"))),
        ("source", json!({ "type": "string", "enum": ["bundle", "state", "cri", "cgroup"] })),
    ]);
    container["properties"]["name"] = text("its name, if it belongs to no pod");
    container["properties"]["why"] = json!({
        "type": "string",
        "enum": ["untrusted", "unreadable", "not-understood", "late", "missed"],
        "description": "why its pod is unknown",
    });
    container["properties"]["outer"] = reference("nested");
    container["properties"]["inner"] = reference("nested");
    container["properties"]["isolation"] = json!({ "type": "string", "enum": ["gvisor", "kata"] });
    container
}

fn nested() -> Json {
    object(&[("id", text("the container's id")), ("runtime", text("file name of its runtime"))])
}

fn process() -> Json {
    let mut process = object(&[
        ("pid", integer("process id")),
        ("tid", integer("thread id")),
        ("ppid", integer("process id of the parent")),
        ("containerPid", integer("process id in the container's own pid namespace; 0 for host processes")),
        ("uid", integer("real user id on the host")),
        ("gid", integer("real group id on the host")),
        ("comm", text("name of the thread")),
    ]);
    process["properties"]["commHex"] =
        text("the bytes of `comm` in hexadecimal digits, if they are not UTF-8");
    process
}

/// An object with exactly these properties, all of which are always there.
fn object(properties: &[(&str, Json)]) -> Json {
    let names: Vec<&str> = properties.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Json> =
        properties.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "properties": properties, "required": names, "additionalProperties": false })
}

fn text(description: &str) -> Json {
    json!({ "type": "string", "description": description })
}

fn integer(description: &str) -> Json {
    json!({ "type": "integer", "minimum": 0, "description": description })
}

fn reference(name: &str) -> Json {
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn or_null(schema: &Json) -> Json {
    json!({ "anyOf": [schema, { "type": "null" }] })
}
