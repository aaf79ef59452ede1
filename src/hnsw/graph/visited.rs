//! Which nodes a beam search has met.

/// The nodes already met: a bit for each, cleared through the list of touched words.
#[derive(Debug, Default)]
pub(crate) struct Visited {
    /// A bit for each node.
    pub(crate) words: Vec<u32>,
    /// Places of the words that are not 0, and one more place, which may hold anything.
    touched: Vec<u32>,
    touched_len: usize,
}

impl Visited {
    /// Forgets everything and makes room for `nodes`.
    pub(crate) fn reset(&mut self, nodes: u32) {
        for word in &self.touched[..self.touched_len] {
            self.words[*word as usize] = 0;
        }
        self.touched_len = 0;
        let words = nodes.div_ceil(32) as usize;
        if self.words.len() < words {
            self.words.resize(words, 0);
            self.touched.resize(words + 1, 0);
        }
    }

    /// True the first time that a node is met.
    #[inline(always)]
    pub(crate) fn insert(&mut self, node: u32) -> bool {
        // No branch: whether a word is touched for the first time is a toss-up.
        let word = &mut self.words[(node / 32) as usize];
        let bit = 1u32 << (node % 32);
        let new = *word & bit == 0;
        self.touched[self.touched_len] = node / 32;
        self.touched_len += usize::from(*word == 0);
        *word |= bit;
        new
    }

    /// Moves those of `nodes` that were not met to the front; gives how many. All are met now.
    #[inline(always)]
    pub(crate) fn keep_new(&mut self, nodes: &mut [u32]) -> usize {
        let (words, touched) = (&mut self.words[..], &mut self.touched[..]);
        let (mut kept, mut touched_len) = (0, self.touched_len);
        for at in 0..nodes.len() {
            let node = nodes[at];
            let word = &mut words[(node / 32) as usize];
            let bit = 1u32 << (node % 32);
            let new = *word & bit == 0;
            touched[touched_len] = node / 32;
            touched_len += usize::from(*word == 0);
            *word |= bit;
            nodes[kept] = node;
            // A damaged list may name a node twice.
            kept += usize::from(new);
        }
        self.touched_len = touched_len;
        kept
    }
}
