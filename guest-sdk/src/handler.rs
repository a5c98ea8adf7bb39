//! What a policy author writes.

use admission_proto::{Admission, Status};

use crate::InstanceInfo;

/// Decides about package instances.
///
/// Every `async fn(Admission, InstanceInfo) -> Result<(), Status>` is one, and so is a
/// closure `|admission: Admission, info: InstanceInfo| async move { .. }`. A type with
/// state of its own implements the trait and may borrow itself for as long as a check
/// takes:
///
/// ```
/// use admission_sdk::{Admission, Handler, InstanceInfo, Status};
///
/// struct OnlyBelow {
///     prefix: String,
/// }
///
/// impl Handler for OnlyBelow {
///     async fn handle(&self, admission: Admission, _: InstanceInfo) -> Result<(), Status> {
///         if admission.package.starts_with(&self.prefix) {
///             return Ok(());
///         }
///         Err(Status::denied(format!("only {}* may be deployed", self.prefix)))
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// Judges one package instance. Only `Ok(())` admits it.
    ///
    /// The future is dropped, decided or not, when the host ends the plugin.
    ///
    /// # Errors
    ///
    /// [`Status::denied`] denies; any other status says that the check failed. A status
    /// whose code is OK does not admit: it is sent as INTERNAL.
    fn handle(
        &self,
        admission: Admission,
        info: InstanceInfo,
    ) -> impl Future<Output = Result<(), Status>> + Send;
}

impl<F, Answer> Handler for F
where
    F: Fn(Admission, InstanceInfo) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<(), Status>> + Send + 'static,
{
    fn handle(
        &self,
        admission: Admission,
        info: InstanceInfo,
    ) -> impl Future<Output = Result<(), Status>> + Send {
        self(admission, info)
    }
}
