//! Losses in JSON and YAML. The contract of the field names is in docs/json.md.

use serde::Serialize;

use crate::output::{Lost, timestamp::format_timestamp};

#[derive(Serialize)]
pub(crate) struct LostLine<'a> {
    timestamp: String,
    event: &'static str,
    node: &'a str,
    lost: &'a Lost,
}

pub(crate) fn lost<'a>(timestamp: i128, node: &'a str, lost: &'a Lost) -> LostLine<'a> {
    LostLine { timestamp: format_timestamp(timestamp), event: "lost", node, lost }
}
