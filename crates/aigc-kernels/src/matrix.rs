//! Strided matrix views.

/// A matrix in a slice: element `(i, j)` is `values[i·row + j·column]`.
///
/// Any strides are allowed here: a function that takes a matrix checks that its elements lie inside
/// the slice.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// The storage, from element `(0, 0)` on.
    pub values: &'a [f32],
    /// Stride between rows.
    pub row: usize,
    /// Stride between columns.
    pub column: usize,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix with `width` columns.
    pub fn rows(values: &'a [f32], width: usize) -> Self {
        Self {
            values,
            row: width,
            column: 1,
        }
    }

    /// The transpose, a view of the same storage.
    pub fn t(self) -> Self {
        Self {
            values: self.values,
            row: self.column,
            column: self.row,
        }
    }

    /// Whether all of `rows` × `columns` elements lie inside the slice, and the strides can be
    /// offsets of pointers.
    pub(crate) fn fits(&self, rows: usize, columns: usize) -> bool {
        let strides = [self.row, self.column];
        if strides
            .iter()
            .any(|stride| isize::try_from(*stride).is_err())
        {
            return false;
        }
        if rows == 0 || columns == 0 {
            return true;
        }
        // Checked, because callers read through pointers after this test.
        let last_row = (rows - 1).checked_mul(self.row);
        let last_column = (columns - 1).checked_mul(self.column);
        last_row
            .zip(last_column)
            .and_then(|(row, column)| row.checked_add(column))
            .is_some_and(|last| last < self.values.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_rejects_elements_outside_the_slice() {
        let values = [0.0; 6];
        let matrix = |row, column| Matrix {
            values: &values,
            row,
            column,
        };
        assert!(matrix(3, 1).fits(2, 3) && matrix(1, 2).fits(2, 3) && matrix(0, 0).fits(9, 9));
        assert!(matrix(3, 1).fits(0, 9) && matrix(9, 9).fits(1, 1));
        assert!(!matrix(3, 1).fits(2, 4) && !matrix(4, 1).fits(2, 3));
        // Products and sums that overflow.
        assert!(!matrix(1 << (usize::BITS - 2), 1).fits(5, 1));
        assert!(!matrix(isize::MAX as usize, isize::MAX as usize).fits(2, 3));
        // Strides that are negative as offsets.
        assert!(!matrix(usize::MAX, 1).fits(1, 1) && !matrix(1, 1 << (usize::BITS - 1)).fits(0, 1));
    }
}
