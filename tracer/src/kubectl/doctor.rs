//! `kubectl tracer doctor`: the report of each node below the node's name.

use std::{collections::BTreeMap, io::Write as _, process::ExitCode, sync::Arc, time::Duration};

use anyhow::bail;
use tokio::{select, sync::Semaphore, task::JoinSet, time::timeout};

use crate::{
    error::{FAILURE, UNSUPPORTED},
    kubectl::{
        agents::{
            Agent, Outlook, Waiting,
            list::{list, no_agent},
        },
        args::{Common, NodesArgs},
        cluster::Cluster,
        ephemeral::{Fleet, with_agents},
        exec::{ConnectionError, Exec, Exit, Received, Refused},
        lines::{Line, Lines},
        node::node_status,
        node_command,
    },
    sanitize,
};

/// How long a report may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest report, in lines, and its longest line, in bytes.
const LINES_MAX: usize = 200;
const LINE_MAX: usize = 4096;
/// How many reports are requested at a time.
const CONCURRENCY: usize = 64;

/// Runs `tracer doctor` on each node. The exit code is 3 if tracing is not supported on one of them, 1 if one has no report.
pub(super) async fn run(nodes: &NodesArgs, common: &Common) -> anyhow::Result<ExitCode> {
    nodes.check_image()?;
    let cluster = Cluster::find(&common.cluster)?;
    with_agents(&cluster, nodes, common, async |fleet, mut end| {
        select! {
            result = report_all(&cluster, nodes, &fleet) => result,
            () = end.requested() => bail!("interrupted before all reports were received"),
        }
    })
    .await
}

async fn report_all(cluster: &Cluster, nodes: &NodesArgs, fleet: &Fleet) -> anyhow::Result<ExitCode> {
    let agents = list(cluster, nodes, fleet).await?;
    let missing: BTreeMap<&str, Agent> =
        fleet.expected.iter().map(|(node, problem)| (node.as_str(), missing(problem.as_deref()))).collect();
    let found = missing.iter().map(|(node, agent)| (*node, agent)).chain(agents.by_node());
    // An agent that exists replaces the missing one.
    let found: BTreeMap<&str, &Agent> = found.collect();
    let selected: Vec<_> = found.into_iter().filter(|(node, _)| nodes.selects(node)).collect();
    if selected.is_empty() {
        return Err(no_agent(&fleet.agents, nodes));
    }
    fleet.unsupported.report();
    let limit = Arc::new(Semaphore::new(CONCURRENCY));
    let mut reports = JoinSet::new();
    for (index, (_, agent)) in selected.iter().enumerate() {
        let (agent, client, limit) = ((*agent).clone(), cluster.client.clone(), Arc::clone(&limit));
        let namespace = fleet.agents.namespace.clone();
        reports.spawn(async move {
            // It is never closed.
            let _permit = limit.acquire().await;
            let report = timeout(TIMEOUT, report(&client, &namespace, &agent)).await;
            (index, report.unwrap_or(Err(Failure::Timeout)))
        });
    }
    let mut reports = reports.join_all().await;
    reports.sort_by_key(|(index, _)| *index);
    let (mut out, mut code) = (Vec::new(), 0);
    for ((node, _), (_, report)) in selected.iter().zip(reports) {
        match report {
            Ok((lines, exit)) => {
                writeln!(out, "{}", sanitize::line(node))?;
                lines.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
                match exit {
                    Exit::Code(0) => {}
                    Exit::Code(3) => code = UNSUPPORTED,
                    Exit::Code(other) => {
                        node_status(node, &format!("tracer doctor exited with code {other}"));
                        code = code.max(FAILURE);
                    }
                    Exit::Failed(problem) => {
                        node_status(node, &problem);
                        code = code.max(FAILURE);
                    }
                }
            }
            Err(failure) => {
                node_status(node, &failure.to_string());
                code = code.max(FAILURE);
            }
        }
    }
    std::io::stdout().lock().write_all(&out)?;
    Ok(ExitCode::from(code))
}

/// The agent of a node that was expected to have one.
fn missing(problem: Option<&str>) -> Agent {
    let reason = problem.unwrap_or("no agent pod found").to_owned();
    Agent::Waiting(Waiting { reason, outlook: Outlook::Failed })
}

/// Why a node has no report.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    NoAgent(String),
    #[error("cannot run tracer: {0}")]
    Refused(#[from] Refused),
    #[error("the connection was lost: {0}")]
    Connection(#[from] ConnectionError),
    #[error("no report within {TIMEOUT:?}")]
    Timeout,
}

/// The sanitized report of a node, and the exit of its `tracer doctor`.
async fn report(
    client: &kube::Client,
    namespace: &str,
    agent: &Agent,
) -> Result<(Vec<String>, Exit), Failure> {
    let target = match agent {
        Agent::Running(target) => target,
        Agent::Waiting(waiting) => return Err(Failure::NoAgent(waiting.reason.clone())),
    };
    // The input is kept open: a command whose input ends may stop.
    let Exec { input: _input, mut output } =
        Exec::start(client, namespace, &target.pod, &node_command::doctor()).await?;
    let (mut lines, mut report, mut exit) = (Lines::new(LINE_MAX), Vec::new(), None);
    let mut keep = |line: Line<'_>| {
        let (Line::Whole(line) | Line::Cut(line)) = line;
        if !line.is_empty() && report.len() < LINES_MAX {
            report.push(sanitize::line(&String::from_utf8_lossy(line)));
        }
    };
    while let Some(received) = output.next().await? {
        match received {
            Received::Stdout(bytes) | Received::Stderr(bytes) => lines.feed(&bytes, &mut keep),
            Received::Exit(ended) => exit = Some(ended),
            Received::Nothing => {}
        }
    }
    lines.finish(&mut keep);
    let exit =
        exit.unwrap_or(Exit::Failed("the connection was closed before the report was complete".into()));
    Ok((report, exit))
}
