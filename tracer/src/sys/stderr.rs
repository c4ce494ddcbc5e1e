//! Writes standard error in a thread of its own, so that a reader that stalls does not block `tracer`.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use rustix::thread::CapabilitySet;

use crate::{sanitize, sys::capabilities};

/// Lines that may be queued. Further ones are dropped and counted.
const QUEUE_MAX: usize = 4096;
/// How long [`finish`] waits for one line to be written.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

static WRITER: Writer = Writer { queue: Mutex::new(Queue::new()), changed: Condvar::new() };

struct Writer {
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Queue {
    /// Whether the writing thread has been started.
    started: bool,
    lines: VecDeque<Vec<u8>>,
    /// Lines dropped since the last one that was queued.
    dropped: u64,
    /// Whether a line is being written.
    writing: bool,
    /// Lines written so far.
    written: u64,
}

impl Queue {
    const fn new() -> Self {
        Self { started: false, lines: VecDeque::new(), dropped: 0, writing: false, written: 0 }
    }

    fn push(&mut self, line: Vec<u8>) {
        // The capacity includes the line that reports dropped ones.
        if self.lines.len() >= QUEUE_MAX {
            self.dropped += 1;
            return;
        }
        self.report_dropped();
        self.lines.push_back(line);
    }

    fn report_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let line = format!("tracer: {dropped} lines are missing here: standard error was not read\n");
            self.lines.push_back(line.into_bytes());
        }
    }
}

impl Writer {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes queued lines with `write`, forever.
    fn run(&self, mut write: impl FnMut(&[u8])) -> ! {
        let mut queue = self.queue();
        loop {
            while let Some(line) = queue.lines.pop_front() {
                queue.writing = true;
                drop(queue);
                write(&line);
                queue = self.queue();
                queue.writing = false;
                queue.written += 1;
                self.changed.notify_all();
            }
            queue = self.wait(queue);
        }
    }

    fn push(&self, line: Vec<u8>) {
        self.queue().push(line);
        self.changed.notify_all();
    }

    /// Waits until all lines are written, or no line has been written for `timeout`.
    fn finish(&self, timeout: Duration) {
        let mut queue = self.queue();
        queue.report_dropped();
        self.changed.notify_all();
        while queue.started && (queue.writing || !queue.lines.is_empty()) {
            let written = queue.written;
            let stuck = |queue: &mut Queue| queue.written == written;
            let waited = self.changed.wait_timeout_while(queue, timeout, stuck);
            let (after, result) = waited.unwrap_or_else(PoisonError::into_inner);
            if result.timed_out() {
                return;
            }
            queue = after;
        }
    }
}

/// Starts the writing thread. If that fails, callers write standard error themselves.
pub(crate) fn start() {
    let run = || {
        // The thread needs no capabilities. If dropping them fails, it also fails for the other threads, which report
        // it.
        let _ = capabilities::keep_only(CapabilitySet::empty());
        // An error is ignored: there is nobody to report it to.
        WRITER.run(|line| drop(io::stderr().write_all(line)))
    };
    WRITER.queue().started = thread::Builder::new().name("stderr".into()).spawn(run).is_ok();
}

/// Queues a line, which must end with a newline. Does not block once the writing thread runs.
pub(crate) fn write_line(line: Vec<u8>) {
    if WRITER.queue().started {
        WRITER.push(line);
    } else {
        let _ = io::stderr().write_all(&line);
    }
}

/// Writes a status line, `tracer: LINE`, which is part of the documented interface, unlike the log. It may quote
/// untrusted text.
pub(crate) fn status(line: &str) {
    write_line(format!("tracer: {}\n", sanitize::message(line)).into_bytes());
}

/// Waits until all queued lines are written, or standard error accepts no more.
pub(crate) fn finish() {
    WRITER.finish(FINISH_TIMEOUT);
}

/// A log line, shortened if it is very long, since it may quote a command line. Texts of several lines, such as the
/// verifier's log, are not shortened: nothing in them is untrusted.
fn shortened(line: &[u8]) -> Vec<u8> {
    const LEN_MAX: usize = 2048;
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    if text.len() <= LEN_MAX || text.contains(&b'\n') {
        return line.to_owned();
    }
    // Do not cut within a character.
    let end = (0..=LEN_MAX).rev().find(|end| text[*end] & 0xc0 != 0x80).unwrap_or(0);
    let left_out = format!("… ({} bytes more)\n", text.len() - end);
    [&text[..end], left_out.as_bytes()].concat()
}

/// Writer for the log, which writes whole lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        write_line(shortened(line));
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

    /// A writer whose thread sends each line to a channel, and then waits until it may go on.
    fn writer() -> (Arc<Writer>, mpsc::Sender<()>, mpsc::Receiver<String>) {
        let writer = Arc::new(Writer {
            queue: Mutex::new(Queue { started: true, ..Queue::new() }),
            changed: Condvar::new(),
        });
        let (go, may_go) = mpsc::channel();
        let (sender, lines) = mpsc::channel();
        let running = Arc::clone(&writer);
        thread::spawn(move || {
            running.run(|line| {
                // An error says that the test has ended.
                let _ = sender.send(String::from_utf8_lossy(line).into_owned());
                let _ = may_go.recv();
            });
        });
        (writer, go, lines)
    }

    #[test]
    fn long_log_line_is_cut_between_characters() {
        let long = format!("{}ü{}\n", "x".repeat(2047), "y".repeat(5000));
        let cut = String::from_utf8(shortened(long.as_bytes())).unwrap();
        assert_eq!(cut, format!("{}… (5002 bytes more)\n", "x".repeat(2047)));
        for whole in ["short\n".to_owned(), format!("verifier:\n{}\n", "x".repeat(5000)), String::new()] {
            assert_eq!(shortened(whole.as_bytes()), whole.as_bytes());
        }
    }

    #[test]
    fn queued_lines_are_written_in_order_before_the_end() {
        let (writer, go, lines) = writer();
        for number in 0..10 {
            writer.push(vec![b'0' + number]);
            go.send(()).unwrap();
        }
        writer.finish(Duration::from_secs(60));
        assert_eq!(lines.try_iter().collect::<String>(), "0123456789");
    }

    #[test]
    fn stalled_reader_blocks_no_caller_and_is_reported() {
        let (writer, go, lines) = writer();
        writer.push(b"first".to_vec());
        assert_eq!(lines.recv().unwrap(), "first", "the thread is writing it");
        for _ in 0..QUEUE_MAX + 100 {
            writer.push(b"x".to_vec());
        }
        assert_eq!(writer.queue().dropped, 100);
        writer.finish(Duration::from_millis(10));
        for _ in 0..QUEUE_MAX + 2 {
            go.send(()).unwrap();
        }
        let last = lines.iter().find(|line| line != "x").unwrap();
        assert!(last.contains(" 100 lines are missing"), "{last}");
    }
}
