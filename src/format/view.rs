//! Searching the bytes in place; the mirror image of `write`.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use super::FormatError;
use super::layout::Header;
use super::meta::SidecarMeta;
use super::puffin::{Blob, Footer};
use super::section::Section;
use crate::hnsw::raw::{
    Clusters, CodeMetric, CodeRows, Codebook, Groups, IndexId, Le32, Links, NodeRows, Parts, Vectors,
    as_floats, range, search,
};
use crate::hnsw::{HnswConfig, HnswIndex, RowSet, SearchError, SearchOptions, SearchOutcome, StoredVectors};
use crate::id::RowId;

/// A sidecar, searched where its bytes are.
pub struct View<B> {
    pub(super) bytes: B,
    pub(super) header: Header,
    pub(super) meta: SidecarMeta,
    /// Where each section's content lies, in the order of [`Section::ALL`].
    sections: [Range<usize>; Section::ALL.len()],
    pub(super) config: HnswConfig,
    id: IndexId,
    /// See [`Clusters::squares`].
    squares: OnceLock<Vec<u32>>,
}

impl<B> fmt::Debug for View<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("header", &self.header)
            .field("meta", &self.meta)
            .field("sections", &self.sections)
            .finish_non_exhaustive()
    }
}

impl<B: AsRef<[u8]>> View<B> {
    /// Opens bytes written by [`write`](super::write), to be read in place.
    ///
    /// Costs the same for any number of rows; nothing is copied.
    ///
    /// # Errors
    ///
    /// Unless all of these hold, checked in this order: the file begins and ends as a Puffin file does;
    /// the footer's checksum agrees and it lists blobs inside of the file; the header has our magic, a
    /// version that we know, and agrees with its checksum; its numbers go together; and every section
    /// has the length that follows from them. What the sections hold is checked as it is read, or all at
    /// once by [`verify`](Self::verify).
    ///
    /// # Panics
    ///
    /// Never, for any bytes.
    pub fn open(bytes: B) -> Result<Self, FormatError> {
        let file = bytes.as_ref();
        let (footer, end) = Footer::from_file(file)?;
        let header = locate(&footer.blobs, Section::Header, end)?;
        let header_length = header.len().min(super::layout::HEADER);
        let header = Header::from_bytes(&file[header.start..header.start + header_length])?;
        let mut sections = std::array::from_fn(|_| 0..0);
        for (section, place) in Section::ALL.into_iter().zip(&mut sections) {
            let length = header.length(section)?;
            if section.is_optional() && length == 0 {
                continue;
            }
            let blob = locate(&footer.blobs, section, end)?;
            if blob.len() < length {
                return Err(FormatError::damaged(
                    section.name(),
                    "shorter than the header says",
                ));
            }
            *place = blob.start..blob.start + length;
        }
        let meta = SidecarMeta::from_properties(&footer.properties)
            .map_err(|reason| FormatError::damaged("footer", reason))?;
        let config = HnswConfig {
            m: header.m as usize,
            ef_construction: header.ef_construction as usize,
            seed: header.seed,
            threads: 0,
            stored: header.stored,
        };
        Ok(Self {
            bytes,
            header,
            meta,
            sections,
            config,
            id: IndexId::next(),
            squares: OnceLock::new(),
        })
    }

    pub(super) fn section(&self, section: Section) -> &[u8] {
        let place = self.sections[section as usize].clone();
        // A `B` that gives other bytes than it gave to `open` gets the answer of an empty section.
        self.bytes.as_ref().get(place).unwrap_or_default()
    }

    pub(super) fn words(&self, section: Section) -> &[Le32] {
        self.section(section).as_chunks().0
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        let header = &self.header;
        let nodes = self.words(Section::Nodes);
        let (rows, starts) = nodes.split_at((header.linked as usize).min(nodes.len()));
        let metric = match header.code_kind {
            1 => Some(CodeMetric::Squared),
            2 => Some(CodeMetric::Dot),
            _ => None,
        };
        Parts {
            id: self.id,
            metric: header.metric,
            dim: header.dim as usize,
            links: Links {
                levels: &header.levels,
                m: header.m as usize,
                base: self.words(Section::Links),
                upper: self.words(Section::Upper),
            },
            codes: metric.map(|metric| {
                let book = Codebook {
                    metric,
                    offset: header.code_offset,
                    scale: header.code_scale,
                };
                let bytes = self.section(Section::Codes);
                (
                    book,
                    CodeRows {
                        bytes,
                        stride: header.code_stride as usize,
                    },
                )
            }),
            clusters: metric.filter(|_| header.clusters > 0).map(|_| {
                let (centroids, starts) = self.clusters();
                Clusters {
                    centroids: CodeRows {
                        bytes: centroids,
                        stride: header.code_stride as usize,
                    },
                    starts,
                    layers: header.levels.len(),
                    squares: &self.squares,
                    groups: (header.group > 0).then(|| Groups {
                        centroids: CodeRows {
                            bytes: self.section(Section::Groups),
                            stride: header.code_stride as usize,
                        },
                        size: header.group,
                    }),
                }
            }),
            node_rows: NodeRows { rows, starts },
            row_slots: self.words(Section::Rows),
            vectors: Vectors {
                bytes: self.section(Section::Vectors),
                stored: header.stored,
                dim: header.dim as usize,
                order: None,
            },
            slots: header.slots,
            max_norm: header.max_norm,
        }
    }

    /// The codes of the clusters' centroids, and where the clusters lie.
    fn clusters(&self) -> (&[u8], &[Le32]) {
        let bytes = self.section(Section::Clusters);
        let centroids = self.header.clusters as usize * self.header.code_stride as usize;
        let (centroids, starts) = bytes.split_at(centroids.min(bytes.len()));
        (centroids, starts.as_chunks().0)
    }

    /// The rows nearest to `query`.
    ///
    /// # Errors
    ///
    /// If the query has the wrong length, is not finite, or is zero under cosine; or if the search comes
    /// upon bytes that contradict each other, after which the source must be searched instead.
    pub fn search(&self, query: &[f32], options: &SearchOptions<'_>) -> Result<SearchOutcome, SearchError> {
        search(&self.parts(), query, options)
    }

    /// All rows within `radius` of the query, itself included: the nearest `limit` of them, nearest first.
    ///
    /// Widens the search until the farthest candidate lies outside of the radius; like every search of the
    /// graph, it may miss some. `stats.exact` says if it looked at every row that qualifies.
    ///
    /// # Errors
    ///
    /// As [`search`](Self::search).
    pub fn range(
        &self,
        query: &[f32],
        radius: f32,
        limit: usize,
        allowed: Option<&RowSet>,
    ) -> Result<SearchOutcome, SearchError> {
        range::within(&self.parts(), query, radius, limit, allowed)
    }

    /// Answers many queries, which follow each other in `queries`, on all threads of the current rayon pool.
    ///
    /// # Errors
    ///
    /// As [`search`](Self::search), for the first query that has no answer.
    pub fn search_batch(
        &self,
        queries: &[f32],
        options: &SearchOptions<'_>,
    ) -> Result<Vec<SearchOutcome>, SearchError> {
        range::batch(&self.parts(), queries, options)
    }

    /// The vector of a row, as it is stored: borrowed if it is f32 and aligned, which it is in a mapped
    /// file. `None` if the row has no vector or none are stored.
    pub fn vector(&self, row: RowId) -> Option<Cow<'_, [f32]>> {
        let parts = self.parts();
        let slot = parts.slot_of(row.get())?;
        let bytes = parts.vectors.row(slot)?;
        if parts.vectors.stored == StoredVectors::F32
            && let Some(floats) = as_floats(bytes)
        {
            return Some(Cow::Borrowed(floats));
        }
        let mut vector = vec![0.0; parts.dim];
        parts
            .vectors
            .read(slot, &mut vector)
            .then_some(Cow::Owned(vector))
    }

    /// Copies the index into memory.
    pub(super) fn to_index(&self) -> HnswIndex {
        HnswIndex::from_parts(
            &self.parts(),
            self.config.clone(),
            [self.list(0), self.list(1), self.list(2)].map(<[Le32]>::to_vec),
        )
    }
}

/// Where a section lies: its blobs, which follow each other, before `end`.
fn locate(blobs: &[Blob], section: Section, end: usize) -> Result<Range<usize>, FormatError> {
    let damaged = |reason| Err(FormatError::damaged(section.name(), reason));
    let name = section.blob_type();
    let mut place: Option<Range<usize>> = None;
    for blob in blobs.iter().filter(|blob| blob.r#type == name) {
        if blob.compression_codec.is_some() {
            return damaged("compressed, so it cannot be searched in place");
        }
        let Some(part) = blob_place(blob, end) else {
            return damaged("outside of the file");
        };
        place = match place {
            None => Some(part),
            Some(before) if before.end == part.start => Some(before.start..part.end),
            Some(_) => return damaged("its blobs do not follow each other"),
        };
    }
    place.map_or_else(|| damaged("missing"), Ok)
}

pub(super) fn blob_place(blob: &Blob, end: usize) -> Option<Range<usize>> {
    let begin = usize::try_from(blob.offset).ok()?;
    let until = begin.checked_add(usize::try_from(blob.length).ok()?)?;
    (until <= end).then_some(begin..until)
}
