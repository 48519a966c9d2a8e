//! No case is left out: each is of a kind that a test of this program runs.

use aigc_tests::{fixtures::every, folder_from};

/// The kinds, by the module whose tests run all of their cases.
const KINDS: [(&str, &[&str]); 5] = [
    ("animate_diff", &["AnimateDiffPipeline"]),
    (
        "autoencoders",
        &["AutoencoderKLTemporalDecoder", "AutoencoderKLWan"],
    ),
    (
        "transformers",
        &["LTXVideoTransformer3DModel", "WanTransformer3DModel"],
    ),
    (
        "unets",
        &[
            "UNet3DConditionModel",
            "UNetMotionModel",
            "UNetMotionModel-from-parts",
            "UNetSpatioTemporalConditionModel",
        ],
    ),
    ("wan", &["WanPipeline"]),
];

#[test]
fn every_case_is_of_a_kind_that_is_run() {
    let Some(folder) = folder_from("AIGC_FIXTURES").map(|root| root.join("video")) else {
        return;
    };
    every(
        |case| case.dir.starts_with(&folder),
        |case| {
            let kind = case.text("kind");
            let is_run = KINDS.iter().any(|(_, kinds)| kinds.contains(&kind));
            assert!(is_run, "{}: no test runs the kind {kind:?}", case.name());
        },
    );
}
