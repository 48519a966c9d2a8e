//! Names of an `AutoencoderKL` in the first publication of latent diffusion, and their names in
//! diffusers.

use super::scope::{Part, Scope};
use aigc_core::weights::TensorSource;

/// The autoencoder of a published file, below the prefix of its names.
pub(crate) fn part(scope: Scope<'_>) -> Part {
    let mut part = Part::new("vae");
    for side in ["encoder", "decoder"] {
        let half = Half { scope, side };
        half.layer(&mut part, "conv_in", "conv_in");
        half.resnet(&mut part, "mid.block_1", "mid_block.resnets.0");
        half.attention(&mut part);
        half.resnet(&mut part, "mid.block_2", "mid_block.resnets.1");
        half.levels(&mut part);
        half.layer(&mut part, "norm_out", "conv_norm_out");
        half.layer(&mut part, "conv_out", "conv_out");
    }
    // Later autoencoders have no convolution of one pixel at the latents.
    for name in ["quant_conv", "post_quant_conv"] {
        if scope.any(&format!("{name}.")) {
            part.take_layer(scope, name, name);
        }
    }
    part
}

/// The encoder or the decoder.
struct Half<'a> {
    scope: Scope<'a>,
    side: &'static str,
}

impl Half<'_> {
    fn any(&self, start: &str) -> bool {
        self.scope.any(&format!("{}.{start}", self.side))
    }

    fn layer(&self, part: &mut Part, original: &str, name: &str) {
        let side = self.side;
        part.take_layer(
            self.scope,
            &format!("{side}.{original}"),
            &format!("{side}.{name}"),
        );
    }

    fn resnet(&self, part: &mut Part, from: &str, to: &str) {
        for name in ["norm1", "conv1", "norm2", "conv2"] {
            self.layer(part, &format!("{from}.{name}"), &format!("{to}.{name}"));
        }
        if self.any(&format!("{from}.nin_shortcut.")) {
            self.layer(
                part,
                &format!("{from}.nin_shortcut"),
                &format!("{to}.conv_shortcut"),
            );
        }
    }

    /// Attention in the middle, whose projections are stored as convolutions of one pixel.
    fn attention(&self, part: &mut Part) {
        if !self.any("mid.attn_1.") {
            return;
        }
        let (from, to) = ("mid.attn_1", "mid_block.attentions.0");
        self.layer(part, &format!("{from}.norm"), &format!("{to}.group_norm"));
        for (original, name) in [
            ("q", "to_q"),
            ("k", "to_k"),
            ("v", "to_v"),
            ("proj_out", "to_out.0"),
        ] {
            let before = part.sources.len();
            self.layer(part, &format!("{from}.{original}"), &format!("{to}.{name}"));
            for source in &mut part.sources[before..] {
                self.flatten(source);
            }
        }
    }

    /// Drops the axes of a convolution of one pixel.
    fn flatten(&self, source: &mut TensorSource) {
        let name = source.source.strip_prefix(&self.scope.full(""));
        if let Some([out, from, 1, 1]) = name.and_then(|name| self.scope.shape(name)) {
            source.shape = Some(vec![*out, *from]);
        }
    }

    /// The blocks of all sizes: numbered from the largest on, in diffusers in the order of use.
    fn levels(&self, part: &mut Part) {
        let (short, to) = match self.side {
            "encoder" => ("down", "down_blocks"),
            _ => ("up", "up_blocks"),
        };
        let side = self.side;
        let levels = self.scope.count(|i| format!("{side}.{short}.{i}."));
        for i in 0..levels {
            let place = if short == "down" { i } else { levels - 1 - i };
            let blocks = self
                .scope
                .count(|j| format!("{side}.{short}.{i}.block.{j}."));
            for j in 0..blocks {
                let from = format!("{short}.{i}.block.{j}");
                self.resnet(part, &from, &format!("{to}.{place}.resnets.{j}"));
            }
            let sampler = format!("{short}.{i}.{short}sample");
            if self.any(&format!("{sampler}.")) {
                let name = format!("{to}.{place}.{short}samplers.0.conv");
                self.layer(part, &format!("{sampler}.conv"), &name);
            }
        }
    }
}
