//! The fields that the contract gives to a JSON record: these, of these types, and no others.

use serde_json::{Map, Value};

/// What a field may hold.
#[derive(Clone, Copy)]
enum Is {
    Text,
    TextOrNull,
    Number,
    Flag,
    Texts,
    Object,
    ObjectOrNull,
}

/// Fails unless `record` has exactly the fields of the contract.
#[track_caller]
pub fn check(record: &Value) {
    if let Err(problem) = problem_of(record) {
        panic!("{problem} in {record}");
    }
}

/// Fails unless `record` has exactly the fields that the contract gives to a container that is listed; with `watched`,
/// what happened to it as well.
#[track_caller]
pub fn check_listed(record: &Value, watched: bool) {
    if let Err(problem) = problem_of_listed(record, watched) {
        panic!("{problem} in {record}");
    }
}

fn problem_of_listed(record: &Value, watched: bool) -> Result<(), String> {
    let mut wanted = vec!["node", "k8s", "container", "pid", "startedAt"];
    if record["event"] == "modified" {
        wanted.push("changed");
        kind(&record["changed"], "changed", Is::Texts)?;
    }
    if watched {
        wanted.push("event");
        let event = &record["event"];
        if !["added", "modified", "deleted"].iter().any(|known| event == known) {
            return Err(format!("`event` is {event}"));
        }
    }
    keys(object(record, "the record")?, &wanted, &[])?;
    kind(&record["node"], "node", Is::Text)?;
    if !record["pid"].is_null() {
        kind(&record["pid"], "pid", Is::Number)?;
    }
    if !record["startedAt"].is_null() {
        timestamp(&record["startedAt"])?;
    }
    containers(record)
}

fn problem_of(record: &Value) -> Result<(), String> {
    let top = object(record, "the record")?;
    let event = top.get("event").and_then(Value::as_str).ok_or("`event` is no string")?;
    if event == "lost" {
        keys(top, &["timestamp", "event", "node", "lost"], &[])?;
        timestamp(&record["timestamp"])?;
        return fields(
            &record["lost"],
            "lost",
            &[("count", Is::Number), ("reason", Is::Text), ("hook", Is::Text)],
            &[],
        );
    }
    keys(top, &["timestamp", "event", "node", "k8s", "container", "process", event], &[])?;
    timestamp(&record["timestamp"])?;
    kind(&record["node"], "node", Is::Text)?;
    containers(record)?;
    let process = [
        ("pid", Is::Number),
        ("tid", Is::Number),
        ("ppid", Is::Number),
        ("containerPid", Is::Number),
        ("uid", Is::Number),
        ("gid", Is::Number),
        ("comm", Is::Text),
    ];
    fields(&record["process"], "process", &process, &[("commHex", Is::Text)])?;
    match event {
        "open" => {
            let open = [
                ("path", Is::Text),
                ("flags", Is::Texts),
                ("mode", Is::Number),
                ("dirfd", Is::Number),
                ("call", Is::Text),
                ("fd", Is::Number),
                ("errno", Is::Number),
                ("truncated", Is::Flag),
            ];
            let optional = [
                ("pathHex", Is::Text),
                ("fault", Is::Flag),
                ("resolve", Is::Texts),
                ("handle", Is::Object),
                ("seccomp", Is::Text),
                ("fixed", Is::Flag),
                ("unreported", Is::Flag),
            ];
            fields(&record["open"], "open", &open, &optional)
        }
        "exec" => {
            let exec =
                [("args", Is::Texts), ("path", Is::Text), ("errno", Is::Number), ("truncated", Is::Flag)];
            let optional = [
                ("argsHex", Is::Texts),
                ("pathHex", Is::Text),
                ("fault", Is::Flag),
                ("dirfd", Is::Number),
                ("seccomp", Is::Text),
                ("check", Is::Flag),
            ];
            fields(&record["exec"], "exec", &exec, &optional)
        }
        other => Err(format!("unknown event {other:?}")),
    }
}

/// What a record tells of a pod and its container.
fn containers(record: &Value) -> Result<(), String> {
    if !record["k8s"].is_null() {
        let pod = [
            ("namespace", Is::Text),
            ("pod", Is::Text),
            // containerd before 1.6.11 does not annotate it.
            ("podUid", Is::TextOrNull),
            // A sandbox has none.
            ("container", Is::TextOrNull),
            ("labels", Is::ObjectOrNull),
        ];
        fields(&record["k8s"], "k8s", &pod, &[])?;
    }
    if record["container"].is_null() {
        return Ok(());
    }
    let container = [
        ("id", Is::Text),
        ("runtime", Is::TextOrNull),
        ("type", Is::TextOrNull),
        ("image", Is::TextOrNull),
        ("source", Is::Text),
    ];
    let optional = [
        ("name", Is::Text),
        ("why", Is::Text),
        ("outer", Is::Object),
        ("inner", Is::Object),
        ("isolation", Is::Text),
    ];
    fields(&record["container"], "container", &container, &optional)?;
    for nested in ["outer", "inner"] {
        if let Some(nested) = record["container"].get(nested) {
            fields(nested, "nested container", &[("id", Is::Text), ("runtime", Is::Text)], &[])?;
        }
    }
    for (field, values) in [
        ("source", &["bundle", "state", "cri", "cgroup"][..]),
        ("why", &["untrusted", "unreadable", "not-understood", "late", "missed"]),
        ("isolation", &["gvisor", "kata"]),
    ] {
        if let Some(value) = record["container"][field].as_str()
            && !values.contains(&value)
        {
            return Err(format!("`container.{field}` is {value:?}"));
        }
    }
    Ok(())
}

fn object<'a>(value: &'a Value, name: &str) -> Result<&'a Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("`{name}` is no object"))
}

fn keys(map: &Map<String, Value>, wanted: &[&str], optional: &[&str]) -> Result<(), String> {
    for name in wanted {
        if !map.contains_key(*name) {
            return Err(format!("`{name}` is missing"));
        }
    }
    for name in map.keys() {
        if !wanted.contains(&name.as_str()) && !optional.contains(&name.as_str()) {
            return Err(format!("`{name}` is not in the contract"));
        }
    }
    Ok(())
}

fn fields(
    value: &Value,
    name: &str,
    wanted: &[(&'static str, Is)],
    optional: &[(&'static str, Is)],
) -> Result<(), String> {
    let map = object(value, name)?;
    let names = |list: &[(&'static str, Is)]| list.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    keys(map, &names(wanted), &names(optional)).map_err(|problem| format!("{problem} of `{name}`"))?;
    for (field, is) in wanted.iter().chain(optional) {
        if let Some(value) = map.get(*field) {
            kind(value, &format!("{name}.{field}"), *is)?;
        }
    }
    Ok(())
}

fn kind(value: &Value, name: &str, is: Is) -> Result<(), String> {
    let fits = match is {
        Is::Text => value.is_string(),
        Is::TextOrNull => value.is_string() || value.is_null(),
        Is::Number => value.is_i64() || value.is_u64(),
        Is::Flag => value.is_boolean(),
        Is::Texts => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
        Is::Object => value.is_object(),
        Is::ObjectOrNull => value.is_object() || value.is_null(),
    };
    if fits { Ok(()) } else { Err(format!("`{name}` is {value}")) }
}

/// RFC 3339 in UTC with nanoseconds: `2026-11-20T22:15:01.123456789Z`.
fn timestamp(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    let pattern = "dddd-dd-ddTdd:dd:dd.dddddddddZ";
    let fits = text.len() == pattern.len()
        && text.chars().zip(pattern.chars()).all(|(c, p)| if p == 'd' { c.is_ascii_digit() } else { c == p });
    if fits { Ok(()) } else { Err(format!("`timestamp` is {value}")) }
}
