//! Whose events are: read once for the many lines that say the same.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use serde_json::value::RawValue;

use crate::{
    model::{Container, Pod},
    output::Kept,
    read::Malformed,
};

/// How many texts are kept.
const KEPT: usize = 1024;
/// How long those may be together, in bytes. A container's has 600.
const KEPT_BYTES: usize = 1 << 20;

/// Whose events are, with what rows have of it.
#[derive(Debug, Default)]
pub(crate) struct About {
    /// The container; none for host processes.
    pub(crate) container: Option<Container>,
    /// What rows have of it. It goes with one renderer.
    pub(crate) kept: Mutex<Kept>,
}

/// Containers by the text that tells of them.
#[derive(Debug, Default)]
pub(super) struct Known {
    by_text: HashMap<Box<str>, Arc<About>>,
    /// The length of all their texts.
    bytes: usize,
    /// A text to look for.
    text: String,
    /// What was looked for last, and found.
    last: Option<(String, Arc<About>)>,
}

impl Known {
    /// What the texts of `k8s` and `container` tell.
    pub(super) fn about(&mut self, k8s: &RawValue, container: &RawValue) -> Result<Arc<About>, Malformed> {
        self.text.clear();
        self.text.push_str(k8s.get());
        // In neither of them.
        self.text.push('\0');
        self.text.push_str(container.get());
        if let Some((text, about)) = &self.last
            && *text == self.text
        {
            return Ok(Arc::clone(about));
        }
        let about = match self.by_text.get(self.text.as_str()) {
            Some(about) => Arc::clone(about),
            None => self.learn(k8s, container)?,
        };
        let (text, last) = self.last.get_or_insert_with(Default::default);
        text.clone_from(&self.text);
        *last = Arc::clone(&about);
        Ok(about)
    }

    #[cold]
    fn learn(&mut self, k8s: &RawValue, container: &RawValue) -> Result<Arc<About>, Malformed> {
        let pod: Option<Pod> = serde_json::from_str(k8s.get())?;
        let container: Option<Container> = serde_json::from_str(container.get())?;
        let container = match (container, pod) {
            (Some(container), pod) => Some(Container { pod, ..container }),
            (None, None) => None,
            (None, Some(_)) => return Err("it has a pod and no container".into()),
        };
        let about = Arc::new(About { container, ..About::default() });
        // All of a node's containers have room; what has not is read again.
        if self.by_text.len() >= KEPT || self.bytes + self.text.len() > KEPT_BYTES {
            self.by_text.clear();
            self.bytes = 0;
        }
        if self.text.len() <= KEPT_BYTES {
            self.bytes += self.text.len();
            self.by_text.insert(self.text.as_str().into(), Arc::clone(&about));
        }
        Ok(about)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = r#"{"namespace":"n","pod":"p","podUid":null,"container":"c","labels":{}}"#;

    fn container(id: &str) -> Box<RawValue> {
        let text =
            format!(r#"{{"id":"{id}","runtime":"r","type":"container","image":null,"source":"bundle"}}"#);
        RawValue::from_string(text).unwrap()
    }

    #[test]
    fn the_same_text_is_read_once_and_never_taken_for_anothers() {
        let mut known = Known::default();
        let pod = RawValue::from_string(POD.into()).unwrap();
        let (a, b) = (container("a"), container("b"));
        let first = known.about(&pod, &a).unwrap();
        let other = known.about(&pod, &b).unwrap();
        assert!(Arc::ptr_eq(&first, &known.about(&pod, &a).unwrap()));
        assert!(Arc::ptr_eq(&other, &known.about(&pod, &b).unwrap()));
        let ids = [first, other].map(|about| about.container.as_ref().unwrap().id.clone());
        assert_eq!(ids, ["a", "b"]);
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let mut known = Known::default();
        let none = RawValue::from_string("null".into()).unwrap();
        for index in 0..5000 {
            // In all: five times as many as are kept, forty times as long.
            known.about(&none, &container(&format!("{index:08192}"))).unwrap();
            assert!(known.by_text.len() <= KEPT && known.bytes <= KEPT_BYTES);
        }
        known.about(&none, &container(&"x".repeat(2 * KEPT_BYTES))).unwrap();
        assert!(known.by_text.keys().all(|text| text.len() <= KEPT_BYTES));
    }
}
