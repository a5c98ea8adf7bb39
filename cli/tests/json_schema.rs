//! `docs/cli.md` describes the output of `admit check --format json` and all error kinds.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests read files, and panic on errors"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use conformance::modes::native;
use serde_json::Value;

const INSTANCE: &str = "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC";

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).unwrap()
}

/// Returns the schema in the page.
fn schema() -> Value {
    let page = read("docs/cli.md");
    let (_, block) = page.split_once("\n```json\n").unwrap();
    let (schema, rest) = block.split_once("\n```").unwrap();
    assert!(!rest.contains("```json"), "the page has one block of JSON");
    serde_json::from_str(schema).unwrap()
}

/// Runs `admit check` with a plugin, and returns the lines that it prints.
fn lines(packages: &[&str], plugin: &[&str]) -> Vec<Value> {
    let run = Command::new(env!("CARGO_BIN_EXE_admit"))
        .args(["check", "--offline", "--quiet", "--format", "json"])
        .args(
            packages
                .iter()
                .map(|package| format!("{package}:{INSTANCE}")),
        )
        .arg("--")
        .args(plugin)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stdout = String::from_utf8(run.stdout).unwrap();
    let lines = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

/// Returns the first violation of the schema. Knows the keywords that the schema uses.
fn violation(schema: &Value, value: &Value) -> Option<String> {
    for (keyword, rule) in schema.as_object().unwrap() {
        let is_valid = match &**keyword {
            "$schema" | "title" | "description" => true,
            "type" if rule.is_array() => rule
                .as_array()
                .unwrap()
                .iter()
                .any(|one| has_type(value, one)),
            "type" => has_type(value, rule),
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value.as_f64() >= rule.as_f64(),
            "required" => {
                let mut fields = rule.as_array().unwrap().iter();
                fields.all(|field| value.get(field.as_str().unwrap()).is_some())
            }
            "properties" => {
                for (field, value) in value.as_object().unwrap() {
                    let Some(schema) = rule.get(field) else {
                        return Some(format!("`{field}` is not documented"));
                    };
                    if let Some(violation) = violation(schema, value) {
                        return Some(format!("{field}: {violation}"));
                    }
                }
                true
            }
            _ => panic!("this test does not know `{keyword}`"),
        };
        if !is_valid {
            return Some(format!("{value} violates `{keyword}`: {rule}"));
        }
    }
    None
}

fn has_type(value: &Value, name: &Value) -> bool {
    match name.as_str().unwrap() {
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.is_string(),
        "object" => value.is_object(),
        name => panic!("this test does not know the type `{name}`"),
    }
}

#[test]
fn every_line_of_output_matches_the_schema() {
    let schema = schema();
    let fixture = native("conformance-fixture");
    let mut lines_of_all = lines(
        &["allow/a", "deny/b", "code/12345", "code/-1"],
        &[fixture.to_str().unwrap()],
    );
    lines_of_all.extend(lines(&["a"], &["sh", "-c", "exit 3"]));
    lines_of_all.extend(lines(&["a"], &["/absent"]));
    let outcomes: Vec<_> = lines_of_all.iter().map(|line| &line["outcome"]).collect();
    assert_eq!(
        outcomes,
        ["admitted", "denied", "failed", "failed", "failed", "failed"]
    );
    for line in &lines_of_all {
        assert_eq!(violation(&schema, line), None, "{line}");
    }
}

#[test]
fn a_line_that_violates_the_schema_is_found() {
    let schema = schema();
    let [line] = &lines(&["a"], &["/absent"])[..] else {
        panic!("one line per pin");
    };
    for (field, value) in [
        ("package", Value::Null),
        ("outcome", "maybe".into()),
        ("kind", "no-such-kind".into()),
        ("duration_us", (-1).into()),
        ("duration_us", 1.5.into()),
        ("extra", 1.into()),
    ] {
        let mut wrong = line.clone();
        wrong[field] = value;
        assert!(violation(&schema, &wrong).is_some(), "{wrong}");
    }
    let mut wrong = line.clone();
    wrong.as_object_mut().unwrap().remove("code");
    assert!(violation(&schema, &wrong).is_some(), "{wrong}");
}

#[test]
fn the_page_lists_every_error_kind() {
    // The enum cannot be iterated, and other crates cannot match it exhaustively.
    let source = read("host/src/error_kind.rs");
    let kinds: BTreeSet<&str> = source
        .lines()
        .filter_map(|line| {
            let (_, name) = line.trim().strip_prefix("Self::")?.split_once(" => \"")?;
            name.strip_suffix("\",")
        })
        .collect();
    assert!(kinds.len() >= 14, "{kinds:?}");

    let schema = schema();
    let in_schema = schema["properties"]["kind"]["enum"].as_array().unwrap();
    let in_schema: BTreeSet<&str> = in_schema.iter().filter_map(Value::as_str).collect();
    assert_eq!(in_schema, kinds);

    let page = read("docs/cli.md");
    let (_, section) = page.split_once("## Error kinds").unwrap();
    let (table, _) = section.split_once("\n## ").unwrap();
    let in_table: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(in_table, kinds);
}
