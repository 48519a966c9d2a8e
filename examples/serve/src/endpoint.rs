//! The endpoints that make images, and the fields of each.

/// An endpoint of the API.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Endpoint {
    Generations,
    Edits,
    Variations,
}

/// Fields of all endpoints, and of this server besides those of the API.
const COMMON: [&str; 10] = [
    "model",
    "n",
    "size",
    "response_format",
    "user",
    "seed",
    "first_image",
    "negative_prompt",
    "guidance_scale",
    "num_inference_steps",
];

/// Fields of images that are made of a prompt.
const PROMPTED: [&str; 7] = [
    "prompt",
    "quality",
    "background",
    "output_format",
    "output_compression",
    "stream",
    "partial_images",
];

impl Endpoint {
    /// Names of the fields that it has.
    pub(crate) fn known(self) -> Vec<&'static str> {
        let own: &[&str] = match self {
            Self::Generations => &["style", "moderation"],
            Self::Edits => &["image", "mask", "strength", "input_fidelity", "moderation"],
            Self::Variations => &["image", "strength"],
        };
        let prompted: &[&str] = match self {
            Self::Variations => &[],
            _ => &PROMPTED,
        };
        [prompted, own, &COMMON].concat()
    }

    /// Start of the names of a stream's events.
    pub(crate) fn event_prefix(self) -> &'static str {
        match self {
            Self::Generations => "image_generation",
            _ => "image_edit",
        }
    }
}
