//! Writing; the mirror image of `view`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use xxhash_rust::xxh3::Xxh3;

use super::layout::Header;
use super::meta::SidecarMeta;
use super::puffin::{BLOB_CHECKSUM, Blob, Footer, MAGIC};
use super::section::{ALIGN, Section};
use crate::hnsw::HnswIndex;
use crate::hnsw::raw::CodeMetric;

/// Blobs end here, so that readers with 32-bit lengths can list them; a longer section continues in a
/// further blob of its type.
const LONGEST_BLOB: u64 = 1 << 30;

/// Writes an index as a sidecar. Gives the number of bytes written.
///
/// The vectors are streamed in the order of the nodes; nothing is copied as a whole.
///
/// # Errors
///
/// If `out` fails.
pub fn write(index: &HnswIndex, meta: &SidecarMeta, out: &mut impl Write) -> io::Result<u64> {
    let mut file = Blobs {
        out,
        at: 0,
        blobs: Vec::new(),
        open: None,
    };
    file.raw(&MAGIC)?;
    let header = header_of(index);
    for section in Section::ALL {
        if section.is_optional() && header.length(section) == Ok(0) {
            continue;
        }
        file.begin(section);
        match section {
            Section::Header => file.put(&header.to_bytes())?,
            Section::Codes => {
                if let Some(codes) = &index.codes {
                    file.put(&codes.bytes)?;
                }
            }
            Section::Links => file.put(index.graph.base.as_flattened())?,
            Section::Upper => file.put(index.graph.upper.as_flattened())?,
            Section::Clusters => {
                if let Some(clusters) = &index.clusters {
                    file.put(&clusters.centroids)?;
                    file.put(clusters.starts.as_flattened())?;
                }
            }
            Section::Groups => {
                if let Some(clusters) = &index.clusters {
                    file.put(&clusters.groups)?;
                }
            }
            Section::Nodes => {
                file.put(index.node_rows.as_flattened())?;
                file.put(index.starts.as_flattened())?;
            }
            Section::Rows => file.put(index.row_slots.as_flattened())?,
            Section::Lists => {
                for list in [&index.nulls, &index.zeros, &index.unindexable] {
                    file.put(list.as_flattened())?;
                }
            }
            Section::Vectors => {
                let vectors = index.vectors();
                for slot in 0..header.slots {
                    file.put(vectors.row(slot).unwrap_or_default())?;
                }
            }
        }
        file.end()?;
    }
    let mut properties = meta.to_properties();
    properties.extend(described(&header));
    let footer = Footer {
        blobs: std::mem::take(&mut file.blobs),
        properties,
    };
    file.raw(&footer.to_bytes())?;
    Ok(file.at)
}

fn header_of(index: &HnswIndex) -> Header {
    let small = |n: usize| u32::try_from(n).expect("the builder keeps counts below 2^31");
    Header {
        metric: index.metric,
        dim: small(index.dim),
        m: small(index.config.m),
        ef_construction: small(index.config.ef_construction),
        stored: index.config.stored,
        seed: index.config.seed,
        rows: index.row_slots.len() as u64,
        slots: small(index.order.len()),
        linked: small(index.node_rows.len()),
        nulls: small(index.nulls.len()),
        zeros: small(index.zeros.len()),
        unindexable: small(index.unindexable.len()),
        code_kind: match index.codes.as_ref().map(|codes| codes.book.metric) {
            None => 0,
            Some(CodeMetric::Squared) => 1,
            Some(CodeMetric::Dot) => 2,
        },
        code_stride: index.codes.as_ref().map_or(0, |codes| small(codes.stride)),
        code_offset: index.codes.as_ref().map_or(0.0, |codes| codes.book.offset),
        code_scale: index.codes.as_ref().map_or(0.0, |codes| codes.book.scale),
        max_norm: index.max_norm,
        levels: index.graph.levels.clone(),
        clusters: index.clusters.as_ref().map_or(0, |clusters| {
            small(clusters.starts.len() / index.graph.levels.len() - 1)
        }),
        group: index.clusters.as_ref().map_or(0, |clusters| clusters.group),
    }
}

/// The header once more, for people and tools that list the footer. Readers use the header.
fn described(header: &Header) -> BTreeMap<String, String> {
    [
        ("metric", header.metric.to_string()),
        ("dim", header.dim.to_string()),
        ("m", header.m.to_string()),
        ("ef-construction", header.ef_construction.to_string()),
        ("seed", header.seed.to_string()),
        ("stored-vectors", header.stored.to_string()),
        ("rows", header.rows.to_string()),
        ("nodes", header.nodes().to_string()),
        ("null-rows", header.nulls.to_string()),
        ("zero-rows", header.zeros.to_string()),
        ("unlinked-rows", header.unindexable.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// The file so far: how long it is, and its blobs.
struct Blobs<'w, W> {
    out: &'w mut W,
    at: u64,
    blobs: Vec<Blob>,
    open: Option<Open>,
}

/// The blob being written.
struct Open {
    section: Section,
    begin: u64,
    hash: Xxh3,
}

impl<W: Write> Blobs<'_, W> {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn begin(&mut self, section: Section) {
        self.open = Some(Open {
            section,
            begin: self.at,
            hash: Xxh3::new(),
        });
    }

    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let open = self.open.as_mut().expect("a section was begun");
            let section = open.section;
            let room = usize::try_from(open.begin + LONGEST_BLOB - self.at).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            open.hash.update(now);
            self.raw(now)?;
            if !later.is_empty() {
                self.close();
                self.begin(section);
            }
            bytes = later;
        }
        Ok(())
    }

    /// Pads the section, so that the next one is aligned, and lists its last blob.
    fn end(&mut self) -> io::Result<()> {
        let padding = self.at.next_multiple_of(ALIGN as u64) - self.at;
        self.put(&[0; ALIGN][..usize::try_from(padding).expect("below the alignment")])?;
        self.close();
        Ok(())
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.blobs.push(Blob {
            r#type: open.section.blob_type(),
            fields: Vec::new(),
            snapshot_id: -1,
            sequence_number: -1,
            offset: open.begin,
            length: self.at - open.begin,
            compression_codec: None,
            properties: [(BLOB_CHECKSUM.to_owned(), format!("{:016x}", open.hash.digest()))].into(),
        });
    }
}
