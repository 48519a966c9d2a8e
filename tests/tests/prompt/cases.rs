//! Cases of networks and pipelines of prompts.

pub(crate) use aigc_tests::fixtures::{Case, every};

/// A case of a network of one of these classes.
pub(crate) fn is_net(case: &Case, classes: &[&str]) -> bool {
    case.text("kind") == "prompt-net" && classes.contains(&case.text("cls"))
}
