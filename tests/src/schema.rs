//! Makes the JSON Schema of the operator's answers (`docs/op.schema.json`) from the table of
//! shapes, and checks answers against it. The checker knows only the keywords that this schema
//! uses; any other one is an error.

use protocol::errors::ERRORS;
use protocol::op::shape::{self, Field, Form, Shape, Type};
use protocol::op::spec::{Effect, Spec};
use protocol::op::table::COMMANDS;
use serde_json::{Map, Value, json};

/// The name of a command's definition.
pub fn name(row: &Spec) -> String {
    row.name.replace(' ', "-")
}

/// The whole schema: a definition for each command, one for an error of `isdclient`, and any of
/// them at the top.
pub fn schema() -> Value {
    let mut definitions: Map<String, Value> =
        COMMANDS.iter().map(|row| (name(row), answer(row))).collect();
    definitions.insert("error".into(), error());
    let any: Vec<Value> =
        definitions.keys().map(|name| json!({ "$ref": format!("#/$defs/{name}") })).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What isectd answers to operators in JSON",
        "description": "Made from the table of shapes; a test keeps it fresh. The answer to the \
            command 'config worker' is $defs/config-worker, and so on; $defs/error is what \
            'isdclient --json' prints when there is none.",
        "$defs": definitions,
        "anyOf": any,
    })
}

fn answer(row: &Spec) -> Value {
    let mut shapes: Vec<Shape> = row.answer.to_vec();
    if row.effect != Effect::Read {
        shapes.push(shape::WARNING);
    }
    let required: Vec<&str> = shapes.iter().filter(|s| s.always).map(|s| s.name).collect();
    let properties: Map<String, Value> =
        shapes.iter().map(|shape| (shape.name.to_owned(), part(shape))).collect();
    json!({
        "description": row.short,
        "type": "object",
        "properties": properties,
        "required": required,
        "minProperties": 1,
        "additionalProperties": false,
    })
}

fn part(shape: &Shape) -> Value {
    match shape.form {
        Form::True => json!({ "const": true }),
        Form::Text => json!({ "type": "string", "minLength": 1 }),
        Form::Object => object(shape.fields),
        Form::Array => json!({ "type": "array", "items": object(shape.fields) }),
    }
}

fn object(fields: &[Field]) -> Value {
    let required: Vec<&str> = fields.iter().map(|field| field.key).collect();
    let properties: Map<String, Value> =
        fields.iter().map(|field| (field.key.to_owned(), value(field))).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn value(field: &Field) -> Value {
    let number = || json!({ "type": "integer", "minimum": 0 });
    let mut out = match field.kind {
        Type::Text => json!({ "type": "string", "minLength": 1 }),
        Type::Raw => json!({ "type": "string" }),
        Type::Word(words) => json!({ "type": "string", "enum": words }),
        Type::Number | Type::Micros => number(),
        Type::Flag => json!({ "type": "boolean" }),
        Type::Time => json!({ "type": "string", "format": "date-time" }),
        Type::Numbers => json!({ "type": "array", "items": number() }),
        Type::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Type::Value => json!({ "type": ["integer", "boolean", "string"], "minimum": 0 }),
    };
    if field.maybe {
        if let Some(Value::Array(words)) = out.get_mut("enum") {
            words.push(Value::Null);
        }
        out["type"] = match out["type"].take() {
            Value::Array(mut types) => {
                types.push("null".into());
                types.into()
            }
            one => json!([one, "null"]),
        };
    }
    out["description"] = field.text.into();
    out
}

fn error() -> Value {
    let text = || json!({ "type": "string", "minLength": 1 });
    let names: Vec<&str> = ERRORS.iter().map(|row| row.name).chain(["application"]).collect();
    let failures = json!({
        "type": "array",
        "description": "of a script that the broker read: its lines that failed",
        "items": {
            "type": "object",
            "properties": { "line": { "type": "integer", "minimum": 1 }, "text": text() },
            "required": ["line", "text"],
            "additionalProperties": false,
        },
    });
    let properties = json!({
        "number": { "type": "integer", "description": "of docs/errors.md, or the service's" },
        "name": { "type": "string", "enum": names },
        "whose": { "type": "string", "enum": ["client", "worker", "broker", "host"] },
        "ran": { "type": "string", "enum": ["no", "maybe", "yes"] },
        "text": text(),
        "advice": {
            "type": ["string", "null"],
            "minLength": 1,
            "description": "what to do; null: the text says it",
        },
        "command": { "type": ["string", "null"], "description": "what was asked" },
        "file": {
            "type": ["string", "null"],
            "minLength": 1,
            "description": "the script, '-' for standard input; null: none",
        },
        "line": { "type": ["integer", "null"], "minimum": 1, "description": "its line" },
        "failures": failures,
    });
    let required: Vec<&String> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    json!({
        "description": "what went wrong, from 'isdclient --json'",
        "type": "object",
        "properties": { "error": {
            "type": "object",
            "required": required,
            "properties": properties,
            "additionalProperties": false,
        } },
        "required": ["error"],
        "additionalProperties": false,
    })
}

/// Whether the answer is as a definition of the schema says.
///
/// # Errors
/// Where it differs, and how.
pub fn check(schema: &Value, definition: &str, answer: &Value) -> Result<(), String> {
    let definition = &schema["$defs"][definition];
    if definition.is_null() {
        return Err(format!("the schema has no definition of {definition}"));
    }
    holds(definition, answer, "$")
}

fn holds(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let wrong = |rule: &str| Err(format!("{at} is {value}, and not {rule}"));
    let Some(rules) = schema.as_object() else { return wrong("described by a schema") };
    for (keyword, rule) in rules {
        match keyword.as_str() {
            "description" | "additionalProperties" => {}
            "type" => {
                let types = match rule {
                    Value::Array(types) => types.clone(),
                    one => vec![one.clone()],
                };
                if !types.iter().any(|one| is_of(one, value)) {
                    return wrong(&format!("of type {rule}"));
                }
            }
            "const" if value == rule => {}
            "enum" if rule.as_array().is_some_and(|words| words.contains(value)) => {}
            "const" | "enum" => return wrong(&format!("{keyword} {rule}")),
            "minLength" => {
                if value.as_str().is_some_and(str::is_empty) {
                    return wrong("a text of at least one character");
                }
            }
            "minimum" => {
                if value.as_i64().is_some_and(|number| Some(number) < rule.as_i64()) {
                    return wrong(&format!("at least {rule}"));
                }
            }
            "format" => {
                if value.as_str().is_some_and(|text| !is_moment(text)) {
                    return wrong("a moment of RFC 3339");
                }
            }
            "minProperties" => {
                if value.as_object().is_some_and(Map::is_empty) {
                    return wrong("an object with something in it");
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    holds(rule, item, &format!("{at}[{index}]"))?;
                }
            }
            "required" => {
                for key in rule.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    if value.as_object().is_some_and(|object| !object.contains_key(key)) {
                        return wrong(&format!("an object with '{key}'"));
                    }
                }
            }
            "properties" => {
                for (key, item) in value.as_object().into_iter().flatten() {
                    match rule.get(key) {
                        Some(rule) => holds(rule, item, &format!("{at}.{key}"))?,
                        None => return wrong(&format!("known to have '{key}'")),
                    }
                }
            }
            other => return Err(format!("the keyword {other} is not known to this checker")),
        }
    }
    Ok(())
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some(_) | None => false,
    }
}

/// `2026-01-31T23:59:59.123Z`, or with an offset.
fn is_moment(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let Some(rest) = shape.strip_prefix("0000-00-00T00:00:00") else { return false };
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches('0'),
        None => rest,
    };
    matches!(rest, "Z" | "+00:00" | "-00:00")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_found_and_told_where() {
        let schema = schema();
        for (definition, answer, part) in [
            ("preempt", json!({ "preempt": { "preempt": "on" } }), "$.preempt.preempt is \"on\""),
            ("preempt", json!({ "preempt": { "preempt": 0 } }), "of type \"boolean\""),
            ("preempt", json!({ "preempt": {} }), "an object with 'preempt'"),
            ("preempt", json!({ "preempt": { "preempt": true, "x": 1 } }), "known to have 'x'"),
            ("services", json!({}), "something in it"),
            ("services", json!({ "services": null }), "of type \"array\""),
            ("services", json!({ "services": [{ "service": "", "service_id": 1 }] }), "[0]"),
            ("services", json!({ "services": [{ "service": "a", "service_id": -1 }] }), "least 0"),
        ] {
            let error = check(&schema, definition, &answer).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        check(&schema, "services", &json!({ "services": [] })).unwrap();
    }

    #[test]
    fn moments_are_those_of_rfc_3339() {
        for text in ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123+01:30"] {
            assert!(is_moment(text), "{text}");
        }
        for text in ["2026-01-01 00:00:00", "2026-01-01", "", "2026-01-01T00:00:00.123"] {
            assert!(!is_moment(text), "{text}");
        }
    }
}
