//! Vectors out of Arrow arrays: every list type and float type that a Parquet file may hold them in.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::error::{DataFusionError, Result};

/// The type of the numbers in a vector column, if vectors in it can be indexed.
///
/// `FixedSizeList`, `List` and `LargeList` of `Float16`, `Float32` or `Float64` can.
pub(crate) fn item_type(column: &DataType) -> Option<&DataType> {
    let (DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item)) = column else {
        return None;
    };
    matches!(
        item.data_type(),
        DataType::Float16 | DataType::Float32 | DataType::Float64
    )
    .then(|| item.data_type())
}

/// Whether an index over such items holds their very bits (`Float64` is rounded to `f32`, the others are not).
pub(crate) fn stored_exactly(item: &DataType) -> bool {
    matches!(item, DataType::Float16 | DataType::Float32)
}

/// The vectors of one column of a batch.
#[derive(Debug)]
pub(crate) struct Vectors {
    nulls: Option<NullBuffer>,
    item_nulls: Option<NullBuffer>,
    offsets: Offsets,
    items: Items,
}

#[derive(Debug)]
enum Offsets {
    Fixed(usize),
    Small(datafusion::arrow::buffer::OffsetBuffer<i32>),
    Large(datafusion::arrow::buffer::OffsetBuffer<i64>),
}

#[derive(Debug)]
enum Items {
    Single(Float32Array),
    Double(Float64Array),
}

/// One vector of a column.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Vector<'a> {
    /// NULL, or with a NULL inside: its distance to anything is NULL.
    Null,
    /// Of `Float16` or `Float32` items.
    Single(&'a [f32]),
    /// Of `Float64` items.
    Double(&'a [f64]),
}

impl Vectors {
    /// Looks into an array of vectors.
    ///
    /// # Errors
    ///
    /// Returns an error if [`item_type`] does not know the array's type.
    pub(crate) fn of(array: &ArrayRef) -> Result<Self> {
        let (values, offsets) = match array.data_type() {
            DataType::FixedSizeList(_, dim) => {
                let list = array.as_fixed_size_list();
                (
                    Arc::clone(list.values()),
                    Offsets::Fixed(usize::try_from(*dim).unwrap_or(0)),
                )
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                (Arc::clone(list.values()), Offsets::Small(list.offsets().clone()))
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                (Arc::clone(list.values()), Offsets::Large(list.offsets().clone()))
            }
            other => {
                return Err(DataFusionError::Plan(format!(
                    "{other} is not a column of vectors"
                )));
            }
        };
        let items = match values.data_type() {
            DataType::Float32 => Items::Single(values.as_primitive::<Float32Type>().clone()),
            DataType::Float16 => Items::Single(
                cast(&values, &DataType::Float32)?
                    .as_primitive::<Float32Type>()
                    .clone(),
            ),
            DataType::Float64 => Items::Double(values.as_primitive::<Float64Type>().clone()),
            other => {
                return Err(DataFusionError::Plan(format!(
                    "vectors of {other} cannot be searched"
                )));
            }
        };
        let item_nulls = values.nulls().filter(|n| n.null_count() > 0).cloned();
        Ok(Self {
            nulls: array.nulls().cloned(),
            item_nulls,
            offsets,
            items,
        })
    }

    /// The vector in row `row` of the batch.
    pub(crate) fn get(&self, row: usize) -> Vector<'_> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return Vector::Null;
        }
        let range = match &self.offsets {
            Offsets::Fixed(dim) => row * dim..(row + 1) * dim,
            Offsets::Small(offsets) => index(offsets[row].into())..index(offsets[row + 1].into()),
            Offsets::Large(offsets) => index(offsets[row])..index(offsets[row + 1]),
        };
        if self
            .item_nulls
            .as_ref()
            .is_some_and(|nulls| nulls.slice(range.start, range.len()).null_count() > 0)
        {
            return Vector::Null;
        }
        match &self.items {
            Items::Single(items) => Vector::Single(&items.values()[range]),
            Items::Double(items) => Vector::Double(&items.values()[range]),
        }
    }
}

/// Arrow's offsets are never negative and never beyond memory.
fn index(offset: i64) -> usize {
    usize::try_from(offset).expect("Arrow validated the offsets")
}

impl Vector<'_> {
    /// How many numbers it has; `None` for NULL.
    pub(crate) fn dim(&self) -> Option<usize> {
        match self {
            Vector::Null => None,
            Vector::Single(v) => Some(v.len()),
            Vector::Double(v) => Some(v.len()),
        }
    }
}
