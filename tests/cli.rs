//! The command line: what it refuses, and what it tells whom.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::process::ExitCode;

use harness::wait::Output;
use harness::{Launch, NOBODY, Need, Suite, program, tracer};

const BINARY: &[Need] = &[Need::Tracer];
const ROOT: &[Need] = &[Need::Root, Need::Btf, Need::Tracer];

fn main() -> ExitCode {
    Suite::new()
        .test("wrong_usage_is_2", BINARY, wrong_usage)
        .test("help_and_version_are_0", BINARY, help)
        .test("no_privilege_is_3", ROOT, no_privilege)
        .test("no_btf_is_3", ROOT, no_btf)
        .test("hook_is_told_and_may_be_forced", ROOT, hook)
        .test("doctor_finds_nothing_missing_here", ROOT, doctor)
        .test("doctor_says_what_is_missing", ROOT, doctor_missing)
        .test("version_of_a_release_candidate_is_no_warning", &[ROOT, &[Need::Gcc]].concat(), candidate)
        .run()
}

fn run(arguments: &[&str]) -> Output {
    Launch::new(arguments).output()
}

fn wrong_usage() {
    let table: &[(&[&str], &str)] = &[
        (&[], "Usage"),
        (&["trace"], "Usage"),
        (&["trace", "close"], "close"),
        (&["no-such-command"], "no-such-command"),
        (&["trace", "open", "--no-such-option"], "--no-such-option"),
        (&["trace", "open", "-o", "xml"], "xml"),
        (&["trace", "open", "-o", "custom-columns=PATH,NOSUCH"], "NOSUCH"),
        (&["trace", "open", "-o", "custom-columns="], "column"),
        (&["trace", "open", "--timeout", "soon"], "soon"),
        (&["trace", "open", "--max-events", "-3"], "-3"),
        (&["trace", "open", "--max-events", "many"], "many"),
        (&["trace", "open", "--buffer-size", "huge"], "huge"),
        (&["trace", "open", "--pid", "init"], "init"),
        (&["trace", "open", "--pid", "999999999"], "999999999"),
        (&["trace", "open", "-n", "Shop_X"], "\"Shop_X\" is not the name of a namespace"),
        (&["trace", "open", "-n", "a,!a"], "\"a\" is included and excluded"),
        (&["trace", "open", "-p", "web-0,!web-*"], "\"web-0\" is included and excluded"),
        (&["trace", "open", "-p", "a/b/c"], "\"a/b/c\" is not the name of a pod"),
        (&["trace", "open", "-c", "web.0"], "\"web.0\" is not the name of a container"),
        (&["trace", "open", "--comm", "web["], "\"web[\" is not a glob"),
        (&["trace", "open", "--uid", "root"], "root"),
        (&["trace", "open", "-l", "app=web,-x"], "\"-x\" at column 9"),
        (&["trace", "open", "-l", "app in web", "-l", "x"], "at column 8, found \"web\""),
        (&["trace", "open", "--runtime-endpoint", "tcp://127.0.0.1:1"], "tcp://"),
        (&["trace", "open", "--hook", "kprobe"], "kprobe"),
        (&["trace", "exec", "--hook", "fexit"], "--hook"),
        (&["list-containers", "-o", "xml"], "xml"),
        (&["list-containers", "-o", "custom-columns=POD,COMM"], "COMM"),
        (&["list-containers", "-o", "custom-columns=EVENT"], "EVENT"),
        (&["list-containers", "-l", "="], "--selector"),
        (&["list-containers", "--max-events", "1"], "--max-events"),
    ];
    for (arguments, named) in table {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert_eq!(output.stdout, "", "{arguments:?}: events only");
        assert!(output.stderr.contains(named), "{arguments:?} is not told about {named}: {output:?}");
    }
}

fn help() {
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["help"],
        &["trace", "--help"],
        &["trace", "open", "--help"],
        &["list-containers", "--help"],
        &["doctor", "-h"],
    ] {
        let output = run(arguments).success();
        assert!(output.stdout.contains("Usage: tracer"), "{arguments:?}: {output:?}");
    }
    let version = run(&["--version"]).success().stdout;
    assert!(version.starts_with("tracer 0."), "{version}");
}

fn no_privilege() {
    let (_dir, path) = tracer::copy();
    for kind in ["open", "exec"] {
        let output = Launch::new(&["trace", kind]).binary(path.clone()).uid(NOBODY).output();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert_eq!(output.stdout, "");
        assert!(output.stderr.contains("CAP_BPF"), "names the capability: {output:?}");
        assert!(output.stderr.contains("sudo"), "says what to do: {output:?}");
        assert!(!output.stderr.contains("tracer: ready"), "{output:?}");
    }
}

/// Hides the kernel's BTF from what runs in this mount namespace.
const HIDE_BTF: &str = "mount -t tmpfs none /sys/kernel/btf";

fn no_btf() {
    let output = Launch::new(&["trace", "open"]).prelude(HIDE_BTF).output();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains("/sys/kernel/btf/vmlinux"), "names the file: {output:?}");
    assert!(output.stderr.contains("CONFIG_DEBUG_INFO_BTF"), "names the kernel's option: {output:?}");
}

/// Kernels differ in the hooks that they have.
fn hook() {
    const BRIEFLY: [&str; 5] = ["trace", "open", "-v", "--timeout", "1ms"];
    let told = |output: &Output| {
        let is_told = |hook: &&str| output.stderr.contains(&format!("system calls are traced at {hook}\n"));
        ["fexit", "sys-exit"].into_iter().find(is_told)
    };
    let best = told(&run(&BRIEFLY).success()).expect("-v tells the hook");
    let doctor = run(&["doctor"]).success().stdout;
    assert!(doctor.contains(&format!("hooked at {best}")), "{doctor}");
    let forced = |hook| run(&[&BRIEFLY[..], &["--hook", hook]].concat());
    assert_eq!(told(&forced("sys-exit").success()), Some("sys-exit"));
    let fexit = forced("fexit");
    if best == "fexit" {
        assert_eq!(told(&fexit.success()), Some("fexit"));
    } else {
        assert_eq!(fexit.status.code(), Some(3), "{fexit:?}");
        assert!(fexit.stderr.contains("do_sys_openat2"), "says what is refused: {fexit:?}");
        assert!(fexit.stderr.contains("--hook"), "says what to do: {fexit:?}");
    }
}

/// The loader cannot read it, and says so for each map and program.
fn candidate() {
    let library = program::compile_flags("candidate.c", "candidate.so", program::LIBRARY);
    let preload = format!("export LD_PRELOAD={}", library.display());
    for level in [&[][..], &["-v"]] {
        let arguments = [&["trace", "open", "--timeout", "1ms"][..], level].concat();
        let output = Launch::new(&arguments).prelude(&preload).output().success();
        assert!(!output.stderr.contains("kernel version"), "{output:?}");
    }
}

fn doctor() {
    let output = run(&["doctor"]).success();
    for word in ["BTF", "CAP_BPF", "ring buffer", "tracefs", "io_uring"] {
        assert!(output.stdout.contains(word), "{word}: {output:?}");
    }
}

fn doctor_missing() {
    let hidden = Launch::new(&["doctor"]).prelude(HIDE_BTF).output();
    assert!(hidden.stdout.contains("CONFIG_DEBUG_INFO_BTF"), "{hidden:?}");
    let (_dir, path) = tracer::copy();
    let nobody = Launch::new(&["doctor"]).binary(path).uid(NOBODY).output();
    assert!(nobody.stdout.contains("CAP_BPF"), "{nobody:?}");
    assert!(nobody.stdout.contains("sudo"), "says how to get it: {nobody:?}");
    assert_ne!(nobody.stdout, run(&["doctor"]).stdout, "as if root had asked");
}
