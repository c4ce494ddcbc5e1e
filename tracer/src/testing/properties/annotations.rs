//! The annotations of a bundle. Input: a line `KEY=VALUE` for each, of equal keys the last.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use tracer_annotations::{Engine, Error, PodContainer, Role, containerd, crio, resolve};

use super::{Target, fixtures};

pub(super) const TARGET: Target = Target { name: "annotations", check, seeds };

/// All keys that a dialect may read.
const KEYS: [&str; 17] = [
    containerd::CONTAINER_TYPE,
    containerd::SANDBOX_NAMESPACE,
    containerd::SANDBOX_NAME,
    containerd::SANDBOX_UID,
    containerd::SANDBOX_ID,
    containerd::CONTAINER_NAME,
    containerd::IMAGE_NAME,
    containerd::SANDBOX_IMAGE_NAME,
    crio::MANAGER,
    crio::CONTAINER_TYPE,
    crio::POD_NAMESPACE,
    crio::POD_NAME,
    crio::POD_UID,
    crio::CONTAINER_NAME,
    crio::IMAGE_NAME,
    crio::SANDBOX_ID,
    crio::LABELS,
];

fn seeds() -> Vec<Vec<u8>> {
    let of_bundle = |file: &Vec<u8>| {
        let config: Value = serde_json::from_slice(file).unwrap();
        let line =
            |(key, value): (&String, &Value)| format!("{key}={}\n", value.as_str().unwrap_or_default());
        config["annotations"].as_object().into_iter().flatten().map(line).collect::<String>().into_bytes()
    };
    fixtures::bundles().iter().map(of_bundle).collect()
}

fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let annotations: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let resolved = resolve(&annotations);

    // Neither what kind of map it is nor what nobody reads makes a difference.
    let hashed: HashMap<&str, &str> = annotations.iter().map(|(key, value)| (*key, *value)).collect();
    assert_eq!(resolve(&hashed), resolved);
    let read: BTreeMap<&str, &str> =
        annotations.iter().filter(|(key, _)| KEYS.contains(key)).map(|(key, value)| (*key, *value)).collect();
    assert_eq!(resolve(&read), resolved);

    let marks = [containerd::CONTAINER_TYPE, crio::MANAGER].map(|mark| annotations.contains_key(mark));
    let is_crio = annotations.get(crio::MANAGER) == Some(&crio::MANAGER_CRIO);
    assert_eq!(matches!(resolved, Err(Error::Contested { .. })), marks == [true, true]);
    assert_eq!(resolved == Ok(None), !marks[0] && !is_crio);
    match &resolved {
        Ok(Some(container)) => {
            check_container(container, &annotations);
            assert_eq!(container.engine.resolve(&annotations), resolved);
        }
        Ok(None) => {}
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains(char::is_control) && text.len() < 1000, "{text:?}");
        }
    }
    // Whoever knows the engine gets its word, whatever another's annotations say.
    for engine in Engine::ALL {
        if let Ok(Some(container)) = engine.resolve(&annotations) {
            assert_eq!(container.engine, engine);
            check_container(&container, &annotations);
        }
        if let Ok(container) = engine.read(&annotations, ID) {
            check_own(&container, &annotations);
        }
    }
}

/// The container whose annotations they are, for those who know it.
const ID: &str = "1";

/// No sandbox of CRI-O is taken for another one, nor brings labels for one.
fn check_own(container: &PodContainer, annotations: &BTreeMap<&str, &str>) {
    if container.engine != Engine::CriO || container.role != Role::Sandbox {
        return;
    }
    assert_eq!(container.sandbox_id.as_deref(), Some(ID));
    assert!(container.labels_json.is_none() || annotations.get(crio::SANDBOX_ID) == Some(&ID));
}

/// Each name is what one annotation says, and one that has to be there is not empty.
fn check_container(container: &PodContainer, annotations: &BTreeMap<&str, &str>) {
    let said = |containerd: &str, crio: &str| {
        let key = match container.engine {
            Engine::Containerd => containerd,
            Engine::CriO => crio,
        };
        annotations.get(key).copied().filter(|value| !value.is_empty())
    };
    assert_eq!(Some(&*container.namespace), said(containerd::SANDBOX_NAMESPACE, crio::POD_NAMESPACE));
    assert_eq!(Some(&*container.pod), said(containerd::SANDBOX_NAME, crio::POD_NAME));
    assert_eq!(container.pod_uid.as_deref(), said(containerd::SANDBOX_UID, crio::POD_UID));
    assert_eq!(container.sandbox_id.as_deref(), said(containerd::SANDBOX_ID, crio::SANDBOX_ID));
    assert_eq!(Some(container.role.as_str()), said(containerd::CONTAINER_TYPE, crio::CONTAINER_TYPE));
    let (name, image) = match container.role {
        Role::Sandbox => (None, said(containerd::SANDBOX_IMAGE_NAME, crio::IMAGE_NAME)),
        Role::Container(_) => (
            said(containerd::CONTAINER_NAME, crio::CONTAINER_NAME),
            said(containerd::IMAGE_NAME, crio::IMAGE_NAME),
        ),
    };
    assert_eq!((container.container(), container.image.as_deref()), (name, image));
    let labels = said("", crio::LABELS).filter(|_| container.engine == Engine::CriO);
    assert_eq!(container.labels_json.as_deref(), labels);
}
