//! Reads bundles that real engines wrote: `fixtures/ENGINE-VERSION-RUNTIME/*.json`.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use tracer_annotations::Engine::{Containerd, CriO};
use tracer_annotations::{Engine, PodContainer, Role, resolve};

const BUSYBOX: &str = "docker.io/library/busybox:1.35";
const PAUSE: &str = "registry.k8s.io/pause:3.10.1";

/// File, engine, namespace, pod, uid, container (none for a sandbox), image.
type Expected = (
    &'static str,
    Engine,
    &'static str,
    &'static str,
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
);

#[rustfmt::skip]
const EXPECTED: &[Expected] = &[
    ("containerd-1.6.20-crun/container.json", Containerd, "testns", "pod0", "0000-uid-0", Some("main"), Some("localhost/bb:1")),
    ("containerd-1.6.20-crun/sandbox.json",   Containerd, "testns", "pod0", "0000-uid-0", None, None),
    ("containerd-1.6.20-runc/container.json", Containerd, "testns", "pod0", "0000-uid-0", Some("main"), Some("localhost/bb:1")),
    ("containerd-1.6.20-runc/sandbox.json",   Containerd, "testns", "pod0", "0000-uid-0", None, None),
    ("containerd-1.7.24-runc/container.json", Containerd, "testns", "pod0", "0000-uid-0", Some("main"), Some("localhost/bb:1")),
    ("containerd-1.7.24-runc/sandbox.json",   Containerd, "testns", "pod0", "0000-uid-0", None, None),
    ("containerd-2.1.9-runc/container.json",  Containerd, "testns", "pod0", "0000-uid-0", Some("main"), Some("localhost/bb:1")),
    ("containerd-2.1.9-runc/sandbox.json",    Containerd, "testns", "pod0", "0000-uid-0", None, Some("registry.k8s.io/pause:3.6")),
    ("kubelet-containerd-2.1.9-runc/bb-main.json",     Containerd, "demo", "bb",  "ffd03e88-e958-48aa-85e4-9cbdc18b4043", Some("main"), Some(BUSYBOX)),
    ("kubelet-containerd-2.1.9-runc/bb-sandbox.json",  Containerd, "demo", "bb",  "ffd03e88-e958-48aa-85e4-9cbdc18b4043", None, Some(PAUSE)),
    ("kubelet-containerd-2.1.9-runc/bb2-one.json",     Containerd, "demo", "bb2", "8041929e-09c5-43ee-b1b0-b28e6189d298", Some("one"), Some(BUSYBOX)),
    ("kubelet-containerd-2.1.9-runc/bb2-sandbox.json", Containerd, "demo", "bb2", "8041929e-09c5-43ee-b1b0-b28e6189d298", None, Some(PAUSE)),
    ("kubelet-containerd-2.1.9-runc/bb2-two.json",     Containerd, "demo", "bb2", "8041929e-09c5-43ee-b1b0-b28e6189d298", Some("two"), Some(BUSYBOX)),
    ("kubelet-crio-1.37-crun/bb-main.json",     CriO, "demo", "bb",  "556769af-c776-41d5-bd4d-56473bc7ee91", Some("main"), Some(BUSYBOX)),
    ("kubelet-crio-1.37-crun/bb-sandbox.json",  CriO, "demo", "bb",  "556769af-c776-41d5-bd4d-56473bc7ee91", None, Some(PAUSE)),
    ("kubelet-crio-1.37-crun/bb2-init.json",    CriO, "demo", "bb2", "d9240ac5-73a1-4fe1-8f2b-53ef829c2b6f", Some("init"), Some(BUSYBOX)),
    ("kubelet-crio-1.37-crun/bb2-one.json",     CriO, "demo", "bb2", "d9240ac5-73a1-4fe1-8f2b-53ef829c2b6f", Some("one"), Some(BUSYBOX)),
    ("kubelet-crio-1.37-crun/bb2-sandbox.json", CriO, "demo", "bb2", "d9240ac5-73a1-4fe1-8f2b-53ef829c2b6f", None, Some(PAUSE)),
    ("kubelet-crio-1.37-crun/bb2-two.json",     CriO, "demo", "bb2", "d9240ac5-73a1-4fe1-8f2b-53ef829c2b6f", Some("two"), Some(BUSYBOX)),
    ("kubelet-crio-1.37-runc/bb-main.json",     CriO, "demo", "bb",  "120c537b-fdb2-48ed-a5ac-c1a2fbf15089", Some("main"), Some(BUSYBOX)),
    ("kubelet-crio-1.37-runc/bb-sandbox.json",  CriO, "demo", "bb",  "120c537b-fdb2-48ed-a5ac-c1a2fbf15089", None, Some(PAUSE)),
    ("kubelet-crio-1.37-runc/bb2-init.json",    CriO, "demo", "bb2", "51101b1a-3847-403c-b5fa-2b8c24f28c05", Some("init"), Some(BUSYBOX)),
    ("kubelet-crio-1.37-runc/bb2-one.json",     CriO, "demo", "bb2", "51101b1a-3847-403c-b5fa-2b8c24f28c05", Some("one"), Some(BUSYBOX)),
    ("kubelet-crio-1.37-runc/bb2-sandbox.json", CriO, "demo", "bb2", "51101b1a-3847-403c-b5fa-2b8c24f28c05", None, Some(PAUSE)),
    ("kubelet-crio-1.37-runc/bb2-two.json",     CriO, "demo", "bb2", "51101b1a-3847-403c-b5fa-2b8c24f28c05", Some("two"), Some(BUSYBOX)),
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn annotations(file: &str) -> BTreeMap<String, String> {
    let bytes = fs::read(fixtures().join(file)).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    serde_json::from_value(config["annotations"].clone()).unwrap()
}

fn read(file: &str) -> PodContainer {
    resolve(&annotations(file)).unwrap().unwrap_or_else(|| panic!("{file}: no pod"))
}

#[test]
fn every_bundle_names_its_pod() {
    for &(file, engine, namespace, pod, uid, container, image) in EXPECTED {
        let found = read(file);
        assert_eq!(found.engine, engine, "{file}");
        assert_eq!(found.namespace, namespace, "{file}");
        assert_eq!(found.pod, pod, "{file}");
        assert_eq!(found.pod_uid.as_deref(), Some(uid), "{file}");
        assert_eq!(found.container(), container, "{file}");
        assert_eq!(found.role.as_str(), if container.is_some() { "container" } else { "sandbox" }, "{file}");
        assert_eq!(found.image.as_deref(), image, "{file}");
        assert_eq!(engine.resolve(&annotations(file)), Ok(Some(found)), "{file}");
    }
}

#[test]
fn every_fixture_is_listed() {
    let mut on_disk = BTreeSet::new();
    for folder in fs::read_dir(fixtures()).unwrap() {
        let folder = folder.unwrap();
        for file in fs::read_dir(folder.path()).unwrap() {
            let file = file.unwrap().file_name().into_string().unwrap();
            on_disk.insert(format!("{}/{file}", folder.file_name().into_string().unwrap()));
        }
    }
    let expected: BTreeSet<_> = EXPECTED.iter().map(|row| row.0.to_owned()).collect();
    assert_eq!(expected, on_disk, "expected, and in tests/fixtures");
}

#[test]
fn containers_of_a_pod_share_its_sandbox() {
    let mut sandboxes = BTreeMap::new();
    for &(file, ..) in EXPECTED {
        let found = read(file);
        let id = found.sandbox_id.unwrap();
        assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{file}: {id}");
        let folder = file.split('/').next().unwrap();
        assert_eq!(sandboxes.entry((folder, found.pod)).or_insert(id.clone()), &id, "{file}");
    }
}

#[test]
fn only_sandboxes_of_cri_o_have_the_pods_labels() {
    for &(file, engine, _, pod, _, container, _) in EXPECTED {
        let labels = read(file).labels_json;
        if engine == Containerd {
            assert_eq!(labels, None, "{file}");
            continue;
        }
        let labels: BTreeMap<String, String> = serde_json::from_str(&labels.unwrap()).unwrap();
        assert_eq!(labels["io.kubernetes.pod.name"], pod, "{file}");
        let app = labels.get("app").map(String::as_str);
        assert_eq!(app, if container.is_none() { Some(pod) } else { None }, "{file}");
    }
}

#[test]
fn keys_of_another_engine_find_nothing() {
    for &(file, engine, ..) in EXPECTED {
        for other in Engine::ALL.into_iter().filter(|other| *other != engine) {
            assert_eq!(other.resolve(&annotations(file)), Ok(None), "{file}");
        }
    }
}

#[test]
fn sandbox_of_cri_o_has_no_container_name() {
    let file = "kubelet-crio-1.37-runc/bb-sandbox.json";
    assert_eq!(annotations(file)["io.kubernetes.container.name"], "POD");
    assert_eq!(read(file).role, Role::Sandbox);
}
