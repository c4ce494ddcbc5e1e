//! What holds for all that is shown, whatever it is made of.

use std::collections::BTreeMap;

use crate::{
    model::{Container, Pod, Unknown},
    output::{ContainerRenderer, ContainerRow, ListOf, Look},
};
use serde::Deserialize as _;
use serde_json::Value;
use unicode_width::UnicodeWidthChar;

/// A terminal on which every table has room, if need be with each column as narrow as it can be.
pub(super) const TERMINAL: usize = 190;

/// Whether a terminal or a reader of lines may act on a character rather than show it in a place of its own.
fn is_active(c: char) -> bool {
    let is_mark_of_direction =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let ends_a_line = matches!(c, '\u{2028}' | '\u{2029}');
    c.is_control() || is_mark_of_direction || ends_a_line || c.width().is_none_or(|width| width == 0)
}

/// As many places as a text takes on a terminal that knows no ligatures.
fn width(text: &str) -> usize {
    text.chars().filter_map(UnicodeWidthChar::width).sum()
}

/// The lines of a text that ends with a line's end and has nothing in it that could be acted on.
fn lines(text: &[u8]) -> Vec<&str> {
    let text = std::str::from_utf8(text).expect("UTF-8 is written");
    for c in text.chars() {
        assert!(c == '\n' || !is_active(c), "{c:?} in {text:?}");
    }
    let mut lines: Vec<&str> = text.split('\n').collect();
    assert_eq!(lines.pop(), Some(""), "the last line has no end: {text:?}");
    lines
}

/// Checks `rows` rows of a table, the line with the columns' names included.
pub(super) fn check_table(text: &[u8], rows: usize, terminal: Option<usize>) {
    let lines = lines(text);
    assert_eq!(lines.len(), rows, "{lines:#?}");
    for line in lines {
        assert!(terminal.is_none_or(|terminal| width(line) <= terminal), "{} wide: {line:?}", width(line));
    }
}

/// Checks lines of JSON, and returns what they say.
pub(super) fn check_json(text: &[u8]) -> Vec<Value> {
    let parse = |line: &&str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    lines(text).iter().map(parse).inspect(|value: &Value| assert!(value.is_object())).collect()
}

/// Checks JSON over many lines, and returns what it says.
pub(super) fn check_pretty(text: &[u8]) -> Vec<Value> {
    lines(text);
    serde_json::Deserializer::from_slice(text).into_iter().collect::<Result<_, _>>().unwrap()
}

/// Checks YAML documents, and returns what they say.
pub(super) fn check_yaml(text: &[u8]) -> Vec<Value> {
    lines(text);
    // A stream without any document is read as one that holds nothing.
    if text.is_empty() {
        return vec![];
    }
    let documents = serde_yaml_ng::Deserializer::from_slice(text);
    let read = |error| panic!("{error}: {:?}", String::from_utf8_lossy(text));
    documents.map(|document| Value::deserialize(document).unwrap_or_else(read)).collect()
}

/// Checks how a container is shown: in every form, and with everything in it.
pub(super) fn check_container(container: &Container) {
    let row = ContainerRow {
        node: "worker-1",
        event: None,
        changed: vec![],
        container,
        pid: 7,
        started: Some(0),
        now: 1,
        exit: None,
    };
    let show = |output: &str, terminal: Option<usize>| {
        let mut renderer =
            ContainerRenderer::new(ListOf::Node, output, "worker-1", Look::plain(terminal), false).unwrap();
        let mut text = Vec::new();
        renderer.begin(std::slice::from_ref(&row), &mut text).unwrap();
        text
    };
    for output in ["columns", "wide"] {
        for terminal in [None, Some(TERMINAL)] {
            check_table(&show(output, terminal), 2, terminal);
        }
    }
    let json = check_json(&show("json", None));
    assert_eq!(check_pretty(&show("jsonpretty", None)), json);
    assert_eq!(check_yaml(&show("yaml", None)), json);
    let [line] = &json[..] else { panic!("one container is {} lines", json.len()) };
    assert_eq!(line["container"]["id"], container.id);
    assert_eq!(line["container"]["runtime"], container.runtime);
    assert_eq!(line["container"]["image"].as_str(), container.image.as_deref());
    let Some(pod) = &container.pod else {
        assert!(line["k8s"].is_null());
        return;
    };
    assert_eq!(line["k8s"]["namespace"], pod.namespace);
    assert_eq!(line["k8s"]["pod"], pod.name);
    assert_eq!(line["k8s"]["podUid"].as_str(), pod.pod_uid.as_deref());
    assert_eq!(line["k8s"]["container"].as_str(), pod.container.as_deref());
    let labels: Option<BTreeMap<String, String>> =
        serde_json::from_value(line["k8s"]["labels"].clone()).unwrap();
    assert_eq!(labels, pod.labels, "null while they are unknown");
}

/// A container of a pod, all with this name.
pub(super) fn called(name: &str) -> Container {
    let pod = Pod {
        namespace: name.to_owned(),
        name: name.to_owned(),
        pod_uid: Some(name.to_owned()),
        container: Some(name.to_owned()),
        labels: Some([(name.to_owned(), name.to_owned())].into()),
    };
    Container {
        id: name.to_owned(),
        runtime: name.to_owned(),
        image: Some(name.to_owned()),
        pod: Some(pod),
        pod_known: true,
        ..Container::unknown(Unknown::Late)
    }
}
