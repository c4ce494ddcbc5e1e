//! What is printed: columns and their relatives, JSON and YAML.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::{Command, ExitCode, Stdio};

use harness::need::{RUNC, RUNC_GCC};
use harness::scratch::{self, unique};
use harness::wait::{self, LIMIT};
use harness::{Bundle, Dialect, Pod, Runtime, Suite, Tracer, program, shape};
use insta::assert_snapshot;
use serde_json::Value;

fn main() -> ExitCode {
    Suite::new()
        .test("columns_of_open", RUNC, || table("open", &["-o", "columns"], "open-columns"))
        .test("columns_are_the_default", RUNC, || table("open", &[], "open-columns"))
        .test("wide_of_open", RUNC, || table("open", &["-o", "wide"], "open-wide"))
        .test("columns_of_exec", RUNC, || table("exec", &["-o", "columns"], "exec-columns"))
        .test("wide_of_exec", RUNC, || table("exec", &["-o", "wide"], "exec-wide"))
        .test("no_headers", RUNC, || table("open", &["--no-headers"], "open-no-headers"))
        .test("custom_columns", RUNC, || {
            table("open", &["-o", "custom-columns=PATH,POD,ERR"], "open-custom-columns");
        })
        .test("json_of_open", RUNC, || documents("open", "json", "open-json"))
        .test("json_of_exec", RUNC, || documents("exec", "json", "exec-json"))
        .test("jsonpretty", RUNC, || documents("open", "jsonpretty", "open-jsonpretty"))
        .test("yaml", RUNC, || documents("open", "yaml", "open-yaml"))
        .test("json_has_the_fields_of_the_contract", RUNC_GCC, json_shape)
        .test("columns_stay_in_line", RUNC, alignment)
        .test("columns_fit_a_terminal_and_a_pipe_gets_all", RUNC, terminal)
        .test("next_row_fits_a_terminal_that_was_resized", RUNC, resized)
        .test("the_node_is_the_hosts_name_unless_told", RUNC, node)
        .test("no_escape_code_in_columns", RUNC, || {
            escapes(&[("open", "columns"), ("open", "wide"), ("exec", "columns"), ("exec", "wide")]);
        })
        .test("no_escape_code_in_documents", RUNC, || {
            escapes(&[("open", "json"), ("exec", "json"), ("open", "jsonpretty"), ("open", "yaml")]);
        })
        .run()
}

/// What a container of a pod does here: an open that succeeds, one that fails; two execs.
struct Scene {
    bundle: Bundle,
    end: String,
    /// What the container's process is by number, as the events have it.
    lines: Vec<String>,
}

/// Traces a small container and collects what is printed about it.
fn scene(kind: &str, extra: &[&str]) -> Scene {
    let pod = Pod::new("web-0", "app");
    let end = unique("end");
    // One process throughout: the numbers in a snapshot are then few.
    let script = format!("read x < /etc/hostname; exec /bin/cat /{end}");
    let bundle = Bundle::script(&pod, &script);
    let arguments = ["trace", kind, "-n", &pod.namespace, "--node", "node-1"];
    let tracer = Tracer::start(&arguments.iter().chain(extra).copied().collect::<Vec<_>>());
    Runtime::runc().run(&bundle);
    // `end` stands in the last record of either kind; the record itself may be several lines.
    tracer.wait_line("the last record", |line| line.contains(&end) && !line.contains("read x"));
    tracer.signal(rustix::process::Signal::INT);
    let done = tracer.wait_end();
    let summary = done.assert_adds_up();
    assert_eq!(summary.emitted, 2, "two of each kind: {:#?}", done.stdout);
    Scene { bundle, end, lines: without_losses(done.stdout) }
}

/// What other tests' containers lost here, whose bundles went before this tracer could read them, is not the scene's.
fn without_losses(lines: Vec<String>) -> Vec<String> {
    let yaml = lines.first().is_some_and(|line| line == "---");
    let begins = |line: &str| if yaml { line == "---" } else { !line.starts_with([' ', '}']) };
    let mut records: Vec<Vec<String>> = Vec::new();
    for line in lines {
        match records.last_mut() {
            Some(record) if !begins(&line) => record.push(line),
            _ => records.push(vec![line]),
        }
    }
    let is_loss = |record: &Vec<String>| {
        record.iter().any(|line| {
            [r#""event":"lost""#, r#""event": "lost""#, "event: lost"].iter().any(|mark| line.contains(mark))
        })
    };
    records.retain(|record| !is_loss(record));
    records.concat()
}

impl Scene {
    /// `text` with what differs from run to run put by name.
    fn redacted(&self, text: &str) -> String {
        let pod = self.bundle.pod.as_ref().unwrap();
        text.replace(&self.bundle.id, "ID").replace(&pod.namespace, "NS").replace(&self.end, "END")
    }
}

/// Columns with numbers that differ from run to run.
const NUMBERS: [&str; 3] = ["TIME", "PID", "PPID"];

/// Compares a table with a snapshot: the words, for how wide a column is depends on random names.
fn table(kind: &str, extra: &[&str], snapshot: &str) {
    let scene = scene(kind, extra);
    let mut numbered: Vec<usize> = Vec::new();
    let mut text = String::new();
    for (index, line) in scene.lines.iter().enumerate() {
        let line = scene.redacted(line);
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if index == 0 {
            numbered = (0..words.len()).filter(|column| NUMBERS.contains(&words[*column])).collect();
            if numbered.is_empty() && words[0] == "node-1" {
                // Without a header the place of the number is known from the contract.
                numbered = vec![4];
            }
        }
        for column in &numbered {
            let digits = words[*column].chars().all(|c| c.is_ascii_digit() || matches!(c, ':' | '.'));
            if digits {
                words[*column] = "N";
            }
        }
        text.push_str(&words.join(" "));
        text.push('\n');
    }
    assert_snapshot!(snapshot, text);
}

fn documents(kind: &str, format: &str, snapshot: &str) {
    let scene = scene(kind, &["-o", format]);
    let text = scene.redacted(&scene.lines.join("\n"));
    // Values that differ, wherever and however the format writes them: `"pid": 12,`, `pid: 12`.
    let mut redacted = String::new();
    for line in text.lines() {
        let mut line = line.to_owned();
        for key in ["pid", "tid", "ppid"] {
            line = replace_value(&line, key, "N");
        }
        redacted.push_str(&replace_value(&line, "timestamp", "TIME"));
        redacted.push('\n');
    }
    assert_snapshot!(snapshot, redacted);
}

/// Puts `value` in the place of what follows `key` in a line of JSON or YAML.
fn replace_value(line: &str, key: &str, value: &str) -> String {
    for (start, end) in [(format!("\"{key}\":"), [',', '}']), (format!("{key}:"), ['\n', '\n'])] {
        let Some(at) = line.find(&start) else { continue };
        let is_key = start.starts_with('"') || line[..at].trim().is_empty();
        if !is_key {
            continue;
        }
        let begin = at + start.len();
        // No value of ours holds a comma or a brace; a timestamp holds colons.
        let length = line[begin..].find(end).unwrap_or(line.len() - begin);
        return format!("{} {value}{}", &line[..begin], &line[begin + length..]);
    }
    line.to_owned()
}

/// The stream of a container that does everything: each line parses, with the contract's fields.
fn json_shape() {
    for (kind, source, mode) in [("open", "opens.c", "matrix"), ("exec", "execs.c", "failing")] {
        let pod = Pod::new("all", "app");
        let program = program::compile(source);
        let path = format!("/bin/{}", program.file_name().unwrap().to_string_lossy());
        let bundle = Bundle::pod(Dialect::CriO, &pod, &[&path, mode]).with_program(&program);
        let tracer = Tracer::start(&["trace", kind, "-n", &pod.namespace, "-o", "json"]);
        Runtime::runc().run(&bundle).success();
        // `stop` checks the shape of each.
        let done = tracer.stop();
        assert!(done.stdout.len() >= 9, "{:#?}", done.stdout);
        let times: Vec<&str> = done.stdout.iter().map(|line| &line[..]).collect();
        for line in times {
            let event: Value = serde_json::from_str(line).unwrap();
            shape::check(&event);
            assert!(line.starts_with(r#"{"timestamp":""#), "in the contract's order: {line}");
        }
    }
}

fn alignment() {
    let scene = scene("open", &[]);
    let starts = |line: &str| -> Vec<usize> {
        let chars: Vec<char> = line.chars().collect();
        (0..chars.len()).filter(|at| chars[*at] != ' ' && (*at == 0 || chars[*at - 1] == ' ')).collect()
    };
    // All values here are short ones.
    assert_eq!(scene.lines.len(), 3);
    let header = starts(&scene.lines[0]);
    assert_eq!(header.len(), 9, "{:#?}", scene.lines);
    for line in &scene.lines[1..] {
        assert_eq!(starts(line), header, "{:#?}", scene.lines);
        assert!(!line.ends_with(' '), "no blanks at the end: {line:?}");
    }
}

/// On a terminal the middle of what is too wide is left out; who pipes it gets it whole.
fn terminal() {
    const WIDTH: usize = 100;
    let pod = Pod::new(&format!("web{}-0", "-very-long-name".repeat(4)), "app");
    let path = format!("/{}/end", "directory/".repeat(20));
    let bundle = Bundle::script(&pod, &format!("true < {path}"));
    let piped = Tracer::start(&["trace", "open", "-n", &pod.namespace]);

    let dir = scratch::Dir::new("terminal");
    let log = dir.path().join("log");
    let command = format!(
        "stty cols {WIDTH} rows 30; NO_COLOR=1 exec {} trace open -n {} --max-events 1 2> {}",
        harness::tracer::binary().display(),
        pod.namespace,
        log.display()
    );
    let shown = dir.path().join("shown");
    // script(1) gives it a terminal.
    let mut on_terminal = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::null())
        .stdout(fs::File::create(&shown).unwrap())
        .spawn()
        .unwrap();
    wait::until("the tracer on a terminal is ready", || {
        fs::read_to_string(&log).ok().filter(|log| log.contains("tracer: ready"))
    });
    Runtime::runc().run(&bundle);
    piped.wait_line("all of the path", |line| line.contains(&path) && line.contains(&pod.name));
    let status = wait::exit_of(&mut on_terminal, LIMIT).expect("it ends with the first event");
    assert!(status.success(), "{}", fs::read_to_string(&log).unwrap());
    let shown = fs::read_to_string(&shown).unwrap();
    let lines: Vec<&str> = shown.lines().map(|line| line.trim_end_matches('\r')).collect();
    assert_eq!(lines.len(), 2, "a header and one event: {lines:#?}");
    for line in &lines {
        assert!(line.chars().count() <= WIDTH, "{} wide: {line}", line.chars().count());
    }
    let words: Vec<&str> = lines[1].split_whitespace().collect();
    // The node goes first where it is narrow.
    assert!(!lines[0].contains("NODE"), "{lines:#?}");
    let (shown_pod, shown_path) = (words[1], words[words.len() - 1]);
    assert!(shown_pod.starts_with("web") && shown_pod.ends_with("-0"), "both ends: {shown_pod}");
    assert!(shown_path.starts_with("/d") && shown_path.ends_with("end"), "both ends: {shown_path}");
}

/// A real terminal, made wider while it runs.
fn resized() {
    const NARROW: usize = 100;
    const WIDE: usize = 200;
    let pod = Pod::new("web-0", "app");
    let path = |name: &str| format!("/{}{name}", "directory/".repeat(9));
    let script = format!("read x < /first; true < {}; read x < /second; true < {}", path("one"), path("two"));
    let bundle = Bundle::script(&pod, &script).with_fifo("/first").with_fifo("/second");

    let dir = scratch::Dir::new("resized");
    let [log, shown, terminal] = ["log", "shown", "terminal"].map(|name| dir.path().join(name));
    let command = format!(
        "tty > {}; stty cols {NARROW} rows 30; NO_COLOR=1 exec {} trace open -n {} 2> {}",
        terminal.display(),
        harness::tracer::binary().display(),
        pod.namespace,
        log.display()
    );
    let mut on_terminal = Command::new("script")
        .args(["--quiet", "--flush", "--return", "--command", &command])
        .arg(&shown)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let ready = || fs::read_to_string(&log).ok().filter(|log| log.contains("tracer: ready"));
    wait::until("the tracer on a terminal is ready", ready);
    let runtime = Runtime::runc();
    runtime.create(&bundle);
    runtime.start(&bundle);
    let row = |end: &str| {
        let text = String::from_utf8_lossy(&fs::read(&shown).unwrap_or_default()).into_owned();
        text.lines().map(|line| line.trim_end_matches('\r').to_owned()).find(|line| line.ends_with(end))
    };
    bundle.release("/first");
    let narrow = wait::until("a row on the narrow terminal", || row("one"));
    assert!(narrow.chars().count() <= NARROW && narrow.contains('…'), "{narrow}");
    let terminal = fs::read_to_string(&terminal).unwrap();
    wait::output(Command::new("stty").args(["-F", terminal.trim(), "cols", &WIDE.to_string()]), LIMIT)
        .success();
    bundle.release("/second");
    let wide = wait::until("a row on the wide terminal", || row("two"));
    assert!(wide.ends_with(&path("two")) && wide.chars().count() <= WIDE, "{wide}");
    // The end of the terminal is that of its tracer: SIGHUP.
    on_terminal.kill().unwrap();
    on_terminal.wait().unwrap();
    let closed = || fs::read_to_string(&log).ok().filter(|log| log.contains("tracer: seen "));
    wait::until("the closing line", closed);
}

fn node() {
    let pod = Pod::new("web", "app");
    let bundle = Bundle::script(&pod, "true < /opened");
    let arguments = ["trace", "open", "-n", &pod.namespace, "-o", "json"];
    let named = Tracer::start(&arguments.iter().chain(&["--node", "wörker"]).copied().collect::<Vec<_>>());
    let unnamed = Tracer::start(&arguments);
    Runtime::runc().run(&bundle);
    assert_eq!(named.wait_open("/opened")["node"], "wörker");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(unnamed.wait_open("/opened")["node"], host.trim());
}

/// A container chooses its file names, arguments and comm; who may create pods, their annotations.
/// U+009B is CSI to terminals that know 8-bit controls; U+202E turns the rest of a line around.
fn escapes(outputs: &[(&str, &str)]) {
    let nasty = "\u{1b}]0;owned\u{7}\u{1b}[31m\r\n\u{9b}2J\u{202e}\u{7f}x";
    let pod = Pod {
        name: format!("web{nasty}"),
        container: format!("app{nasty}"),
        image: format!("image{nasty}"),
        ..Pod::new("", "")
    };
    let end = unique("end");
    let script = format!("true < '/{nasty}'; exec /bin/cat '/{nasty}{end}'");
    let bundle = Bundle::script(&pod, &script);
    let tracers: Vec<Tracer> = outputs
        .iter()
        .map(|(kind, format)| Tracer::start(&["trace", kind, "-n", &pod.namespace, "-o", format]))
        .collect();
    Runtime::runc().run(&bundle);
    for (tracer, (kind, format)) in tracers.into_iter().zip(outputs) {
        tracer.wait_line("the last record", |line| line.contains(&end) && !line.contains("true <"));
        tracer.signal(rustix::process::Signal::INT);
        let done = tracer.wait_end();
        let table = done.stdout[0].starts_with("NODE");
        for line in &done.stdout {
            let bad = line.chars().find(|c| c.is_control() || *c == '\u{202e}');
            assert_eq!(bad, None, "{kind} -o {format} lets it through: {line:?}");
        }
        if table {
            assert_eq!(done.stdout.len(), 3, "one line an event: {:#?}", done.stdout);
        }
        if *format == "json" {
            // Escaped, not changed.
            for event in done.events() {
                bundle.assert_names(&event);
            }
            let last = done.events().pop().unwrap();
            let told = if *kind == "open" { &last["open"]["path"] } else { &last["exec"]["args"][1] };
            assert_eq!(told, &format!("/{nasty}{end}"));
        }
    }
}
