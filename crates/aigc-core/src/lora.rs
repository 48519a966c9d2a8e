//! Configuration of low-rank adapters (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language
//! Models", <https://arxiv.org/abs/2106.09685>), which the model families share.
//!
//! The weight `W`, `[in, out]`, of a layer is frozen, and its change for a new task is trained as
//! the product of two thin matrices: `W + (alpha / rank)·A·B` (equation 3).

use crate::{Error, Result, check};
use serde::{Deserialize, Serialize};

/// Configuration of new adapters; in JSON, the fields of PEFT's `adapter_config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoraConfig {
    /// Rank: number of columns of `A` and rows of `B`.
    #[serde(rename = "r")]
    pub rank: usize,
    /// Numerator of the factor `alpha / rank` of the product, which makes the learning rate
    /// independent of the rank.
    #[serde(rename = "lora_alpha")]
    pub alpha: f64,
    /// Endings of the names of the layers to adapt, such as `c_attn`; use a longer ending
    /// (`mlp.c_proj`) if one is ambiguous.
    #[serde(rename = "target_modules")]
    pub targets: Vec<String>,
}

/// PEFT's rank and alpha, and its targets for GPT-2.
impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.0,
            targets: vec!["c_attn".into()],
        }
    }
}

impl LoraConfig {
    /// The configuration of diffusers' training scripts: rank and alpha 4, for the projections of
    /// attention in U-nets and transformers.
    pub fn attention() -> Self {
        Self {
            rank: 4,
            alpha: 4.0,
            targets: ["to_q", "to_k", "to_v", "to_out.0"].map(Into::into).into(),
        }
    }

    /// The factor of the product, `alpha / rank`.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }

    /// Fails unless every value is in its range. The targets are checked with the model, by
    /// [`check_targets`](Self::check_targets).
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        check::sizes(&[("rank", self.rank, 1 << 16)])?;
        check::positive("alpha", self.alpha)?;
        if self.targets.is_empty() {
            return Err(Error::config("targets", "[]", "at least one layer"));
        }
        Ok(())
    }

    /// Whether the layer of this name is adapted.
    pub fn adapts(&self, layer: &str) -> bool {
        let mut targets = self.targets.iter();
        targets.any(|target| ends_with_name(layer, target))
    }

    /// Fails unless every target is the ending of one of these names of layers.
    ///
    /// # Errors
    /// [`Error::Config`] with the target and the last parts of the names.
    pub fn check_targets(&self, layers: &[&str]) -> Result<()> {
        let is_unknown = |target: &&String| {
            let mut layers = layers.iter();
            !layers.any(|layer| ends_with_name(layer, target))
        };
        let Some(target) = self.targets.iter().find(is_unknown) else {
            return Ok(());
        };
        let last = |layer: &&str| layer.rsplit('.').next().unwrap_or_default().to_owned();
        let mut known: Vec<String> = layers.iter().map(last).collect();
        known.sort_unstable();
        known.dedup();
        let expected = format!("endings of names of layers, such as {}", known.join(", "));
        Err(Error::config("targets", target, expected))
    }
}

/// Whether a dotted name ends with the components of `end`.
pub fn ends_with_name(name: &str, end: &str) -> bool {
    name.strip_suffix(end)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_whole_parts_of_names() {
        let config = LoraConfig {
            targets: vec!["to_q".into(), "ff.net.2".into()],
            ..LoraConfig::default()
        };
        for (layer, adapted) in [
            ("to_q", true),
            ("attn1.to_q", true),
            ("attn1.xto_q", false),
            ("attn1.to_q.0", false),
            ("block.ff.net.2", true),
            ("block.net.2", false),
            ("", false),
        ] {
            assert_eq!(config.adapts(layer), adapted, "{layer}");
        }
        config.check_targets(&["a.to_q", "a.ff.net.2"]).unwrap();
        let error = config.check_targets(&["a.to_q", "a.b"]).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("`targets` is ff.net.2"), "{error}");
        assert!(error.contains("b, to_q"), "{error}");
        assert!(!LoraConfig::attention().adapts(""));
    }

    #[test]
    fn fields_are_those_of_peft() {
        let config: LoraConfig = serde_json::from_str(r#"{"r": 2, "lora_alpha": 3}"#).unwrap();
        assert_eq!((config.rank, config.scale()), (2, 1.5));
        assert_eq!(config.targets, LoraConfig::default().targets);
        let wrong = [
            LoraConfig {
                rank: 0,
                ..config.clone()
            },
            LoraConfig {
                alpha: -1.0,
                ..config.clone()
            },
            LoraConfig {
                targets: vec![],
                ..config
            },
        ];
        for (config, field) in wrong.iter().zip(["rank", "alpha", "targets"]) {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{error}");
        }
    }
}
