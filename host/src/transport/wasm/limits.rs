//! What one component may use, and the words for having used more.

use std::fmt;
use std::time::Duration;

use wasmtime::component::ResourceTableError;
use wasmtime::{Error, ResourceLimiter, Result};

/// Most elements that one table may have: a guest's functions are in it.
const MAX_TABLE_ELEMENTS: usize = 20_000;

/// Most linear memories of all instances together. One is usual, a component linked
/// of several has one each.
const MAX_MEMORIES: usize = 8;

/// Most tables of all instances together.
const MAX_TABLES: usize = 8;

/// Most core instances in a component. The adapter modules of a usual one make five.
const MAX_INSTANCES: usize = 64;

/// Most streams, pollables and the like that may be open at a time.
pub(super) const MAX_RESOURCES: usize = 1024;

/// Most handles to them, in all tables of the component.
pub(super) const MAX_HANDLES: usize = 4096;

/// Most bytes that one call of the guest may make the host copy. A write of a full
/// pipe takes 64 KiB of it.
pub(super) const MAX_COPIED: usize = 1 << 20;

/// Most random bytes that one call returns.
pub(super) const MAX_RANDOM: u64 = 64 << 10;

/// A limit that a guest exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Exceeded {
    #[error("the memory limit of {} was exceeded", Size(*.0))]
    Memory(u64),
    #[error("the limit of {MAX_TABLE_ELEMENTS} elements in a table was exceeded")]
    TableElements,
    #[error("the CPU limit of {0:?} without a yield to the host was exceeded")]
    Cpu(Duration),
    #[error("the limit of {MAX_RESOURCES} open streams and pollables was exceeded")]
    Resources,
    #[error("the limit of {MAX_HANDLES} handles was exceeded")]
    Handles,
    #[error("the limit of {} in one call to the host was exceeded", Size(MAX_COPIED as u64))]
    Copied,
    #[error(
        "the limit of {} of random numbers in one call was exceeded",
        Size(MAX_RANDOM)
    )]
    Random,
    #[error("the limit of {MAX_INSTANCES} instances was exceeded")]
    Instances,
    #[error("the limit of {MAX_MEMORIES} memories was exceeded")]
    Memories,
    #[error("the limit of {MAX_TABLES} tables was exceeded")]
    Tables,
}

impl Exceeded {
    /// Finds the limit that is behind an error of the engine.
    pub(super) fn behind(error: &Error) -> Option<Self> {
        if let Some(limit) = error.downcast_ref() {
            return Some(*limit);
        }
        if let Some(ResourceTableError::Full) = error.downcast_ref() {
            return Some(Self::Resources);
        }
        // The engine has no types for its own limits, only these words.
        let words = error.root_cause().to_string();
        let known = [
            ("fuel allocated for hostcalls", Self::Copied),
            ("requested len", Self::Random),
            ("store handle limit exceeded", Self::Handles),
            ("resource limit exceeded: instance", Self::Instances),
            ("resource limit exceeded: memory", Self::Memories),
            ("resource limit exceeded: table", Self::Tables),
        ];
        known
            .into_iter()
            .find_map(|(part, limit)| words.contains(part).then_some(limit))
    }
}

/// Counts the memory of all instances of one store together: a component may have
/// several memories, and each of them alone may stay below the limit.
#[derive(Debug)]
pub(super) struct Limits {
    memory: u64,
    /// What was allowed. A growth that the system then refused stays counted: the
    /// engine also reports failures that it never asked about, so taking one back
    /// would let a guest earn credit.
    allowed: u64,
}

impl Limits {
    pub(super) fn new(memory: u64) -> Self {
        Self { memory, allowed: 0 }
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            // The guest's own limit, which it has code for.
            return Ok(false);
        }
        let growth = desired.saturating_sub(current) as u64;
        let allowed = self.allowed.saturating_add(growth);
        if allowed > self.memory {
            // A trap that names the limit says more than the abort that follows a
            // failed allocation.
            return Err(Exceeded::Memory(self.memory).into());
        }
        self.allowed = allowed;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        if desired > MAX_TABLE_ELEMENTS {
            return Err(Exceeded::TableElements.into());
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

/// A number of bytes, in the largest unit that tells it exactly.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes > 0 && bytes % (1 << 20) == 0 => write!(f, "{} MiB", bytes >> 20),
            bytes if bytes > 0 && bytes % (1 << 10) == 0 => write!(f, "{} KiB", bytes >> 10),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 64 << 10;

    fn exceeded(result: Result<bool>) -> Option<Exceeded> {
        Exceeded::behind(&result.expect_err("the limit"))
    }

    #[test]
    fn memories_count_together() {
        let mut limits = Limits::new(3 * PAGE as u64);
        assert!(limits.memory_growing(0, PAGE, None).unwrap());
        assert!(limits.memory_growing(0, PAGE, None).unwrap());
        assert!(limits.memory_growing(PAGE, 2 * PAGE, None).unwrap());
        assert_eq!(
            exceeded(limits.memory_growing(PAGE, 2 * PAGE, None)),
            Some(Exceeded::Memory(3 * PAGE as u64))
        );
    }

    #[test]
    fn a_growth_that_failed_earns_no_credit() {
        let mut limits = Limits::new(PAGE as u64);
        assert!(limits.memory_growing(0, PAGE, None).unwrap());
        limits.memory_grow_failed(Error::msg("no memory")).unwrap();
        assert_eq!(
            exceeded(limits.memory_growing(PAGE, 2 * PAGE, None)),
            Some(Exceeded::Memory(PAGE as u64))
        );
    }

    #[test]
    fn a_guest_that_reaches_its_own_maximum_is_told_so() {
        let mut limits = Limits::new(u64::MAX);
        assert!(!limits.memory_growing(0, 2 * PAGE, Some(PAGE)).unwrap());
        assert!(!limits.table_growing(0, 30_000, Some(10)).unwrap());
    }

    #[test]
    fn a_table_of_more_than_the_limit_is_refused() {
        let mut limits = Limits::new(0);
        assert!(limits.table_growing(0, MAX_TABLE_ELEMENTS, None).unwrap());
        assert_eq!(
            exceeded(limits.table_growing(0, MAX_TABLE_ELEMENTS + 1, None)),
            Some(Exceeded::TableElements)
        );
    }

    #[test]
    fn sizes_are_told_exactly() {
        let told = [64 << 20, 96 << 10, 1000, 0].map(|bytes| Size(bytes).to_string());
        assert_eq!(told, ["64 MiB", "96 KiB", "1000 bytes", "0 bytes"]);
    }
}
