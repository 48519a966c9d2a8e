//! Layers of transformers that the first publications store in one tensor, or with the halves of
//! their rows in another order.

use super::scope::{Part, Scope};
use aigc_core::weights::TensorSource;

/// Adds a layer in parts: each name with its number of rows, in order.
pub(super) fn take_rows(
    part: &mut Part,
    scope: Scope<'_>,
    original: &str,
    names: &[(String, usize)],
) {
    for param in ["weight", "bias"] {
        let original = format!("{original}.{param}");
        if !scope.has(&original) {
            part.missing.push(scope.full(&original));
            continue;
        }
        let mut first = 0;
        for (name, rows) in names {
            let source = TensorSource::new(format!("{name}.{param}"), scope.full(&original));
            // Sizes that are too large are refused when the tensors are opened.
            let end = usize::saturating_add(first, *rows);
            part.sources.push(source.rows(first..end));
            first = end;
        }
    }
}

/// Adds queries, keys and values, which are one layer in the file.
pub(super) fn take_qkv(part: &mut Part, scope: Scope<'_>, original: &str, names: [String; 3]) {
    let rows = scope.shape(&format!("{original}.weight"));
    let rows = rows.and_then(|shape| shape.first()).copied().unwrap_or(0);
    take_rows(part, scope, original, &names.map(|name| (name, rows / 3)));
}

/// Adds a layer whose first half of outputs are shifts in the file, and scales in diffusers.
pub(super) fn take_swapped(part: &mut Part, scope: Scope<'_>, original: &str, name: &str) {
    let before = part.sources.len();
    part.take_layer(scope, original, name);
    for source in &mut part.sources[before..] {
        source.halves_swapped = true;
    }
}
