//! `cargo xtask svg`: the demonstration, recorded in a terminal, as an animated image.
//!
//! Browsers show it as an image, so it has neither scripts nor external resources: the frames are beside each other in a
//! strip, which an animation moves. A line that several frames show is stored once.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs::{self, File},
    io::Read as _,
    os::unix::ffi::OsStrExt as _,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use vt100::{Cell, Color, Parser, Screen};
use xshell::Shell;

use crate::{demo, process::root};

const COLUMNS: u16 = 100;
const ROWS: u16 = 15;
const COMMAND: &str = "sudo tracer trace open -n tracer-demo";
const PROMPT: &[u8] = b"\x1b[1;32m$\x1b[m ";
/// The delay between typed characters.
const KEY: Duration = Duration::from_millis(50);
/// How long the prompt is shown before the command is typed, and before its output.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the last frame is shown.
const END: Duration = Duration::from_secs(3);
/// Output within this time is one frame.
const FRAME: Duration = Duration::from_millis(50);

/// Pixels of a character, and of the terminal's width. The template has the size of the whole.
const WIDTH: f32 = 8.4;
const SCREEN: u32 = 840;
const HEIGHT: u16 = 19;
const TEMPLATE: &str = include_str!("svg.xml");

/// Output of a terminal with its time.
type Recording = Vec<(Duration, Vec<u8>)>;

pub(crate) fn run(sh: &Shell) -> Result<()> {
    let (script, _dir) = demo::script(sh)?;
    let output = record(script.arg("--node=worker-1").into())?;
    let mut recording = vec![(Duration::ZERO, PROMPT.to_vec())];
    let mut time = PAUSE;
    for key in COMMAND.bytes() {
        recording.push((time, vec![key]));
        time += KEY;
    }
    recording.push((time + PAUSE, b"\r\n".to_vec()));
    recording.extend(output.into_iter().map(|(after, bytes)| (time + PAUSE + after, bytes)));
    let last = recording.last().map_or(time, |&(time, _)| time);
    recording.push((last + PAUSE, PROMPT.to_vec()));

    let (image, file) = (draw(&recording)?, root().join("docs/demo.svg"));
    fs::write(&file, &image)?;
    println!("{}  {} kB, {:.1?}", file.display(), image.len() / 1000, last + PAUSE + END);
    Ok(())
}

/// Runs a command in a terminal.
fn record(mut command: Command) -> Result<Recording> {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&terminal)?;
    unlockpt(&terminal)?;
    let name = ptsname(&terminal, Vec::new())?;
    let inside = File::options().read(true).write(true).open(OsStr::from_bytes(name.to_bytes()))?;
    tcsetwinsize(&inside, Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 })?;
    command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
    command.stdin(inside.try_clone()?).stdout(inside.try_clone()?).stderr(inside);
    let mut child = command.spawn()?;
    // Otherwise this process would keep the terminal open.
    drop(command);
    let (mut terminal, mut buffer, mut recording) = (File::from(terminal), [0; 4096], Recording::new());
    let start = Instant::now();
    // An error when no process has the terminal open any more.
    while let Ok(length @ 1..) = terminal.read(&mut buffer) {
        recording.push((start.elapsed(), buffer[..length].to_vec()));
    }
    let status = child.wait()?;
    let text = recording.iter().flat_map(|(_, bytes)| bytes).copied().collect::<Vec<u8>>();
    ensure!(status.success(), "the demo failed ({status}):\n{}", String::from_utf8_lossy(&text));
    Ok(recording)
}

fn draw(recording: &[(Duration, Vec<u8>)]) -> Result<String> {
    let mut parser = Parser::new(ROWS, COLUMNS, 0);
    let (mut lines, mut frames) = (Vec::<String>::new(), Vec::<(Duration, Vec<usize>)>::new());
    for (index, (time, bytes)) in recording.iter().enumerate() {
        parser.process(bytes);
        let next = recording.get(index + 1);
        if next.is_some_and(|(next, _)| *next < *time + FRAME) {
            continue;
        }
        let frame = (0..ROWS).map(|row| {
            let line = line(parser.screen(), row);
            lines.iter().position(|known| *known == line).unwrap_or_else(|| {
                lines.push(line);
                lines.len() - 1
            })
        });
        frames.push((*time, frame.collect()));
    }
    let seconds = frames.last().map_or(END, |(time, _)| *time + END).as_secs_f32();
    let (mut steps, mut strip, mut texts, mut left) = (String::new(), String::new(), String::new(), 0);
    for (time, frame) in &frames {
        let percent = time.as_secs_f32() / seconds * 100.0;
        writeln!(steps, "{percent:.2}%{{transform:translateX(-{left}px)}}")?;
        write!(strip, "<g transform=\"translate({left})\">")?;
        for (row, line) in (1..).zip(frame).filter(|(_, line)| !lines[**line].is_empty()) {
            write!(strip, "<use href=\"#l{line}\" y=\"{}\"/>", row * HEIGHT - 5)?;
        }
        strip += "</g>\n";
        left += SCREEN;
    }
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
        writeln!(texts, "<text id=\"l{index}\">{line}</text>")?;
    }
    let end = left.saturating_sub(SCREEN);
    let values = [
        ("@COMMAND@", COMMAND),
        ("@SECONDS@", &seconds.to_string()),
        ("@END@", &format!("-{end}")),
        ("@STEPS@", &steps),
        ("@LINES@", &texts),
        ("@FRAMES@", &strip),
    ];
    Ok(values.iter().fold(TEMPLATE.to_owned(), |image, (name, value)| image.replacen(name, value, 1)))
}

/// The characters of a row, those with the same style in one element. Each begins at its column, whatever the font is.
fn line(screen: &Screen, row: u16) -> String {
    let cells: Vec<_> = (0..COLUMNS).filter_map(|column| Some((column, screen.cell(row, column)?))).collect();
    let last = cells.iter().rposition(|(_, cell)| !cell.contents().trim().is_empty());
    let runs = cells[..last.map_or(0, |last| last + 1)].chunk_by(|(_, a), (_, b)| style(a) == style(b));
    let spans = runs.map(|run| {
        let text = run.iter().map(|(_, cell)| if cell.has_contents() { cell.contents() } else { " " });
        let text = text.collect::<String>().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let x = f32::from(run[0].0) * WIDTH;
        format!("<tspan x=\"{x:.1}\" class=\"{}\">{text}</tspan>", style(run[0].1).trim())
    });
    spans.collect()
}

/// The style's classes in the template.
fn style(cell: &Cell) -> String {
    let bold = if cell.bold() { " b" } else { "" };
    if let Color::Idx(color) = cell.fgcolor() { format!("c{color}{bold}") } else { bold.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_and_characters_of_a_terminal_are_kept() {
        let output = b"\x1b[31m<a>\x1b[m &  \x1b[1;32mb\x1b[m\r\nlast";
        let image = draw(&[(Duration::ZERO, b"$ ".to_vec()), (END, output.to_vec())]).unwrap();
        assert_eq!(image.matches('@').count(), 2, "only rules of the style sheet: {image}");
        let image = roxmltree::Document::parse(&image).unwrap();
        let spans: Vec<_> = image.descendants().filter(|node| node.has_tag_name("tspan")).collect();
        let [x, class] = ["x", "class"]
            .map(|name| spans.iter().map(|span| span.attribute(name).unwrap()).collect::<Vec<_>>());
        assert_eq!(
            spans.iter().map(|span| span.text().unwrap()).collect::<Vec<_>>(),
            ["$", "$ ", "<a>", " &  ", "b", "last"]
        );
        assert_eq!(class, ["", "", "c1", "", "c2 b", ""]);
        assert_eq!(x, ["0.0", "0.0", "16.8", "42.0", "75.6", "0.0"]);
        // Frames show lines by number.
        let shown = image.descendants().filter_map(|node| node.attribute("href")).collect::<Vec<_>>();
        assert_eq!(shown, ["#l0", "#l2", "#l3"]);
    }
}
