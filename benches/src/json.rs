//! Reads values out of the broker's JSON answers.

use serde_json::Value;

/// All objects of the first array in an answer, wherever it stands.
pub fn rows(answer: &Value) -> Vec<&Value> {
    match answer {
        Value::Array(rows) => rows.iter().collect(),
        Value::Object(fields) => {
            fields.values().map(rows).find(|rows| !rows.is_empty()).unwrap_or_default()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}
