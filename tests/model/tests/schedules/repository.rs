//! Stands for where metadata comes from, which no lock here has to do with.

pub(crate) trait Repository: Send + Sync {}
