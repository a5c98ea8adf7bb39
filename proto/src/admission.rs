//! The request that a policy judges.

use crate::{ObjectRef, wire};

/// The request to judge one package instance: may it be deployed?
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Admission {
    /// Identifies the check. Opaque, and meaningless once the check has a verdict.
    pub admission_id: String,
    /// URL of the CIPD service that has the package, without a trailing slash.
    pub service_url: String,
    /// Name of the package.
    pub package: String,
    /// The instance to be deployed.
    pub instance: ObjectRef,
}

impl Admission {
    /// Converts the wire message. A missing instance becomes an unspecified one.
    #[must_use]
    pub fn from_wire(admission: wire::plugin::Admission) -> Self {
        Self {
            admission_id: admission.admission_id,
            service_url: admission.service_url,
            package: admission.package,
            instance: admission.instance.map(ObjectRef::from).unwrap_or_default(),
        }
    }
}
