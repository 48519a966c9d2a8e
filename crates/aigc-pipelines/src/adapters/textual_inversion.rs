//! Textual inversion (Gal et al. 2022, <https://arxiv.org/abs/2208.01618>): vectors for new tokens.

use super::Component;
use aigc_core::{Error, Result, weights::WeightReader};
use aigc_encoders::{clip::ClipTextModel, tokenizer::ClipTokenizer};
use burn::tensor::{DType, Tensor, TensorData};
use std::path::{Path, PathBuf};

/// Name of weights in diffusers' directories.
const STEM: &str = "learned_embeds";
/// Limit on the vectors of a token: no prompt has more tokens.
const MAX_VECTORS: usize = 1 << 12;

/// The token's vectors for a text encoder; `None`: for whichever has their width.
#[derive(Clone, Debug, PartialEq)]
struct Vectors {
    component: Option<Component>,
    values: Vec<f32>,
    count: usize,
    width: usize,
}

/// One token, and the vectors that stand for it.
///
/// In prompts, a token with several vectors becomes several tokens: `token token_1 token_2`
/// ([`expand_prompt`]).
#[derive(Clone, Debug, PartialEq)]
pub struct TextualInversion {
    path: PathBuf,
    token: String,
    sets: Vec<Vectors>,
}

impl TextualInversion {
    /// Opens a file in the form of diffusers (the token is the tensor's name), of WebUI
    /// (`emb_params`, or the pickle's `string_to_param`), or for Stable Diffusion XL's two encoders
    /// (`clip_l` and `clip_g`). In WebUI's forms and for two encoders, the token is the file's name
    /// without its ending, as in WebUI. Pickles are read without executing them.
    ///
    /// Of a directory, the file `learned_embeds.safetensors` or `learned_embeds.bin` is opened.
    ///
    /// # Errors
    /// [`Error::Weights`] if the file is broken or not of these forms; [`Error::Io`] if it cannot
    /// be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let reader = match path.is_dir() {
            true => WeightReader::from_dir(path, &[STEM])?,
            false => WeightReader::open(path)?,
        };
        let stem = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        let mut token = stem.unwrap_or_default();
        let wrong = |reason: String| Error::weights(path, reason);
        let names: Vec<&str> = reader.names().collect();
        let for_encoders: Vec<(Component, &str)> = [
            (Component::TextEncoder, "clip_l"),
            (Component::TextEncoder2, "clip_g"),
            (Component::TextEncoder, "text_encoders_0"),
            (Component::TextEncoder2, "text_encoders_1"),
        ]
        .into_iter()
        .filter(|(_, name)| names.contains(name))
        .collect();
        let mut params = names
            .iter()
            .filter(|name| name.starts_with("string_to_param."));
        let sets = if !for_encoders.is_empty() {
            let set = |(component, name)| vectors(&reader, name, Some(component));
            for_encoders.into_iter().map(set).collect::<Result<_>>()?
        } else if names.contains(&"emb_params") {
            vec![vectors(&reader, "emb_params", None)?]
        } else if let Some(name) = params.next() {
            if params.next().is_some() {
                return Err(wrong("several tokens, expected one".into()));
            }
            vec![vectors(&reader, name, None)?]
        } else if let [name] = names[..] {
            token = name.into();
            vec![vectors(&reader, name, None)?]
        } else {
            let some: Vec<&str> = names.iter().take(4).copied().collect();
            return Err(wrong(format!(
                "{} tensors ({}), expected one named as its token, emb_params, \
                 string_to_param, or clip_l and clip_g",
                names.len(),
                some.join(", "),
            )));
        };
        let opened = Self {
            path: path.into(),
            token,
            sets,
        };
        match opened.token.trim().is_empty() {
            true => Err(wrong("the token is empty".into())),
            false => Ok(opened),
        }
    }

    /// With another token.
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// The token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The tokens of the vectors: the token itself, then with `_1`, `_2` and so on.
    pub fn tokens(&self) -> Vec<String> {
        let count = self.sets.iter().map(|set| set.count).max().unwrap_or(0);
        let name = |i: usize| match i {
            0 => self.token.clone(),
            i => format!("{}_{i}", self.token),
        };
        (0..count).map(name).collect()
    }

    /// Whether there are vectors for a text encoder of this width.
    pub fn fits(&self, component: Component, width: usize) -> bool {
        let set = self.set(component);
        set.is_some_and(|set| set.width == width)
    }

    /// Whether there are vectors for a text encoder.
    pub(crate) fn has(&self, component: Component) -> bool {
        self.set(component).is_some()
    }

    fn set(&self, component: Component) -> Option<&Vectors> {
        let for_it = |set: &&Vectors| set.component.is_none_or(|its| its == component);
        self.sets.iter().find(for_it)
    }

    /// Adds the tokens to a tokenizer, and their vectors to its text encoder.
    ///
    /// # Errors
    /// [`Error::Weights`] with the file and both widths if the vectors are not as wide as those of
    /// the encoder, or if there are none for this encoder; [`Error::InvalidArgument`] if the
    /// tokenizer has one of the tokens already, or a further one, which
    /// [`expand_prompt`] would add to them. The tokenizer is unchanged then.
    pub fn add_to(
        &self,
        component: Component,
        tokenizer: &mut ClipTokenizer,
        model: ClipTextModel,
    ) -> Result<ClipTextModel> {
        let wrong = |reason: String| Error::weights(&self.path, reason);
        let Some(set) = self.set(component) else {
            return Err(wrong(format!(
                "{} has no vectors for the {component}",
                self.token
            )));
        };
        let width = model.config().hidden_size;
        if set.width != width {
            return Err(wrong(format!(
                "the vectors of {} have the width {}, those of the {component} have the width \
                 {width}; the embedding is for another model",
                self.token, set.width
            )));
        }
        let mut tokens = self.tokens();
        tokens.truncate(set.count);
        let next = format!("{}_{}", self.token, set.count);
        if tokenizer.token_id(&next).is_some() {
            let expected = format!("a token for which the tokenizer has no {next:?}");
            return Err(Error::argument(
                "token",
                format!("{:?}", self.token),
                expected,
            ));
        }
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let mut extended = tokenizer.clone();
        let ids = extended.add_tokens(&tokens)?;
        let device = model.token_embeddings().device();
        let data = TensorData::new(set.values.clone(), [set.count, set.width]);
        let rows = Tensor::from_data(data, (&device, DType::F32));
        let model = model.set_token_embeddings(&ids, rows)?;
        *tokenizer = extended;
        Ok(model)
    }
}

/// The vectors of a tensor: one, or a row for each.
fn vectors(reader: &WeightReader, name: &str, component: Option<Component>) -> Result<Vectors> {
    let shape = reader.shape(name).unwrap_or_default();
    let (count, width) = match *shape {
        [width] => (1, width),
        [count, width] => (count, width),
        _ => (0, 0),
    };
    if count == 0 || width == 0 || count > MAX_VECTORS {
        let reason = format!(
            "{name} has the shape {shape:?}, expected a vector, or 1 to {MAX_VECTORS} rows"
        );
        return Err(Error::weights(reader.path(), reason));
    }
    Ok(Vectors {
        component,
        values: reader.read(name)?,
        count,
        width,
    })
}

/// Replaces tokens that have several vectors by as many tokens, as diffusers does before it encodes
/// a prompt: `<toy>` becomes `<toy> <toy>_1 <toy>_2`.
pub fn expand_prompt(prompt: &str, tokenizer: &ClipTokenizer) -> String {
    let mut expanded = prompt.to_owned();
    let Ok(ids) = tokenizer.encode(prompt) else {
        return expanded;
    };
    let mut seen = vec![];
    for id in ids {
        if seen.contains(&id) {
            continue;
        }
        seen.push(id);
        let Some(token) = tokenizer.token(id) else {
            continue;
        };
        let others = (1..MAX_VECTORS)
            .map(|i| format!("{token}_{i}"))
            .take_while(|other| tokenizer.token_id(other).is_some());
        let all: Vec<String> = std::iter::once(token.clone()).chain(others).collect();
        if all.len() > 1 {
            expanded = expanded.replace(&token, &all.join(" "));
        }
    }
    expanded
}
