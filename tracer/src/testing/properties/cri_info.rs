//! What an engine says of a container in a verbose status. Input: the JSON under the key `info`.

use crate::{
    cri::Info,
    model::{Container, Unknown},
};
use serde_json::Value;

use super::{Target, shown};

pub(super) const TARGET: Target = Target { name: "cri_info", check, seeds };

fn seeds() -> Vec<Vec<u8>> {
    let seeds = [
        r#"{"pid":2574,"processStatus":"running","netNamespaceClosed":false,"image":"registry.k8s.io/pause:3.10.1","snapshotKey":"e898","runtimeOptions":{"root":"/run/x"}}"#,
        r#"{"sandboxID":"e898","pid":0,"removing":false,"config":{"metadata":{"name":"later"},"image":{"image":"localhost/bb:1"}}}"#,
        r#"{"sandboxID":"1","pid":1,"runtimeSpec":{"ociVersion":"1.0.2","annotations":{}},"privileged":false}"#,
        r#"{"pid":null,"image":null}"#,
        r#"{"pid":-1}"#,
        r#"{"image":"\u001b[2J\u202e\u2028\n"}"#,
        r#"[1,"a"]"#,
        "null",
    ];
    seeds.map(Into::into).to_vec()
}

fn check(input: &[u8]) {
    let Ok(json) = std::str::from_utf8(input) else { return };
    let info = Info::parse(&[("info".to_owned(), json.to_owned())].into());
    assert_eq!(Info::parse(&[("other".to_owned(), json.to_owned())].into()), Info::default());
    assert_ne!(info.pid, Some(0));
    // It says no more than what is there. Numbers too large for others are none of its business.
    if let Ok(value) = serde_json::from_str::<Value>(json) {
        if let Some(pid) = info.pid {
            assert_eq!(value["pid"].as_u64(), Some(pid.into()), "{value}");
        }
        assert!(info.image.is_none() || value["image"].as_str() == info.image.as_deref(), "{value}");
    }
    shown::check_container(&Container { image: info.image, ..Container::unknown(Unknown::Late) });
}
