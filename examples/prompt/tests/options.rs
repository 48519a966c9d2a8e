//! The tests of the options of `paint`, which are beside them: cargo builds an example for others
//! to run, or its tests, and not both.

#[path = "../paint/options.rs"]
#[allow(dead_code, reason = "the program uses more of it than its tests")]
mod options;
