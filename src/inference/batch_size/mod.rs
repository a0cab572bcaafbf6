//! How large a model's batches should be: measured by trying, and kept for the next start.

mod measure;
mod store;

pub(super) use self::measure::{MeasuredBatch, measure};
pub use self::store::BatchSizeStore;
