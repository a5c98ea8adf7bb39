//! What to do next when a plugin fails.

use admission_host::{CheckError, ErrorKind};

use crate::args::Wire;

/// What kind of plugin it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PluginKind {
    /// A program that is talked to like this.
    Command(Wire),
    /// The program that `cipd` is configured to ask, and that is asked as `cipd` does.
    CommandOfCipd,
    Component,
}

/// Says what to do next about a plugin that failed, if there is something to say.
pub(crate) fn about_plugin(failure: &CheckError, kind: PluginKind) -> Option<&'static str> {
    match kind {
        PluginKind::Command(wire) if failure.exited_before_connecting() => Some(match wire {
            Wire::Stdio => {
                "the plugin ended before it connected; one that is made for cipd needs --wire grpc, one that needs more of the environment --env NAME, and -vv shows all that it logs"
            }
            Wire::Grpc => {
                "the plugin ended before it connected; one that is not made for cipd may need --wire stdio, one that needs more of the environment --env NAME, and -vv shows all that it logs"
            }
        }),
        PluginKind::CommandOfCipd if failure.exited_before_connecting() => Some(
            "the plugin ended before it connected, as it would with cipd; -vv shows all that it logs",
        ),
        _ => what_next(failure.kind(), kind),
    }
}

/// Says what to look at while a plugin does not connect.
pub(crate) fn about_silence(kind: PluginKind) -> &'static str {
    match kind {
        PluginKind::Command(Wire::Stdio) => {
            "is it an admission plugin, and does it start up at all? one that is made for cipd needs --wire grpc"
        }
        PluginKind::Command(Wire::Grpc) => {
            "is it an admission plugin, and does it start up at all? one that is not made for cipd may need --wire stdio"
        }
        PluginKind::CommandOfCipd => "is it an admission plugin, and does it start up at all?",
        PluginKind::Component => "a large one takes its time to be compiled once",
    }
}

/// Says what to do next about a failure of kind `error`, if there is something to say.
pub(crate) fn what_next(error: ErrorKind, plugin: PluginKind) -> Option<&'static str> {
    Some(match (error, plugin) {
        (ErrorKind::Launch, PluginKind::Command(_)) => {
            "check that COMMAND exists and may be executed; a name without a slash is looked for in PATH"
        }
        (ErrorKind::Launch, PluginKind::CommandOfCipd) => {
            "check that it exists and may be executed; a name without a slash is looked for in PATH"
        }
        (ErrorKind::Launch, PluginKind::Component) => {
            "the file must be a WASI 0.2 component; a Rust program becomes one with `cargo build --target wasm32-wasip2`"
        }
        (ErrorKind::ConnectTimeout, PluginKind::Command(Wire::Stdio)) => {
            "the plugin runs but never said that it is ready; one that is made for cipd needs --wire grpc, and one built with the SDK says so as soon as it calls run_plugin"
        }
        (ErrorKind::ConnectTimeout, _) => {
            "the plugin runs but never said that it is ready; a plugin built with the SDK does so as soon as it calls run_plugin"
        }
        (ErrorKind::Version, _) => "build the plugin with an SDK that speaks this protocol version",
        (ErrorKind::Protocol, _) => {
            "the plugin's stdout belongs to the protocol; print to stderr, or log with the SDK, instead"
        }
        (ErrorKind::Stall, _) => {
            "the plugin stopped in the middle of a message; look for a write to stdout that something blocks"
        }
        (ErrorKind::Crash, _) => {
            "run again with -vv to see all that the plugin logs before it ends"
        }
        (ErrorKind::Timeout, _) => {
            "raise --timeout if the plugin needs longer; run with -vv to see what it is doing"
        }
        (ErrorKind::Resource, PluginKind::Component) => {
            "raise --memory-limit or --cpu-limit if the component needs more"
        }
        (ErrorKind::Trap, _) => {
            "the component trapped, as a panic makes it do; its stderr and -vv say more"
        }
        (ErrorKind::Import, _) => {
            "a component may import nothing but WASI 0.2; build it with `cargo build --target wasm32-wasip2`"
        }
        _ => return None,
    })
}
