//! Stands in for the host's errors, which would bring the transports with them. Whether it
//! fits is for the compiler to say.
#![allow(unreachable_pub, reason = "they are public where the host's are")]

use std::sync::Arc;

/// Why a check did not end in an admission.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckError {
    Aborted { plugin: Arc<str> },
    Overloaded { plugin: Arc<str>, pending: usize },
    Plugin(PluginError),
}

/// What became of the plugin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PluginError(pub(crate) &'static str);
