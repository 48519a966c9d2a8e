//! Configurations, with the fields of transformers.

mod fields;
mod pair;
mod shared;
mod text;
mod vision;

pub use pair::ClipConfig;
pub(super) use shared::{EncoderConfig, Shared};
pub use text::ClipTextConfig;
pub use vision::ClipVisionConfig;

use aigc_core::nn::Activation;
use serde::{Deserialize, Serialize};

/// Activation functions by their names in transformers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum HiddenAct {
    /// `x·σ(1.702·x)`, with which OpenAI's models were trained.
    #[default]
    QuickGelu,
    Gelu,
    /// The tanh approximation of GELU.
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    Relu,
    #[serde(alias = "swish")]
    Silu,
    Tanh,
}

impl From<HiddenAct> for Activation {
    fn from(name: HiddenAct) -> Self {
        match name {
            HiddenAct::QuickGelu => Activation::QuickGelu,
            HiddenAct::Gelu => Activation::Gelu,
            HiddenAct::GeluNew => Activation::GeluTanh,
            HiddenAct::Relu => Activation::Relu,
            HiddenAct::Silu => Activation::Silu,
            HiddenAct::Tanh => Activation::Tanh,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_read_as_transformers_does() {
        // A pair as OpenAI's are published: the part that `_dict` names has defaults otherwise.
        let json = r#"{"model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": 768,
            "text_config": {"hidden_size": 512, "eos_token_id": 2, "top_k": 50},
            "text_config_dict": {"hidden_size": 768, "num_attention_heads": 12},
            "vision_config": {"hidden_size": 1024, "num_attention_heads": 16, "colour": "red"}}"#;
        let pair = ClipConfig::from_json(json).unwrap();
        assert_eq!(pair.unused_fields, ["colour"]);
        assert_eq!(
            (pair.text_config.hidden_size, pair.text_config.eos_token_id),
            (768, 49407)
        );
        assert_eq!(pair.vision_config.hidden_size, 1024);
        let text = ClipTextConfig::from_json(json).unwrap();
        assert!(text.with_projection && text.projection_dim == 768);
        assert_eq!(text.hidden_size, 768);

        let json = r#"{"architectures": ["CLIPTextModel"], "bos_token_id": 0, "dropout": 0.0,
            "pad_token_id": null, "hidden_act": "gelu_pytorch_tanh", "torch_dtype": "float16"}"#;
        let text = ClipTextConfig::from_json(json).unwrap();
        assert!(text.warnings().is_empty() && !text.with_projection);
        assert_eq!(text.hidden_act, HiddenAct::GeluNew);
    }

    #[test]
    fn configurations_written_are_read_back() {
        let text = ClipTextConfig::vit_bigg_14();
        let read = ClipTextConfig::from_json(&text.to_json()).unwrap();
        assert_eq!((read.value, read.unused_fields.len()), (text.clone(), 0));
        let vision = ClipVisionConfig {
            with_projection: true,
            ..ClipVisionConfig::default()
        };
        let read = ClipVisionConfig::from_json(&vision.to_json()).unwrap();
        assert_eq!((read.value, read.unused_fields.len()), (vision, 0));
        let pair = ClipConfig {
            text_config: ClipTextConfig::vit_l_14(),
            ..ClipConfig::default()
        };
        let read = ClipConfig::from_json(&pair.to_json()).unwrap();
        assert_eq!((read.value, read.unused_fields.len()), (pair, 0));
    }

    #[test]
    fn errors_name_field_and_value() {
        let text = |json: &str| ClipTextConfig::from_json(json).unwrap_err().to_string();
        let cases = [
            (r#"{"hidden_act": "mish"}"#, "`hidden_act` is \"mish\""),
            (r#"{"model_type": "gpt2"}"#, "`model_type` is gpt2"),
            (
                r#"{"num_attention_heads": 7}"#,
                "`num_attention_heads` is 7",
            ),
            (r#"{"vocab_size": 99999999999}"#, "`vocab_size` is"),
            (r#"{"eos_token_id": [1, 2]}"#, "`eos_token_id` is [1,2]"),
        ];
        for (json, expected) in cases {
            assert!(text(json).contains(expected), "{}", text(json));
        }
        let vision = ClipVisionConfig::from_json(r#"{"image_size": [224, 336]}"#);
        let message = vision.unwrap_err().to_string();
        assert!(message.contains("`image_size` is [224,336]"), "{message}");
        let pair = ClipConfig::from_json(r#"{"vision_config": {"patch_size": 300}}"#);
        let message = pair.unwrap_err().to_string();
        assert!(message.contains("`patch_size` is 300"), "{message}");
    }
}
