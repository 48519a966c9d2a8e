//! Prompts with weights and pieces, in pipelines of one encoder and of two.

use crate::{
    differences::tensors_apart,
    stages::latents,
    tiny_pipelines::{open, request},
};
use aigc_core::encoder::TextEmbeddings;
use aigc_pipelines::text_to_image::{PipelineOptions, PromptSyntax, Prompts};

#[test]
fn weights_and_pieces_reach_the_image() {
    for name in ["tiny-sdxl", "tiny-lcm"] {
        let Some(pipeline) = open(name) else { return };
        let (plain, mut web) = (PipelineOptions::default(), PipelineOptions::default());
        web.prompt_syntax = PromptSyntax::WebUi;
        let run = |options: &PipelineOptions, prompt: &str| {
            let mut request = request();
            request.prompt = prompt.into();
            latents(&pipeline, &request, options)
        };
        let expected = run(&plain, "a photo of a cat");
        let same = run(&web, "a photo (of:1) a cat");
        assert_eq!(tensors_apart(same, expected.clone()), 0.0, "{name}");
        let weighted = run(&web, "a photo of a (cat:1.5)");
        assert!(tensors_apart(weighted, expected) > 0.0, "{name}");

        // The end of a long prompt is cut, or in a piece of its own.
        let long = ["a photo of a cat, "; 20].concat();
        let longer = format!("{long}a castle");
        let off = tensors_apart(run(&plain, &long), run(&plain, &longer));
        assert_eq!(off, 0.0, "{name}");
        let off = tensors_apart(run(&web, &long), run(&web, &longer));
        assert!(off > 0.0, "{name}");
    }
}

#[test]
fn all_encoders_have_as_many_pieces() {
    for (name, encoders) in [("tiny-sdxl", 2), ("tiny-lcm", 1)] {
        let Some(pipeline) = open(name) else { return };
        let encode = |syntax, prompt: &str| {
            let mut options = PipelineOptions::default();
            options.prompt_syntax = syntax;
            let job = pipeline.prepare(&request(), &options).unwrap();
            let prompts = Prompts::new([prompt]).with_negative_prompt(["blurry"]);
            let embeddings = pipeline.encode_prompts(&prompts, &job).unwrap();
            (embeddings, job.is_guided())
        };
        let (plain, _) = encode(PromptSyntax::Plain, "a cat");
        let [_, length, width] = plain.prompt.hidden_states.dims();
        let long = ["a photo of a cat, "; 20].concat();
        let (found, is_guided) = encode(PromptSyntax::WebUi, &long);
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        let [_, tokens, found_width] = found.prompt.hidden_states.dims();
        assert!(
            tokens > length && tokens.is_multiple_of(length),
            "{name}: {tokens}"
        );
        assert_eq!(found_width, width, "{name}");
        assert_eq!(found.negative.is_some(), is_guided, "{name}");
        if let Some(negative) = &found.negative {
            assert_eq!(negative.hidden_states.dims(), [1, tokens, width], "{name}");
        }
        // The short negative prompt is filled up.
        let calls = encoders * (1 + usize::from(is_guided));
        assert_eq!(found.inputs.len(), calls, "{name}");
        for input in &found.inputs {
            assert_eq!(
                input.ids.len(),
                tokens / length,
                "{name}: {}",
                input.encoder
            );
        }
        let pooled = |part: &TextEmbeddings| part.pooled.as_ref().map(|pooled| pooled.dims());
        assert_eq!(pooled(&found.prompt), pooled(&plain.prompt), "{name}");
    }
}
