//! Every case is one that some test runs.

use crate::{
    autoencoders,
    cases::{Case, every},
    clip, rng, t5, transformers, unet,
};

/// What the tests select their cases by.
const SELECTIONS: [fn(&Case) -> bool; 18] = [
    autoencoders::is_kl,
    autoencoders::is_tiny,
    clip::is_image_processor,
    clip::is_pair,
    clip::is_safety_checker,
    clip::is_text_encoder,
    clip::is_tokenizer,
    clip::is_vision_encoder,
    is_pipeline,
    rng::is_randn,
    t5::is_encoder,
    t5::is_tokenizer,
    transformers::is_flux,
    transformers::is_flux_in_one_file,
    transformers::is_pixart,
    transformers::is_sd3,
    unet::is_controlnet,
    unet::is_unet,
];

/// All of them are run by `pipelines::pipelines_match_diffusers`.
fn is_pipeline(case: &Case) -> bool {
    case.text("kind") == "prompt-pipeline"
}

/// Whether a case belongs to these tests: others have other kinds.
fn is_for_prompts(case: &Case) -> bool {
    let kinds = ["prompt-", "clip-", "t5-", "torch-"];
    kinds.iter().any(|kind| case.text("kind").starts_with(kind))
}

/// A case that no test selects would be left out without a word.
#[test]
fn every_case_is_run_by_a_test() {
    every(is_for_prompts, |case| {
        let is_run = SELECTIONS.iter().any(|is_selected| is_selected(case));
        let (kind, class) = (case.text("kind"), case.text("cls"));
        assert!(is_run, "{}: no test runs {kind} {class}", case.name());
    });
}
