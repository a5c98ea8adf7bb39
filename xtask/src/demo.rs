//! The demo: one policy, run as a program and as a component, gives the same verdicts.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::{env, fs, iter};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::cargo::Cargo;
use crate::wasm_target::{self, WASM_TARGET};

/// The package with the policy, and the name of its binary.
const POLICY: &str = "wasm-policy";

/// Exit status of `admit` when pins were denied and nothing failed.
const DENIED: i32 = 1;

/// Builds everything, shows both runs, and compares their verdicts.
///
/// # Errors
///
/// If a build or a run fails, or if the verdicts differ.
pub(crate) fn run(cargo: &Cargo) -> anyhow::Result<()> {
    wasm_target::ensure()?;
    let demo = Demo::build(cargo)?;

    println!("The policy as a native program:\n");
    demo.show(Plugin::Native)?;
    println!("\nThe same policy as a WASI component, in a sandbox:\n");
    demo.show(Plugin::Component)?;

    let native = demo.verdicts(Plugin::Native)?;
    let component = demo.verdicts(Plugin::Component)?;
    compare(&native, &component)?;
    println!("\nBoth give the same verdict on all {} pins.", native.len());
    Ok(())
}

/// One of the two builds of the policy.
#[derive(Clone, Copy)]
enum Plugin {
    Native,
    Component,
}

/// The programs and their inputs.
struct Demo {
    admit: PathBuf,
    native: PathBuf,
    component: PathBuf,
    pins: PathBuf,
    metadata: PathBuf,
}

impl Demo {
    fn build(cargo: &Cargo) -> anyhow::Result<Self> {
        let inputs = cargo.root().join("examples/wasm-policy/demo");
        let outputs = cargo.target_folder().join("demo");
        fs::create_dir_all(&outputs)
            .with_context(|| format!("cannot create {}", outputs.display()))?;
        let demo = Self {
            admit: cargo.build("admit")?,
            native: outputs.join("wasm-policy"),
            component: outputs.join("wasm-policy.wasm"),
            pins: inputs.join("cipd.versions"),
            metadata: inputs.join("metadata.json"),
        };
        replace(&cargo.build(POLICY)?, &demo.native)?;
        replace(
            &cargo.build_component(POLICY, WASM_TARGET)?,
            &demo.component,
        )?;
        Ok(demo)
    }

    /// Prints a command as a user would type it, and runs it.
    fn show(&self, plugin: Plugin) -> anyhow::Result<()> {
        let mut command = self.check(plugin, &[]);
        println!("$ {}\n", command_line(&command));
        accept(command.status().context("cannot run admit")?)
    }

    /// Runs a command and returns its verdicts.
    fn verdicts(&self, plugin: Plugin) -> anyhow::Result<Vec<Value>> {
        let run = self
            .check(plugin, &["--format", "json"])
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run admit")?;
        accept(run.status)?;
        serde_json::Deserializer::from_slice(&run.stdout)
            .into_iter()
            .collect::<Result<_, _>>()
            .context("cannot parse the output of admit")
    }

    fn check(&self, plugin: Plugin, options: &[&str]) -> Command {
        let mut command = Command::new(shorten(&self.admit));
        command
            .arg("check")
            .args(options)
            .arg("--resolved-versions");
        command
            .arg(shorten(&self.pins))
            .arg("--metadata")
            .arg(shorten(&self.metadata));
        match plugin {
            Plugin::Native => command.arg("--").arg(shorten(&self.native)),
            Plugin::Component => command.arg("--component").arg(shorten(&self.component)),
        };
        command
    }
}

/// Replaces a program, which may be running.
fn replace(from: &Path, to: &Path) -> anyhow::Result<()> {
    let next = to.with_extension("next");
    fs::copy(from, &next)
        .and_then(|_| fs::rename(&next, to))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Fails unless `admit` admitted or denied every pin.
fn accept(status: ExitStatus) -> anyhow::Result<()> {
    match status.code() {
        Some(0 | DENIED) => Ok(()),
        _ => bail!("admit failed: {status}"),
    }
}

/// Compares the verdicts of both builds, without the time that each took.
fn compare(native: &[Value], component: &[Value]) -> anyhow::Result<()> {
    if native.len() != component.len() {
        bail!(
            "the native program gave {} verdicts, the component {}",
            native.len(),
            component.len()
        );
    }
    let without_time = |verdict: &Value| {
        let mut verdict = verdict.clone();
        verdict["duration_us"] = Value::Null;
        verdict
    };
    let differences: String = iter::zip(native, component)
        .filter(|(native, component)| without_time(native) != without_time(component))
        .map(|(native, component)| format!("\n- native:    {native}\n+ component: {component}"))
        .collect();
    if !differences.is_empty() {
        bail!("the two builds of the policy disagree:{differences}");
    }
    Ok(())
}

/// Makes a path relative to the working directory, if it is inside that directory.
fn shorten(path: &Path) -> &Path {
    let folder = env::current_dir().unwrap_or_default();
    path.strip_prefix(folder).unwrap_or(path)
}

fn command_line(command: &Command) -> String {
    let words = iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(package: &str, outcome: &str, took: u64) -> Value {
        serde_json::json!({ "package": package, "outcome": outcome, "duration_us": took })
    }

    #[test]
    fn verdicts_that_differ_only_in_time_agree() {
        let native = [verdict("a", "admitted", 1), verdict("b", "denied", 2)];
        let component = [verdict("a", "admitted", 3), verdict("b", "denied", 4)];
        assert!(compare(&native, &component).is_ok());
    }

    #[test]
    fn every_difference_is_shown() {
        let native = [verdict("a", "admitted", 1), verdict("b", "denied", 1)];
        let component = [verdict("a", "admitted", 1), verdict("b", "failed", 1)];
        let difference = compare(&native, &component).unwrap_err().to_string();
        assert!(difference.contains(r#""package":"b""#), "{difference}");
        assert!(!difference.contains(r#""package":"a""#), "{difference}");
    }

    #[test]
    fn a_missing_verdict_is_a_difference() {
        let native = [verdict("a", "admitted", 1), verdict("b", "denied", 1)];
        assert_eq!(
            compare(&native, &native[..1]).unwrap_err().to_string(),
            "the native program gave 2 verdicts, the component 1"
        );
    }
}
