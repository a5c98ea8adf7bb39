//! Cargo, as the tasks use it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde::Deserialize;

/// The cargo that runs this program, and the workspace that it is part of.
pub(crate) struct Cargo {
    program: OsString,
    workspace: Workspace,
}

/// What is of use here in the output of `cargo metadata`.
#[derive(Deserialize)]
struct Workspace {
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

/// What is of use here in a message of `cargo build`.
#[derive(Deserialize)]
struct Artifact {
    reason: String,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Cargo {
    /// Finds cargo and the workspace by what cargo says in the environment.
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
        let asked = Command::new(&program)
            .args([
                "metadata",
                "--format-version=1",
                "--no-deps",
                "--manifest-path",
            ])
            .arg(Path::new(&xtask).join("Cargo.toml"))
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run cargo")?;
        if !asked.status.success() {
            bail!("cargo metadata failed: {}", asked.status);
        }
        let workspace = serde_json::from_slice(&asked.stdout)
            .context("cannot read what cargo metadata says")?;
        Ok(Self { program, workspace })
    }

    /// Returns the folder of the workspace.
    pub(crate) fn root(&self) -> &Path {
        &self.workspace.workspace_root
    }

    /// Returns the folder of everything that is built.
    pub(crate) fn target_folder(&self) -> &Path {
        &self.workspace.target_directory
    }

    /// Prepares `cargo <subcommand>` for the workspace, wherever this program was started.
    pub(crate) fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.program);
        // What cargo says of this program would pass for a change of the environment, for
        // which build scripts that look at it would build anew.
        for (name, _) in env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"CARGO_PKG_") {
                command.env_remove(name);
            }
        }
        command
            .env_remove("CARGO_MANIFEST_DIR")
            .arg(subcommand)
            .arg("--manifest-path")
            .arg(self.root().join("Cargo.toml"));
        command
    }

    /// Runs a command that was prepared, and shows what it prints.
    ///
    /// # Errors
    ///
    /// If it fails; what it had to say, it has said.
    pub(crate) fn run(&self, command: &mut Command) -> anyhow::Result<()> {
        let status = command.status().context("cannot run cargo")?;
        if !status.success() {
            bail!("cargo failed: {status}");
        }
        Ok(())
    }

    /// Builds the binary `name` in release mode and returns where it is.
    ///
    /// All of them are built with the features that the whole workspace chooses: with
    /// others, the engine would be compiled once more.
    ///
    /// # Errors
    ///
    /// If it cannot be built.
    pub(crate) fn build(&self, name: &str) -> anyhow::Result<PathBuf> {
        let mut command = self.command("build");
        command.args(["--release", "--workspace", "--bin", name]);
        let [built] = Self::built(command, [name])?;
        Ok(built)
    }

    /// Builds the binary `name` of the package of that name as a component, in release
    /// mode, and returns where it is.
    ///
    /// # Errors
    ///
    /// If it cannot be built.
    pub(crate) fn build_component(&self, name: &str, target: &str) -> anyhow::Result<PathBuf> {
        let mut command = self.command("build");
        command.args(["--release", "--package", name, "--bin", name]);
        command.args(["--target", target]);
        let [built] = Self::built(command, [name])?;
        Ok(built)
    }

    /// Builds everything as the tests need it and returns where these binaries are.
    ///
    /// A build of a binary alone would choose other features of some libraries, and
    /// compile the engine once more.
    ///
    /// # Errors
    ///
    /// If it cannot be built.
    pub(crate) fn build_with_tests<const N: usize>(
        &self,
        names: [&str; N],
    ) -> anyhow::Result<[PathBuf; N]> {
        let mut command = self.command("test");
        command.args(["--workspace", "--no-run"]);
        Self::built(command, names)
    }

    /// Runs a command that builds, and returns where it has put these binaries.
    fn built<const N: usize>(
        mut command: Command,
        names: [&str; N],
    ) -> anyhow::Result<[PathBuf; N]> {
        let built = command
            .args(["--locked", "--message-format=json-render-diagnostics"])
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run cargo")?;
        if !built.status.success() {
            bail!("cannot build {}: {}", names.join(" and "), built.status);
        }
        let mut found = names.map(|_| None);
        for message in built.stdout.split(|&byte| byte == b'\n') {
            if message.is_empty() {
                continue;
            }
            let artifact: Artifact =
                serde_json::from_slice(message).context("cannot read what cargo build says")?;
            if let Some(place) = names.iter().position(|name| artifact.is_binary(name)) {
                found[place] = artifact.executable;
            }
        }
        for (name, found) in names.iter().zip(&found) {
            if found.is_none() {
                bail!("cargo built {name} and did not say where");
            }
        }
        Ok(found.map(|path| path.expect("each was found")))
    }
}

impl Artifact {
    fn is_binary(&self, name: &str) -> bool {
        let is_test = self.profile.as_ref().is_some_and(|profile| profile.test);
        let is_target = self
            .target
            .as_ref()
            .is_some_and(|target| target.is_binary(name));
        self.reason == "compiler-artifact" && is_target && !is_test
    }
}

impl Target {
    fn is_binary(&self, name: &str) -> bool {
        self.name == name && self.kind.iter().any(|kind| kind == "bin")
    }
}
