//! `deploy/tracer.service`: what it starts, with the user, the capabilities and the view of files that systemd gives it.
//! What systemd forbids by seccomp is not made here.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::process::ExitCode;

use harness::need::{Need, RUNC};
use harness::runtime::KnownRoot;
use harness::{Bundle, Launch, Pod, Runtime, Suite, tracer};

const UNIT: &str = include_str!("../deploy/tracer.service");

/// A user that nobody has.
const USER: u32 = 64322;
/// Where the view of files has the binary: the directory of the one under test may be hidden.
const BINARY: &str = "/mnt/tracer";

/// What is done in a mount namespace for a setting, of those that change what files there are. The directories that
/// systemd makes inaccessible are empty here. `PrivateTmp=` is left out: the tests' containers are in `/tmp`, and where
/// init's files may not be looked at, tracer takes its own view of them for the host's.
const VIEW: [(&str, &str); 6] = [
    (
        "ProtectHome=yes",
        "for d in /home /root /run/user; do [ ! -d $d ] || mount -t tmpfs -o ro,mode=0 none $d; done",
    ),
    (
        "PrivateDevices=yes",
        "mkdir /mnt/dev && for d in null zero full random urandom tty; do \
         touch /mnt/dev/$d && mount --bind /dev/$d /mnt/dev/$d; done && \
         mount --rbind /mnt/dev /dev",
    ),
    (
        "ProtectKernelModules=yes",
        "[ ! -d /usr/lib/modules ] || mount -t tmpfs -o ro,mode=0 none /usr/lib/modules",
    ),
    ("ProtectKernelTunables=yes", "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys"),
    ("ProtectKernelLogs=yes", "mount --bind /dev/null /proc/kmsg"),
    // What is left of all that is mounted. A mount that is hidden by another one cannot be found any more.
    (
        "ProtectSystem=strict",
        "for m in $(cut -d' ' -f5 /proc/self/mountinfo); do case $m in /proc/sys | /proc | /proc/*) ;; \
         *) mount -o remount,bind,ro $m 2>/dev/null || true ;; esac; done",
    ),
];

fn main() -> ExitCode {
    let needs = [RUNC, &[Need::Setpriv]].concat();
    Suite::new().test("it_works_as_systemd_starts_it", &needs, works).run()
}

/// The words of a setting.
fn setting(name: &str) -> Vec<&'static str> {
    let value = UNIT.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("the unit has no {name}")).split(' ').collect()
}

/// Containers that run already, and those that come later.
fn works() {
    let (_dir, binary) = tracer::copy();
    let copy = format!("mount -t tmpfs none /mnt && cp {} {BINARY}", binary.display());
    let view = VIEW.map(|(setting, shell)| {
        assert!(UNIT.lines().any(|line| line == setting), "the unit has no {setting}");
        format!("{{ {shell}; }}")
    });
    let capabilities: Vec<String> =
        setting("AmbientCapabilities").iter().map(|name| name["CAP_".len()..].to_lowercase()).collect();
    let only = capabilities.iter().fold("-all".to_owned(), |list, name| list + ",+" + name);
    assert_eq!(setting("NoNewPrivileges"), ["yes"]);
    let setpriv = [
        "setpriv".to_owned(),
        format!("--reuid={USER}"),
        format!("--regid={USER}"),
        "--clear-groups".to_owned(),
        "--no-new-privs".to_owned(),
        format!("--inh-caps={only}"),
        format!("--ambient-caps={only}"),
        format!("--bounding-set={only}"),
    ];
    let launch = |arguments: &[&str]| {
        let prelude = format!("{copy} && {} && ! touch /etc/written 2>/dev/null", view.join(" && "));
        Launch::new(arguments).prelude(&prelude).wrapper(&setpriv).binary(BINARY.into())
    };

    launch(&["doctor"]).output().success();
    let (pod, runtime) = (Pod::new("web", "app"), Runtime::runc());
    let _state = KnownRoot::new(&runtime);
    let before = Bundle::script(&pod, "read x < /go; exec /bin/echo before").with_fifo("/go");
    runtime.run_detached(&before);
    let start = setting("ExecStart");
    assert_eq!(start[0], "/usr/bin/tracer");
    let tracer = launch(&start[1..]).start();
    before.release("/go");
    let is_of = |event: &serde_json::Value, bundle: &Bundle, word: &str| {
        event["container"]["id"] == *bundle.id && event["exec"]["args"][1] == word
    };
    let event = tracer.wait_for("one of the container that ran", |event| is_of(event, &before, "before"));
    assert_eq!(event["k8s"], before.k8s(), "in {event}");
    let later = Bundle::script(&pod, "exec /bin/echo later");
    runtime.run(&later);
    let event = tracer.wait_for("one of the container that came", |event| is_of(event, &later, "later"));
    later.assert_names(&event);
    tracer.stop().assert_nothing_dropped();
}
