//! Which nodes a beam search may go through.

/// Which nodes a beam search may go through.
pub(crate) trait NodeFilter {
    /// Moves those of `nodes` that it lets in to the front; gives how many.
    fn keep(&self, nodes: &mut [u32]) -> usize;
}

/// Lets in all.
pub(crate) struct EveryNode;

impl NodeFilter for EveryNode {
    #[inline(always)]
    fn keep(&self, nodes: &mut [u32]) -> usize {
        nodes.len()
    }
}
