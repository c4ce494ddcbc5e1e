//! Writing a list of containers: as text, or as frames.

use std::{io, sync::mpsc};

use anyhow::Context as _;
use tokio::sync::oneshot;

use crate::{
    frames::{self, Compressor, Type, frame},
    kinds::Kinds,
    output::{ContainerRenderer, ContainerRow, ListOf, Look},
    run::reporter::Reporter,
    sys::{stderr::status, stdout, thread::spawn},
};

/// What is to be written, and who waits for the result.
type Job = (Vec<u8>, Option<oneshot::Sender<io::Result<()>>>);

/// Renders containers and writes them, on a thread of its own: the reader may take nothing for as long as it likes, and signals
/// are handled all the same.
pub(crate) struct ListOutput {
    renderer: ContainerRenderer,
    is_frames: bool,
    jobs: mpsc::Sender<Job>,
    reporter: Reporter,
}

impl ListOutput {
    /// Without a renderer containers are written as frames.
    pub(crate) fn start(renderer: Option<ContainerRenderer>, node: &str) -> anyhow::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let Some(renderer) = renderer else {
            let mut compressor = Compressor::new().context("starting zstd")?;
            spawn("output", move || {
                for (frames, done) in queue {
                    let written = compressor.write(&frames, |bytes| stdout::write(bytes).1);
                    answer(done, written.flatten());
                }
                Ok(())
            })?;
            let json = ContainerRenderer::new(ListOf::Node, "json", node, Look::plain(None), false);
            let (sender, mut frames) = tokio::sync::mpsc::unbounded_channel();
            let output = Self {
                renderer: json.map_err(anyhow::Error::msg)?,
                is_frames: true,
                jobs,
                reporter: Reporter::Frames(sender),
            };
            let mut hello = Vec::new();
            frames::hello(&Kinds::default(), node, &mut hello);
            output.queue(hello, None);
            let jobs = output.jobs.clone();
            tokio::spawn(async move {
                while let Some(frame) = frames.recv().await {
                    // The thread has gone if the run is at its end.
                    let _ = jobs.send((frame, None));
                }
            });
            return Ok(output);
        };
        spawn("output", move || {
            for (text, done) in queue {
                answer(done, stdout::write(&text).1);
            }
            Ok(())
        })?;
        Ok(Self { renderer, is_frames: false, jobs, reporter: Reporter::Lines })
    }

    /// What the run reports of itself goes there.
    pub(crate) fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// Writes a status line, unless a client does that.
    pub(crate) fn note(&self, line: &str) {
        if !self.is_frames {
            status(line);
        }
    }

    /// Appends the heading and the first rows.
    pub(crate) fn begin(&mut self, rows: &[ContainerRow<'_>], out: &mut Vec<u8>) -> io::Result<()> {
        if self.is_frames {
            return rows.iter().try_for_each(|row| self.row(row, out));
        }
        self.renderer.begin(rows, out)
    }

    /// Appends a row.
    pub(crate) fn row(&mut self, row: &ContainerRow<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        if !self.is_frames {
            self.renderer.resize(stdout::terminal_width);
            return self.renderer.row(row, out);
        }
        let mut line = Vec::new();
        self.renderer.row(row, &mut line)?;
        out.extend(frame(Type::Listed, line.trim_ascii_end()));
        Ok(())
    }

    /// Writes; returns whether the reader takes more.
    pub(crate) async fn write(&self, bytes: Vec<u8>) -> anyhow::Result<bool> {
        if bytes.is_empty() {
            return Ok(true);
        }
        let (done, written) = oneshot::channel();
        self.queue(bytes, Some(done));
        match written.await.context("the thread that writes has ended without a result")? {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).context("writing to standard output"),
        }
    }

    fn queue(&self, bytes: Vec<u8>, done: Option<oneshot::Sender<io::Result<()>>>) {
        // The thread is there as long as this is.
        let _ = self.jobs.send((bytes, done));
    }
}

fn answer(done: Option<oneshot::Sender<io::Result<()>>>, result: io::Result<()>) {
    if let Some(done) = done {
        // Nothing waits for it after the end.
        let _ = done.send(result);
    }
}
