//! The harness by itself, without the program under test: what cannot run containers here cannot
//! test who is seen in them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use harness::engine::Client;
use harness::podman::Podman;
use harness::program::{self, DYNAMIC, FREESTANDING, FREESTANDING_I386};
use harness::runtime::Naming;
use harness::{Bundle, Dialect, Kind, Need, Pod, Runtime, Suite, containerd, docker, nested, wait};

const HERE_RUNC: &[Need] = &[Need::Root, Need::Busybox, Need::Runc];
const HERE_YOUKI: &[Need] = &[Need::Root, Need::Busybox, Need::Youki];
const HERE_CRUN: &[Need] = &[Need::Root, Need::Busybox, Need::Crun];

fn main() -> ExitCode {
    let mut suite = Suite::new();
    for (kind, needs, name) in
        [(Kind::Runc, HERE_RUNC, "runc"), (Kind::Crun, HERE_CRUN, "crun"), (Kind::Youki, HERE_YOUKI, "youki")]
    {
        for naming in
            [Naming::Short, Naming::Long, Naming::Equals, Naming::Relative, Naming::Cwd, Naming::Symlink]
        {
            suite = suite
                .test(&format!("{name}_runs_{naming:?}").to_lowercase(), needs, move || runs(kind, naming));
        }
        suite = suite
            .test(&format!("{name}_create_start_exec"), needs, move || create_start_exec(kind))
            .test(&format!("{name}_drop_deletes"), needs, move || drop_deletes(kind));
    }
    suite
        // youki leaves the v2 tree of a v1 host alone.
        .test("runc_has_a_cgroup_of_its_own", HERE_RUNC, || own_cgroup(Kind::Runc))
        .test("crun_has_a_cgroup_of_its_own", HERE_CRUN, || own_cgroup(Kind::Crun))
        .test("dynamic_program_runs", &[Need::Root, Need::Busybox, Need::Runc, Need::Gcc], dynamic)
        .test("int80_programs_run", &[Need::Gcc, Need::Ia32], int80)
        .test("cri_pod", &[Need::Root, Need::Busybox, Need::Runc, Need::Containerd], cri_pod)
        .test("docker", &[Need::Root, Need::Busybox, Need::Runc, Need::Containerd, Need::Docker], || {
            engine(&docker::shared());
        })
        .test("podman", &[Need::Root, Need::Busybox, Need::Runc, Need::Podman], || engine(&Podman::new()))
        .test("runc_in_a_container", HERE_RUNC, nested_runc)
        .run()
}

fn pod() -> Pod {
    Pod::new("web", "app")
}

fn runs(kind: Kind, naming: Naming) {
    let bundle = Bundle::script(&pod(), "echo hello; cat /etc/hostname");
    let output = Runtime::new(kind).run_naming(&bundle, naming).success();
    assert_eq!(output.stdout, "hello\nbox\n");
}

fn create_start_exec(kind: Kind) {
    let bundle = Bundle::script(&pod(), "read x < /go; echo went").with_fifo("/go");
    let runtime = Runtime::new(kind);
    runtime.create(&bundle);
    let pid = runtime.init_pid(&bundle).expect("a created container has a process");
    runtime.start(&bundle);
    assert_eq!(runtime.init_pid(&bundle), Some(pid));
    let output = runtime.exec(&bundle, &["/bin/echo", "inside"]).success();
    assert_eq!(output.stdout, "inside\n");
    bundle.release("/go");
    runtime.wait_stopped(&bundle);
    assert_eq!(Runtime::stdout_of(&bundle), "went\n");
    runtime.delete(&bundle);
}

fn own_cgroup(kind: Kind) {
    let bundle = Bundle::plain(&["/bin/cat", "/proc/self/cgroup"]);
    let output = Runtime::new(kind).run(&bundle).success();
    // The v2 tree (hierarchy 0) is the one that `tracer` looks at.
    let line = output.stdout.lines().find(|line| line.starts_with("0::"));
    assert_eq!(line, Some(format!("0::/{}", bundle.id).as_str()), "in {}", output.stdout);
}

fn drop_deletes(kind: Kind) {
    let bundle = Bundle::plain(&["/bin/sleep", "1000"]);
    let runtime = Runtime::new(kind);
    runtime.run_detached(&bundle);
    let pid = runtime.init_pid(&bundle).expect("it sleeps");
    drop(runtime);
    wait::until("the end of the container's process", || {
        (!Path::new("/proc").join(pid.to_string()).exists()).then_some(())
    });
    let groups: Vec<_> = fs::read_dir("/sys/fs/cgroup")
        .unwrap()
        .flatten()
        .map(|hierarchy| hierarchy.path().join(&bundle.id))
        .filter(|path| path.exists())
        .collect();
    assert!(groups.is_empty(), "{groups:?}");
}

fn dynamic() {
    let program = program::compile_flags("dyn.c", "dyn", DYNAMIC);
    let bundle = Bundle::pod(Dialect::Containerd, &pod(), &["/bin/dyn", "/etc/hostname"])
        .with_dynamic_program(&program);
    assert_eq!(Runtime::runc().run(&bundle).success().stdout, "opened /etc/hostname\n");
}

fn int80() {
    for (name, flags) in [("compat64", FREESTANDING), ("compat32", FREESTANDING_I386)] {
        let program = program::compile_flags("compat.c", name, flags);
        let output = wait::output(&mut std::process::Command::new(program), wait::LIMIT).success();
        // None of its files exists here: every call that opens is refused with ENOENT (2), and
        // the calls whose numbers mean an open to a 64-bit program answer as what they are.
        assert_eq!(
            output.stdout, "open 2\nopenat 2\nopenat2 2\ncreat 2\nfork 0\nremap_file_pages 22\nreadlink 2\n",
            "{name}"
        );
    }
}

fn cri_pod() {
    let containerd = containerd::shared();
    let namespace = harness::scratch::unique("t");
    let pod = containerd.pod(&namespace, "web");
    let id = pod.container("app", &["/bin/sh", "-c", "sleep 1000"]);
    assert_eq!(pod.exec(&id, &["/bin/echo", "inside"]), (0, "inside\n".to_owned()));
    let second = pod.container("side", &["/bin/sh", "-c", "sleep 1000"]);
    assert_ne!(id, second);
}

fn engine(client: &Client) {
    let container = client.create(&[], &["/bin/sh", "-c", "echo hello; cat /proc/self/cgroup"]);
    let output = container.run().success();
    assert!(output.stdout.starts_with("hello\n"), "{output:?}");
    assert!(output.stdout.contains(&container.id), "its cgroup bears its id: {output:?}");
    assert!(!container.is_running());
    let sleeper = client.run_detached(&[], &["/bin/sleep", "1000"]);
    assert!(sleeper.is_running());
    assert_eq!(sleeper.exec(&["/bin/echo", "inside"]).success().stdout, "inside\n");
}

fn nested_runc() {
    let inner = Bundle::script(&pod(), "echo from inside");
    let run = format!("runc run --bundle {} {}", nested::path(&inner), inner.id);
    let outer = nested::privileged(None, &run, &[&inner]);
    assert_eq!(Runtime::runc().run(&outer).success().stdout, "from inside\n");
    assert!(!Path::new(&nested::path(&inner)).exists(), "a path of the outer container's");
}
