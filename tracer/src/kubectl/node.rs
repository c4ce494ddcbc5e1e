//! One node: its `tracer` is executed, again where that fails, its lease is kept, and what it prints is handed on.

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use kube::Client;
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until},
};
use tracing::{debug, warn};

use crate::{
    error::{FAILURE, UNSUPPORTED, USAGE},
    kubectl::{
        account::{Account, Closing, Run},
        agents::Target,
        exec::{Exec, Exit, Heard, Refused, Retry},
        lines::{Line, Lines},
        plain,
        reading::{Batch, Item, Reading},
        writer::Message,
    },
    output::Lost,
    run::lease,
    sys::stderr::status,
};

/// How often the lease is renewed.
const BEAT: Duration = Duration::from_secs(1);
/// What renews it.
const ALIVE: &[u8] = b"\n";
/// How long a node may say nothing at all: it answers each beat.
const SILENCE: Duration = Duration::from_secs(15);
/// How long the end may take.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// How long what is on its way may take behind the word that the command has ended.
const REST_PATIENCE: Duration = Duration::from_secs(2);
/// How long the writer may take nothing, before what comes is left out.
const WRITER_PATIENCE: Duration = Duration::from_secs(2);
/// How much of what all nodes print may wait for the writer, in bytes.
pub(super) const ROOM: u32 = 16 << 20;
/// When it is tried again, at first and at the most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often something in front of the API server may refuse before it is given up.
const REFUSALS_MAX: u32 = 5;
/// The longest line of standard output: the longest event has 50 KiB.
const LINE_MAX: usize = 1 << 20;
/// The longest line of standard error that is passed on.
const LOG_LINE_MAX: usize = 1024;
/// Lines of standard error that wait for the word that all is well.
const HELD_MAX: usize = 16;
/// How much of what a node lists may wait for the other nodes', in bytes.
const WAITING_MAX: usize = 16 << 20;
/// Kinds of losses that are remembered until they can be told.
const LOSSES_MAX: usize = 64;

/// What a node's task tells.
#[derive(Debug)]
pub(super) enum Report {
    /// All is attached there.
    Ready {
        /// How long nothing was heard of it, if it was before.
        gap: Option<Duration>,
    },
    /// Something is wrong, and it is tried again.
    Trouble,
    /// It is not tried again with this agent; the exit code.
    Failed(u8),
    /// It has done what was to be done once.
    Done,
}

/// What the tasks of all nodes share.
pub(super) struct Shared {
    pub(super) client: Client,
    /// The namespace of the agents.
    pub(super) namespace: String,
    /// Whether the command ends by itself.
    pub(super) once: bool,
    /// What the lines tell of, in reports of losses.
    pub(super) hook: &'static str,
    pub(super) messages: mpsc::UnboundedSender<Message>,
    /// The room that there is for messages which the writer has not come to: [`ROOM`].
    pub(super) room: Arc<Semaphore>,
    pub(super) reports: mpsc::UnboundedSender<(Arc<str>, Report)>,
    /// Whether it is to end.
    pub(super) ending: watch::Receiver<bool>,
    /// How many may be starting at a time.
    pub(super) starting: Semaphore,
}

/// A node.
pub(super) struct Node {
    name: Arc<str>,
    shared: Arc<Shared>,
    /// What is executed.
    command: Vec<String>,
    reading: Reading,
    /// Its agent, where it has one that runs.
    targets: watch::Receiver<Option<Target>>,
    account: Account,
    again: Duration,
    /// Whether it has ever been ready.
    worked: bool,
    /// How often executing it was refused since it was ready.
    refusals: u32,
    /// What was said of it last.
    said: String,
    /// When it was heard of last, where what ran there has ended or is lost.
    lost: Option<Instant>,
    /// Whether the writer takes nothing.
    stuck: bool,
    /// Losses that are still to be told.
    losses: Vec<Lost>,
    /// Whether it has been said that lines make no sense.
    warned: bool,
    /// How much more may wait, in bytes, before all nodes have listed what they have.
    room: usize,
}

/// How an attempt ended.
enum Outcome {
    /// It was to end.
    Over,
    /// It has done what was to be done.
    Done,
    /// It is to be tried again.
    Again(String),
    /// That would come to nothing.
    Failed(String, u8),
}

/// One execution.
struct Attempt {
    run: Run,
    stdout: Lines,
    stderr: Lines,
    /// Lines of standard error that came before it was ready: they may tell why it is not.
    held: VecDeque<String>,
    exit: Option<Exit>,
    /// When something was heard last.
    heard: Instant,
    /// When what is on its way must have come.
    rest: Option<Instant>,
}

/// What is to be done besides reading.
struct Control {
    targets: watch::Receiver<Option<Target>>,
    ending: watch::Receiver<bool>,
    target: Target,
    beats: Interval,
    /// Whether nothing can be sent any more.
    mute: bool,
    /// By when it must have ended, once it is to.
    until: Option<Instant>,
}

enum Signal {
    Beat,
    End,
    Cut,
}

impl Control {
    /// What is to be done next. Whoever does not wait for it loses nothing.
    async fn next(&mut self) -> Signal {
        if let Some(until) = self.until {
            sleep_until(until).await;
            return Signal::Cut;
        }
        let Self { targets, ending, target, beats, mute, .. } = self;
        select! {
            biased;
            () = is_over(ending) => {}
            () = is_other(targets, target) => {}
            _ = beats.tick(), if !*mute => return Signal::Beat,
        }
        self.until = Some(Instant::now() + END_PATIENCE);
        Signal::End
    }

    /// Does it. An error if nothing more is to be hoped for. That something cannot be sent is none: what has come before
    /// is still to be read, and tells why.
    async fn obey(&mut self, signal: Signal, exec: &mut Exec) -> Result<(), String> {
        let bytes = match signal {
            Signal::Beat => ALIVE,
            Signal::End => &[lease::END],
            Signal::Cut => return Err(format!("it has not ended within {END_PATIENCE:?}")),
        };
        if !self.mute
            && let Err(problem) = exec.send(bytes).await
        {
            debug!("nothing can be sent to {}: {}", plain::line(&self.target.pod), plain::line(&problem));
            self.mute = true;
        }
        Ok(())
    }
}

/// Returns when it is to end, or nobody is left who could say so.
async fn is_over(ending: &mut watch::Receiver<bool>) {
    let _ = ending.wait_for(|ending| *ending).await;
}

/// Returns when a node's agent is not this one any more.
async fn is_other(targets: &mut watch::Receiver<Option<Target>>, target: &Target) {
    let _ = targets.wait_for(|now| now.as_ref() != Some(target)).await;
}

impl Node {
    pub(super) fn new(
        name: Arc<str>,
        command: Vec<String>,
        reading: Reading,
        targets: watch::Receiver<Option<Target>>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            name,
            shared,
            command,
            reading,
            targets,
            account: Account::default(),
            again: AGAIN.0,
            worked: false,
            refusals: 0,
            said: String::new(),
            lost: None,
            stuck: false,
            losses: Vec::new(),
            warned: false,
            room: WAITING_MAX,
        }
    }

    /// Executes it, as long as there is an agent, until it is to end. Returns what is known of its events.
    pub(super) async fn run(mut self) -> (Arc<str>, Account) {
        while let Some(target) = self.target().await {
            match self.attempt(&target).await {
                Outcome::Over => {}
                Outcome::Done => {
                    self.report(Report::Done);
                    break;
                }
                Outcome::Again(problem) => {
                    self.trouble(&format!("{problem}; it is tried again"));
                    self.report(Report::Trouble);
                    let again = self.again;
                    self.again = (again * 2).min(AGAIN.1);
                    select! {
                        () = self.change(&target) => {}
                        () = sleep(again) => {}
                    }
                }
                Outcome::Failed(problem, code) => {
                    self.trouble(&problem);
                    self.report(Report::Failed(code));
                    if self.shared.once {
                        break;
                    }
                    self.change(&target).await;
                }
            }
        }
        (self.name, self.account)
    }

    /// The agent to execute it in, once there is one. None when it is to end.
    async fn target(&mut self) -> Option<Target> {
        let mut ending = self.shared.ending.clone();
        select! {
            biased;
            () = is_over(&mut ending) => None,
            target = self.targets.wait_for(Option::is_some) => target.ok()?.clone(),
        }
    }

    /// Returns when there is another agent, or it is to end.
    async fn change(&self, target: &Target) {
        let (mut ending, mut targets) = (self.shared.ending.clone(), self.targets.clone());
        select! {
            () = is_over(&mut ending) => {}
            () = is_other(&mut targets, target) => {}
        }
    }

    fn report(&self, report: Report) {
        // Nobody listens at the end.
        let _ = self.shared.reports.send((Arc::clone(&self.name), report));
    }

    /// Says what is wrong, once.
    fn trouble(&mut self, problem: &str) {
        if self.said == problem {
            debug!("node {}: {}", plain::line(&self.name), plain::line(problem));
            return;
        }
        problem.clone_into(&mut self.said);
        self.say(problem);
    }

    fn say(&self, text: &str) {
        status(&format!("node {}: {}", plain::line(&self.name), plain::line(text)));
    }

    async fn attempt(&mut self, target: &Target) -> Outcome {
        let exec = {
            let shared = &self.shared;
            let start = async {
                // It is never closed.
                let _permit = shared.starting.acquire().await;
                Exec::start(&shared.client, &shared.namespace, &target.pod, &self.command).await
            };
            select! {
                biased;
                () = self.change(target) => return Outcome::Over,
                exec = start => exec,
            }
        };
        match exec {
            Ok(exec) => self.follow(exec, target).await,
            Err(refused) => self.refused(&refused),
        }
    }

    fn refused(&mut self, refused: &Refused) -> Outcome {
        self.refusals += 1;
        let is_final = match refused.retry {
            Retry::Yes => false,
            Retry::AFewTimes => !self.worked && self.refusals >= REFUSALS_MAX,
            Retry::No => true,
        };
        let problem = format!("tracer cannot be run there: {refused}");
        if is_final || self.shared.once {
            return Outcome::Failed(problem, FAILURE);
        }
        Outcome::Again(problem)
    }

    /// Keeps the lease and reads, to the end.
    async fn follow(&mut self, mut exec: Exec, target: &Target) -> Outcome {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (targets, ending) = (self.targets.clone(), self.shared.ending.clone());
        let mut control =
            Control { targets, ending, target: target.clone(), beats, mute: false, until: None };
        let mut attempt = Attempt::new();
        let gone = loop {
            let silent = attempt.heard + SILENCE;
            select! {
                // Beats are few, and must not wait for a node that never pauses; what has come counts before silence.
                biased;
                signal = control.next() => {
                    if let Err(error) = control.obey(signal, &mut exec).await {
                        break error;
                    }
                    self.tell_of_losses();
                }
                heard = exec.next() => match heard {
                    Ok(Some(heard)) => self.heard(heard, &mut attempt, &mut exec, &mut control).await,
                    Ok(None) => break "the connection has ended".into(),
                    Err(error) => break format!("the connection is lost: {error}"),
                },
                () = come(attempt.rest) => break "the connection did not end".into(),
                () = sleep_until(silent) => break format!("nothing has been heard of it for {SILENCE:?}"),
            }
        };
        let is_over = control.until.is_some();
        self.finish(attempt, is_over, gone)
    }

    async fn heard(&mut self, heard: Heard, attempt: &mut Attempt, exec: &mut Exec, control: &mut Control) {
        attempt.heard = Instant::now();
        match heard {
            Heard::Stdout(bytes) => {
                let batch = self.read(attempt, |lines, each| lines.feed(&bytes, each));
                self.hand_on(batch, exec, control).await;
                // That was not the node's silence.
                attempt.heard = Instant::now();
            }
            Heard::Stderr(bytes) => {
                let mut told = Vec::new();
                attempt.stderr.feed(&bytes, |line| told.push(text(line)));
                for line in told {
                    self.log(line, attempt);
                }
            }
            Heard::Exit(exit) => {
                attempt.rest = Some(attempt.heard + REST_PATIENCE);
                attempt.exit = Some(exit);
            }
            Heard::Nothing => {}
        }
    }

    /// What lines of standard output tell.
    fn read(
        &mut self,
        attempt: &mut Attempt,
        lines: impl FnOnce(&mut Lines, &mut dyn FnMut(Line<'_>)),
    ) -> Batch {
        let Attempt { stdout, run, .. } = attempt;
        let mut batch = Batch::new(Arc::clone(&self.name));
        lines(stdout, &mut |line| {
            let read = match line {
                Line::Whole(line) => self.read_line(line, run, &mut batch),
                Line::Cut(_) => Err("it does not end".to_owned()),
            };
            if let Err(problem) = read {
                run.arrived += 1;
                self.malformed(&problem);
            }
        });
        run.arrived += batch.shown();
        batch
    }

    fn read_line(&mut self, line: &[u8], run: &mut Run, batch: &mut Batch) -> Result<(), String> {
        if matches!(self.reading, Reading::Containers) && !run.ready {
            self.room = self.room.checked_sub(line.len()).ok_or("there are too many")?;
        }
        self.reading.read(line, batch).map_err(|error| error.to_string())?;
        if let Some(Item::Lost { lost, .. }) = batch.items.last()
            && lost.hook == self.shared.hook
        {
            run.told_lost = run.told_lost.saturating_add(lost.count);
        }
        Ok(())
    }

    fn malformed(&mut self, problem: &str) {
        self.account.malformed += 1;
        self.lose(1, "malformed");
        if !std::mem::replace(&mut self.warned, true) {
            let (node, problem) = (plain::line(&self.name), plain::line(problem));
            warn!("node {node}: lines that tracer does not write are left out: {problem}");
        }
    }

    /// Remembers a loss until it can be told.
    fn lose(&mut self, count: u64, reason: &'static str) {
        if count > 0 {
            self.remember(Lost { count, reason: reason.into(), hook: self.shared.hook.into() });
        }
    }

    fn remember(&mut self, lost: Lost) {
        let same = |known: &&mut Lost| known.reason == lost.reason && known.hook == lost.hook;
        if let Some(known) = self.losses.iter_mut().find(same) {
            known.count = known.count.saturating_add(lost.count);
        } else if self.losses.len() < LOSSES_MAX {
            self.losses.push(lost);
        }
        // Otherwise it is in the sum alone.
    }

    /// Hands it to the writer. Where that takes nothing, beats go on, and what does not find room in time is left out.
    async fn hand_on(&mut self, mut batch: Batch, exec: &mut Exec, control: &mut Control) {
        self.tell_losses(&mut batch);
        if batch.items.is_empty() || self.try_send(&mut batch) {
            return;
        }
        if !self.stuck
            && let Some(room) = self.wait_for_room(size(&batch), exec, control).await
        {
            self.send(batch, room);
            return;
        }
        self.stuck = true;
        self.leave_out(batch);
    }

    /// Hands it to the writer if there is room.
    fn try_send(&mut self, batch: &mut Batch) -> bool {
        let Ok(room) = Arc::clone(&self.shared.room).try_acquire_many_owned(size(batch)) else {
            return false;
        };
        self.stuck = false;
        let batch = std::mem::replace(batch, Batch::new(Arc::clone(&self.name)));
        self.send(batch, room);
        true
    }

    fn send(&self, batch: Batch, room: OwnedSemaphorePermit) {
        // The writer is there as long as anybody has something to tell.
        let _ = self.shared.messages.send(Message::Batch(Batch { room: Some(room), ..batch }));
    }

    /// Waits in turn with the other nodes.
    async fn wait_for_room(
        &self,
        bytes: u32,
        exec: &mut Exec,
        control: &mut Control,
    ) -> Option<OwnedSemaphorePermit> {
        let mut room = pin!(Arc::clone(&self.shared.room).acquire_many_owned(bytes));
        let mut patience = pin!(sleep(WRITER_PATIENCE));
        loop {
            select! {
                biased;
                signal = control.next() => control.obey(signal, exec).await.ok()?,
                room = &mut room => return room.ok(),
                () = &mut patience => return None,
            }
        }
    }

    /// Tells what was lost and could not be told, once there is room: the node may have nothing more to say.
    fn tell_of_losses(&mut self) {
        let mut batch = Batch::new(Arc::clone(&self.name));
        self.tell_losses(&mut batch);
        if !batch.items.is_empty() && !self.try_send(&mut batch) {
            self.leave_out(batch);
        }
    }

    /// Adds the losses that are still to be told.
    fn tell_losses(&mut self, batch: &mut Batch) {
        let losses = std::mem::take(&mut self.losses).into_iter();
        batch.items.extend(losses.map(|lost| Item::Lost { timestamp: None, lost }));
    }

    /// Counts what the writer did not take.
    fn leave_out(&mut self, batch: Batch) {
        let shown = batch.shown();
        self.account.dropped += u128::from(shown);
        for item in batch.items {
            if let Item::Lost { lost, .. } = item {
                self.remember(lost);
            }
        }
        self.lose(shown, "output");
    }

    /// A line of the node's standard error.
    fn log(&mut self, line: String, attempt: &mut Attempt) {
        match line.strip_prefix("tracer: ") {
            Some(lease::ALIVE) => return,
            Some(ready) if ready.starts_with("ready") => {
                attempt.run.ready = true;
                self.worked = true;
                self.refusals = 0;
                self.again = AGAIN.0;
                self.said.clear();
                let gap = self.lost.take().map(|lost| lost.elapsed());
                self.report(Report::Ready { gap });
            }
            Some(told) if let Some(closing) = Closing::parse(told) => attempt.run.closing = Some(closing),
            _ if line.is_empty() => return,
            _ => attempt.held.push_back(line),
        }
        if attempt.run.ready || attempt.held.len() > HELD_MAX {
            self.pass_on(attempt);
        }
    }

    fn pass_on(&self, attempt: &mut Attempt) {
        for line in attempt.held.drain(..) {
            self.say(line.strip_prefix("tracer: ").unwrap_or(&line).trim_start());
        }
    }

    /// Adds up, and tells what is to be done next.
    fn finish(&mut self, mut attempt: Attempt, is_over: bool, gone: String) -> Outcome {
        let mut told = Vec::new();
        attempt.stderr.finish(|line| told.push(text(line)));
        for line in told {
            self.log(line, &mut attempt);
        }
        let mut batch = self.read(&mut attempt, |lines, each| lines.finish(each));
        self.account.add(&attempt.run);
        if attempt.run.ready {
            self.lost = Some(attempt.heard);
        }
        self.tell_losses(&mut batch);
        if !batch.items.is_empty() && !self.try_send(&mut batch) {
            self.leave_out(batch);
        }
        let cause = if attempt.run.ready { None } else { cause(&mut attempt.held) };
        self.pass_on(&mut attempt);
        if is_over {
            return Outcome::Over;
        }
        match attempt.exit {
            Some(Exit::Code(0)) if self.shared.once => Outcome::Done,
            Some(Exit::Code(0)) if attempt.run.closing.is_some() => {
                Outcome::Again("its tracer has ended by itself".into())
            }
            // What the kubelet says where the engine closes its end.
            Some(Exit::Code(0)) => Outcome::Again(
                "the connection to its tracer was closed: the container engine, the kubelet or the agent stopped"
                    .into(),
            ),
            Some(Exit::Code(code)) => failed(code, cause),
            Some(Exit::Failed(problem)) if attempt.run.ready => Outcome::Again(problem),
            Some(Exit::Failed(problem)) => Outcome::Again(format!("tracer cannot be run there: {problem}")),
            None => Outcome::Again(gone),
        }
        .unless_once(self.shared.once)
    }
}

impl Outcome {
    /// What is done once is not tried again: half of it may have been shown.
    fn unless_once(self, once: bool) -> Self {
        match self {
            Self::Again(problem) if once => Self::Failed(problem, FAILURE),
            outcome => outcome,
        }
    }
}

/// What an exit code means, and whether it makes sense to try again.
fn failed(code: i32, cause: Option<String>) -> Outcome {
    let said = |otherwise: String| cause.unwrap_or(otherwise);
    match u8::try_from(code) {
        Ok(UNSUPPORTED) => Outcome::Failed(said("tracing is not permitted there".into()), UNSUPPORTED),
        Ok(USAGE) => {
            let refused = said("it does not say what".into());
            let problem = format!(
                "its tracer refuses what it is told ({refused}): the agent's version is not that of this command ({}); \
                 deploy it again",
                env!("CARGO_PKG_VERSION")
            );
            Outcome::Failed(problem, USAGE)
        }
        _ => Outcome::Again(said(format!("its tracer has ended with exit code {code}"))),
    }
}

/// The line that tells why it failed: tracer's own last word, or what the parser of its arguments says first.
fn cause(held: &mut VecDeque<String>) -> Option<String> {
    let own = held.iter().rposition(|line| line.starts_with("tracer: "));
    let index = own.or_else(|| held.iter().position(|line| line.starts_with("error: ")));
    let line = held.remove(index?)?;
    Some(line.strip_prefix("tracer: ").unwrap_or(&line).to_owned())
}

impl Attempt {
    fn new() -> Self {
        Self {
            run: Run::default(),
            stdout: Lines::new(LINE_MAX),
            stderr: Lines::new(LOG_LINE_MAX),
            held: VecDeque::new(),
            exit: None,
            heard: Instant::now(),
            rest: None,
        }
    }
}

/// Returns at that time, if there is one.
pub(super) async fn come(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The room that a batch takes.
fn size(batch: &Batch) -> u32 {
    u32::try_from(batch.bytes).unwrap_or(ROOM).clamp(1, ROOM)
}

fn text(line: Line<'_>) -> String {
    match line {
        Line::Whole(line) => String::from_utf8_lossy(line).into_owned(),
        Line::Cut(line) => format!("{}…", String::from_utf8_lossy(line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_a_failure_is_its_last_word() {
        let mut held =
            ["WARN one", "tracer: first", "tracer: BTF is missing: get it"].map(str::to_owned).into();
        assert_eq!(cause(&mut held).as_deref(), Some("BTF is missing: get it"));
        assert_eq!(held, ["WARN one", "tracer: first"]);
        let mut held = ["error: unexpected argument '--lease' found", "Usage: x"].map(str::to_owned).into();
        assert!(cause(&mut held).unwrap().contains("--lease"));
        assert_eq!(cause(&mut VecDeque::new()), None);
    }
}
