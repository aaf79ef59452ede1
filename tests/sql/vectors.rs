//! Generated vector columns: every type, and every kind of awkward vector.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, FixedSizeListArray, Float64Array, LargeListArray, ListArray};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field};
use rand::Rng;
use rand::rngs::StdRng;

/// A vector column: its type, and how wild its values are.
#[derive(Clone, Debug)]
pub(crate) struct VectorColumn {
    pub(crate) name: &'static str,
    pub(crate) dim: usize,
    pub(crate) item: DataType,
    list: ListKind,
    values: Values,
    null_vectors: f64,
    null_items: f64,
    zeros: f64,
    not_finite: f64,
    huge: f64,
}

#[derive(Clone, Copy, Debug)]
enum ListKind {
    Fixed,
    List,
    Large,
}

#[derive(Clone, Copy, Debug)]
enum Values {
    /// Small integers: equal vectors and equal distances everywhere.
    Grid,
    /// Anything between -1 and 1.
    Smooth,
    /// So near each other that only 64 bits tell them apart.
    Close,
}

/// A column of this name.
pub(crate) fn vector_column(rng: &mut StdRng, name: &'static str) -> VectorColumn {
    let sometimes =
        |rng: &mut StdRng, likely: f64, share: f64| if rng.random_bool(likely) { share } else { 0.0 };
    VectorColumn {
        name,
        dim: [1, 2, 3, 8, 16, 17, 33][rng.random_range(0..7)],
        item: [
            DataType::Float32,
            DataType::Float32,
            DataType::Float64,
            DataType::Float16,
        ][rng.random_range(0..4)]
        .clone(),
        list: [ListKind::Fixed, ListKind::Fixed, ListKind::List, ListKind::Large][rng.random_range(0..4)],
        values: [Values::Grid, Values::Smooth, Values::Smooth, Values::Close][rng.random_range(0..4)],
        null_vectors: sometimes(rng, 0.5, 0.15),
        null_items: sometimes(rng, 0.3, 0.02),
        zeros: sometimes(rng, 0.4, 0.1),
        not_finite: sometimes(rng, 0.2, 0.05),
        huge: sometimes(rng, 0.2, 0.1),
    }
}

impl VectorColumn {
    /// One vector as its type can hold it (before rounding to it).
    pub(crate) fn vector(&self, rng: &mut StdRng) -> Vec<f64> {
        if rng.random_bool(self.zeros) {
            return vec![if rng.random_bool(0.8) { 0.0 } else { -0.0 }; self.dim];
        }
        let scale = if rng.random_bool(self.huge) {
            let extremes: &[f64] = match self.item {
                DataType::Float16 => &[6e4, 6e-8, 1e-5],
                DataType::Float32 => &[1e38, 1e20, 1e-20, 1e-38, 1e-45],
                _ => &[1e300, 1e160, 1e39, 1e20, 1e-20, 1e-160, 1e-300],
            };
            extremes[rng.random_range(0..extremes.len())]
        } else {
            1.0
        };
        (0..self.dim)
            .map(|_| {
                let value = match self.values {
                    Values::Grid => f64::from(rng.random_range(-2..=2)),
                    Values::Smooth => rng.random_range(-1.0..1.0),
                    Values::Close => 0.75 + rng.random_range(0.0..1e-7),
                };
                value * scale
            })
            .collect()
    }

    /// Rows of it.
    pub(crate) fn array(&self, rng: &mut StdRng, rows: usize) -> ArrayRef {
        let mut items: Vec<Option<f64>> = Vec::new();
        let mut offsets = vec![0];
        let mut valid = Vec::new();
        for _ in 0..rows {
            let null = rng.random_bool(self.null_vectors);
            valid.push(!null);
            if !null || matches!(self.list, ListKind::Fixed) {
                let mut vector: Vec<_> = self.vector(rng).into_iter().map(Some).collect();
                if self.not_finite > 0.0 && rng.random_bool(self.not_finite) {
                    let strange = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][rng.random_range(0..3)];
                    vector[rng.random_range(0..self.dim)] = Some(strange);
                }
                for item in &mut vector {
                    if rng.random_bool(self.null_items) {
                        *item = None;
                    }
                }
                items.extend(vector);
            }
            offsets.push(items.len());
        }
        let items: ArrayRef = Arc::new(Float64Array::from(items));
        let items = cast(&items, &self.item).expect("floats become floats");
        let field = Arc::new(Field::new("item", self.item.clone(), true));
        let nulls = Some(NullBuffer::from(valid));
        match self.list {
            ListKind::Fixed => {
                let dim = i32::try_from(self.dim).expect("few dimensions");
                Arc::new(FixedSizeListArray::new(field, dim, items, nulls))
            }
            ListKind::List => {
                let offsets = offsets
                    .iter()
                    .map(|&o| i32::try_from(o).expect("few items"))
                    .collect();
                Arc::new(ListArray::new(field, OffsetBuffer::new(offsets), items, nulls))
            }
            ListKind::Large => {
                let offsets = offsets
                    .iter()
                    .map(|&o| i64::try_from(o).expect("few items"))
                    .collect();
                Arc::new(LargeListArray::new(
                    field,
                    OffsetBuffer::new(offsets),
                    items,
                    nulls,
                ))
            }
        }
    }

    pub(crate) fn is_large(&self) -> bool {
        matches!(self.list, ListKind::Large)
    }

    pub(crate) fn data_type(&self) -> DataType {
        let field = Arc::new(Field::new("item", self.item.clone(), true));
        match self.list {
            ListKind::Fixed => {
                DataType::FixedSizeList(field, i32::try_from(self.dim).expect("few dimensions"))
            }
            ListKind::List => DataType::List(field),
            ListKind::Large => DataType::LargeList(field),
        }
    }
}
