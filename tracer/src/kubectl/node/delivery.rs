//! Hands a node's batches to the writer. A writer that is blocked never blocks a node for long: what finds no capacity in
//! time is dropped, counted and reported.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use crate::{
    kubectl::{
        batch::{Batch, Item},
        writer::Message,
    },
    output::Lost,
};

/// How much of what all nodes send may wait for the writer, in bytes.
pub(in crate::kubectl) const CAPACITY: u32 = 16 << 20;
/// How long to wait for capacity before a batch is dropped.
const WRITER_TIMEOUT: Duration = Duration::from_secs(2);
/// How many different losses wait to be reported.
const LOSSES_MAX: usize = 64;

/// The way from one node to the writer.
pub(super) struct Delivery {
    node: Arc<str>,
    /// The name of what the node sends, in reports of losses.
    hook: Arc<str>,
    messages: mpsc::UnboundedSender<Message>,
    capacity: Arc<Semaphore>,
    /// Whether the writer was blocked the last time, and has not caught up since.
    stalled: bool,
    /// Losses that are not reported yet.
    losses: Vec<Lost>,
    dropped: u64,
}

impl Delivery {
    pub(super) const fn new(
        node: Arc<str>,
        hook: Arc<str>,
        messages: mpsc::UnboundedSender<Message>,
        capacity: Arc<Semaphore>,
    ) -> Self {
        Self { node, hook, messages, capacity, stalled: false, losses: Vec::new(), dropped: 0 }
    }

    /// The number of events or containers that were dropped.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Counts a loss, which is reported with the next batch. The number of reports is bounded; the totals have all.
    pub(super) fn lose(&mut self, count: u64, reason: &'static str) {
        if count > 0 {
            self.remember(Lost { count, reason: reason.into(), hook: self.hook.to_string().into() });
        }
    }

    fn remember(&mut self, lost: Lost) {
        let is_same = |known: &&mut Lost| known.reason == lost.reason && known.hook == lost.hook;
        if let Some(known) = self.losses.iter_mut().find(is_same) {
            known.count = known.count.saturating_add(lost.count);
        } else if self.losses.len() < LOSSES_MAX {
            self.losses.push(lost);
        }
    }

    /// Hands over a batch, and waits for capacity unless the writer is known to be blocked.
    pub(super) async fn deliver(&mut self, batch: Batch) {
        let Some(batch) = self.try_deliver(batch) else { return };
        if !self.stalled {
            let acquire = Arc::clone(&self.capacity).acquire_many_owned(size(&batch));
            if let Ok(Ok(permit)) = timeout(WRITER_TIMEOUT, acquire).await {
                self.send(batch, permit);
                return;
            }
        }
        self.stalled = true;
        self.drop_batch(batch);
    }

    /// Hands over a batch if there is capacity now, and drops it otherwise.
    pub(super) fn deliver_now(&mut self, batch: Batch) {
        if let Some(batch) = self.try_deliver(batch) {
            self.drop_batch(batch);
        }
    }

    /// Reports losses although the node sends nothing.
    pub(super) fn report_losses(&mut self) {
        if !self.losses.is_empty() {
            self.deliver_now(Batch::new(Arc::clone(&self.node)));
        }
    }

    /// Hands over a batch, with the losses so far, if there is capacity now. Returns it if there is none.
    fn try_deliver(&mut self, mut batch: Batch) -> Option<Batch> {
        let losses = std::mem::take(&mut self.losses).into_iter();
        batch.items.extend(losses.map(|lost| Item::Lost { timestamp: None, lost }));
        if batch.items.is_empty() {
            return None;
        }
        let Ok(permit) = Arc::clone(&self.capacity).try_acquire_many_owned(size(&batch)) else {
            return Some(batch);
        };
        // A small batch may fit although the writer is blocked.
        self.stalled &= self.capacity.available_permits() < CAPACITY as usize / 2;
        self.send(batch, permit);
        None
    }

    fn send(&self, batch: Batch, permit: OwnedSemaphorePermit) {
        // The writer runs until the last sender is dropped.
        let _ = self.messages.send(Message::Batch(Batch { _permit: Some(permit), ..batch }));
    }

    fn drop_batch(&mut self, batch: Batch) {
        let shown = batch.shown();
        self.dropped += shown;
        for item in batch.items {
            if let Item::Lost { lost, .. } = item {
                self.remember(lost);
            }
        }
        self.lose(shown, "output");
    }
}

/// The capacity that a batch needs.
fn size(batch: &Batch) -> u32 {
    u32::try_from(batch.size()).unwrap_or(CAPACITY).clamp(1, CAPACITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(count: u64, reason: &'static str) -> Lost {
        Lost { count, reason: reason.into(), hook: "open".into() }
    }

    #[tokio::test]
    async fn without_capacity_a_batch_is_dropped_and_the_loss_reported_later() {
        let (sender, mut messages) = mpsc::unbounded_channel();
        let capacity = Arc::new(Semaphore::new(0));
        let mut delivery = Delivery::new("n".into(), "open".into(), sender, Arc::clone(&capacity));
        let mut batch = Batch::new("n".into());
        batch.items.push(Item::Lost { timestamp: None, lost: lost(2, "ring") });
        delivery.deliver_now(batch);
        delivery.lose(3, "malformed");
        delivery.lose(4, "malformed");
        assert!(messages.try_recv().is_err());
        capacity.add_permits(1024);
        delivery.report_losses();
        let Ok(Message::Batch(batch)) = messages.try_recv() else { panic!() };
        let found: Vec<Lost> = batch
            .items
            .into_iter()
            .map(|item| match item {
                Item::Lost { lost, .. } => lost,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(found, [lost(2, "ring"), lost(7, "malformed")]);
        // Nothing is left.
        delivery.report_losses();
        assert!(messages.try_recv().is_err());
    }
}
