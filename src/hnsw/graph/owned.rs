//! A graph in memory: the one under construction, and the one of a built index.

use super::links::Links;
use crate::hnsw::ids::{Le32, NO_LINK};

/// The graph under construction; the same layout as in the file.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) levels: Vec<u32>,
    pub(crate) m: usize,
    pub(crate) base: Vec<Le32>,
    pub(crate) upper: Vec<Le32>,
}

impl Graph {
    pub(crate) fn new(levels: Vec<u32>, m: usize) -> Self {
        let nodes = levels.first().copied().unwrap_or(0) as usize;
        let above: usize = levels.iter().skip(1).map(|&count| count as usize).sum();
        let none = NO_LINK.to_le_bytes();
        Self {
            levels,
            m,
            base: vec![none; nodes * 2 * m],
            upper: vec![none; above * m],
        }
    }

    pub(crate) fn links(&self) -> Links<'_> {
        Links {
            levels: &self.levels,
            m: self.m,
            base: &self.base,
            upper: &self.upper,
        }
    }

    pub(crate) fn limit(&self, layer: usize) -> usize {
        if layer == 0 { 2 * self.m } else { self.m }
    }

    pub(crate) fn set(&mut self, node: u32, layer: usize, neighbors: &[u32]) {
        let width = self.limit(layer);
        let slots = if layer == 0 {
            &mut self.base[node as usize * width..][..width]
        } else {
            let before: usize = self.levels[1..layer].iter().map(|&count| count as usize).sum();
            &mut self.upper[(before + node as usize) * width..][..width]
        };
        let padded = neighbors.iter().copied().chain(std::iter::repeat(NO_LINK));
        for (slot, id) in slots.iter_mut().zip(padded) {
            *slot = id.to_le_bytes();
        }
    }

    pub(crate) fn highest_layer(&self, node: u32) -> usize {
        self.levels.iter().take_while(|&&count| node < count).count() - 1
    }
}
