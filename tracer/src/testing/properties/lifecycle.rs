//! Records from the ring of lifecycle records, as far as they tell by themselves. Input: a script of records.

use crate::{
    discovery::{LifecycleRecord, RuntimeExecution, TrustLevel},
    model::Container,
};
use tracer_common::{
    comm_bytes, comm_of,
    container::ContainerKey,
    lifecycle::{Bound, LifecycleKind, RUNTIME_ARGS_TRUNCATED, Record, Runtime, TRUSTED},
};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{Target, fixtures, script, shown};

pub(super) const TARGET: Target = Target { name: "lifecycle", check, seeds };

fn record(kind: LifecycleKind) -> Record {
    Record { timestamp: 1_000_000_000, container: ContainerKey::new(1, 1), kind: kind as u32, pid: 4711 }
}

fn runtime(args: &[u8], trust: u32, flags: u16, comm: &str) -> Vec<u8> {
    let runtime = Runtime {
        record: record(LifecycleKind::Runtime),
        start_time: 990_000_000,
        outer: ContainerKey::HOST,
        trust,
        args_len: args.len().try_into().unwrap(),
        flags,
        comm: comm_of(comm),
        ppid: 4710,
        reserved: 0,
    };
    [runtime.as_bytes(), args].concat()
}

fn bound(kind: LifecycleKind, cgroup: &str) -> Vec<u8> {
    let cgroup_len = cgroup.len().try_into().unwrap();
    let bound = Bound { record: record(kind), cgroup_len, container_pid: 1, ppid: 4710, reserved: 0 };
    [bound.as_bytes(), cgroup.as_bytes()].concat()
}

fn seeds() -> Vec<Vec<u8>> {
    let cgroups = ["cri-containerd-abc.scope", "crio-abc.scope", "abc", "", "session-3.scope", "\u{1b}[2J"];
    let ended = record(LifecycleKind::Ended).as_bytes().to_vec();
    let script = b"/bin/sh\0/opt/runc\0run\0id\0";
    let mut records: Vec<Vec<u8>> = [LifecycleKind::Bound, LifecycleKind::Unannounced]
        .iter()
        .flat_map(|kind| cgroups.map(|cgroup| bound(*kind, cgroup)))
        .collect();
    records.extend([
        runtime(script, TRUSTED, 0, "runc"),
        runtime(b"runc\0run\0i", 0, RUNTIME_ARGS_TRUNCATED, "runc"),
        runtime(b"runc\0create\0\x1b[2J\xff\0", 1, 0, "nvidia-container-runtime"),
    ]);
    records.extend(fixtures::command_lines().iter().map(|line| runtime(line, TRUSTED, 0, "runc")));
    let whole = |record: &Vec<u8>| script::of(&[(0, &record[..]), (1, &ended[..])]);
    records.iter().map(whole).collect()
}

fn check(input: &[u8]) {
    for (trust_rootless, record) in script::pieces(input) {
        check_record(record, trust_rootless & 1 == 1);
    }
}

fn check_record(record: &[u8], trust_rootless: bool) {
    let decoded = LifecycleRecord::decode(record);
    let Some(len) = announced(record).filter(|len| *len <= record.len()) else {
        assert!(decoded.is_none());
        return;
    };
    let (Some(decoded), Some(cut)) = (decoded, LifecycleRecord::decode(&record[..len])) else {
        panic!("{len} bytes are enough");
    };
    assert!(LifecycleRecord::decode(&record[..len - 1]).is_none());
    match (decoded, cut) {
        (LifecycleRecord::Runtime(runtime, args), LifecycleRecord::Runtime(_, exact)) => {
            assert_eq!(args, exact);
            check_execution(&runtime, args, trust_rootless);
        }
        (LifecycleRecord::Bound(bound, cgroup), LifecycleRecord::Bound(_, exact))
        | (LifecycleRecord::Unannounced(bound, cgroup), LifecycleRecord::Unannounced(_, exact)) => {
            assert_eq!(cgroup, exact);
            assert_eq!(cgroup.len(), bound.cgroup_len as usize);
            check_cgroup(&String::from_utf8_lossy(cgroup));
        }
        (LifecycleRecord::Ended(ended), LifecycleRecord::Ended(_)) => {
            assert_eq!(ended.kind, LifecycleKind::Ended as u32);
        }
        other => panic!("{other:?}"),
    }
}

/// The bytes that a record says it has, as its structures tell.
fn announced(record: &[u8]) -> Option<usize> {
    let (head, _) = Record::read_from_prefix(record).ok()?;
    Some(match LifecycleKind::try_from(head.kind).ok()? {
        LifecycleKind::Runtime => {
            size_of::<Runtime>() + usize::from(Runtime::read_from_prefix(record).ok()?.0.args_len)
        }
        LifecycleKind::Bound | LifecycleKind::Unannounced => {
            size_of::<Bound>() + Bound::read_from_prefix(record).ok()?.0.cgroup_len as usize
        }
        LifecycleKind::Ended => size_of::<Record>(),
    })
}

/// A runtime is trusted for its flags alone, and what it claims is shown safely.
fn check_execution(runtime: &Runtime, args: &[u8], trust_rootless: bool) {
    let execution = RuntimeExecution::new(runtime, args);
    let trust = execution.trust(trust_rootless);
    assert_eq!(trust == TrustLevel::Host, runtime.trust == TRUSTED);
    assert!(trust_rootless || trust != TrustLevel::Rootless);
    let nested = execution.nested();
    assert_eq!(nested.runtime, String::from_utf8_lossy(comm_bytes(&runtime.comm)));
    assert!(nested.id.len() <= 3 * 1024);
    shown::check_container(&shown::called(&nested.id).with_inner(nested));
    if let Some(unresolved) = execution.untrusted() {
        let container = unresolved.in_cgroup("cri-containerd-abc.scope", 0);
        assert!(container.pod.is_none() && (container.id == "abc") == execution.is_roots());
        shown::check_container(&container);
    }
}

/// What a cgroup is called is shown safely.
fn check_cgroup(cgroup: &str) {
    // Of root's runtime, which is not understood.
    let args = runtime(b"", TRUSTED, 0, "runc");
    let Some(LifecycleRecord::Runtime(record, _)) = LifecycleRecord::decode(&args) else { panic!() };
    let execution = RuntimeExecution::new(&record, b"");
    let Err(error) = execution.command_line(None) else { panic!() };
    let Container { id, .. } = execution.not_understood(&error, None).in_cgroup(cgroup, 0);
    assert!(id.is_empty() || cgroup.contains(&id), "{id:?} of {cgroup:?}");
    shown::check_container(&shown::called(&id));
}
