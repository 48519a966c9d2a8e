//! Transformers over the patches of videos against diffusers.

use aigc_core::{device::device, weights::Loaded};
use aigc_diffusion::{
    Conditioning, Denoiser, LtxVideoInputs, LtxVideoTransformer3dModel, WanTransformer3dModel,
};
use aigc_tests::fixtures::{Case, every};

/// Everything in the files was used.
fn used<T>(loaded: Loaded<T>) -> T {
    assert!(loaded.warnings().is_empty(), "{loaded}");
    loaded.into_inner()
}

#[test]
fn wan() {
    every(
        |case| case.text("kind") == "WanTransformer3DModel",
        |case| {
            let flex = device("flex").unwrap();
            let check = |network: &WanTransformer3dModel| {
                let condition = Conditioning {
                    encoder_hidden_states: Some(case.float("encoder_hidden_states")),
                    ..Conditioning::default()
                };
                let x = case.float("sample");
                let found = network.predict(x, case.float("timestep"), &condition);
                case.assert_within("output", &found);
            };
            let opened = WanTransformer3dModel::from_pretrained(case.dir.join("model"), &flex);
            let network = used(opened.unwrap());
            check(&network);
            let dir = tempfile::tempdir().unwrap();
            network.save_pretrained(dir.path()).unwrap();
            let again = WanTransformer3dModel::from_pretrained(dir.path(), &flex);
            check(&used(again.unwrap()));
        },
    );
}

/// Tokens in, tokens out.
#[test]
fn ltx() {
    every(
        |case| case.text("kind") == "LTXVideoTransformer3DModel",
        |case| {
            let flex = device("flex").unwrap();
            let inputs = ltx_inputs(case);
            let check = |network: &LtxVideoTransformer3dModel| {
                let tokens = case.float("sample");
                let found = network.forward(tokens, case.float("timestep"), &inputs);
                case.assert_within("output", &found);
            };
            let folder = case.dir.join("model");
            let opened = LtxVideoTransformer3dModel::from_pretrained(folder, &flex);
            let network = used(opened.unwrap());
            check(&network);
            let dir = tempfile::tempdir().unwrap();
            network.save_pretrained(dir.path()).unwrap();
            let again = LtxVideoTransformer3dModel::from_pretrained(dir.path(), &flex);
            check(&used(again.unwrap()));
        },
    );
}

fn ltx_inputs(case: &Case) -> LtxVideoInputs {
    let config = &case.json["config"];
    let number = |field: &str| config[field].as_u64().expect("a number") as usize;
    let scale = |axis: usize| {
        config["rope_interpolation_scale"][axis]
            .as_f64()
            .expect("a number")
    };
    LtxVideoInputs {
        encoder_hidden_states: case.float("encoder_hidden_states"),
        encoder_attention_mask: Some(case.mask("encoder_attention_mask")),
        num_frames: number("num_frames"),
        height: number("height"),
        width: number("width"),
        rope_interpolation_scale: Some([0, 1, 2].map(scale)),
    }
}
