//! The change of a layer's weight: what fits, and its value.
//!
//! Weights are matrices here, one row for each output, as in PyTorch's files.

use super::{
    lora_file::{Change, Factor, Lora, Role},
    names::Place,
};
use aigc_core::{Result, weights::WeightReader};
use burn::tensor::{DType, Device, Tensor, TensorData};

use Factor::{W1, W1A, W1B, W2, W2A, W2B};

/// The two factors of a change: `[rows, rank]` and `[rank, columns]`.
pub(crate) struct LowRankFactors {
    pub(crate) up: Tensor<2>,
    pub(crate) down: Tensor<2>,
}

/// The change of a layer of the file.
#[allow(clippy::large_enum_variant)] // One at a time.
pub(crate) enum Delta {
    /// `up · down`, times a scale.
    LowRank(LowRankFactors, f64),
    /// A whole matrix.
    Dense(Tensor<2>),
}

/// Sizes of a layer of the file: outputs, and the columns of a weight.
pub(crate) struct Size<'a> {
    pub(crate) rows: usize,
    pub(crate) columns: &'a [usize],
}

impl Size<'_> {
    fn width(&self) -> usize {
        self.columns.iter().product()
    }

    /// Positions of the kernel of a convolution.
    fn kernel(&self) -> usize {
        self.columns[1..].iter().product()
    }
}

/// A shape without ones at its end.
fn trimmed(shape: &[usize]) -> &[usize] {
    let ones = shape.iter().rev().take_while(|size| **size == 1).count();
    &shape[..shape.len() - ones]
}

/// The number of elements, as far as it can be counted.
fn product(shape: &[usize]) -> usize {
    let sizes = shape.iter();
    sizes.fold(1, |product, size| product.saturating_mul(*size))
}

/// Reads the tensors of a change.
pub(crate) struct Reading<'a> {
    reader: &'a WeightReader,
    change: &'a Change,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(lora: &'a Lora, change: &'a Change) -> Self {
        Self {
            reader: &lora.reader,
            change,
        }
    }

    fn name(&self, role: Role) -> Option<&'a str> {
        self.change.tensors.get(&role).map(String::as_str)
    }

    fn shape(&self, role: Role) -> Option<&'a [usize]> {
        self.reader.shape(self.name(role)?)
    }

    /// A tensor as a matrix with this number of rows.
    fn matrix(&self, role: Role, rows: usize, device: &Device) -> Result<Option<Tensor<2>>> {
        let Some(name) = self.name(role) else {
            return Ok(None);
        };
        let values = self.reader.read(name)?;
        let columns = values.len() / rows.max(1);
        let data = TensorData::new(values, [rows, columns]);
        Ok(Some(Tensor::from_data(data, (device, DType::F32))))
    }

    /// What does not fit a layer: tensors with their shapes and those expected.
    pub(crate) fn problems(&self, size: &Size<'_>) -> Vec<String> {
        let mut problems = vec![];
        let mut expect = |role: Role, expected: String, fits: bool| {
            if let (false, Some(name)) = (fits, self.name(role)) {
                let shape = self.reader.shape(name).unwrap_or_default();
                problems.push(format!("{name} ({shape:?}, expected {expected})"));
            }
        };
        let (rows, width) = (size.rows, size.width());
        let leading = |role| self.shape(role).and_then(|shape| shape.first()).copied();
        let is = |role, first: usize, rest: usize| {
            self.shape(role).is_some_and(|shape| {
                shape.first() == Some(&first) && product(&shape[1..]) == rest && first > 0
            })
        };
        if let Some(down) = self.shape(Role::Down) {
            let rank = leading(Role::Down).unwrap_or(0);
            let columns = down.get(1..).unwrap_or_default();
            match self.shape(Role::Mid) {
                None => {
                    let same = trimmed(columns) == trimmed(size.columns);
                    // As one axis.
                    let flat = columns == [width];
                    let expected = format!("[rank, {}]", joined(size.columns));
                    expect(Role::Down, expected, rank > 0 && (same || flat));
                    let expected = format!("[{rows}, {rank}]");
                    expect(Role::Up, expected, is(Role::Up, rows, rank));
                }
                Some(mid) => {
                    let inner = mid.get(1).copied().unwrap_or(0);
                    let outer = mid.first().copied().unwrap_or(0);
                    let input = size.columns[0];
                    let kernel = mid.get(2..).unwrap_or_default();
                    let same = trimmed(kernel) == trimmed(&size.columns[1..]);
                    let expected = format!("[rank, rank, {}]", joined(&size.columns[1..]));
                    expect(Role::Mid, expected, same && outer > 0 && inner > 0);
                    let expected = format!("[{inner}, {input}]");
                    expect(Role::Down, expected, is(Role::Down, inner, input));
                    let expected = format!("[{rows}, {outer}]");
                    expect(Role::Up, expected, is(Role::Up, rows, outer));
                }
            }
        }
        for (left, right) in [(W1A, W1B), (W2A, W2B)] {
            let (left, right) = (Role::Hadamard(left), Role::Hadamard(right));
            if self.name(left).is_some() {
                let rank = leading(right).unwrap_or(0);
                expect(left, format!("[{rows}, {rank}]"), is(left, rows, rank));
                let fits = rank > 0 && is(right, rank, width);
                expect(right, format!("[rank, {width}]"), fits);
            }
        }
        if let Some(problem) = self.kronecker_problem(size) {
            problems.push(problem);
        }
        if let Some(shape) = self.shape(Role::Difference) {
            let whole: Vec<usize> = [&[rows], size.columns].concat();
            if trimmed(shape) != trimmed(&whole) {
                let name = self.name(Role::Difference).unwrap_or_default();
                problems.push(format!("{name} ({shape:?}, expected {whole:?})"));
            }
        }
        problems
    }

    /// Rows and columns of one of the matrices of a Kronecker product; the kernel is left out.
    fn kronecker_size(&self, whole: Factor, left: Factor, right: Factor) -> Option<[usize; 2]> {
        let shape = |factor| self.shape(Role::Kronecker(factor));
        if let Some(shape) = shape(whole) {
            let [rows, columns, ..] = *shape else {
                return None;
            };
            return Some([rows, columns]);
        }
        // A kernel is in the columns of the right factor.
        let ([rows, inner], [rank, columns]) = (shape(left)?, shape(right)?) else {
            return None;
        };
        (*rank > 0 && inner == rank).then_some([*rows, *columns])
    }

    fn kronecker_problem(&self, size: &Size<'_>) -> Option<String> {
        let names: Vec<&str> = self
            .change
            .tensors
            .iter()
            .filter(|(role, _)| matches!(role, Role::Kronecker(_)))
            .map(|(_, name)| &name[..])
            .collect();
        let name = names.first()?;
        let expected = format!(
            "a product of {} rows and {:?} columns",
            size.rows, size.columns
        );
        let sizes = (
            self.kronecker_size(W1, W1A, W1B),
            self.kronecker_size(W2, W2A, W2B),
        );
        let (Some([rows1, columns1]), Some([rows2, columns2])) = sizes else {
            return Some(format!(
                "{name} (factors that do not fit each other, expected {expected})"
            ));
        };
        // The second matrix has the kernel, as further axes or in its columns.
        let kernel = match self.shape(Role::Kronecker(W2)) {
            Some(shape) => product(&shape[2..]),
            None => 1,
        };
        let columns = columns1
            .checked_mul(columns2)
            .and_then(|n| n.checked_mul(kernel));
        let is_matrix = |shape: &[usize]| product(&shape[2..]) == 1;
        let fits = self.shape(Role::Kronecker(W1)).is_none_or(is_matrix)
            && rows1.checked_mul(rows2) == Some(size.rows)
            && columns == Some(size.width())
            && columns1 > 0
            && size.columns[0].is_multiple_of(columns1);
        (!fits).then(|| {
            format!("{name} ([{rows1}, {columns1}] ⊗ [{rows2}, {columns2}], expected {expected})")
        })
    }

    /// The change of a layer that [fits](Self::problems).
    ///
    /// # Errors
    /// Errors of reading the tensors.
    pub(crate) fn delta(&self, size: &Size<'_>, scale: f64, device: &Device) -> Result<Delta> {
        if let Some(rank) = self.shape(Role::Down).map(|shape| shape[0]) {
            let down = self.matrix(Role::Down, rank, device)?;
            let up = self.matrix(Role::Up, size.rows, device)?;
            let (Some(down), Some(up)) = (down, up) else {
                unreachable!("complete");
            };
            // The scale is that of the inner rank.
            let scale = scale * self.alpha_over_rank(rank);
            let down = match self.shape(Role::Mid).map(|shape| shape[0]) {
                None => down,
                Some(outer) => {
                    let kernel = size.kernel();
                    let mid = self.matrix(Role::Mid, outer * rank, device)?;
                    let mid = mid.expect("complete").reshape([outer, rank, kernel]);
                    // For each outer rank, input and position: the sum over the inner rank.
                    let mid = mid.swap_dims(1, 2).reshape([outer * kernel, rank]);
                    let input = size.columns[0];
                    mid.matmul(down)
                        .reshape([outer, kernel, input])
                        .swap_dims(1, 2)
                        .reshape([outer, input * kernel])
                }
            };
            return Ok(Delta::LowRank(LowRankFactors { up, down }, scale));
        }
        if let Some(shape) = self.shape(Role::Hadamard(W1B)) {
            let product = |left: Factor, right: Factor| -> Result<Tensor<2>> {
                let (left, right) = (Role::Hadamard(left), Role::Hadamard(right));
                let inner = self.shape(right).map_or(1, |shape| shape[0]);
                let left = self.matrix(left, size.rows, device)?;
                let right = self.matrix(right, inner, device)?;
                Ok(left.expect("complete").matmul(right.expect("complete")))
            };
            let whole = product(W1A, W1B)? * product(W2A, W2B)?;
            return Ok(Delta::Dense(
                whole * (scale * self.alpha_over_rank(shape[0])),
            ));
        }
        if let Some(difference) = self.matrix(Role::Difference, size.rows, device)? {
            return Ok(Delta::Dense(difference * scale));
        }
        self.kronecker(size, scale, device)
    }

    fn kronecker(&self, size: &Size<'_>, scale: f64, device: &Device) -> Result<Delta> {
        let mut rank = None;
        // A matrix, or the product of its factors.
        let mut matrix = |whole: Factor, left: Factor, right: Factor| -> Result<Tensor<2>> {
            if let Some([rows, ..]) = self.shape(Role::Kronecker(whole)) {
                let matrix = self.matrix(Role::Kronecker(whole), *rows, device)?;
                return Ok(matrix.expect("complete"));
            }
            let rows = self
                .shape(Role::Kronecker(left))
                .map_or(1, |shape| shape[0]);
            let inner = self
                .shape(Role::Kronecker(right))
                .map_or(1, |shape| shape[0]);
            rank = Some(inner);
            let left = self.matrix(Role::Kronecker(left), rows, device)?;
            let right = self.matrix(Role::Kronecker(right), inner, device)?;
            Ok(left.expect("complete").matmul(right.expect("complete")))
        };
        let (first, second) = (matrix(W1, W1A, W1B)?, matrix(W2, W2A, W2B)?);
        let ([rows1, columns1], [rows2, columns2]) = (first.dims(), second.dims());
        let first = first.reshape([rows1, 1, columns1, 1]);
        let second = second.reshape([1, rows2, 1, columns2]);
        let product = (first * second).reshape([size.rows, size.width()]);
        // Alpha counts only where a matrix has factors, and so a rank.
        let scale = scale * rank.map_or(1.0, |rank| self.alpha_over_rank(rank));
        Ok(Delta::Dense(product * scale))
    }

    fn alpha_over_rank(&self, rank: usize) -> f64 {
        let rank = rank as f64;
        match (self.change.alpha, self.change.root) {
            (None, _) => 1.0,
            (Some(alpha), false) => alpha / rank,
            (Some(alpha), true) => alpha / rank.sqrt(),
        }
    }
}

/// Sizes of axes, as in a shape.
fn joined(sizes: &[usize]) -> String {
    let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
    sizes.join(", ")
}

impl Delta {
    /// The whole matrix, `[rows, columns]`.
    pub(crate) fn dense(self) -> Tensor<2> {
        match self {
            Self::LowRank(LowRankFactors { up, down }, scale) => up.matmul(down) * scale,
            Self::Dense(matrix) => matrix,
        }
    }
}

/// The rows of a matrix that are those of a place.
pub(crate) fn rows_of(matrix: Tensor<2>, place: &Place) -> Tensor<2> {
    let matrix = match &place.rows {
        Some(rows) => matrix.narrow(0, rows.start, rows.len()),
        None => matrix,
    };
    if !place.halves_swapped {
        return matrix;
    }
    let half = matrix.dims()[0] / 2;
    let (first, second) = (
        matrix.clone().narrow(0, 0, half),
        matrix.narrow(0, half, half),
    );
    Tensor::cat(vec![second, first], 0)
}
