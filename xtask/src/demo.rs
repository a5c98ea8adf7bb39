//! The demo: one policy, two ways to run it, the same verdicts.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::{env, fs, iter};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::cargo::Cargo;
use crate::wasm_target::{self, WASM_TARGET};

/// The package with the policy, and the name of its binary.
const POLICY: &str = "wasm-policy";

/// Exit status of `admit` when pins were denied and nothing failed.
const DENIED: i32 = 1;

/// One line of `admit check --format json`, but for how long it took.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Verdict {
    package: String,
    instance_id: String,
    outcome: String,
    kind: Option<String>,
    code: Option<i32>,
    message: Option<String>,
}

/// Builds everything, shows both runs, and compares them.
///
/// # Errors
///
/// If something cannot be built or run, or if the two runs differ.
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
    println!("\nThe two agree about all {} pins.", native.len());
    Ok(())
}

/// A build of the policy.
#[derive(Clone, Copy)]
enum Plugin {
    Native,
    Component,
}

/// The programs, and what they are run on.
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

    /// Prints a command as one would type it, and runs it.
    fn show(&self, plugin: Plugin) -> anyhow::Result<()> {
        let mut command = self.check(plugin, &[]);
        println!("$ {}\n", typed(&command));
        accept(command.status().context("cannot run admit")?)
    }

    /// Runs a command and returns what it says about each pin.
    fn verdicts(&self, plugin: Plugin) -> anyhow::Result<Vec<Verdict>> {
        let run = self
            .check(plugin, &["--format", "json"])
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run admit")?;
        accept(run.status)?;
        serde_json::Deserializer::from_slice(&run.stdout)
            .into_iter()
            .collect::<Result<_, _>>()
            .context("cannot read what admit says")
    }

    fn check(&self, plugin: Plugin, options: &[&str]) -> Command {
        let mut command = Command::new(here(&self.admit));
        command
            .arg("check")
            .args(options)
            .arg("--resolved-versions");
        command
            .arg(here(&self.pins))
            .arg("--metadata")
            .arg(here(&self.metadata));
        match plugin {
            Plugin::Native => command.arg("--").arg(here(&self.native)),
            Plugin::Component => command.arg("--component").arg(here(&self.component)),
        };
        command
    }
}

/// Copies a file over another, which may be running.
fn replace(from: &Path, to: &Path) -> anyhow::Result<()> {
    let next = to.with_extension("next");
    fs::copy(from, &next)
        .and_then(|_| fs::rename(&next, to))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Denials are what the demo is about; a failure is none.
fn accept(status: ExitStatus) -> anyhow::Result<()> {
    match status.code() {
        Some(0 | DENIED) => Ok(()),
        _ => bail!("admit failed: {status}"),
    }
}

fn compare(native: &[Verdict], component: &[Verdict]) -> anyhow::Result<()> {
    if native.len() != component.len() {
        bail!(
            "the native program judged {} pins, the component {}",
            native.len(),
            component.len()
        );
    }
    let mut differences = String::new();
    for (native, component) in native.iter().zip(component) {
        if native == component {
            continue;
        }
        write!(
            differences,
            "\n- native:    {native:?}\n+ component: {component:?}"
        )
        .expect("a string takes it");
    }
    if !differences.is_empty() {
        bail!("the two builds of the policy disagree:{differences}");
    }
    Ok(())
}

/// Shortens a path as seen from here.
fn here(path: &Path) -> &Path {
    let shorter = env::current_dir()
        .ok()
        .and_then(|here| path.strip_prefix(here).ok());
    shorter.unwrap_or(path)
}

fn typed(command: &Command) -> String {
    let words = iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(package: &str, outcome: &str) -> Verdict {
        Verdict {
            package: package.into(),
            instance_id: "id".into(),
            outcome: outcome.into(),
            kind: None,
            code: Some(0),
            message: None,
        }
    }

    #[test]
    fn equal_verdicts_agree() {
        let both = [verdict("a", "admitted"), verdict("b", "denied")];
        assert!(compare(&both, &both).is_ok());
    }

    #[test]
    fn every_difference_is_shown() {
        let native = [verdict("a", "admitted"), verdict("b", "denied")];
        let component = [verdict("a", "admitted"), verdict("b", "failed")];
        let difference = compare(&native, &component).unwrap_err().to_string();
        assert!(difference.contains(r#"package: "b""#), "{difference}");
        assert!(!difference.contains(r#"package: "a""#), "{difference}");
    }

    #[test]
    fn a_missing_verdict_is_a_difference() {
        let native = [verdict("a", "admitted"), verdict("b", "denied")];
        assert_eq!(
            compare(&native, &native[..1]).unwrap_err().to_string(),
            "the native program judged 2 pins, the component 1"
        );
    }
}
