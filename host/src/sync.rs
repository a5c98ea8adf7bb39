//! What promises and the life of a plugin are synchronised with.
//!
//! Under `cfg(admission_model)`, which the crate `tests/model` sets for itself, it is
//! loom's: there, these sources are run in every order in which threads can take turns.

#[cfg(not(admission_model))]
pub(crate) use futures_util::task::AtomicWaker;
#[cfg(not(admission_model))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(admission_model)]
pub(crate) use crate::waker::AtomicWaker;
#[cfg(admission_model)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
