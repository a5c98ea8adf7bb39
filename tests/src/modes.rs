//! The modes in which a plugin can run, and the differences between them.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use admission_host::{Component, NativeCommand, Source, Wire};
use tempfile::TempDir;

/// How a plugin runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As a subprocess.
    Native,
    /// As a subprocess under the guard of [`under_guard`](crate::under_guard).
    Guarded,
    /// As a subprocess that speaks gRPC, the wire of the reference.
    Grpc,
    /// As a WASI component in this process.
    Component,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Native, Self::Guarded, Self::Grpc, Self::Component];

    /// The modes of the stdio wire.
    pub const STDIO: [Self; 3] = [Self::Native, Self::Guarded, Self::Component];

    /// Returns the name of the tests that [`in_every_mode!`](crate::in_every_mode) defines for
    /// this mode.
    #[must_use]
    pub const fn test_name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Guarded => "guarded",
            Self::Grpc => "grpc",
            Self::Component => "component",
        }
    }

    /// Returns the fixture. The `argument` selects a mode in which the fixture does not use the
    /// SDK. If it is empty, the fixture uses the SDK, and each package name selects what it does.
    #[must_use]
    pub fn fixture(self, argument: &str) -> Source {
        match self {
            Self::Component => fixture_component(argument).into(),
            native_mode => {
                let fixture = native("conformance-fixture");
                native_mode.command([fixture.as_os_str(), argument.as_ref()])
            }
        }
    }

    /// Returns the example policy.
    #[must_use]
    pub fn policy(self) -> Source {
        match self {
            Self::Component => Component::from_file(component("wasm-policy")).into(),
            native_mode => native_mode.command([native("wasm-policy")]),
        }
    }

    /// Returns a plugin whose file does not exist.
    #[must_use]
    pub fn missing(self) -> Source {
        match self {
            Self::Component => Component::from_file("/does/not/exist").into(),
            native_mode => native_mode.command(["/does/not/exist"]),
        }
    }

    /// Returns the text of an exit with `code`. A component exits with 1 for every failure,
    /// because WASI 0.2 has no exit codes.
    #[must_use]
    pub fn exit_words(self, code: u8) -> String {
        match self {
            Self::Component => "exit status 1".to_owned(),
            Self::Native | Self::Guarded | Self::Grpc => format!("exit status {code}"),
        }
    }

    /// Returns the name of the fixture in errors.
    #[must_use]
    pub fn fixture_name(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Native | Self::Guarded | Self::Grpc => "conformance-fixture-native",
        }
    }

    /// Returns a native plugin that uses the wire of this mode. The mode must not be `Component`.
    #[must_use]
    pub fn command(self, argv: impl IntoIterator<Item = impl Into<OsString>>) -> Source {
        let wire = match self {
            Self::Grpc => Wire::Grpc,
            Self::Native | Self::Guarded | Self::Component => Wire::Stdio,
        };
        NativeCommand::new(argv).wire(wire).into()
    }
}

/// Returns the fixture as a component, for tests of limits.
#[must_use]
pub fn fixture_component(argument: &str) -> Component {
    let bytes = std::fs::read(component("conformance-fixture"));
    with_argument(
        Component::from_bytes(bytes.expect("the build script has built it")),
        argument,
    )
}

/// Returns the component cache of the test process.
pub fn component_cache() -> PathBuf {
    static CACHE: OnceLock<TempDir> = OnceLock::new();
    let folder = CACHE.get_or_init(|| tempfile::tempdir().expect("a temporary folder"));
    folder.path().to_owned()
}

/// Returns the path of a plugin, built as a program.
///
/// # Panics
///
/// If cargo has not built the binaries of this package.
#[must_use]
pub fn native(name: &str) -> PathBuf {
    let program = env::current_exe().expect("a running program has a path");
    let folder = program.parent().expect("a program is in a folder");
    // Cargo puts tests into a folder below that of the binaries.
    let binaries = folder.parent().filter(|_| folder.ends_with("deps"));
    let path = binaries.unwrap_or(folder).join(format!("{name}-native"));
    assert!(
        path.exists(),
        "{} does not exist; `cargo xtask test` builds it",
        path.display()
    );
    path
}

/// Returns the path of a plugin, built as a component.
#[must_use]
pub fn component(name: &str) -> PathBuf {
    Path::new(env!("COMPONENTS"))
        .join(name)
        .with_extension("wasm")
}

/// Passes the argument to the fixture, unless it is empty.
pub(crate) fn with_argument(fixture: Component, argument: &str) -> Component {
    if argument.is_empty() {
        fixture
    } else {
        fixture.arg(argument)
    }
}
