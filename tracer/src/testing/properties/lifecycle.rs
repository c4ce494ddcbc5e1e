//! Records from the ring of lifecycle records, as far as they tell by themselves. Input: a script of records.

use crate::{
    bpf::wire,
    discovery::{Claim, Standing, Told},
    model::Container,
};
use tracer_common::{
    comm_bytes, comm_of,
    container::ContainerKey,
    lifecycle::{Bound, LifecycleKind, RUNTIME_ARGS_TRUNCATED, Record, Runtime, TRUSTED},
};

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
    [wire::bytes(&runtime), args].concat()
}

fn bound(kind: LifecycleKind, cgroup: &str) -> Vec<u8> {
    let cgroup_len = cgroup.len().try_into().unwrap();
    let bound = Bound { record: record(kind), cgroup_len, container_pid: 1, ppid: 4710, reserved: 0 };
    [wire::bytes(&bound), cgroup.as_bytes()].concat()
}

fn seeds() -> Vec<Vec<u8>> {
    let cgroups = ["cri-containerd-abc.scope", "crio-abc.scope", "abc", "", "session-3.scope", "\u{1b}[2J"];
    let ended = wire::bytes(&record(LifecycleKind::Ended)).to_vec();
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
    let told = Told::decode(record);
    let Some(len) = announced(record).filter(|len| *len <= record.len()) else {
        assert!(told.is_none());
        return;
    };
    let (Some(told), Some(cut)) = (told, Told::decode(&record[..len])) else {
        panic!("{len} bytes are enough");
    };
    assert!(Told::decode(&record[..len - 1]).is_none());
    match (told, cut) {
        (Told::Runtime(runtime, args), Told::Runtime(_, exact)) => {
            assert_eq!(args, exact);
            check_claim(&runtime, args, trust_rootless);
        }
        (Told::Bound(bound, cgroup), Told::Bound(_, exact))
        | (Told::Unannounced(bound, cgroup), Told::Unannounced(_, exact)) => {
            assert_eq!(cgroup, exact);
            assert_eq!(cgroup.len(), bound.cgroup_len as usize);
            check_cgroup(&String::from_utf8_lossy(cgroup));
        }
        (Told::Ended(ended), Told::Ended(_)) => assert_eq!(ended.kind, LifecycleKind::Ended as u32),
        other => panic!("{other:?}"),
    }
}

/// The bytes that a record says it has, as its structures tell.
fn announced(record: &[u8]) -> Option<usize> {
    let kind = wire::read::<Record>(record)?.kind;
    Some(match LifecycleKind::try_from(kind).ok()? {
        LifecycleKind::Runtime => size_of::<Runtime>() + usize::from(wire::read::<Runtime>(record)?.args_len),
        LifecycleKind::Bound | LifecycleKind::Unannounced => {
            size_of::<Bound>() + wire::read::<Bound>(record)?.cgroup_len as usize
        }
        LifecycleKind::Ended => size_of::<Record>(),
    })
}

/// A runtime is believed for its trust alone, and what it claims is shown safely.
fn check_claim(runtime: &Runtime, args: &[u8], trust_rootless: bool) {
    let claim = Claim::new(runtime, args);
    let standing = claim.standing(trust_rootless);
    assert_eq!(standing == Standing::Host, runtime.trust == TRUSTED);
    assert!(trust_rootless || standing != Standing::Rootless);
    let nested = claim.nested();
    assert_eq!(nested.runtime, String::from_utf8_lossy(comm_bytes(&runtime.comm)));
    assert!(nested.id.len() <= 3 * 1024);
    shown::check_container(&shown::called(&nested.id).with_inner(nested));
    if let Some(stray) = claim.disbelieved() {
        let container = stray.container("cri-containerd-abc.scope", 0);
        assert!(container.pod.is_none() && (container.id == "abc") == claim.is_roots());
        shown::check_container(&container);
    }
}

/// What a cgroup is called is shown safely.
fn check_cgroup(cgroup: &str) {
    // Of root's runtime, which is not understood.
    let args = runtime(b"", TRUSTED, 0, "runc");
    let Some(Told::Runtime(record, _)) = Told::decode(&args) else { panic!() };
    let Container { id, .. } = Claim::new(&record, b"").not_understood("").container(cgroup, 0);
    assert!(id.is_empty() || cgroup.contains(&id), "{id:?} of {cgroup:?}");
    shown::check_container(&shown::called(&id));
}
