//! Search in cells: the nearest allowed nodes of those groups of nodes that are nearest to the query.

use std::ops::Range;

use super::cluster::{Clusters, means_of_runs};
use super::graph::{Damaged, Le32, Parts};
use super::kernels::{self, CodeRows, Isa};
use super::query::{SearchError, Stop};
use super::rowset::RowSet;
use super::search::{Candidate, Scratch, Space};
use super::spaces::CodeSpace;
use crate::id::RowId;

/// Cells of a group, at least; and how many times that their root is more.
const GROUP: usize = 12;
const GROUPS_FOR_ROOT: usize = 4;
/// Fewer cells than this are not in groups: walks descend from layer to layer.
const LEAST_GROUPED: usize = 128;

/// The cells of an index, as it keeps them.
#[derive(Clone, Debug)]
pub(crate) struct OwnedCells {
    pub(crate) centres: Vec<u8>,
    pub(crate) starts: Vec<Le32>,
    /// The codes of the means of `group` cells each.
    pub(crate) groups: Vec<u8>,
    /// Cells of a group; 0 if there are no groups, as the cells are few.
    pub(crate) group: u32,
}

impl OwnedCells {
    /// Where the cells lie among nodes in the order `numbered`: sorted by their highest layer, and by cell
    /// within each.
    pub(crate) fn new(clusters: Clusters, stride: usize, numbered: &[u32], levels: &[u32]) -> Self {
        let layers = levels.len();
        let of = |node: usize| clusters.of[numbered[node] as usize] as usize;
        let count = (0..numbered.len()).map(of).max().map_or(0, |last| last + 1);
        let mut starts = vec![0u32; (count + 1) * layers];
        for layer in 0..layers {
            let end = levels[layer] as usize;
            let begin = levels.get(layer + 1).map_or(0, |&count| count as usize);
            let mut node = begin;
            for cell in 0..=count {
                while node < end && of(node) < cell {
                    node += 1;
                }
                starts[cell * layers + layer] = u32::try_from(node).expect("as many as rows at most");
            }
        }
        let group = match count {
            0..LEAST_GROUPED => 0,
            _ => GROUP.max(count.isqrt() / GROUPS_FOR_ROOT),
        };
        let groups = if group == 0 {
            Vec::new()
        } else {
            let bytes = &clusters.centres;
            means_of_runs(CodeRows { bytes, stride }, group)
        };
        Self {
            groups,
            group: u32::try_from(group).expect("a root of 32 bits"),
            centres: clusters.centres,
            starts: starts.into_iter().map(u32::to_le_bytes).collect(),
        }
    }
}

impl OwnedCells {
    pub(crate) fn of(&self, stride: usize, layers: usize) -> Cells<'_> {
        let rows = |bytes| CodeRows { bytes, stride };
        Cells {
            centres: rows(&self.centres),
            starts: &self.starts,
            layers,
            groups: (self.group > 0).then(|| Groups {
                centres: rows(&self.groups),
                size: self.group,
            }),
        }
    }
}

/// Groups of near nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cells<'a> {
    /// The codes of the cells' centres.
    pub(crate) centres: CodeRows<'a>,
    /// For each cell, and once more at the end: where its nodes of layer 0 alone begin, where those begin
    /// whose highest layer is 1, and so on. They end where those of the next cell begin.
    pub(crate) starts: &'a [Le32],
    pub(crate) layers: usize,
    /// If the cells are many.
    pub(crate) groups: Option<Groups<'a>>,
}

/// Runs of cells that follow each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Groups<'a> {
    /// The codes of their means.
    pub(crate) centres: CodeRows<'a>,
    /// Cells of each; the last may have fewer.
    pub(crate) size: u32,
}

impl Groups<'_> {
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.centres.bytes.len() / self.centres.stride).expect("no more than cells")
    }

    /// The cells of a group, of `cells` in all.
    pub(crate) fn cells(&self, group: usize, cells: usize) -> Range<u32> {
        let first = group * self.size as usize;
        let place = |cell: usize| u32::try_from(cell.min(cells)).expect("no more than nodes");
        place(first)..place(first + self.size as usize)
    }
}

impl Cells<'_> {
    pub(crate) fn count(&self) -> usize {
        self.centres.bytes.len() / self.centres.stride
    }

    /// Whether every node lies in one cell, given how many each layer has.
    pub(crate) fn cover(&self, levels: &[u32]) -> bool {
        (0..self.layers).all(|layer| {
            let begin = levels.get(layer + 1).copied().unwrap_or(0);
            let mut end = begin;
            let follows = (0..self.count()).all(|cell| {
                let nodes = self.nodes(cell, layer);
                let follows = nodes.start == end && nodes.end >= end;
                end = nodes.end;
                follows
            });
            follows && levels.get(layer) == Some(&end)
        })
    }

    /// The nodes of a cell whose highest layer this is.
    pub(crate) fn nodes(&self, cell: usize, layer: usize) -> Range<u32> {
        let start = |cell| u32::from_le_bytes(self.starts[cell * self.layers + layer]);
        start(cell)..start(cell + 1)
    }
}

/// Cells that are put in order at first, and how many times as many each time that they did not suffice.
const FIRST: usize = 64;
const MORE: usize = 4;
/// Codes that are on their way from memory while others are compared.
const BATCH: usize = 24;

/// Compares `ids` with the query and leaves a word for each in `order`: its key, then its place among them.
#[inline(always)]
pub(crate) fn compare(space: &CodeSpace<'_>, ids: &[u32], keys: &mut Vec<u32>, order: &mut Vec<u64>) {
    keys.resize(keys.len().max(ids.len()), 0);
    let keys = &mut keys[..ids.len()];
    space.keys(ids, keys);
    order.clear();
    order.extend(
        (0..)
            .zip(keys)
            .map(|(place, key): (u64, _)| u64::from(*key) << 32 | place),
    );
}

/// Cells, nearest first: sorted a part at a time, since most are never asked for.
#[derive(Debug, Default)]
pub(crate) struct Nearest {
    cells: Vec<u64>,
    sorted: usize,
}

impl Nearest {
    /// Compares all centres with the query.
    fn fill(&mut self, cells: &Cells<'_>, space: &CodeSpace<'_>, keys: &mut Vec<u32>) {
        let centres = CodeSpace {
            codes: cells.centres,
            ..*space
        };
        let ids: Vec<u32> = (0..).take(cells.count()).collect();
        compare(&centres, &ids, keys, &mut self.cells);
        self.sorted = 0;
    }

    /// The cell at a place in the order.
    fn get(&mut self, place: usize) -> Option<usize> {
        if place >= self.sorted {
            let rest = &mut self.cells[self.sorted..];
            let more = FIRST.max(MORE * self.sorted).min(rest.len());
            if more < rest.len() {
                rest.select_nth_unstable(more);
            }
            rest[..more].sort_unstable();
            self.sorted += more;
        }
        let cell = self.cells.get(place)? & u64::from(u32::MAX);
        usize::try_from(cell).ok()
    }
}

/// Whether one of a node's rows is allowed. A node that has no row is, so that whoever asks for it finds out.
#[inline(always)]
pub(crate) fn admits(parts: &Parts<'_>, allowed: &RowSet, node: u32) -> bool {
    let contains = |row: &Le32| allowed.contains(RowId::new(u64::from(u32::from_le_bytes(*row))));
    if parts.node_rows.starts.is_empty() {
        return parts.node_rows.rows.get(node as usize).is_none_or(contains);
    }
    parts
        .node_rows
        .of(node)
        .map_or(true, |rows| rows.iter().any(contains))
}

/// How to look into cells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'s> {
    /// Rows wanted.
    pub(crate) k: usize,
    /// Candidates kept.
    pub(crate) ef: usize,
    /// Allowed nodes compared, after the last that was among the `k` nearest, before the search ends.
    pub(crate) patience: usize,
    pub(crate) stop: Stop<'s>,
}

/// The cells of an index, and the rows that are looked for in them.
pub(crate) struct AllowedCells<'a> {
    pub(crate) parts: &'a Parts<'a>,
    pub(crate) cells: Cells<'a>,
    pub(crate) allowed: &'a RowSet,
}

impl AllowedCells<'_> {
    /// Puts the allowed nodes of a cell behind `found`. Gives how many nodes the cell has.
    #[inline(always)]
    fn allowed_of(&self, isa: Isa, cell: usize, found: &mut Vec<u32>) -> Result<usize, Damaged> {
        let one_row_each = self.parts.node_rows.starts.is_empty();
        let mut seen = 0;
        for layer in 0..self.cells.layers {
            let nodes = self.cells.nodes(cell, layer);
            if nodes.is_empty() {
                continue;
            }
            let at = found.len();
            let rows = self
                .parts
                .node_rows
                .rows
                .get(nodes.start as usize..nodes.end as usize);
            let rows = rows
                .filter(|_| nodes.end <= self.parts.node_count())
                .ok_or(Damaged { section: "cells" })?;
            seen += nodes.len();
            if one_row_each {
                found.resize(at + rows.len().next_multiple_of(16), 0);
                let words = self.allowed.words();
                let admitted = kernels::admitted(isa, rows, words, nodes.start, &mut found[at..]);
                found.truncate(at + admitted);
            } else {
                found.extend(nodes.filter(|&node| admits(self.parts, self.allowed, node)));
            }
        }
        Ok(seen)
    }

    /// Leaves the nearest of `known` and of the allowed nodes of the nearest cells in the pool. True if these were all
    /// cells. What is known must be in order.
    pub(crate) fn search(
        &self,
        space: &CodeSpace<'_>,
        plan: Plan<'_>,
        known: &[Candidate],
        scratch: &mut Scratch,
    ) -> Result<bool, SearchError> {
        let Scratch {
            pool,
            keys,
            nearest,
            fresh: arriving,
            arrived,
            ..
        } = scratch;
        nearest.fill(&self.cells, space, keys);
        pool.reset(plan.ef.max(plan.k));
        known.iter().for_each(|&candidate| pool.push(candidate));
        let (mut compared, mut improved, mut place, mut seen) = (0, 0, 0, 0);
        arriving.clear();
        arrived.clear();
        loop {
            let mut last = false;
            while arriving.len() < BATCH {
                let Some(cell) = nearest.get(place) else {
                    last = true;
                    break;
                };
                place += 1;
                let before = arriving.len();
                seen += self.allowed_of(space.isa, cell, arriving)?;
                // Cells that overlap would be looked into for ever.
                if seen > self.parts.node_count() as usize {
                    return Err(Damaged { section: "cells" }.into());
                }
                arriving[before..].iter().for_each(|&node| space.prefetch(node));
            }
            keys.resize(keys.len().max(arrived.len()), 0);
            space.keys(arrived, &mut keys[..arrived.len()]);
            for (&node, &key) in arrived.iter().zip(&*keys) {
                compared += 1;
                let new = Candidate::new(key, node);
                if new < pool.threshold() && known.binary_search(&new).is_err() {
                    if pool.candidates().get(plan.k - 1).is_none_or(|&kth| new < kth) {
                        improved = compared;
                    }
                    pool.push(new);
                }
            }
            let all = last && arriving.is_empty();
            if all || compared >= improved + plan.patience && pool.candidates().len() >= plan.k {
                scratch.distances += (self.cells.count() + compared) as u64;
                return Ok(all);
            }
            plan.stop.check()?;
            std::mem::swap(arriving, arrived);
            arriving.clear();
        }
    }
}
