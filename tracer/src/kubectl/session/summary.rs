//! The end of a session: stops the command on the nodes and accounts for all events.

use std::{collections::BTreeMap, process::ExitCode, sync::Arc};

use tokio::select;
use tracing::{debug, warn};

use super::{Content, run::Session};
use crate::{
    error::FAILURE,
    kubectl::{
        account::{Account, Sum},
        node::node_status,
        text,
    },
    pipeline::WriteCounters,
    sys::{stderr::status, stdout},
};

impl Session<'_> {
    /// Stops the command on the nodes, waits for their totals, and writes the sum.
    pub(super) async fn finish(mut self, result: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
        self.ending.send_replace(true);
        let mut accounts = BTreeMap::new();
        loop {
            select! {
                biased;
                // Each ends within a few seconds.
                joined = self.nodes.join_next() => match joined {
                    None => break,
                    Some(Ok((node, account))) => drop(accounts.insert(node, account)),
                    Some(Err(error)) => warn!("the task of a node failed: {error}"),
                },
                () = self.end.requested() => {
                    status("interrupted; per-node totals are incomplete");
                    return Ok(ExitCode::from(FAILURE));
                }
            }
        }
        let traces_events = matches!(self.nodes.plan.content, Content::Events(_));
        // The writer ends when the last sender of messages is dropped.
        drop(self.nodes);
        // What it does not write in time is lost.
        let _ = stdout::finished(&mut self.writer.finished, || 0).await;
        if traces_events {
            report(&accounts, &self.writer.written[0]);
        }
        result
    }
}

/// Writes the totals of all events.
fn report(accounts: &BTreeMap<Arc<str>, Account>, written: &WriteCounters) {
    let mut all = Account::default();
    for (node, account) in accounts {
        let Account { incomplete_runs, received_incomplete, malformed, dropped, .. } = account;
        debug!("node {}: malformed {malformed} output {dropped}", text::line(node));
        if *incomplete_runs > 0 {
            node_status(
                node,
                &format!(
                    "{incomplete_runs} of its runs ended without a summary: only the {received_incomplete} events \
                     received from them are counted"
                ),
            );
        }
        all += account;
    }
    let Sum { seen, emitted, filtered, lost, losses } = all.sum(written);
    // Nodes send reasons as they like.
    let closing = format!("seen {seen} emitted {emitted} filtered {filtered} lost {lost} {losses}");
    status(&text::line(&closing));
}
