//! The stages of a plugin's life, and the legal moves between them.

use std::sync::Arc;

use crate::error::{CheckError, PluginError};

/// Where a plugin is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PluginState {
    /// Nothing was asked yet, so nothing was started.
    Idle,
    /// It was started and has not connected yet.
    Launching,
    /// It is connected.
    Running,
    /// It failed; it will not be started again.
    Broken,
    /// It was closed.
    Closed,
}

/// What the core keeps; `Broken` and `Closed` are for ever.
#[derive(Debug)]
pub(crate) enum State {
    Idle,
    Launching,
    Running,
    Broken(PluginError),
    Closed,
}

impl State {
    /// Moves from `Idle` to `Launching`; returns whether that was the move.
    pub(crate) fn launch(&mut self) -> bool {
        let idle = matches!(self, Self::Idle);
        if idle {
            *self = Self::Launching;
        }
        idle
    }

    /// Moves from `Launching` to `Running`; returns whether that was the move.
    pub(crate) fn connect(&mut self) -> bool {
        let launching = matches!(self, Self::Launching);
        if launching {
            *self = Self::Running;
        }
        launching
    }

    /// Ends a life with an error, unless it has ended before: the first error stays.
    /// Returns whether this was the first.
    pub(crate) fn fail(&mut self, error: &PluginError) -> bool {
        let alive = self.is_alive();
        if alive {
            *self = Self::Broken(error.clone());
        }
        alive
    }

    /// Ends a life, unless it has ended before; returns whether it was alive.
    pub(crate) fn close(&mut self) -> bool {
        let alive = self.is_alive();
        if alive {
            *self = Self::Closed;
        }
        alive
    }

    /// Returns what a new check gets when the life has ended.
    pub(crate) fn refusal(&self, plugin: &Arc<str>) -> Option<CheckError> {
        match self {
            Self::Idle | Self::Launching | Self::Running => None,
            Self::Broken(error) => Some(CheckError::Plugin(error.clone())),
            Self::Closed => Some(CheckError::Aborted {
                plugin: Arc::clone(plugin),
            }),
        }
    }

    /// Returns what users see of it.
    pub(crate) fn public(&self) -> PluginState {
        match self {
            Self::Idle => PluginState::Idle,
            Self::Launching => PluginState::Launching,
            Self::Running => PluginState::Running,
            Self::Broken(_) => PluginState::Broken,
            Self::Closed => PluginState::Closed,
        }
    }

    fn is_alive(&self) -> bool {
        matches!(self, Self::Idle | Self::Launching | Self::Running)
    }
}

#[cfg(all(test, not(admission_model)))]
mod tests {
    use super::*;
    use crate::error_kind::ErrorKind;

    #[test]
    fn a_life_goes_one_way() {
        let mut state = State::Idle;
        assert!(!state.connect());
        assert!(state.launch());
        assert!(!state.launch());
        assert!(state.connect());
        assert!(!state.connect());
        assert!(state.close());
        assert!(!state.launch() && !state.connect() && !state.close());
        assert_eq!(state.public(), PluginState::Closed);
    }

    #[test]
    fn the_first_error_stays() {
        let plugin: Arc<str> = "policy".into();
        let error = |text: &str| PluginError::new(&plugin, ErrorKind::Crash, text);
        let mut state = State::Running;
        assert!(state.fail(&error("first")));
        assert!(!state.fail(&error("second")));
        assert!(!state.close());
        let refusal = state.refusal(&plugin).expect("the life has ended");
        assert_eq!(refusal.to_string(), "first");
        assert_eq!(state.public(), PluginState::Broken);
    }
}
