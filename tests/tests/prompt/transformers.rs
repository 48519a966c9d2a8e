//! Transformers that denoise.

use crate::{
    cases::{Case, every, is_net},
    differences::tensors_apart,
};
use aigc_core::{
    device::device,
    weights::{OpenOptions, WeightDtype, WeightReader, save_tensors},
};
use aigc_diffusion::{
    AnyDenoiser, Conditioning, Denoiser,
    models::{FluxInputs, unpack_latents},
};
use aigc_pipelines::single_file::{Family, SingleFile};
use burn::tensor::{Tensor, TensorData};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Of networks.
const TOLERANCE: f64 = 1e-4;

/// The network of a case, which has no tensor or field too few or too many.
fn open(case: &Case) -> AnyDenoiser {
    let flex = device("flex").unwrap();
    let opened = AnyDenoiser::from_pretrained(case.path("model"), &flex).unwrap();
    assert!(opened.warnings().is_empty(), "{}: {opened}", case.name());
    assert_eq!(opened.class(), case.text("cls"));
    opened.into_inner()
}

pub(crate) fn is_sd3(case: &Case) -> bool {
    is_net(case, &["SD3Transformer2DModel"])
}

fn check_sd3(case: &Case, network: &AnyDenoiser) {
    let condition = Conditioning {
        encoder_hidden_states: Some(case.float("encoder_hidden_states")),
        pooled_projections: Some(case.float("pooled_projections")),
        ..Default::default()
    };
    let (x, time) = (case.float("hidden_states"), case.float("timestep"));
    let found = network.predict(x, time, &condition);
    case.assert_close("output", &found, TOLERANCE);
}

#[test]
fn sd3_transformers_match_diffusers() {
    every(is_sd3, |case| check_sd3(case, &open(case)));
}

/// Weights that stay in half precision give what the same numbers give in 32 bits.
#[test]
fn half_precision_weights_give_what_their_numbers_give() {
    every(is_sd3, |case| {
        let flex = device("flex").unwrap();
        let half = OpenOptions::default().with_dtype(WeightDtype::BF16);
        let half = AnyDenoiser::from_pretrained_with(case.path("model"), &half, &flex).unwrap();
        let dir = tempfile::tempdir().unwrap();
        half.save_pretrained(dir.path()).unwrap();
        let single = AnyDenoiser::from_pretrained(dir.path(), &flex).unwrap();
        let condition = Conditioning {
            encoder_hidden_states: Some(case.float("encoder_hidden_states")),
            pooled_projections: Some(case.float("pooled_projections")),
            ..Default::default()
        };
        let [a, b] = [&half.value, &single.value].map(|network| {
            let (x, time) = (case.float("hidden_states"), case.float("timestep"));
            network.predict(x, time, &condition)
        });
        let apart = tensors_apart(a, b);
        assert!(apart < TOLERANCE, "{}: {apart:.1e}", case.name());
    });
}

/// A network of a checkpoint in one file; the configuration is that of the case.
fn open_single(case: &Case, file: &Path, family: Family) -> AnyDenoiser {
    let file = SingleFile::open(file).unwrap();
    assert_eq!(file.family(), family);
    assert!(file.report().unused.is_empty(), "{:?}", file.report());
    let reader = file.component_reader("transformer").unwrap();
    let config = std::fs::read_to_string(case.path("model").join("config.json")).unwrap();
    let flex = device("flex").unwrap();
    let opened = AnyDenoiser::from_weights(&config, &reader, WeightDtype::F32, &flex).unwrap();
    assert!(opened.warnings().is_empty(), "{}: {opened}", case.name());
    opened.into_inner()
}

/// Tensors under the names of Stability AI's files, with the fused layers of those.
fn sd3_original(files: &WeightReader) -> BTreeMap<String, TensorData> {
    let mut original: BTreeMap<String, TensorData> = BTreeMap::new();
    let (layers, parts): (Vec<&str>, Vec<&str>) = files.names().partition(|name| {
        let name = name.rsplit('.').nth(1).unwrap_or_default();
        ![
            "to_q",
            "to_k",
            "to_v",
            "add_q_proj",
            "add_k_proj",
            "add_v_proj",
        ]
        .contains(&name)
    });
    let values = |name: &str| {
        (
            files.read(name).unwrap(),
            files.shape(name).unwrap().to_vec(),
        )
    };
    let blocks = layers
        .iter()
        .filter_map(|name| name.split('.').nth(1)?.parse::<usize>().ok());
    let last = blocks.max().unwrap();
    for name in layers {
        let mut to = name.replace("transformer_blocks.", "joint_blocks.");
        let last_context = format!("joint_blocks.{last}.norm1_context.");
        let swapped = to.starts_with(&last_context) || to.starts_with("norm_out.");
        for (a, b) in [
            ("pos_embed.pos_embed", "pos_embed"),
            ("pos_embed.proj", "x_embedder.proj"),
            (
                "time_text_embed.timestep_embedder.linear_1",
                "t_embedder.mlp.0",
            ),
            (
                "time_text_embed.timestep_embedder.linear_2",
                "t_embedder.mlp.2",
            ),
            ("time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"),
            ("time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"),
            ("norm_out.linear", "final_layer.adaLN_modulation.1"),
            (".attn.to_out.0", ".x_block.attn.proj"),
            (".attn2.to_out.0", ".x_block.attn2.proj"),
            (".attn.to_add_out", ".context_block.attn.proj"),
            (".norm1.linear", ".x_block.adaLN_modulation.1"),
            (".norm1_context.linear", ".context_block.adaLN_modulation.1"),
            (".ff.net.0.proj", ".x_block.mlp.fc1"),
            (".ff.net.2", ".x_block.mlp.fc2"),
            (".ff_context.net.0.proj", ".context_block.mlp.fc1"),
            (".ff_context.net.2", ".context_block.mlp.fc2"),
            (".attn.norm_q", ".x_block.attn.ln_q"),
            (".attn.norm_k", ".x_block.attn.ln_k"),
            (".attn2.norm_q", ".x_block.attn2.ln_q"),
            (".attn2.norm_k", ".x_block.attn2.ln_k"),
            (".attn.norm_added_q", ".context_block.attn.ln_q"),
            (".attn.norm_added_k", ".context_block.attn.ln_k"),
        ] {
            to = to.replace(a, b);
        }
        if to.starts_with("proj_out.") {
            to = format!("final_layer.linear.{}", &to["proj_out.".len()..]);
        }
        let (mut numbers, shape) = values(name);
        if swapped {
            let half = numbers.len() / 2;
            numbers.rotate_left(half);
        }
        original.insert(to, TensorData::new(numbers, shape));
    }
    // Queries first, then keys, then values.
    for (of, block) in [
        (["attn.to_q", "attn.to_k", "attn.to_v"], "x_block.attn"),
        (["attn2.to_q", "attn2.to_k", "attn2.to_v"], "x_block.attn2"),
        (
            ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
            "context_block.attn",
        ),
    ] {
        let queries = parts
            .iter()
            .filter(|name| name.contains(&format!(".{}.", of[0])));
        for name in queries {
            let each = of.map(|part| values(&name.replace(of[0], part)));
            let mut shape = each[0].1.clone();
            shape[0] *= 3;
            let numbers: Vec<f32> = each.into_iter().flat_map(|(numbers, _)| numbers).collect();
            let to = name.replace("transformer_blocks.", "joint_blocks.");
            let to = to.replace(of[0], &format!("{block}.qkv"));
            original.insert(to, TensorData::new(numbers, shape));
        }
    }
    original
}

#[test]
fn sd3_transformers_open_from_one_file() {
    every(is_sd3, |case| {
        let files = WeightReader::from_dir(&case.path("model"), &["diffusion_pytorch_model"]);
        let mut tensors = sd3_original(&files.unwrap());
        let dir = tempfile::tempdir().unwrap();
        for prefix in ["", "model.diffusion_model."] {
            let path = dir.path().join(format!("a{prefix}.safetensors"));
            let named = tensors
                .iter()
                .map(|(name, data)| (format!("{prefix}{name}"), data.clone()));
            save_tensors(&named.collect(), &path).unwrap();
            check_sd3(case, &open_single(case, &path, Family::StableDiffusion3));
        }
        // A tensor that is missing is named.
        tensors
            .remove("joint_blocks.0.context_block.attn.qkv.bias")
            .unwrap();
        let path = dir.path().join("part.safetensors");
        save_tensors(&tensors, &path).unwrap();
        let reader = SingleFile::open(&path)
            .unwrap()
            .component_reader("transformer")
            .unwrap();
        let config = std::fs::read_to_string(case.path("model").join("config.json")).unwrap();
        let flex = device("flex").unwrap();
        let error = AnyDenoiser::from_weights(&config, &reader, WeightDtype::F32, &flex);
        let message = error.unwrap_err().to_string();
        assert!(
            message.contains("transformer_blocks.0.attn.add_q_proj.bias"),
            "{message}"
        );
    });
}

/// The file of weights with the names of Black Forest Labs: it is not called as diffusers calls it.
fn one_file(case: &Case) -> Option<PathBuf> {
    let files = std::fs::read_dir(case.path("model")).ok()?.flatten();
    files.map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".safetensors") && !name.starts_with("diffusion_pytorch_model")
    })
}

fn is_flux_network(case: &Case) -> bool {
    is_net(case, &["FluxTransformer2DModel"])
}

pub(crate) fn is_flux(case: &Case) -> bool {
    is_flux_network(case) && one_file(case).is_none()
}

pub(crate) fn is_flux_in_one_file(case: &Case) -> bool {
    is_flux_network(case) && one_file(case).is_some()
}

/// The network for the tokens of the case, and for the latent map that they are the patches of.
fn check_flux(case: &Case, network: &AnyDenoiser) {
    let AnyDenoiser::FluxTransformer(flux) = network else {
        panic!("{}", network.class());
    };
    let inputs = FluxInputs {
        encoder_hidden_states: case.float("encoder_hidden_states"),
        pooled_projections: case.float("pooled_projections"),
        img_ids: case.float("img_ids"),
        txt_ids: case.float("txt_ids"),
        guidance: case.has("guidance").then(|| case.float("guidance")),
    };
    let (tokens, time): (Tensor<3>, Tensor<1>) =
        (case.float("hidden_states"), case.float("timestep"));
    let found = flux.forward(tokens.clone(), time.clone(), &inputs);
    case.assert_close("output", &found, TOLERANCE);
    // The last token is that of the last row and column.
    let ids = case.values("img_ids").1;
    let sides = [2, 1].map(|back| ids[ids.len() - back] as usize + 1);
    let condition = Conditioning {
        encoder_hidden_states: Some(inputs.encoder_hidden_states),
        pooled_projections: Some(inputs.pooled_projections),
        guidance: inputs.guidance,
        ..Default::default()
    };
    let map = network.predict(unpack_latents(tokens, sides), time * 1000.0, &condition);
    let apart = tensors_apart(map, unpack_latents(found, sides));
    // The time is rounded once more.
    let allowed = TOLERANCE.max(4.0 * case.float64("output"));
    assert!(apart <= allowed, "{}: {apart:.1e}", case.name());
}

#[test]
fn flux_transformers_match_diffusers() {
    every(is_flux, |case| check_flux(case, &open(case)));
}

#[test]
fn flux_transformers_open_from_one_file() {
    every(is_flux_in_one_file, |case| {
        let file = one_file(case).unwrap();
        let family = match case.has("guidance") {
            true => Family::FluxDev,
            false => Family::FluxSchnell,
        };
        check_flux(case, &open_single(case, &file, family));
    });
}

pub(crate) fn is_pixart(case: &Case) -> bool {
    is_net(case, &["PixArtTransformer2DModel"])
}

#[test]
fn pixart_transformers_match_diffusers() {
    every(is_pixart, |case| {
        let sizes = case.has("resolution").then(|| {
            let sizes: Tensor<2> = case.float("resolution");
            Tensor::cat(vec![sizes, case.float("aspect_ratio")], 1)
        });
        let condition = Conditioning {
            encoder_hidden_states: Some(case.float("encoder_hidden_states")),
            encoder_attention_mask: Some(case.mask("encoder_attention_mask")),
            time_ids: sizes,
            ..Default::default()
        };
        let (x, time) = (case.float("hidden_states"), case.float("timestep"));
        let found = open(case).predict(x, time, &condition);
        case.assert_close("output", &found, TOLERANCE);
    });
}
