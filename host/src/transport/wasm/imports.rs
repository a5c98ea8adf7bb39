//! What a component may import: WASI 0.2, and nothing else.

use wasmtime::Engine;
use wasmtime::component::Component;

/// The interfaces that a component finds. Linking them grants nothing: behind most of
/// them there is nothing to be found, or everything is refused.
const LINKED: [&str; 27] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// The entry point of a component that is a command.
const RUN: &str = "wasi:cli/run";

/// Returns the imports that a component would not find, as it names them.
pub(super) fn unknown_imports(engine: &Engine, component: &Component) -> Vec<String> {
    component
        .component_type()
        .imports(engine)
        .map(|(name, _)| name)
        .filter(|name| !LINKED.iter().any(|linked| is_stable_version(name, linked)))
        .map(str::to_owned)
        .collect()
}

/// Tells whether a component can be run as a command of WASI 0.2.
pub(super) fn exports_run(engine: &Engine, component: &Component) -> bool {
    component
        .component_type()
        .exports(engine)
        .any(|(name, _)| is_stable_version(name, RUN))
}

/// Tells whether `name` is `interface` at a version 0.2.x. All of these are compatible;
/// the drafts before 0.2.0, which have a suffix, are not.
fn is_stable_version(name: &str, interface: &str) -> bool {
    name.strip_prefix(interface)
        .and_then(|rest| rest.strip_prefix("@0.2."))
        .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::wasm::engine::engine;
    use crate::transport::wasm::sandbox;

    #[test]
    fn every_version_0_2_is_known_and_nothing_else() {
        let known = |name| is_stable_version(name, "wasi:cli/stdin");
        assert!(known("wasi:cli/stdin@0.2.0"));
        assert!(known("wasi:cli/stdin@0.2.12"));
        assert!(!known("wasi:cli/stdin"));
        assert!(!known("wasi:cli/stdin@0.2."));
        assert!(!known("wasi:cli/stdin@0.2.0-rc-2023-11-10"));
        assert!(!known("wasi:cli/stdin@0.3.0"));
        assert!(!known("wasi:cli/stdin-too@0.2.0"));
    }

    #[test]
    fn what_is_listed_is_what_is_linked() {
        let engine = engine().unwrap();
        for interface in LINKED {
            let text = format!(r#"(component (import "{interface}@0.2.0" (instance)))"#);
            let component = Component::new(engine, wat::parse_str(text).unwrap()).unwrap();
            assert!(unknown_imports(engine, &component).is_empty());
            let error = sandbox::link(engine, &component).err().unwrap();
            assert!(format!("{error:#}").contains(RUN), "{interface}: {error:#}");
        }
    }
}
