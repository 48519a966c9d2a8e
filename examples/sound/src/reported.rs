//! Reports of models that were opened.

use aigc_core::weights::Loaded;

/// The value that was opened. What was not used of the files goes to standard error.
pub fn reported<T>(loaded: Loaded<T>) -> T {
    for line in loaded.warnings() {
        eprintln!("{line}");
    }
    loaded.into_inner()
}
