//! Reads annotations that no fixture has: incomplete, forged, arbitrary, and those of other programs.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use tracer_annotations::Engine::{Containerd, CriO};
use tracer_annotations::{Engine, Error, PodContainer, Role, containerd, crio, resolve};

type Map = BTreeMap<String, String>;

const REQUIRED: [(Engine, [&str; 4]); 2] = [
    (
        Containerd,
        [
            containerd::CONTAINER_TYPE,
            containerd::SANDBOX_NAMESPACE,
            containerd::SANDBOX_NAME,
            containerd::CONTAINER_NAME,
        ],
    ),
    (CriO, [crio::CONTAINER_TYPE, crio::POD_NAMESPACE, crio::POD_NAME, crio::CONTAINER_NAME]),
];

const OPTIONAL: [&str; 7] = [
    containerd::SANDBOX_UID,
    containerd::SANDBOX_ID,
    containerd::IMAGE_NAME,
    crio::POD_UID,
    crio::SANDBOX_ID,
    crio::IMAGE_NAME,
    crio::LABELS,
];

fn map(pairs: &[(&str, &str)]) -> Map {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn with(mut map: Map, key: &str, value: &str) -> Map {
    map.insert(key.to_owned(), value.to_owned());
    map
}

fn without(mut map: Map, key: &str) -> Map {
    map.remove(key).unwrap();
    map
}

fn complete(engine: Engine) -> Map {
    match engine {
        Containerd => map(&[
            (containerd::CONTAINER_TYPE, "container"),
            (containerd::SANDBOX_NAMESPACE, "ns"),
            (containerd::SANDBOX_NAME, "pod"),
            (containerd::SANDBOX_UID, "uid"),
            (containerd::CONTAINER_NAME, "main"),
            (containerd::IMAGE_NAME, "image"),
            (containerd::SANDBOX_ID, "5a"),
        ]),
        CriO => map(&[
            (crio::MANAGER, "cri-o"),
            (crio::CONTAINER_TYPE, "container"),
            (crio::POD_NAMESPACE, "ns"),
            (crio::POD_NAME, "pod"),
            (crio::POD_UID, "uid"),
            (crio::CONTAINER_NAME, "main"),
            (crio::IMAGE_NAME, "image"),
            (crio::SANDBOX_ID, "5a"),
            (crio::LABELS, "{}"),
        ]),
    }
}

#[test]
fn both_engines_provide_the_same_fields() {
    for engine in Engine::ALL {
        let expected = PodContainer {
            engine,
            namespace: "ns".into(),
            pod: "pod".into(),
            pod_uid: Some("uid".into()),
            role: Role::Container("main".into()),
            image: Some("image".into()),
            sandbox_id: Some("5a".into()),
            labels_json: (engine == CriO).then(|| "{}".into()),
        };
        assert_eq!(resolve(&complete(engine)), Ok(Some(expected)));
    }
}

#[test]
fn maps_options_and_closures_are_accepted() {
    let tree = complete(Containerd);
    let expected = resolve(&tree);
    let hash: HashMap<String, String> = tree.clone().into_iter().collect();
    assert_eq!(resolve(&hash), expected);
    assert_eq!(resolve(&Some(hash)), expected);
    assert_eq!(resolve(|key: &str| tree.get(key).map(String::as_str)), expected);

    let borrowed: HashMap<&str, &str> =
        tree.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(resolve(&borrowed), expected);
}

#[test]
fn missing_or_empty_required_annotation_is_named() {
    for (engine, keys) in REQUIRED {
        for key in keys {
            let empty = with(complete(engine), key, "");
            assert_eq!(resolve(&empty), Err(Error::Empty { engine, key }));
            if (engine, key) != (Containerd, containerd::CONTAINER_TYPE) {
                let missing = without(complete(engine), key);
                assert_eq!(resolve(&missing), Err(Error::Missing { engine, key }));
            }
        }
    }
    // containerd's type is its marker as well: without it nothing shows that the other keys are containerd's.
    assert_eq!(resolve(&without(complete(Containerd), containerd::CONTAINER_TYPE)), Ok(None));
}

#[test]
fn missing_or_empty_optional_annotation_is_none() {
    for engine in Engine::ALL {
        let (mut missing, mut empty) = (complete(engine), complete(engine));
        for key in OPTIONAL {
            missing.remove(key);
            empty.entry(key.to_owned()).and_modify(String::clear);
        }
        let found = resolve(&missing).unwrap().unwrap();
        assert_eq!(
            (&found.pod_uid, &found.image, &found.sandbox_id, &found.labels_json),
            (&None, &None, &None, &None)
        );
        assert_eq!(resolve(&empty), Ok(Some(found)));
    }
}

#[test]
fn sandbox_needs_no_container_name() {
    for (engine, [kind, .., name]) in REQUIRED {
        let sandbox = without(with(complete(engine), kind, "sandbox"), name);
        let found = resolve(&sandbox).unwrap().unwrap();
        assert_eq!((found.container(), found.role.as_str()), (None, "sandbox"));
    }
}

#[test]
fn unknown_type_is_an_error_with_its_value() {
    for (engine, [key, ..]) in REQUIRED {
        for value in ["Sandbox", "init", " container", "\x1b[2J"] {
            let expected = Error::UnknownType { engine, key, value: value.into() };
            assert_eq!(resolve(&with(complete(engine), key, value)), Err(expected));
        }
    }
}

#[test]
fn container_of_no_cri_engine_belongs_to_no_pod() {
    let docker_and_ctr: Option<HashMap<String, String>> = None;
    assert_eq!(resolve(&docker_and_ctr), Ok(None));
    assert_eq!(resolve(&Map::new()), Ok(None));

    let podman = map(&[(crio::MANAGER, "libpod"), ("org.opencontainers.image.stopSignal", "15")]);
    assert_eq!(resolve(&podman), Ok(None));
    // In podman's own kind of pod.
    let podman_pod =
        map(&[(crio::MANAGER, "libpod"), (crio::CONTAINER_TYPE, "container"), (crio::SANDBOX_ID, "5a")]);
    assert_eq!(resolve(&podman_pod), Ok(None));
    // With everything that CRI-O writes except its marker.
    assert_eq!(resolve(&with(complete(CriO), crio::MANAGER, "libpod")), Ok(None));
    assert_eq!(resolve(&without(complete(CriO), crio::MANAGER)), Ok(None));
    for almost in ["", "CRI-O", "cri-o ", "crio"] {
        assert_eq!(resolve(&with(complete(CriO), crio::MANAGER, almost)), Ok(None));
    }
}

#[test]
fn markers_of_two_engines_are_an_error_unless_the_caller_names_the_engine() {
    let mut both = complete(Containerd);
    both.extend(complete(CriO));
    // Annotations that an author adds to a pod of CRI-O.
    both.insert(containerd::SANDBOX_NAMESPACE.into(), "kube-system".into());
    both.insert(containerd::SANDBOX_NAME.into(), "victim".into());

    let contested = Error::Contested { keys: [containerd::CONTAINER_TYPE, crio::MANAGER] };
    assert_eq!(resolve(&both), Err(contested.clone()));
    assert_eq!(CriO.resolve(&both), resolve(&complete(CriO)));
    assert_eq!(Containerd.resolve(&both).unwrap().unwrap().pod, "victim");

    let podman = with(complete(Containerd), crio::MANAGER, "libpod");
    assert_eq!(resolve(&podman), Err(contested));
    assert_eq!(CriO.resolve(&podman), Ok(None));
}

#[test]
fn messages_have_engine_key_and_value_without_control_characters() {
    let said = |map: &Map| resolve(map).unwrap_err().to_string();
    let key = crio::CONTAINER_TYPE;
    assert_eq!(
        said(&without(complete(CriO), crio::POD_NAME)),
        "annotations of cri-o have no `io.kubernetes.pod.name`"
    );
    assert_eq!(
        said(&with(complete(Containerd), containerd::SANDBOX_NAME, "")),
        "annotations of containerd have an empty `io.kubernetes.cri.sandbox-name`"
    );
    assert_eq!(
        said(&with(complete(CriO), key, "\x1b[2J")),
        r#"annotations of cri-o have an unknown `io.kubernetes.cri-o.ContainerType`: "\u{1b}[2J""#
    );
    let long = said(&with(complete(CriO), key, &"é".repeat(1000)));
    assert!(long.ends_with(&format!("\"{}\"…", "é".repeat(64))), "{long}");
    assert_eq!(
        said(&with(complete(CriO), containerd::CONTAINER_TYPE, "")),
        "annotations have the markers of two engines: `io.kubernetes.cri.container-type` and `io.container.manager`"
    );
}

/// The annotations of a sandbox, as CRI-O writes them.
fn sandbox(id: &str) -> Map {
    let own = with(with(complete(CriO), crio::CONTAINER_TYPE, "sandbox"), crio::SANDBOX_ID, id);
    with(with(own, crio::CONTAINER_NAME, "POD"), crio::LABELS, r#"{"app":"a"}"#)
}

#[test]
fn sandbox_naming_another_sandbox_has_no_labels() {
    let own = CriO.read(&sandbox("own"), "own").unwrap();
    assert_eq!((own.role, own.labels_json.as_deref()), (Role::Sandbox, Some(r#"{"app":"a"}"#)));
    // Keys of CRI-O that a pod's author can overwrite in 1.33 to 1.37.
    let forged = CriO.read(&sandbox("victim"), "own").unwrap();
    assert_eq!((forged.sandbox_id.as_deref(), forged.labels_json), (Some("own"), None));
    let forged = CriO.read(&without(sandbox("own"), crio::SANDBOX_ID), "own").unwrap();
    assert_eq!((forged.sandbox_id.as_deref(), forged.labels_json), (Some("own"), None));
}

#[test]
fn sandbox_is_recognised_by_its_container_name() {
    for kind in ["container", "", "x"] {
        let forged = CriO.read(&with(sandbox("victim"), crio::CONTAINER_TYPE, kind), "own").unwrap();
        assert_eq!((forged.role, forged.sandbox_id.as_deref()), (Role::Sandbox, Some("own")), "{kind:?}");
    }
    // A checkpoint image whose annotations claim that a container is a sandbox.
    let restored = with(complete(CriO), crio::CONTAINER_TYPE, "sandbox");
    let restored = CriO.read(&restored, "own").unwrap();
    assert_eq!((restored.container(), restored.sandbox_id.as_deref()), (Some("main"), Some("5a")));
}

#[test]
fn read_ignores_the_marker() {
    for manager in ["libpod", "", "x"] {
        let forged = with(complete(CriO), crio::MANAGER, manager);
        assert_eq!(CriO.read(&forged, "own").unwrap().pod, "pod", "{manager:?}");
    }
    let missing = Err(Error::Missing { engine: Containerd, key: containerd::CONTAINER_TYPE });
    assert_eq!(Containerd.read(&complete(CriO), "own"), missing);
}

/// Maps that often contain known keys and significant values, next to arbitrary ones.
fn arbitrary_map() -> impl Strategy<Value = Map> {
    let known = REQUIRED.iter().flat_map(|(_, keys)| *keys).chain(OPTIONAL).chain([crio::MANAGER]);
    let key = prop_oneof![8 => prop::sample::select(known.collect::<Vec<_>>()).prop_map(str::to_owned), 1 => any::<String>()];
    let value = prop_oneof![
        4 => prop::sample::select(vec!["", "cri-o", "libpod", "sandbox", "container"]).prop_map(str::to_owned),
        4 => any::<String>(),
    ];
    prop::collection::btree_map(key, value, 0..16)
}

proptest! {
    #[test]
    fn arbitrary_annotations_do_not_panic(map in arbitrary_map()) {
        let answer = resolve(&map);
        match &answer {
            Ok(None) => {}
            Ok(Some(found)) => {
                prop_assert!(!found.namespace.is_empty() && !found.pod.is_empty());
                prop_assert_ne!(found.container(), Some(""));
                prop_assert_eq!(found.engine.resolve(&map), answer);
            }
            Err(error) => prop_assert!(!error.to_string().chars().any(char::is_control)),
        }
    }

    #[test]
    fn names_are_returned_unchanged(namespace in ".+", pod in ".+", container in ".+") {
        for (engine, [_, namespace_key, pod_key, container_key]) in REQUIRED {
            let named = with(with(complete(engine), namespace_key, &namespace), pod_key, &pod);
            let found = resolve(&with(named, container_key, &container)).unwrap().unwrap();
            prop_assert_eq!(&found.namespace, &namespace);
            prop_assert_eq!(&found.pod, &pod);
            prop_assert_eq!(found.container(), Some(container.as_str()));
        }
    }
}
