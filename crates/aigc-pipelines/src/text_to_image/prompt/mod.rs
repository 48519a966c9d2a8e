//! Prompts as data: how a text becomes the tokens, and their weights, that an encoder receives.
//!
//! | file | content |
//! |---|---|
//! | `web_ui` | the grammar `(word:1.3)`, `[word]`, `BREAK` |
//! | `chunks` | long prompts in pieces of the encoder's length |
//!
//! The reading is a [choice](PromptSyntax). It is never guessed from the text, because a prompt may
//! contain brackets that mean nothing.

pub(crate) mod chunks;
pub(crate) mod web_ui;

/// How prompts are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PromptSyntax {
    /// The text as it is, as in diffusers. What goes beyond the encoder's length is cut, and
    /// [reported](aigc_core::text_to_image::GeneratedImages::warnings).
    #[default]
    Plain,
    /// Weights and pieces of any number, in the grammar of Stable Diffusion's web interface
    /// ([`parse_web_ui_prompt`](super::parse_web_ui_prompt)); for networks that attend to the
    /// tokens of CLIP's encoders.
    WebUi,
}
