//! How far a build is, for whoever waits for it.

/// How far a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildProgress {
    /// What is being done.
    pub phase: BuildPhase,
    /// Nodes done in this phase.
    pub done: u64,
    /// Nodes in all.
    pub total: u64,
}

/// The parts of a build; nearly all of its time goes into [`Link`](Self::Link).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildPhase {
    /// Folding identical vectors and numbering the nodes.
    Arrange,
    /// Encoding the vectors.
    Encode,
    /// Inserting the nodes into the graph.
    Link,
    /// Checking that every node can be reached.
    Check,
}
