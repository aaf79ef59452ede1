//! Every kernel against its plain twin.

use super::*;
use crate::hnsw::build::levels::mix;

fn bytes(count: usize, seed: u64) -> Vec<u8> {
    (0..count as u64)
        .map(|i| mix(seed ^ mix(i)).to_le_bytes()[0])
        .collect()
}

fn floats(count: usize, seed: u64) -> Vec<f32> {
    let unit = |i: u64| (mix(seed ^ mix(i)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    (0..count as u64)
        .map(|i| unit(i) * 10f32.powi((i % 7) as i32 - 3))
        .collect()
}

fn keys(isa: Isa, metric: CodeMetric, query: &[u8], codes: &[u8]) -> Vec<u32> {
    let rows = CodeRows {
        bytes: codes,
        stride: query.len(),
    };
    let ids: Vec<u32> = (0..).take(codes.len() / query.len()).collect();
    let mut keys = vec![0; ids.len()];
    code_keys(isa, QueryCode::new(metric, query), rows, &ids, &mut keys);
    keys
}

#[test]
fn every_code_kernel_agrees_with_its_plain_twin() {
    for dim in 1..=1100 {
        for offset in [0, 1, 7] {
            let (query, codes) = (bytes(dim + offset, 1), bytes(3 * dim + offset, 2));
            let (query, codes) = (&query[offset..], &codes[offset..]);
            for metric in [CodeMetric::Squared, CodeMetric::Dot] {
                let plain = keys(Isa::Portable, metric, query, codes);
                for isa in Isa::available() {
                    assert_eq!(
                        keys(isa, metric, query, codes),
                        plain,
                        "{isa:?} {metric:?} dim {dim}"
                    );
                }
            }
        }
    }
}

#[test]
fn code_kernels_agree_near_the_query_and_where_one_difference_is_great() {
    for dim in [17, 64, 100, 128, 200] {
        let query: Vec<u8> = (60..65).cycle().take(dim).collect();
        for rows in 1..=9 {
            // All are near; then each place of each row in turn is not, by 127, 128 or more.
            let near: Vec<u8> = query.iter().map(|&q| q + 3).cycle().take(rows * dim).collect();
            let changes = (0..rows * dim)
                .step_by(29)
                .flat_map(|at| [187, 188, 189, 255].map(|byte| (at, byte)));
            for (at, byte) in changes {
                let mut codes = near.clone();
                codes[at] = byte;
                for metric in [CodeMetric::Squared, CodeMetric::Dot] {
                    let plain = keys(Isa::Portable, metric, &query, &codes);
                    for isa in Isa::available() {
                        let found = keys(isa, metric, &query, &codes);
                        assert_eq!(found, plain, "{isa:?} {metric:?} dim {dim}, {byte} at {at}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_kernel_finds_the_same_keys_at_most() {
    let keys: Vec<u32> = (0..64)
        .map(|i| u32::try_from(mix(i) >> 32).expect("32 bits"))
        .chain([u32::MAX, 0, 7])
        .collect();
    for count in 0..=64 {
        for limit in [0, 7, keys[3], u32::MAX / 2, u32::MAX - 1, u32::MAX] {
            let keys = &keys[keys.len() - count..];
            let wanted = (0..)
                .zip(keys)
                .fold(0, |bits, (place, &key)| bits | u64::from(key <= limit) << place);
            for isa in Isa::available() {
                assert_eq!(
                    at_most(isa, keys, limit),
                    wanted,
                    "{isa:?}, {count} keys, {limit}"
                );
            }
        }
    }
}

#[test]
fn every_kernel_finds_the_same_unmet_nodes() {
    let count = 1000;
    let met: Vec<u32> = (0..32)
        .map(|i| u32::try_from(mix(i) >> 32).expect("32 bits"))
        .collect();
    for length in 0..=80 {
        for (used, stray) in [
            (length, None),
            (length / 2, None),
            (length, Some(count)),
            (length, Some(3)),
        ] {
            let mut slots: Vec<Le32> = (0..length as u64)
                .map(|i| {
                    u32::try_from(mix(length as u64 ^ mix(i)) % u64::from(count))
                        .expect("below 1000")
                        .to_le_bytes()
                })
                .collect();
            slots[used..].fill([0xFF; 4]);
            if let (Some(id), Some(last)) = (stray, slots.last_mut()) {
                *last = u32::to_le_bytes(id);
            }
            let run = |isa| {
                let mut out = vec![0; length.next_multiple_of(16)];
                let (found, damaged) = unmet(isa, &slots, &met, count, &mut out);
                (out[..found].to_vec(), damaged)
            };
            for isa in Isa::available() {
                assert_eq!(
                    run(isa),
                    run(Isa::Portable),
                    "{isa:?}, {length} slots, {used} used"
                );
            }
        }
    }
}

#[test]
fn every_kernel_lets_in_the_same_nodes() {
    let words: Vec<u64> = (0..10).map(mix).collect();
    for length in 0..=80 {
        let rows: Vec<Le32> = (0..length as u64)
            .map(|i| u32::to_le_bytes((mix(length as u64 ^ mix(i)) % 700) as u32))
            .chain([u32::MAX.to_le_bytes()])
            .collect();
        for isa in Isa::available() {
            let bits = contained(isa, &rows, &words);
            assert_eq!(
                bits,
                contained(Isa::Portable, &rows, &words),
                "{isa:?}, {length} rows"
            );
            let mut places = [0; 64];
            let count = ones(isa, bits, 7, &mut places);
            let wanted: Vec<u32> = (0..64)
                .filter(|bit| bits >> bit & 1 == 1)
                .map(|bit| 7 + bit)
                .collect();
            assert_eq!(places[..count], wanted, "{isa:?}, {length} rows");
        }
    }
}

#[test]
fn squares_of_codes_are_relative_to_128() {
    for dim in [1, 31, 64, 700] {
        let code = bytes(dim, 5);
        let wanted: i64 = code.iter().map(|&byte| (i64::from(byte) - 128).pow(2)).sum();
        assert_eq!(i64::from(code_square(&code)), wanted);
    }
}

#[test]
fn code_kernels_do_not_overflow_at_the_longest_dimension() {
    let dim = crate::hnsw::MAX_CODE_DIM;
    for (a, b) in [(0, 255), (255, 255), (0, 0), (1, 254)] {
        for metric in [CodeMetric::Squared, CodeMetric::Dot] {
            let plain = keys(Isa::Portable, metric, &vec![a; dim], &vec![b; dim]);
            for isa in Isa::available() {
                assert_eq!(
                    keys(isa, metric, &vec![a; dim], &vec![b; dim]),
                    plain,
                    "{isa:?} {metric:?}"
                );
            }
        }
    }
}

#[test]
fn every_float_kernel_has_the_bits_of_its_plain_twin() {
    for dim in 1..=1100 {
        for offset in [0, 1, 3] {
            let query = floats(dim + 1, 3);
            let row: Vec<u8> = floats(dim, 4).iter().flat_map(|x| x.to_le_bytes()).collect();
            let row = [vec![0; offset], row].concat();
            let (query, row) = (&query[1..], &row[offset..]);
            for metric in [FloatMetric::Squared, FloatMetric::Dot, FloatMetric::DotAndSquare] {
                let plain = float_sums(Isa::Portable, metric, query, row);
                for isa in Isa::available() {
                    let sums = float_sums(isa, metric, query, row);
                    let bits = |sums: Sums| (sums.first.to_bits(), sums.square.to_bits());
                    assert_eq!(bits(sums), bits(plain), "{isa:?} {metric:?} dim {dim}");
                }
            }
        }
    }
}
