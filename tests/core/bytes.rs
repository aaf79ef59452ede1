//! What the bytes promise.

use datafusion_hnsw::format::{FormatError, HnswSerializer, SidecarMeta, SourceIdentity, View, write};
use datafusion_hnsw::hnsw::{
    HnswBuilder, HnswConfig, MAX_DIM, MAX_ROWS, RowSet, SearchError, SearchOptions, SearchStrategy,
    StoredVectors, VectorMetric,
};
use datafusion_hnsw::id::RowId;
use datafusion_hnsw::loader::MmapLoader;

use proptest::prelude::*;

use crate::common::{build, clustered, nearest, share, uniform};

/// Opens, searches and reads in every way; any of it may fail, none may panic. Gives what failed first.
pub(crate) fn try_everything(bytes: &[u8]) -> Outcome {
    let view = match View::open(bytes) {
        Ok(view) => view,
        Err(error) => return Outcome::NotOpened(error),
    };
    let query = vec![0.25; view.dim()];
    let allowed = RowSet::all(view.rows().min(1 << 20));
    let mut refused = None;
    let some: RowSet = (0..view.rows().min(1 << 20)).step_by(3).map(RowId::new).collect();
    for options in [
        SearchOptions::new(3).strategy(SearchStrategy::Graph),
        SearchOptions::new(3).ef(usize::MAX),
        SearchOptions::new(3).allowed(&allowed),
        SearchOptions::new(3)
            .allowed(&some)
            .strategy(SearchStrategy::Clusters),
        SearchOptions::new(3)
            .allowed(&some)
            .strategy(SearchStrategy::Codes),
        SearchOptions::new(3)
            .ef(5)
            .strategy(SearchStrategy::Graph)
            .tie_margin(),
    ] {
        refused = refused.or(view.search(&query, &options).err());
    }
    refused = refused.or(view.range(&query, 1.0, 5, None).err());
    for row in [0, 1, view.rows().wrapping_sub(1), view.rows()] {
        let _ = view.vector(RowId::new(row));
    }
    let _ = view
        .null_rows()
        .chain(view.zero_rows())
        .chain(view.unindexable_rows())
        .count();
    let verified = view.verify();
    match (refused, verified) {
        (Some(error), _) => Outcome::Refused(error),
        (None, Err(error)) => Outcome::Damaged(error),
        (None, Ok(())) => {
            let copied = HnswSerializer::from_bytes(bytes).expect("it was verified");
            assert_eq!(copied.node_count(), view.node_count());
            Outcome::Whole
        }
    }
}

/// What came of trying everything on some bytes.
#[derive(Debug)]
pub(crate) enum Outcome {
    NotOpened(FormatError),
    Refused(SearchError),
    /// Searched without an error, but verification finds one.
    Damaged(FormatError),
    Whole,
}

fn small() -> Vec<u8> {
    let mut data = clustered(60, 20, 1, 1);
    data[7] = data[3].clone();
    data[9] = vec![0.0; 20];
    HnswSerializer::to_bytes(&build(
        &data,
        VectorMetric::Cosine,
        HnswConfig {
            m: 3,
            ..HnswConfig::default()
        },
    ))
}

#[test]
fn what_was_written_is_read_back() {
    let meta = SidecarMeta {
        index_name: "docs_embedding".into(),
        table_column: "embedding".into(),
        item_type: "Float32".into(),
        sources: vec![SourceIdentity {
            file_name: "part \"1\".parquet".into(),
            size: 12,
            footer_hash: "abc".into(),
            rows: 60,
            e_tag: Some("tag".into()),
        }],
        created_by: "test".into(),
        properties: [("note".into(), "footer-xxh3-64\":\"".into())].into(),
    };
    let index = build(
        &uniform(60, 20, 2),
        VectorMetric::Euclidean,
        HnswConfig::default(),
    );
    let mut bytes = Vec::new();
    assert_eq!(write(&index, &meta, &mut bytes).unwrap(), bytes.len() as u64);
    let view = View::open(&bytes).unwrap();
    assert_eq!(*view.meta(), meta);
    assert_eq!((view.m(), view.ef_construction(), view.rows()), (16, 200, 60));
    assert_eq!(bytes[..4], *b"PFA1");
    assert_eq!(bytes[bytes.len() - 4..], *b"PFA1");
}

#[test]
fn limits_are_errors_that_name_them() {
    let of_dim = |dim: usize| {
        let mut builder = HnswBuilder::new(dim, VectorMetric::Euclidean, HnswConfig::default());
        builder.insert_slice(RowId::new(0), &vec![1.0; dim]).unwrap();
        builder.build().map(|index| index.dim())
    };
    assert_eq!(of_dim(MAX_DIM).unwrap(), 65_535);
    assert!(of_dim(MAX_DIM + 1).unwrap_err().to_string().contains("65535"));
    let mut builder = HnswBuilder::new(1, VectorMetric::Euclidean, HnswConfig::default());
    assert_eq!(MAX_ROWS, (1 << 31) - 1);
    assert!(builder.insert_slice(RowId::new(MAX_ROWS - 1), &[1.0]).is_ok());
    for beyond in [MAX_ROWS, u64::from(u32::MAX), u64::MAX] {
        let error = builder.insert_slice(RowId::new(beyond), &[1.0]).unwrap_err();
        assert!(error.to_string().contains("2147483647"), "{error}");
    }
    // More than there are rows is no error: all of them come.
    let index = build(&uniform(9, 4, 2), VectorMetric::Euclidean, HnswConfig::default());
    let bytes = HnswSerializer::to_bytes(&index);
    let view = View::open(&bytes).unwrap();
    for (k, ef) in [(9, 9), (10, 1), (usize::MAX, usize::MAX)] {
        let found = view.search(&[0.5; 4], &SearchOptions::new(k).ef(ef)).unwrap();
        assert_eq!(found.hits.len(), 9);
    }
}

#[test]
fn vectors_of_65_535_numbers_are_found_and_refused_only_where_codes_are_needed() {
    let data = uniform(60, MAX_DIM, 43);
    for metric in [VectorMetric::Cosine, VectorMetric::Euclidean] {
        let config = HnswConfig {
            m: 4,
            ..HnswConfig::default()
        };
        let mapped =
            MmapLoader::from_bytes(&HnswSerializer::to_bytes(&build(&data, metric, config))).unwrap();
        for query in &data[..10] {
            let found = mapped.search(query, &SearchOptions::new(5).ef(20)).unwrap();
            let rows: Vec<RowId> = found.hits.iter().map(|hit| hit.row).collect();
            assert!(share(&rows, &nearest(&data, metric, query, 5, None)) >= 0.8);
            assert_eq!(rows[0], nearest(&data, metric, query, 1, None)[0]);
        }
    }
    let config = HnswConfig {
        stored: StoredVectors::None,
        ..HnswConfig::default()
    };
    let refused = HnswBuilder::new(MAX_DIM, VectorMetric::Cosine, config).build();
    assert!(refused.unwrap_err().to_string().contains("32000"));
}

/// Nothing writes such sidecars yet, but they must not need another format.
#[test]
fn one_graph_over_many_files_has_room_in_the_format() {
    let rows = [25, 0, 35];
    let source = |number: usize| SourceIdentity {
        file_name: format!("part-{number}.parquet"),
        rows: rows[number],
        ..SourceIdentity::default()
    };
    let meta = SidecarMeta {
        sources: (0..rows.len()).map(source).collect(),
        ..SidecarMeta::default()
    };
    let data = uniform(60, 20, 2);
    let index = build(&data, VectorMetric::Euclidean, HnswConfig::default());
    let mut bytes = Vec::new();
    write(&index, &meta, &mut bytes).unwrap();
    let view = View::open(&bytes).unwrap();
    assert_eq!(view.meta().sources, meta.sources, "in the order of the row ids");
    assert_eq!(view.rows(), rows.iter().sum::<u64>());
    // Row 7 of the third file is row 32 of all.
    let hits = view.search(&data[32], &SearchOptions::new(1)).unwrap().hits;
    assert_eq!(hits[0].row, RowId::new(rows[0] + rows[1] + 7));
}

#[test]
fn writing_what_was_read_gives_the_same_bytes() {
    let bytes = small();
    assert_eq!(
        HnswSerializer::to_bytes(&HnswSerializer::from_bytes(&bytes).unwrap()),
        bytes
    );
}

#[test]
fn the_vectors_of_a_mapped_file_are_read_in_place() {
    let mapped = datafusion_hnsw::loader::MmapLoader::from_bytes(&small()).unwrap();
    for row in 0..60 {
        assert!(matches!(
            mapped.vector(RowId::new(row)),
            Some(std::borrow::Cow::Borrowed(_))
        ));
    }
}

#[test]
fn a_truncated_sidecar_is_rejected_at_every_length() {
    let bytes = small();
    for length in 0..bytes.len() {
        assert!(View::open(&bytes[..length]).is_err(), "length {length}");
    }
}

#[test]
fn a_flipped_bit_is_an_error_or_an_answer_but_no_panic() {
    let bytes = small();
    let mut broken = bytes.clone();
    for at in 0..bytes.len() {
        for bit in [0, 3, 7] {
            broken[at] ^= 1 << bit;
            try_everything(&broken);
            assert!(
                View::open(&broken).and_then(|view| view.verify()).is_err(),
                "byte {at}, bit {bit}"
            );
            broken[at] ^= 1 << bit;
        }
    }
}

#[test]
fn a_later_version_is_refused_with_advice() {
    let mut bytes = small();
    bytes[4 + 8] = 2;
    match View::open(&bytes) {
        Err(error @ FormatError::Newer { found: 2, .. }) => {
            assert!(error.to_string().contains("rebuild"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn other_files_are_not_sidecars() {
    for bytes in [
        &b""[..],
        b"PAR1",
        b"PFA1",
        b"PFA1PFA1\0\0\0\0\0\0\0\0PFA1",
        &[0; 4096],
    ] {
        assert!(View::open(bytes).is_err());
    }
}

/// The same sidecar with other section contents, and everything that guards them made to agree.
fn forge(bytes: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut forged = bytes.to_vec();
    let view = View::open(bytes).unwrap();
    // Sections follow each other after the header, each padded to 64 bytes.
    let body: usize = view
        .section_sizes()
        .iter()
        .skip(1)
        .map(|(_, size)| size.next_multiple_of(64))
        .sum();
    for &(at, byte) in changes {
        forged[320 + at % body] = byte;
    }
    forged
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn arbitrary_contents_behind_a_valid_header_do_not_panic(
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..300)
    ) {
        static SMALL: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        try_everything(&forge(SMALL.get_or_init(small), &changes));
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        try_everything(&bytes);
        bytes.splice(0..0, *b"PFA1");
        bytes.extend(*b"PFA1");
        try_everything(&bytes);
    }
}
