//! Runs cargo and finds what it has built.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::{env, io};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// The cargo that runs this program, and a workspace to run it on.
pub(crate) struct Cargo {
    program: OsString,
    root: PathBuf,
    target: PathBuf,
    /// Variables of the commands, besides those of this process.
    environment: Vec<(&'static str, OsString)>,
}

impl Cargo {
    /// Finds cargo and the workspace from the environment that cargo sets.
    ///
    /// # Errors
    ///
    /// If this program was not started by cargo.
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let (Some(program), Some(xtask)) =
            (env::var_os("CARGO"), env::var_os("CARGO_MANIFEST_DIR"))
        else {
            bail!("run this as `cargo xtask`");
        };
        let mut metadata = Command::new(&program);
        metadata
            .args(["metadata", "--format-version=1", "--no-deps"])
            .arg("--manifest-path")
            .arg(Path::new(&xtask).join("Cargo.toml"));
        let metadata = output(&mut metadata)?;
        let metadata: Value =
            serde_json::from_slice(&metadata).context("cannot parse the output of cargo")?;
        let path = |field: &str| {
            let path = metadata[field].as_str().map(PathBuf::from);
            path.with_context(|| format!("the output of cargo metadata has no {field}"))
        };
        Ok(Self {
            root: path("workspace_root")?,
            target: path("target_directory")?,
            program,
            environment: Vec::new(),
        })
    }

    /// Returns the same cargo with more environment variables.
    pub(crate) fn with_environment(&self, environment: &[(&'static str, OsString)]) -> Self {
        let mut cargo = self.in_workspace(self.root.clone(), self.target.clone());
        cargo.environment.extend_from_slice(environment);
        cargo
    }

    /// Returns the same cargo for the workspace in `root`, which is built in `target`.
    pub(crate) fn in_workspace(&self, root: PathBuf, target: PathBuf) -> Self {
        Self {
            program: self.program.clone(),
            root,
            target,
            environment: self.environment.clone(),
        }
    }

    /// Returns the root folder of the workspace.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the target folder of the workspace.
    pub(crate) fn target_folder(&self) -> &Path {
        &self.target
    }

    /// Prepares a cargo command for the workspace. `words` has the subcommand and arguments,
    /// separated by spaces.
    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = Command::new(&self.program);
        // Cargo sets these for this program. Build scripts that watch them would run again.
        for (name, _) in env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"CARGO_PKG_") {
                command.env_remove(name);
            }
        }
        command
            .env_remove("CARGO_MANIFEST_DIR")
            .env("CARGO_TARGET_DIR", &self.target)
            .envs(self.environment.iter().cloned())
            .current_dir(&self.root)
            .args(words.split_whitespace());
        command
    }

    /// Builds the binary `name` in release mode and returns its path.
    ///
    /// Builds with the features of the whole workspace. With other features, cargo would compile
    /// wasmtime once more.
    ///
    /// # Errors
    ///
    /// If the build fails.
    pub(crate) fn build(&self, name: &str) -> anyhow::Result<PathBuf> {
        let command = self.command(&format!("build --release --workspace --bin {name}"));
        Built::run(command)?.binary(name)
    }

    /// Builds the bench and the plugins that it runs in release mode, and returns the path of
    /// the bench.
    ///
    /// # Errors
    ///
    /// If the build fails.
    pub(crate) fn build_bench(&self) -> anyhow::Result<PathBuf> {
        Built::run(self.command("build --release --workspace --bins"))?.binary("bench")
    }

    /// Builds the binary `name` of the package `name` as a component, in release mode, and
    /// returns its path.
    ///
    /// # Errors
    ///
    /// If the build fails.
    pub(crate) fn build_component(&self, name: &str, target: &str) -> anyhow::Result<PathBuf> {
        let words = format!("build --release --package {name} --bin {name} --target {target}");
        Built::run(self.command(&words))?.binary(name)
    }

    /// Builds the tests of the workspace and its binaries.
    ///
    /// A build of a binary alone would choose other features of some libraries and compile
    /// wasmtime once more.
    ///
    /// # Errors
    ///
    /// If the build fails.
    pub(crate) fn build_tests(&self) -> anyhow::Result<Built> {
        Built::run(self.command("test --workspace --no-run"))
    }
}

/// The messages of a build.
pub(crate) struct Built(Vec<Value>);

impl Built {
    fn run(mut command: Command) -> anyhow::Result<Self> {
        let messages =
            output(command.args(["--locked", "--message-format=json-render-diagnostics"]))?;
        let messages = serde_json::Deserializer::from_slice(&messages).into_iter();
        let messages = messages.collect::<Result<_, _>>();
        Ok(Self(messages.context("cannot parse the output of cargo")?))
    }

    /// Returns the path of the binary `name`.
    ///
    /// # Errors
    ///
    /// If the build did not build that binary.
    pub(crate) fn binary(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.0.iter().find_map(|message| {
            let target = &message["target"];
            let is_binary = target["name"] == name && target["kind"][0] == "bin";
            let is_test = message["profile"]["test"] == true;
            let path = message["executable"].as_str()?;
            (is_binary && !is_test).then(|| path.into())
        });
        path.with_context(|| format!("the output of cargo has no path of {name}"))
    }
}

/// Runs a command and shows its output.
///
/// # Errors
///
/// If the command fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status();
    check(command, status)
}

/// Runs a command and returns what it prints to stdout. Its stderr is shown.
///
/// # Errors
///
/// If the command fails.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let mut stdout = Vec::new();
    let result = command.stderr(Stdio::inherit()).output();
    let status = result.map(|output| {
        stdout = output.stdout;
        output.status
    });
    check(command, status)?;
    Ok(stdout)
}

fn check(command: &Command, status: io::Result<ExitStatus>) -> anyhow::Result<()> {
    let program = Path::new(command.get_program());
    let name = program.file_stem().unwrap_or_default().display();
    let status = status.with_context(|| format!("cannot run {name}"))?;
    ensure!(status.success(), "{name} failed: {status}");
    Ok(())
}
