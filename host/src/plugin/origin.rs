//! Where a package comes from, in a check that has its own notion of that.

use std::sync::Arc;

use crate::repository::Repository;

/// The CIPD service of one check, which need not be the host's.
pub(crate) struct Origin {
    pub(crate) service_url: String,
    /// Answers the calls that are made for the check, and for no other.
    pub(crate) repository: Arc<dyn Repository>,
}
