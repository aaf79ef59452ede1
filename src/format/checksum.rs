//! The checksums of blobs, for whoever reads the file.

use std::ops::Range;

use super::FormatError;
use super::puffin::{BLOB_CHECKSUM, Blob};
use super::section::Section;

/// What the bytes of a blob must hash to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// The section that the blob belongs to.
    pub section: &'static str,
    /// Where its bytes lie in the file.
    pub place: Range<usize>,
    /// Their xxh3-64.
    pub sum: u64,
}

impl Checksum {
    /// An error if the bytes hash to something else.
    ///
    /// # Errors
    ///
    /// Names the section.
    pub fn check(&self, sum: u64) -> Result<(), FormatError> {
        if sum == self.sum {
            return Ok(());
        }
        Err(FormatError::damaged(self.section, "the checksum does not agree"))
    }
}

/// The checksums that a footer lists. One that makes no sense becomes one that no bytes agree with.
pub(super) fn checksums(blobs: &[Blob]) -> Vec<Checksum> {
    let of = |blob: &Blob| {
        let text = blob.properties.get(BLOB_CHECKSUM)?;
        let begin = usize::try_from(blob.offset).ok();
        let end = usize::try_from(blob.offset.saturating_add(blob.length)).ok();
        let place = begin.zip(end).map_or(0..0, |(begin, end)| begin..end);
        let sum = u64::from_str_radix(text, 16).ok();
        let (place, sum) = sum.map_or((0..0, 0), |sum| (place, sum));
        let section = section_name(&blob.r#type);
        Some(Checksum { section, place, sum })
    };
    blobs.iter().filter_map(of).collect()
}

fn section_name(blob_type: &str) -> &'static str {
    Section::ALL
        .into_iter()
        .find(|section| section.blob_type() == blob_type)
        .map_or("further blob", Section::name)
}
