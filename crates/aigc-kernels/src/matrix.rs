//! Strided matrix views.

/// A matrix in a slice: element `(i, j)` is `values[i·row + j·column]`.
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

    /// Whether all of `rows` × `columns` elements lie inside the slice.
    pub(crate) fn fits(&self, rows: usize, columns: usize) -> bool {
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
