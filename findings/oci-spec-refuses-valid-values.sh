#!/bin/bash
# Valid values of config.json and of a state that oci-spec refuses; one of them costs the whole document.
#
# Package: oci-spec 0.10.0 (Rust crate), feature "runtime".
# Expected: runtime-spec 1.2 and later. config.md, "Linux Process": valid `scheduler.flags` are SCHED_FLAG_RESET_ON_FORK,
#   SCHED_FLAG_DL_OVERRUN and five more; of `execCPUAffinity.final`, "If omitted or empty, runtime SHOULD NOT change process' CPU affinity".
#   config-linux.md, "Huge page limits": `limit` is a uint64. runtime.md, "State", `status`: "Additional values MAY be defined by the
#   runtime"; runc, crun and youki define "paused".
# Seen: two of the seven flags are known only by spellings that neither the spec nor a kernel header has (SCHED_RESET_ON_FORK,
#   SCHED_FLAG_D_L_OVERRUN). An empty CPU list, a limit above 2^63-1 and the state "paused" are refused. serde stops at the first of them:
#   a tool that decodes the whole document loses its annotations, too.
# Output:
#   scheduler flag SCHED_FLAG_RESET_ON_FORK: refused
#   scheduler flag SCHED_FLAG_DL_OVERRUN: refused
#   scheduler flag SCHED_FLAG_D_L_OVERRUN: accepted
#   scheduler flag SCHED_FLAG_RECLAIM: accepted
#   final CPU list "0-3,7": accepted
#   final CPU list "": refused
#   huge page limit 9223372036854775807: accepted
#   huge page limit 18446744073709551615: refused
#   state running: accepted
#   state paused: refused
source "$(dirname "$0")/lib.sh"
mkdir -p "$work/crate/src"
cat >"$work/crate/src/main.rs" <<'RUST'
use oci_spec::runtime::{Spec, State};

fn main() {
    let process = |field: &str| {
        format!(r#"{{"ociVersion":"1.2.0","process":{{"user":{{"uid":0,"gid":0}},"cwd":"/",{field}}}}}"#)
    };
    let report = |what: String, accepted: bool| println!("{what}: {}", if accepted { "accepted" } else { "refused" });
    for flag in ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN", "SCHED_FLAG_RECLAIM"] {
        let json = process(&format!(r#""scheduler":{{"policy":"SCHED_DEADLINE","flags":["{flag}"]}}"#));
        report(format!("scheduler flag {flag}"), serde_json::from_str::<Spec>(&json).is_ok());
    }
    for list in ["0-3,7", ""] {
        let json = process(&format!(r#""execCPUAffinity":{{"final":"{list}"}}"#));
        report(format!("final CPU list {list:?}"), serde_json::from_str::<Spec>(&json).is_ok());
    }
    for limit in [i64::MAX as u64, u64::MAX] {
        let json = format!(
            r#"{{"ociVersion":"1.2.0","linux":{{"resources":{{"hugepageLimits":[{{"pageSize":"2MB","limit":{limit}}}]}}}}}}"#
        );
        report(format!("huge page limit {limit}"), serde_json::from_str::<Spec>(&json).is_ok());
    }
    for status in ["running", "paused"] {
        let json = format!(r#"{{"ociVersion":"1.2.0","id":"a","status":"{status}","pid":1,"bundle":"/b"}}"#);
        report(format!("state {status}"), serde_json::from_str::<State>(&json).is_ok());
    }
}
RUST
crate_binary 'oci-spec = { version = "=0.10.0", default-features = false, features = ["runtime"] }' 'serde_json = "=1.0.154"'
"$binary" | tee "$work/seen"
cmp -s "$work/seen" - <<'RECORDED' || changed "the output is not the recorded one"
scheduler flag SCHED_FLAG_RESET_ON_FORK: refused
scheduler flag SCHED_FLAG_DL_OVERRUN: refused
scheduler flag SCHED_FLAG_D_L_OVERRUN: accepted
scheduler flag SCHED_FLAG_RECLAIM: accepted
final CPU list "0-3,7": accepted
final CPU list "": refused
huge page limit 9223372036854775807: accepted
huge page limit 18446744073709551615: refused
state running: accepted
state paused: refused
RECORDED
