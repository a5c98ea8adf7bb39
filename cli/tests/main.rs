//! Tests of `admit`.

mod cipd_config;
mod cipd_plugin;
mod ensure;
mod failures;
mod inputs;
mod json_schema;
mod service;
mod signals;
mod token;
mod verdicts;
