//! Broken files, and the error each gives. None may panic, and none may allocate what its content
//! does not justify.

mod idx;
mod images;
mod models;
mod runs;
mod text;
