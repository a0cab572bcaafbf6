//! What a worker owns: a network, or several, that answers items in batches.

use crate::error::Result;

/// What a worker owns. It is made, used and dropped on the worker's thread, so it need be neither
/// `Send` nor `Sync`.
pub trait Model: 'static {
    /// What it is asked with.
    type Item: Send + 'static;
    /// What it answers with.
    type Answer: Send + 'static;

    /// Answers `items`, one answer each and in their order. Where it works in steps it may ask
    /// between them whether item `n` is `cancelled` and leave it out, answering it with any error.
    ///
    /// # Errors
    /// An error of one item goes into its place. An error of the whole call, kind model, makes the
    /// worker try smaller batches until the item that causes it stands alone; other kinds go to
    /// every item.
    fn run(
        &mut self,
        items: &[&Self::Item],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Result<Self::Answer>>>;

    /// Runs once before the first item, so that the first item does not pay for allocations and
    /// kernels.
    ///
    /// # Errors
    /// Whatever keeps it from running: the worker is then not started.
    fn warm_up(&mut self) -> Result<()> {
        Ok(())
    }

    /// An item as its stages give it, to measure with how large batches should be; none where
    /// nothing can stand for them.
    fn sample(&self) -> Option<Self::Item> {
        None
    }

    /// What of an item its cost depends on, in words: its size, its length.
    fn shape(_item: &Self::Item) -> String {
        String::new()
    }

    /// Gives back what it keeps for later itself: a batch ran out of memory and will be tried again
    /// in halves.
    fn out_of_memory(&mut self) {}
}
