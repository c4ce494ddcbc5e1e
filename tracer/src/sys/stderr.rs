//! Standard error, which nobody need read: whoever has something to say hands it to a thread that writes, and goes on.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use rustix::thread::CapabilitySet;

use crate::{sanitize, sys::capabilities};

/// How many lines may wait to be written. More are left out.
const LINES: usize = 4096;
/// How long the end waits for a line to be written.
const END_PATIENCE: Duration = Duration::from_secs(1);

static OUTPUT: Output = Output { state: Mutex::new(State::new()), changed: Condvar::new() };

struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Whether there is a thread that writes.
    started: bool,
    waiting: VecDeque<Vec<u8>>,
    /// Lines that were left out since the last one that was not.
    left_out: u64,
    /// Whether a line is being written.
    writing: bool,
    /// Lines that were written.
    written: u64,
}

impl State {
    const fn new() -> Self {
        Self { started: false, waiting: VecDeque::new(), left_out: 0, writing: false, written: 0 }
    }

    fn push(&mut self, line: Vec<u8>) {
        // Where there is room for a line, there is room to say that there was none.
        if self.waiting.len() >= LINES {
            self.left_out += 1;
            return;
        }
        self.tell_left_out();
        self.waiting.push_back(line);
    }

    fn tell_left_out(&mut self) {
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            let line = format!("tracer: {left_out} lines are left out here: standard error was not read\n");
            self.waiting.push_back(line.into_bytes());
        }
    }
}

impl Output {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes line after line, as `write` does.
    fn run(&self, mut write: impl FnMut(&[u8])) -> ! {
        let mut state = self.state();
        loop {
            while let Some(line) = state.waiting.pop_front() {
                state.writing = true;
                drop(state);
                write(&line);
                state = self.state();
                state.writing = false;
                state.written += 1;
                self.changed.notify_all();
            }
            state = self.wait(state);
        }
    }

    fn push(&self, line: Vec<u8>) {
        self.state().push(line);
        self.changed.notify_all();
    }

    /// Waits until everything is written, as long as there is progress.
    fn finish(&self, patience: Duration) {
        let mut state = self.state();
        state.tell_left_out();
        self.changed.notify_all();
        while state.started && (state.writing || !state.waiting.is_empty()) {
            let written = state.written;
            let stuck = |state: &mut State| state.written == written;
            let waited = self.changed.wait_timeout_while(state, patience, stuck);
            let (after, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                return;
            }
            state = after;
        }
    }
}

/// Has a thread write from here on. Where none can be started, whoever has something to say writes it.
pub(crate) fn start() {
    let run = || {
        // It needs none. Should that be refused, so it is for the other threads, which tell.
        let _ = capabilities::keep_only(CapabilitySet::empty());
        // Where nobody can read it, nobody misses it.
        OUTPUT.run(|line| drop(io::stderr().write_all(line)))
    };
    OUTPUT.state().started = thread::Builder::new().name("stderr".into()).spawn(run).is_ok();
}

/// Says a line, which ends with a newline. Never waits for who reads.
pub(crate) fn say(line: Vec<u8>) {
    if OUTPUT.state().started {
        OUTPUT.push(line);
    } else {
        let _ = io::stderr().write_all(&line);
    }
}

/// Writes a status line, `tracer: LINE`: part of the contract, not of the log. It may quote untrusted text.
pub(crate) fn status(line: &str) {
    say(format!("tracer: {}\n", sanitize::message(line)).into_bytes());
}

/// Waits until all that was said is written, or nobody takes it.
pub(crate) fn finish() {
    OUTPUT.finish(END_PATIENCE);
}

/// A line of the log, no longer than anybody reads: it may quote a command line. What is written over many lines, as the
/// verifier's log is, nobody else has written.
fn shortened(line: &[u8]) -> Vec<u8> {
    const LEN_MAX: usize = 2048;
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    if text.len() <= LEN_MAX || text.contains(&b'\n') {
        return line.to_owned();
    }
    // Not within a character.
    let end = (0..=LEN_MAX).rev().find(|end| text[*end] & 0xc0 != 0x80).unwrap_or(0);
    let left_out = format!("… ({} bytes more)\n", text.len() - end);
    [&text[..end], left_out.as_bytes()].concat()
}

/// For the log, which writes a line at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        say(shortened(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    /// An output whose thread writes to a channel, a line each time that it is told to.
    fn output() -> (Arc<Output>, mpsc::Sender<()>, mpsc::Receiver<String>) {
        let output = Arc::new(Output {
            state: Mutex::new(State { started: true, ..State::new() }),
            changed: Condvar::new(),
        });
        let (go, may_go) = mpsc::channel();
        let (sender, lines) = mpsc::channel();
        let writes = Arc::clone(&output);
        thread::spawn(move || {
            writes.run(|line| {
                if may_go.recv().is_ok() {
                    sender.send(String::from_utf8_lossy(line).into_owned()).unwrap();
                }
            });
        });
        (output, go, lines)
    }

    #[test]
    fn a_long_line_of_the_log_is_cut_between_characters() {
        let long = format!("{}ü{}\n", "x".repeat(2047), "y".repeat(5000));
        let cut = String::from_utf8(shortened(long.as_bytes())).unwrap();
        assert_eq!(cut, format!("{}… (5002 bytes more)\n", "x".repeat(2047)));
        for whole in ["short\n".to_owned(), format!("verifier:\n{}\n", "x".repeat(5000)), String::new()] {
            assert_eq!(shortened(whole.as_bytes()), whole.as_bytes());
        }
    }

    #[test]
    fn everything_is_written_in_order_before_the_end() {
        let (output, go, lines) = output();
        for number in 0..10 {
            output.push(vec![b'0' + number]);
            go.send(()).unwrap();
        }
        output.finish(Duration::from_secs(60));
        assert_eq!(lines.try_iter().collect::<String>(), "0123456789");
    }

    #[test]
    fn who_does_not_read_delays_nobody_and_is_told() {
        let (output, go, lines) = output();
        for _ in 0..LINES + 100 {
            output.push(b"x".to_vec());
        }
        // The thread may have taken one by then.
        let left_out = output.state().left_out;
        assert!((99..=100).contains(&left_out), "{left_out}");
        output.finish(Duration::from_millis(10));
        for _ in 0..=LINES + 1 {
            go.send(()).unwrap();
        }
        let last = lines.iter().find(|line| line != "x").unwrap();
        assert!(last.contains(&format!(" {left_out} lines are left out")), "{last}");
    }
}
