//! Names of a `UNet2DConditionModel` in the first publication of latent diffusion (Rombach et al.
//! 2022, <https://github.com/CompVis/latent-diffusion>), and their names in diffusers.
//!
//! The published network is one list of blocks on the way down and one on the way up. diffusers
//! groups them by size, so the place of a block depends on the number of blocks before it. The
//! [layout](UnetLayout) is read from the names of either side, and gives the names of both.

use super::scope::{Part, Scope};

/// Names of the layer that embeds the guidance scale, which the first publication does not have:
/// after its pattern, and as converted from diffusers.
pub(crate) const GUIDED: [&str; 2] = ["time_embed.cond_proj", "time_embedding.cond_proj"];

/// Blocks at one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Level {
    /// Residual blocks.
    pub(crate) resnets: usize,
    /// Blocks of each transformer; `None` without attention.
    pub(crate) depth: Option<usize>,
    /// Whether a change of size follows.
    pub(crate) sampler: bool,
}

/// The blocks of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnetLayout {
    /// From the largest size on.
    pub(crate) down: Vec<Level>,
    /// Blocks of the transformer in the middle.
    pub(crate) middle: Option<usize>,
    /// From the smallest size on.
    pub(crate) up: Vec<Level>,
    /// Whether pooled text and sizes are embedded.
    pub(crate) added: bool,
    /// Original name of the layer that embeds the guidance scale.
    pub(crate) guided: Option<&'static str>,
}

/// A layer under both names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayerNames {
    pub(crate) original: String,
    pub(crate) diffusers: String,
    /// Whether it has a bias.
    pub(crate) bias: bool,
    /// Whether a network may lack it.
    pub(crate) optional: bool,
}

impl UnetLayout {
    /// The layout of the tensors of a published file, below their common prefix.
    pub(crate) fn from_original(scope: Scope<'_>) -> Self {
        let depth = |block: &str| {
            let count = scope.count(|k| format!("{block}.transformer_blocks.{k}."));
            scope.any(&format!("{block}.proj_in.")).then_some(count)
        };
        let mut down = vec![Level::default()];
        for i in 1.. {
            let block = format!("input_blocks.{i}");
            let level = down.last_mut().expect("there is one");
            if scope.any(&format!("{block}.0.op.")) {
                level.sampler = true;
                down.push(Level::default());
            } else if scope.any(&format!("{block}.0.in_layers.")) {
                level.resnets += 1;
                level.depth = level.depth.max(depth(&format!("{block}.1")));
            } else {
                break;
            }
        }
        let mut up = vec![Level::default()];
        for i in 0.. {
            let block = format!("output_blocks.{i}");
            let level = up.last_mut().expect("there is one");
            if !scope.any(&format!("{block}.0.in_layers.")) {
                break;
            }
            level.resnets += 1;
            level.depth = level.depth.max(depth(&format!("{block}.1")));
            let sampled = |j| scope.any(&format!("{block}.{j}.conv."));
            if sampled(1) || sampled(2) {
                level.sampler = true;
                up.push(Level::default());
            }
        }
        Self {
            down,
            middle: depth("middle_block.1"),
            up,
            added: scope.any("label_emb.0.0."),
            guided: GUIDED
                .into_iter()
                .find(|name| scope.any(&format!("{name}."))),
        }
    }

    /// The layout of the tensors of a network with diffusers' names.
    pub(crate) fn from_diffusers(scope: Scope<'_>) -> Self {
        let levels = |side: &str, sampler: &str| {
            let count = scope.count(|l| format!("{side}_blocks.{l}."));
            let level = |l: usize| {
                let block = format!("{side}_blocks.{l}");
                let attention = format!("{block}.attentions.0");
                let depth = scope.count(|k| format!("{attention}.transformer_blocks.{k}."));
                Level {
                    resnets: scope.count(|j| format!("{block}.resnets.{j}.")),
                    depth: scope.any(&format!("{attention}.")).then_some(depth),
                    sampler: scope.any(&format!("{block}.{sampler}.")),
                }
            };
            (0..count).map(level).collect()
        };
        let middle = "mid_block.attentions.0";
        let depth = scope.count(|k| format!("{middle}.transformer_blocks.{k}."));
        Self {
            down: levels("down", "downsamplers"),
            middle: scope.any(&format!("{middle}.")).then_some(depth),
            up: levels("up", "upsamplers"),
            added: scope.any("add_embedding."),
            guided: scope.any("time_embedding.cond_proj.").then_some(GUIDED[0]),
        }
    }

    /// What is not a U-net with as many sizes up as down, and one block more at each.
    pub(crate) fn problem(&self) -> Option<String> {
        let levels = self.down.len();
        if self.up.len() != levels {
            let up = self.up.len();
            return Some(format!(
                "{levels} sizes on the way down and {up} on the way up"
            ));
        }
        let pairs = self.down.iter().zip(self.up.iter().rev()).enumerate();
        for (level, (down, up)) in pairs {
            if down.resnets == 0 || up.resnets != down.resnets + 1 {
                return Some(format!(
                    "{} residual blocks on the way down and {} on the way up at size {level}",
                    down.resnets, up.resnets
                ));
            }
        }
        None
    }

    /// All layers under both names.
    pub(crate) fn layers(&self) -> Vec<LayerNames> {
        let mut all = Layers(vec![]);
        all.add("input_blocks.0.0", "conv_in");
        all.add("time_embed.0", "time_embedding.linear_1");
        all.add("time_embed.2", "time_embedding.linear_2");
        if let Some(guided) = self.guided {
            all.push(guided, "time_embedding.cond_proj", false, false);
        }
        if self.added {
            all.add("label_emb.0.0", "add_embedding.linear_1");
            all.add("label_emb.0.2", "add_embedding.linear_2");
        }
        let mut i = 1;
        for (l, level) in self.down.iter().enumerate() {
            for j in 0..level.resnets {
                let (block, to) = (format!("input_blocks.{i}"), format!("down_blocks.{l}"));
                all.resnet(&format!("{block}.0"), &format!("{to}.resnets.{j}"));
                if let Some(depth) = level.depth {
                    all.attention(
                        &format!("{block}.1"),
                        &format!("{to}.attentions.{j}"),
                        depth,
                    );
                }
                i += 1;
            }
            if level.sampler {
                let to = format!("down_blocks.{l}.downsamplers.0.conv");
                all.add(&format!("input_blocks.{i}.0.op"), &to);
                i += 1;
            }
        }
        all.resnet("middle_block.0", "mid_block.resnets.0");
        let mut last = 1;
        if let Some(depth) = self.middle {
            all.attention("middle_block.1", "mid_block.attentions.0", depth);
            last = 2;
        }
        all.resnet(&format!("middle_block.{last}"), "mid_block.resnets.1");
        let mut i = 0;
        for (l, level) in self.up.iter().enumerate() {
            for j in 0..level.resnets {
                let (block, to) = (format!("output_blocks.{i}"), format!("up_blocks.{l}"));
                all.resnet(&format!("{block}.0"), &format!("{to}.resnets.{j}"));
                let mut next = 1;
                if let Some(depth) = level.depth {
                    all.attention(
                        &format!("{block}.1"),
                        &format!("{to}.attentions.{j}"),
                        depth,
                    );
                    next = 2;
                }
                if level.sampler && j + 1 == level.resnets {
                    let to = format!("{to}.upsamplers.0.conv");
                    all.add(&format!("{block}.{next}.conv"), &to);
                }
                i += 1;
            }
        }
        all.add("out.0", "conv_norm_out");
        all.add("out.2", "conv_out");
        all.0
    }

    /// The network of a published file.
    pub(crate) fn part(&self, scope: Scope<'_>) -> Part {
        let mut part = Part::new("unet");
        for layer in self.layers() {
            let weight = format!("{}.weight", layer.original);
            if layer.optional && !scope.has(&weight) {
                continue;
            }
            match layer.bias {
                true => part.take_layer(scope, &layer.original, &layer.diffusers),
                false => part.take(scope, &weight, &format!("{}.weight", layer.diffusers)),
            }
        }
        part
    }
}

/// A list of layers under both names.
struct Layers(Vec<LayerNames>);

impl Layers {
    fn add(&mut self, original: &str, diffusers: &str) {
        self.push(original, diffusers, true, false);
    }

    fn push(&mut self, original: &str, diffusers: &str, bias: bool, optional: bool) {
        self.0.push(LayerNames {
            original: original.into(),
            diffusers: diffusers.into(),
            bias,
            optional,
        });
    }

    fn resnet(&mut self, from: &str, to: &str) {
        for (original, name) in [
            ("in_layers.0", "norm1"),
            ("in_layers.2", "conv1"),
            ("emb_layers.1", "time_emb_proj"),
            ("out_layers.0", "norm2"),
            ("out_layers.3", "conv2"),
        ] {
            self.add(&format!("{from}.{original}"), &format!("{to}.{name}"));
        }
        let (original, name) = (
            format!("{from}.skip_connection"),
            format!("{to}.conv_shortcut"),
        );
        self.push(&original, &name, true, true);
    }

    fn attention(&mut self, from: &str, to: &str, depth: usize) {
        let mut same = |name: &str, bias: bool| {
            let (original, name) = (format!("{from}.{name}"), format!("{to}.{name}"));
            self.push(&original, &name, bias, false);
        };
        for name in ["norm", "proj_in", "proj_out"] {
            same(name, true);
        }
        for k in 0..depth {
            let block = format!("transformer_blocks.{k}");
            for attention in ["attn1", "attn2"] {
                for name in ["to_q", "to_k", "to_v"] {
                    same(&format!("{block}.{attention}.{name}"), false);
                }
                same(&format!("{block}.{attention}.to_out.0"), true);
            }
            for name in ["norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2"] {
                same(&format!("{block}.{name}"), true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::scope::Shapes, *};

    fn level(resnets: usize, depth: Option<usize>, sampler: bool) -> Level {
        Level {
            resnets,
            depth,
            sampler,
        }
    }

    /// The blocks of Stable Diffusion XL.
    fn xl() -> UnetLayout {
        UnetLayout {
            down: vec![
                level(2, None, true),
                level(2, Some(2), true),
                level(2, Some(10), false),
            ],
            middle: Some(10),
            up: vec![
                level(3, Some(10), true),
                level(3, Some(2), true),
                level(3, None, false),
            ],
            added: true,
            guided: None,
        }
    }

    fn named(layers: &[LayerNames], name: impl Fn(&LayerNames) -> &str) -> Shapes {
        let weight = |layer: &LayerNames| (format!("{}.weight", name(layer)), vec![1]);
        layers.iter().map(weight).collect()
    }

    #[test]
    fn the_layout_follows_from_either_names() {
        let layers = xl().layers();
        let original = named(&layers, |layer| &layer.original);
        let diffusers = named(&layers, |layer| &layer.diffusers);
        assert_eq!(
            (original.len(), diffusers.len()),
            (layers.len(), layers.len())
        );
        assert_eq!(UnetLayout::from_original(Scope::new(&original, "")), xl());
        assert_eq!(UnetLayout::from_diffusers(Scope::new(&diffusers, "")), xl());
        assert_eq!(xl().problem(), None);
    }

    /// Names of published files, by their number: the second transformer of the first size with
    /// attention, the changes of size, and the last block.
    #[test]
    fn blocks_have_their_published_numbers() {
        let layers = xl().layers();
        let name_of = |original: &str| {
            let layer = layers.iter().find(|layer| layer.original == original);
            &layer.expect("a layer").diffusers[..]
        };
        for (original, diffusers) in [
            (
                "input_blocks.5.1.transformer_blocks.1.attn2.to_k",
                "down_blocks.1.attentions.1.transformer_blocks.1.attn2.to_k",
            ),
            ("input_blocks.3.0.op", "down_blocks.0.downsamplers.0.conv"),
            ("middle_block.2.out_layers.3", "mid_block.resnets.1.conv2"),
            ("output_blocks.2.2.conv", "up_blocks.0.upsamplers.0.conv"),
            ("output_blocks.5.2.conv", "up_blocks.1.upsamplers.0.conv"),
            (
                "output_blocks.8.0.skip_connection",
                "up_blocks.2.resnets.2.conv_shortcut",
            ),
            ("label_emb.0.2", "add_embedding.linear_2"),
        ] {
            assert_eq!(name_of(original), diffusers);
        }
    }

    #[test]
    fn a_cut_network_is_a_problem() {
        let mut layers = xl().layers();
        layers.retain(|layer| !layer.original.starts_with("output_blocks.7"));
        let original = named(&layers, |layer| &layer.original);
        let layout = UnetLayout::from_original(Scope::new(&original, ""));
        let problem = layout.problem().expect("a block is missing");
        assert!(
            problem.contains("2 residual blocks on the way down and 1"),
            "{problem}"
        );
        let empty = UnetLayout::from_original(Scope::new(&Shapes::new(), ""));
        assert!(empty.problem().is_some());
    }
}
