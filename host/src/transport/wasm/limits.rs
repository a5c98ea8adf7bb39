//! The limits of a guest's resources, and the texts of the errors for exceeding them.

use std::time::Duration;

use wasmtime::component::ResourceTableError;
use wasmtime::{Error, ResourceLimiter, Result};

/// Most elements in one table. A table holds references to the guest's functions.
const MAX_TABLE_ELEMENTS: usize = 20_000;

/// Most linear memories of all core instances together. Most components have one. A component
/// that is linked from several modules has one for each.
const MAX_MEMORIES: usize = 8;

/// Most tables of all core instances together.
const MAX_TABLES: usize = 8;

/// Most core instances in a component. A typical component has five, because of its adapter
/// modules.
const MAX_INSTANCES: usize = 64;

/// Most streams, pollables and other resources that may be open at a time.
pub(super) const MAX_RESOURCES: usize = 1024;

/// Most handles to resources, in all tables of the component.
pub(super) const MAX_HANDLES: usize = 4096;

/// Most bytes that the host copies for one call of the guest. A write that fills a
/// pipe takes 64 KiB of this.
pub(super) const MAX_COPIED: usize = 1 << 20;

/// Most random bytes that one call returns.
pub(super) const MAX_RANDOM: u64 = 64 << 10;

/// The trap of a guest that exceeded a limit.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct LimitExceeded(String);

impl LimitExceeded {
    pub(super) fn cpu(limit: Duration) -> Self {
        Self(format!(
            "the CPU limit of {limit:?} without a yield to the host was exceeded"
        ))
    }

    fn memory(limit: u64) -> Self {
        Self(format!("the memory limit of {} was exceeded", size(limit)))
    }
}

/// Returns a text about the limit that the guest exceeded, if that caused the error.
pub(super) fn exceeded_limit(error: &Error) -> Option<String> {
    if let Some(LimitExceeded(text)) = error.downcast_ref() {
        return Some(text.clone());
    }
    let limit = if let Some(ResourceTableError::Full) = error.downcast_ref() {
        format!("{MAX_RESOURCES} open streams and pollables")
    } else {
        let copied = format!("{} in one call to the host", size(MAX_COPIED as u64));
        let random = format!("{} of random numbers in one call", size(MAX_RANDOM));
        // The engine has no error types for these limits, only texts.
        let known = [
            ("fuel allocated for hostcalls", copied),
            ("requested len", random),
            (
                "store handle limit exceeded",
                format!("{MAX_HANDLES} handles"),
            ),
            (
                "resource limit exceeded: instance",
                format!("{MAX_INSTANCES} instances"),
            ),
            (
                "resource limit exceeded: memory",
                format!("{MAX_MEMORIES} memories"),
            ),
            (
                "resource limit exceeded: table",
                format!("{MAX_TABLES} tables"),
            ),
        ];
        let text = error.root_cause().to_string();
        known
            .into_iter()
            .find_map(|(part, limit)| text.contains(part).then_some(limit))?
    };
    Some(format!("the limit of {limit} was exceeded"))
}

/// Formats a number of bytes exactly, in the largest unit that allows it.
fn size(bytes: u64) -> String {
    match bytes {
        1.. if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        1.. if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

/// Limits the growth of memories and tables. Memory is counted for all core instances of a
/// store together, as a component may have several memories below the limit.
#[derive(Debug)]
pub(super) struct StoreLimits {
    memory: u64,
    /// Bytes that were granted. A growth that the system then refused stays counted. The engine
    /// also reports failures of growths that it did not request here, so subtracting failures
    /// would let a guest exceed the limit.
    granted: u64,
}

impl StoreLimits {
    pub(super) fn new(memory: u64) -> Self {
        Self { memory, granted: 0 }
    }
}

impl ResourceLimiter for StoreLimits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            // The guest declares this limit itself, and handles the failure.
            return Ok(false);
        }
        let growth = desired.saturating_sub(current) as u64;
        let granted = self.granted.saturating_add(growth);
        if granted > self.memory {
            // A trap that names the limit is more informative than the abort of the guest after a
            // failed allocation.
            return Err(LimitExceeded::memory(self.memory).into());
        }
        self.granted = granted;
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
            let limit = format!("{MAX_TABLE_ELEMENTS} elements in a table");
            return Err(LimitExceeded(format!("the limit of {limit} was exceeded")).into());
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

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 64 << 10;

    fn exceeded(result: Result<bool>) -> String {
        exceeded_limit(&result.expect_err("the limit")).expect("a known limit")
    }

    #[test]
    fn memories_are_counted_together() {
        let mut limits = StoreLimits::new(3 * PAGE as u64);
        assert!(limits.memory_growing(0, PAGE, None).unwrap());
        assert!(limits.memory_growing(0, PAGE, None).unwrap());
        assert!(limits.memory_growing(PAGE, 2 * PAGE, None).unwrap());
        assert_eq!(
            exceeded(limits.memory_growing(PAGE, 2 * PAGE, None)),
            "the memory limit of 192 KiB was exceeded"
        );
    }

    #[test]
    fn a_failed_growth_stays_counted() {
        let mut limits = StoreLimits::new(PAGE as u64);
        assert!(limits.memory_growing(0, PAGE, None).unwrap());
        limits.memory_grow_failed(Error::msg("no memory")).unwrap();
        assert_eq!(
            exceeded(limits.memory_growing(PAGE, 2 * PAGE, None)),
            "the memory limit of 64 KiB was exceeded"
        );
    }

    #[test]
    fn a_growth_beyond_the_guests_own_maximum_fails_without_a_trap() {
        let mut limits = StoreLimits::new(u64::MAX);
        assert!(!limits.memory_growing(0, 2 * PAGE, Some(PAGE)).unwrap());
        assert!(!limits.table_growing(0, 30_000, Some(10)).unwrap());
    }

    #[test]
    fn a_table_larger_than_the_limit_is_refused() {
        let mut limits = StoreLimits::new(0);
        assert!(limits.table_growing(0, MAX_TABLE_ELEMENTS, None).unwrap());
        assert_eq!(
            exceeded(limits.table_growing(0, MAX_TABLE_ELEMENTS + 1, None)),
            "the limit of 20000 elements in a table was exceeded"
        );
    }

    #[test]
    fn sizes_are_exact() {
        let sizes = [64 << 20, 96 << 10, 1000, 0].map(size);
        assert_eq!(sizes, ["64 MiB", "96 KiB", "1000 bytes", "0 bytes"]);
    }
}
