//! What containers, processes and outputs are selected by on tracer's own command line. Input: the text that an option is
//! given.

use std::{
    collections::BTreeMap,
    fmt::{Debug, Display},
};

use crate::{
    cri::endpoints,
    kinds::Kinds,
    model::{
        LabelSelector, Pattern,
        name::{Name, PodName},
        pattern::{Item, number},
    },
    output::{EventRenderer, Format, Look},
};

use super::{Target, shown};

pub(super) const TARGET: Target = Target { name: "selectors", check, seeds };

fn seeds() -> Vec<Vec<u8>> {
    let seeds = [
        "app=web,tier!=db",
        "app in (web, db),tier notin (a,,b),!x",
        "example.com/name,9>8,k<-9",
        "a==b , in in (in,notin)",
        "kube-system,!default",
        "shop/web-*,!web-[0-9],?",
        "1,!2,4294967295",
        "custom-columns=NODE,pod,PATH,TIMESTAMP",
        "unix:///run/containerd/containerd.sock",
        "!\u{1b}[2J\u{202e}",
    ];
    seeds.map(Into::into).to_vec()
}

fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    check_labels(text);
    check_pattern(text, Name::any);
    check_pattern(text, Name::of_namespace);
    check_pattern(text, Name::of_container);
    check_pattern(text, PodName::parse);
    check_pattern(text, number);
    check_problem(endpoints(Some(text)));
    for kind in ["open", "exec", "exit"] {
        let kinds = Kinds::by_name(&[kind]).unwrap();
        let renderer = Format::parse(text)
            .and_then(|format| EventRenderer::new(&format, &kinds, "n1", Look::plain(None)));
        if let Some(EventRenderer::Table(table)) = check_problem(renderer) {
            let mut header = Vec::new();
            EventRenderer::Table(table).begin(&mut header);
            shown::check_table(&header, 1, None);
        }
    }
}

/// An error message is a single line without control characters.
fn check_problem<T, E: ToString>(result: Result<T, E>) -> Option<T> {
    result
        .map_err(|error| assert!(!error.to_string().contains(char::is_control), "{}", error.to_string()))
        .ok()
}

fn check_labels(text: &str) {
    let Some(selector) = check_problem(LabelSelector::parse(text)) else { return };
    let printed = selector.to_string();
    let again = LabelSelector::parse(&printed);
    assert_eq!(again.as_ref(), Ok(&selector), "{printed:?}");
    assert_eq!(
        LabelSelector::parse_all(&[text.to_owned(), printed.clone()]).unwrap().is_empty(),
        selector.is_empty()
    );
    // A selector that is given twice selects the same.
    let twice = LabelSelector::parse_all(&[printed.clone(), printed]).unwrap();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).take(6);
    let words: Vec<&str> = words.collect();
    for key in &words {
        for value in words.iter().chain([&"", &"5"]) {
            let labels: BTreeMap<String, String> = [((*key).to_owned(), (*value).to_owned())].into();
            assert_eq!(twice.matches(&labels), selector.matches(&labels));
        }
    }
    assert!(!selector.is_empty() || selector.matches(&BTreeMap::new()));
}

fn check_pattern<T: Item + Display + PartialEq + Debug, E: Display>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) {
    let Some(pattern) = check_problem(Pattern::parse(&[text.to_owned()], &parse)) else { return };
    let wanted = pattern.wanted().iter().map(ToString::to_string);
    let unwanted = pattern.unwanted().iter().map(|value| format!("!{value}"));
    let printed: Vec<String> = wanted.chain(unwanted).collect();
    assert_eq!(Pattern::parse(&[printed.join(",")], &parse).as_ref(), Ok(&pattern));
    assert_eq!(Pattern::parse(&printed, &parse), Ok(pattern));
}
