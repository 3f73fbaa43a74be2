// SPDX-License-Identifier: GPL-2.0-only
//! Compares JSON with the schemas of docs/schema, as far as these go: a keyword that is not known here is an error.
//! A property that a schema does not name is one, too, because its users would not know of it.

use serde_json::Value;

/// What is wrong with what this command has written as JSON, a line for each.
pub fn faults(command: &str, text: &str) -> Vec<String> {
    let path = format!("{}/docs/schema/{command}.json", env!("CARGO_MANIFEST_DIR"));
    let schema = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let schema: Value = serde_json::from_str(&schema).expect("a schema");
    let mut faults = Vec::new();
    for line in text.lines() {
        match serde_json::from_str(line) {
            Ok(value) => check(&schema, &schema, &value, "", &mut faults),
            Err(error) => faults.push(format!("{error}: {line}")),
        }
    }
    faults
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    let schema = schema.as_object().expect("a schema is an object");
    for (keyword, wanted) in schema {
        let fault = match keyword.as_str() {
            "$comment" | "$schema" | "title" | "$defs" | "required" => continue,
            "properties" | "additionalProperties" => {
                check_object(root, schema, value, at, faults);
                continue;
            }
            "$ref" => {
                let pointer = wanted.as_str().and_then(|text| text.strip_prefix('#'));
                let other = pointer.and_then(|pointer| root.pointer(pointer)).expect("it is there");
                check(root, other, value, at, faults);
                continue;
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, wanted, item, &format!("{at}/{index}"), faults);
                }
                continue;
            }
            "anyOf" => check_any(root, wanted, value, at),
            "enum" => {
                let known = wanted.as_array().expect("a list").contains(value);
                (!known).then(|| "is none of those values".to_owned())
            }
            "type" => (!is_of(wanted, value)).then(|| format!("is no {wanted}")),
            "minimum" => (value.as_i64() < wanted.as_i64()).then(|| "is too small".to_owned()),
            "maximum" => (value.as_i64() > wanted.as_i64()).then(|| "is too large".to_owned()),
            other => panic!("the keyword {other} is not known here"),
        };
        faults.extend(fault.map(|fault| format!("{at}: {value} {fault}")));
    }
}

fn check_any(root: &Value, schemas: &Value, value: &Value, at: &str) -> Option<String> {
    let mut all = Vec::new();
    for schema in schemas.as_array().expect("a list") {
        let mut faults = Vec::new();
        check(root, schema, value, at, &mut faults);
        if faults.is_empty() {
            return None;
        }
        all.push(faults.join("; "));
    }
    Some(format!("is none of these: {}", all.join(" | ")))
}

fn check_object(
    root: &Value,
    schema: &serde_json::Map<String, Value>,
    value: &Value,
    at: &str,
    faults: &mut Vec<String>,
) {
    let Some(object) = value.as_object() else { return };
    for (name, value) in object {
        let properties = schema.get("properties").and_then(|properties| properties.get(name));
        match properties.or_else(|| schema.get("additionalProperties")) {
            Some(schema) => check(root, schema, value, &format!("{at}/{name}"), faults),
            None => faults.push(format!("{at}: {name} is not described")),
        }
    }
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        if !object.contains_key(name.as_str().expect("a name")) {
            faults.push(format!("{at}: {name} is missing"));
        }
    }
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str().expect("one type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the type {other} is not known here"),
    }
}
