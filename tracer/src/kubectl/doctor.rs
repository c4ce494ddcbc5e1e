//! `kubectl tracer doctor`: each node's report under the node's name.

use std::{collections::BTreeMap, io::Write as _, process::ExitCode, sync::Arc, time::Duration};

use anyhow::bail;
use tokio::{select, sync::Semaphore, task::JoinSet, time::timeout};

use crate::{
    error::{FAILURE, UNSUPPORTED},
    kubectl::{
        agents::{Agent, Waiting},
        args::{Common, NodesArgs},
        cluster::Cluster,
        ephemeral::{Fleet, over_agents},
        exec::{Exec, Exit, Heard},
        lines::{Line, Lines},
        plain, remote, session,
    },
    sanitize,
    sys::stderr::status,
};

/// How long a report may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a report may be, in lines and bytes a line.
const LINES_MAX: usize = 200;
const LINE_MAX: usize = 4096;
/// How many nodes are asked at a time.
const AT_ONCE: usize = 64;

/// Asks each node's `tracer`. The exit code is 3 if tracing does not work on one of them, 1 if one cannot be asked.
pub(super) async fn run(nodes: &NodesArgs, common: &Common) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::find(&common.cluster)?;
    over_agents(&cluster, nodes, common, async |fleet, mut end| {
        select! {
            result = ask_all(&cluster, nodes, &fleet) => result,
            () = end.requested() => bail!("ended before all reports were there"),
        }
    })
    .await
}

async fn ask_all(cluster: &Cluster, nodes: &NodesArgs, fleet: &Fleet) -> anyhow::Result<ExitCode> {
    let place = &fleet.place;
    let agents = session::list_agents(cluster, nodes, fleet).await?;
    let missing: BTreeMap<&str, Agent> =
        fleet.expected.iter().map(|(node, problem)| (node.as_str(), missing(problem.as_deref()))).collect();
    let found = missing.iter().map(|(node, agent)| (*node, agent)).chain(agents.by_node());
    // The last of a node counts.
    let found: BTreeMap<&str, &Agent> = found.collect();
    let chosen: Vec<_> = found.into_iter().filter(|(node, _)| nodes.select(node)).collect();
    if chosen.is_empty() {
        bail!(session::none(place, nodes));
    }
    fleet.unable.say();
    let limit = Arc::new(Semaphore::new(AT_ONCE));
    let mut reports = JoinSet::new();
    for (index, (_, agent)) in chosen.iter().enumerate() {
        let (agent, client, limit) = ((*agent).clone(), cluster.client.clone(), Arc::clone(&limit));
        let namespace = place.namespace.clone();
        reports.spawn(async move {
            // It is never closed.
            let _permit = limit.acquire().await;
            let report = match timeout(PATIENCE, ask(&client, &namespace, &agent)).await {
                Ok(report) => report,
                Err(_) => Err(format!("it does not answer within {PATIENCE:?}")),
            };
            (index, report)
        });
    }
    let mut reports = reports.join_all().await;
    reports.sort_by_key(|(index, _)| *index);
    let (mut out, mut code) = (Vec::new(), 0);
    for ((node, _), (_, report)) in chosen.iter().zip(reports) {
        let node = sanitize::line(node);
        match report {
            Ok((lines, exit)) => {
                writeln!(out, "{node}")?;
                lines.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
                match exit {
                    Exit::Code(0) => {}
                    Exit::Code(3) => code = UNSUPPORTED,
                    Exit::Code(other) => {
                        status(&format!("node {node}: its doctor has ended with exit code {other}"));
                        code = code.max(FAILURE);
                    }
                    Exit::Failed(problem) => {
                        status(&format!("node {node}: {}", plain::line(&problem)));
                        code = code.max(FAILURE);
                    }
                }
            }
            Err(problem) => {
                status(&format!("node {node}: {}", plain::line(&problem)));
                code = code.max(FAILURE);
            }
        }
    }
    std::io::stdout().lock().write_all(&out)?;
    Ok(ExitCode::from(code))
}

/// The agent of a node that has none.
fn missing(problem: Option<&str>) -> Agent {
    let why = problem.unwrap_or("its agent pod has not been seen").to_owned();
    Agent::Waiting(Waiting { why, failed: true })
}

/// A node's report, safe to show, and how it ended.
async fn ask(client: &kube::Client, namespace: &str, agent: &Agent) -> Result<(Vec<String>, Exit), String> {
    let target = match agent {
        Agent::Running(target) => target,
        Agent::Waiting(waiting) => return Err(waiting.why.clone()),
    };
    let started = Exec::start(client, namespace, &target.pod, &remote::doctor()).await;
    let mut exec = started.map_err(|refused| format!("tracer cannot be run there: {refused}"))?;
    let (mut lines, mut said, mut exit) = (Lines::new(LINE_MAX), Vec::new(), None);
    let mut keep = |line: Line<'_>| {
        let (Line::Whole(line) | Line::Cut(line)) = line;
        if said.len() < LINES_MAX {
            said.push(sanitize::line(&String::from_utf8_lossy(line)));
        }
    };
    while let Some(heard) = exec.next().await? {
        match heard {
            Heard::Stdout(bytes) | Heard::Stderr(bytes) => lines.feed(&bytes, &mut keep),
            Heard::Exit(ended) => exit = Some(ended),
            Heard::Nothing => {}
        }
    }
    lines.finish(&mut keep);
    let exit = exit.unwrap_or(Exit::Failed("the connection has ended before the report".into()));
    Ok((said, exit))
}
