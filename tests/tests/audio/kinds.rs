//! No case is left out: each is of a kind that a test of this program runs.

use aigc_tests::{fixtures::every, folder_from};

/// The kinds, by the module whose tests run all of their cases.
const KINDS: [(&str, &[&str]); 9] = [
    ("codec", &["AutoencoderOobleck", "DacModel", "EncodecModel"]),
    (
        "diffusion",
        &[
            "CosineDPMSolverMultistepScheduler",
            "DanceDiffusionPipeline",
            "IPNDMScheduler",
            "StableAudioDiTModel",
            "StableAudioPipeline",
            "UNet1DModel",
        ],
    ),
    (
        "dsp",
        &[
            "dct",
            "griffin_lim",
            "istft",
            "log_mel",
            "mel_filters",
            "mfcc",
            "stft",
            "stft_loss",
            "windows",
        ],
    ),
    ("files, midi", &["audio_file", "midi_file"]),
    ("musicgen", &["MusicgenForConditionalGeneration"]),
    ("resample", &["mu_law", "resample"]),
    ("t5", &["T5EncoderModel", "T5Tokenizer"]),
    (
        "vits",
        &[
            "VitsModel",
            "VitsModel-training-parts",
            "VitsTokenizer",
            "monotonic_alignment",
        ],
    ),
    ("vocoder", &["SpeechT5HifiGan", "UnivNetModel"]),
];

#[test]
fn every_case_is_of_a_kind_that_is_run() {
    let Some(folder) = folder_from("AIGC_FIXTURES").map(|root| root.join("audio")) else {
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
