//! Encoded prompts of a video.

use super::{
    VideoRequest,
    request::{Defaults, guidance},
};
use aigc_core::{Error, Result};
use burn::tensor::Tensor;

/// Encoded prompts of a video.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VideoPrompts {
    /// The states of the prompt, `[1, tokens, width]`.
    pub prompt: Tensor<3>,
    /// The states of the negative prompt, or of an empty text, `[1, tokens, width]`. `None` for a
    /// request without classifier-free guidance.
    pub negative: Option<Tensor<3>>,
    /// Warnings about prompts whose end was cut off.
    pub warnings: Vec<String>,
}

impl VideoPrompts {
    /// Encodes the prompts of a request with `encode`, which returns the states of a text, and the
    /// end of the text if it was cut off.
    ///
    /// # Errors
    /// Those of `encode`.
    pub(super) fn encoded(
        request: &VideoRequest,
        defaults: &Defaults,
        encode: impl Fn(&str) -> Result<(Tensor<3>, Option<String>)>,
    ) -> Result<Self> {
        let mut warnings = vec![];
        let mut states = |field: &str, text: &str| {
            let (states, cut) = encode(text)?;
            warnings.extend(
                cut.map(|cut| format!("the end of `{field}` was cut, it is too long: {cut:?}")),
            );
            Ok::<_, Error>(states)
        };
        let prompt = states("prompt", &request.prompt)?;
        let scale = request.guidance_scale.unwrap_or(defaults.guidance_scale);
        let negative = match guidance(scale) {
            Some(_) => {
                let text = request.negative_prompt.as_deref().unwrap_or("");
                Some(states("negative_prompt", text)?)
            }
            None => None,
        };
        Ok(Self {
            prompt,
            negative,
            warnings,
        })
    }

    /// The scale of guidance and the states of the negative prompt, for a request with guidance.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for prompts of a request without guidance.
    pub(super) fn guided(&self, guidance: Option<f64>) -> Result<Option<(f64, &Tensor<3>)>> {
        match (guidance, &self.negative) {
            (None, _) => Ok(None),
            (Some(scale), Some(negative)) => Ok(Some((scale, negative))),
            (Some(scale), None) => {
                let expected = format!(
                    "the prompts of this request: its guidance_scale {scale} needs a negative one"
                );
                Err(Error::argument("prompts", "no negative prompt", expected))
            }
        }
    }
}
