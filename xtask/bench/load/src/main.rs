//! What the benchmark's containers run: loops over one system call each, timed from within.
//!
//! Statically linked, so that it is a container's only program. `serve CPU` takes commands on its standard input, one
//! a line, and answers each with one line, so that one container serves a whole run:
//!
//! | command | what it does | answer |
//! |---|---|---|
//! | `open MS PATH` | opens and closes the file for so many milliseconds | operations, nanoseconds, those of CPU, slices |
//! | `count N PATH` | the same, so many times | the same, without slices |
//! | `getppid MS` | asks for its parent, which nobody traces | as `open` |
//! | `libraries MS DIR` | opens, reads, maps and closes every file there, as a loader does | as `open` |
//! | `exec MS` | starts itself as a program that ends at once | as `open` |
//!
//! A slice is some milliseconds of the loop; its nanoseconds per operation are told, so that the slices in which
//! something else ran can be told from the rest.

use std::{
    ffi::CString,
    fmt::Write as _,
    fs,
    hint::black_box,
    io::{self, BufRead as _, Write as _},
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    mm::{MapFlags, ProtFlags, mmap, munmap},
    process::getppid,
    thread::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
};

/// What goes wrong here is shown and ends the program.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Nanoseconds of a slice.
const SLICE: u64 = 10_000_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["serve", cpu] => serve(cpu),
        ["three-files", id] => three_files(id),
        ["sleep"] => loop {
            thread::sleep(Duration::from_secs(3600));
        },
        ["nothing"] => Ok(()),
        _ => Err("usage: serve CPU | three-files ID | sleep | nothing".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tracer-bench-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(cpu: &str) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu.parse()?);
    sched_setaffinity(None, &cpus)?;
    let mut stdout = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["open", ms, path] => {
                let path = CString::new(path)?;
                repeat(ms, 64, || open(&path))?
            }
            ["count", count, path] => {
                let path = CString::new(path)?;
                count_opens(count.parse()?, &path)?
            }
            ["getppid", ms] => repeat(ms, 512, || {
                black_box(getppid());
                Ok(())
            })?,
            ["libraries", ms, dir] => {
                let files = files(dir)?;
                repeat(ms, 1, || files.iter().try_for_each(|path| load(path)))?
            }
            ["exec", ms] => repeat(ms, 1, execute)?,
            _ => return Err(format!("no such command: {line}").into()),
        };
        writeln!(stdout, "{answer}")?;
        stdout.flush()?;
    }
    Ok(())
}

/// What the container of that id does in its short life: the paths say whose they are.
fn three_files(id: &str) -> Result<()> {
    for file in ["a", "b", "c"] {
        // They do not exist, which is as good an event.
        let path = CString::new(format!("/{id}/{file}"))?;
        let _ = openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    }
    Ok(())
}

fn open(path: &CString) -> Result<()> {
    drop(openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    Ok(())
}

/// As a dynamic loader does with a library.
fn load(path: &CString) -> Result<()> {
    const LEN: usize = 4096;
    let file = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut header = [0; 832];
    rustix::io::read(&file, &mut header)?;
    black_box(rustix::fs::fstat(&file)?);
    // SAFETY: a new mapping where the kernel likes, private, read by nobody, and taken away again.
    unsafe {
        let mapping = mmap(std::ptr::null_mut(), LEN, ProtFlags::READ, MapFlags::PRIVATE, &file, 0)?;
        munmap(mapping, LEN)?;
    }
    Ok(())
}

fn files(dir: &str) -> Result<Vec<CString>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        files.push(CString::new(entry?.path().into_os_string().into_encoded_bytes())?);
    }
    files.sort();
    Ok(files)
}

fn execute() -> Result<()> {
    let status = Command::new("/proc/self/exe").arg("nothing").status()?;
    if status.success() { Ok(()) } else { Err(format!("the program ended with {status}").into()) }
}

/// Does `operation` for `ms` milliseconds, `batch` times between two looks at the clock.
fn repeat(ms: &str, batch: u32, mut operation: impl FnMut() -> Result<()>) -> Result<String> {
    let limit = ms.parse::<u64>()? * 1_000_000;
    let (cpu, start) = (now(ClockId::ProcessCPUTime), now(ClockId::Monotonic));
    let (mut total, mut last, mut slice_start) = (0_u64, start, start);
    let mut in_slice = 0_u64;
    let mut slices = String::new();
    while last - start < limit {
        for _ in 0..batch {
            operation()?;
        }
        total += u64::from(batch);
        in_slice += u64::from(batch);
        last = now(ClockId::Monotonic);
        if last - slice_start >= SLICE {
            write!(slices, " {}", picoseconds(last - slice_start, in_slice))?;
            (slice_start, in_slice) = (last, 0);
        }
    }
    Ok(format!("{total} {} {}{slices}", last - start, now(ClockId::ProcessCPUTime) - cpu))
}

fn count_opens(count: u64, path: &CString) -> Result<String> {
    let (cpu, start) = (now(ClockId::ProcessCPUTime), now(ClockId::Monotonic));
    for _ in 0..count {
        open(path)?;
    }
    let (end, cpu_end) = (now(ClockId::Monotonic), now(ClockId::ProcessCPUTime));
    Ok(format!("{count} {} {}", end - start, cpu_end - cpu))
}

/// Picoseconds per operation, so that whole numbers are exact enough.
fn picoseconds(nanoseconds: u64, operations: u64) -> u64 {
    nanoseconds * 1000 / operations
}

fn now(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Both clocks start at 0 and count up.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
