//! Hints on what to do next when a plugin fails.

use admission_host::{CheckError, ErrorKind, Wire};

/// The kinds of plugins that get different hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PluginKind {
    /// A COMMAND that speaks this wire.
    Command(Wire),
    /// The native plugin that `cipd` is configured to use, run as `cipd` runs it.
    CommandOfCipd,
    Component,
}

/// Returns the hint for a plugin that failed.
pub(crate) fn for_plugin_failure(failure: &CheckError, kind: PluginKind) -> Option<&'static str> {
    if !failure.exited_before_connecting() {
        return for_error_kind(failure.kind(), kind);
    }
    match kind {
        PluginKind::Command(Wire::Grpc) => Some(
            "the plugin exited before it connected; a plugin that is not made for cipd needs --wire stdio, one that needs a variable of the environment needs --env NAME; -vv shows everything that it logs",
        ),
        PluginKind::Command(_) => Some(
            "the plugin exited before it connected; a plugin made for cipd needs --wire grpc, one that needs a variable of the environment needs --env NAME; -vv shows everything that it logs",
        ),
        PluginKind::CommandOfCipd => Some(
            "the plugin exited before it connected, as it would with cipd; -vv shows everything that it logs",
        ),
        PluginKind::Component => for_error_kind(failure.kind(), kind),
    }
}

/// Returns the hint for a plugin that has not connected yet.
pub(crate) fn for_slow_connect(kind: PluginKind) -> &'static str {
    match kind {
        PluginKind::Command(Wire::Grpc) => {
            "is it an admission plugin? one that is not made for cipd needs --wire stdio"
        }
        PluginKind::Command(_) => {
            "is it an admission plugin? one that is made for cipd needs --wire grpc"
        }
        PluginKind::CommandOfCipd => "is it an admission plugin?",
        PluginKind::Component => "a large component takes a while to compile, once if it is cached",
    }
}

/// Returns the hint for an error of this kind.
pub(crate) fn for_error_kind(error: ErrorKind, plugin: PluginKind) -> Option<&'static str> {
    use PluginKind::{Command, CommandOfCipd, Component};
    Some(match (error, plugin) {
        (ErrorKind::Launch, Command(_)) => {
            "check that COMMAND exists and is executable; a name without a slash is looked up in PATH"
        }
        (ErrorKind::Launch, CommandOfCipd) => {
            "check that it exists and is executable; a name without a slash is looked up in PATH"
        }
        (ErrorKind::Launch, Component) => {
            "the file must be a WASI 0.2 component; `cargo build --target wasm32-wasip2` makes one of a Rust program"
        }
        (ErrorKind::ConnectTimeout, Command(Wire::Stdio)) => {
            "the plugin runs but did not connect; a plugin made for cipd needs --wire grpc; one built with the SDK connects when it calls run_plugin"
        }
        (ErrorKind::ConnectTimeout, _) => {
            "the plugin runs but did not connect; one built with the SDK connects when it calls run_plugin"
        }
        (ErrorKind::Version, _) => "build the plugin with an SDK of this protocol version",
        (ErrorKind::Protocol, Command(Wire::Stdio) | Component) => {
            "only the protocol may write to the plugin's stdout; print to stderr instead, or log with the SDK"
        }
        (ErrorKind::Stall, Command(Wire::Stdio) | Component) => {
            "the plugin stopped in the middle of a frame; look for something that blocks its writes to stdout"
        }
        (ErrorKind::Crash, _) => "-vv shows everything that the plugin logs before it exits",
        (ErrorKind::Timeout, _) => {
            "raise --timeout if the plugin needs longer; -vv shows everything that it logs"
        }
        (ErrorKind::Resource, Component) => {
            "raise --memory-limit or --cpu-limit if the component needs more"
        }
        (ErrorKind::Trap, _) => {
            "the component trapped; a panic does that, and its stderr or -vv shows the message"
        }
        (ErrorKind::Import, _) => {
            "a component may import only WASI 0.2; build it with `cargo build --target wasm32-wasip2`"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [ErrorKind; 14] = [
        ErrorKind::Launch,
        ErrorKind::ConnectTimeout,
        ErrorKind::Version,
        ErrorKind::Protocol,
        ErrorKind::Stall,
        ErrorKind::Crash,
        ErrorKind::Timeout,
        ErrorKind::Resource,
        ErrorKind::Trap,
        ErrorKind::Import,
        ErrorKind::Denied,
        ErrorKind::PolicyError,
        ErrorKind::Overload,
        ErrorKind::Aborted,
    ];

    /// Returns all hints for plugins of this kind.
    fn hints(plugin: PluginKind) -> String {
        let hints = KINDS
            .into_iter()
            .filter_map(|kind| for_error_kind(kind, plugin));
        hints
            .chain([for_slow_connect(plugin)])
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn hints_name_only_options_that_the_plugin_can_have() {
        let component = hints(PluginKind::Component);
        assert!(
            !component.contains("--wire") && !component.contains("--env"),
            "{component}"
        );
        assert!(component.contains("--memory-limit"), "{component}");
        let command = hints(PluginKind::Command(Wire::Stdio));
        assert!(
            !command.contains("limit") && command.contains("--wire grpc"),
            "{command}"
        );
        let of_cipd = hints(PluginKind::CommandOfCipd);
        assert!(
            !of_cipd.contains("--wire") && !of_cipd.contains("limit"),
            "{of_cipd}"
        );
    }

    #[test]
    fn hints_about_stdout_are_for_plugins_whose_stdout_is_the_wire() {
        for plugin in [PluginKind::Command(Wire::Stdio), PluginKind::Component] {
            assert!(hints(plugin).contains("stdout"), "{plugin:?}");
        }
        for plugin in [PluginKind::Command(Wire::Grpc), PluginKind::CommandOfCipd] {
            assert!(!hints(plugin).contains("stdout"), "{plugin:?}");
        }
    }
}
