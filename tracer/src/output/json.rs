//! Losses in JSON and YAML. The contract of the field names is in docs/json.md.

use serde::Serialize;

use crate::output::{Lost, losses::remedy, timestamp::format_timestamp};

#[derive(Serialize)]
pub(crate) struct LostLine<'a> {
    timestamp: String,
    event: &'static str,
    node: &'a str,
    lost: Loss<'a>,
}

/// A loss, and what helps.
#[derive(Debug, Serialize)]
struct Loss<'a> {
    #[serde(flatten)]
    lost: &'a Lost,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

pub(crate) fn lost<'a>(timestamp: i128, node: &'a str, lost: &'a Lost) -> LostLine<'a> {
    let lost = Loss { lost, remedy: remedy(&lost.reason) };
    LostLine { timestamp: format_timestamp(timestamp), event: "lost", node, lost }
}
