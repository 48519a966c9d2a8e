//! Encoded prompts.

use aigc_core::encoder::TextEmbeddings;
use burn::tensor::{Bool, Int, Tensor};

/// The texts of several images: one text of each list for each prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Prompts {
    /// The prompts.
    pub prompt: Vec<String>,
    /// Prompts of the second text encoder; those of the first by default.
    pub prompt_2: Option<Vec<String>>,
    /// Prompts of the third text encoder.
    pub prompt_3: Option<Vec<String>>,
    /// Negative prompts.
    pub negative_prompt: Option<Vec<String>>,
    /// Negative prompts of the second text encoder.
    pub negative_prompt_2: Option<Vec<String>>,
    /// Negative prompts of the third text encoder.
    pub negative_prompt_3: Option<Vec<String>>,
}

impl Prompts {
    /// Prompts without negative ones.
    pub fn new<T: Into<String>>(prompt: impl IntoIterator<Item = T>) -> Self {
        Self {
            prompt: prompt.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Sets the negative prompts, one for each prompt.
    pub fn with_negative_prompt<T: Into<String>>(
        mut self,
        negative_prompt: impl IntoIterator<Item = T>,
    ) -> Self {
        self.negative_prompt = Some(negative_prompt.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the prompts of the second and third text encoder.
    pub fn with_further_prompts(
        mut self,
        prompt_2: Option<Vec<String>>,
        prompt_3: Option<Vec<String>>,
    ) -> Self {
        (self.prompt_2, self.prompt_3) = (prompt_2, prompt_3);
        self
    }

    /// Sets the negative prompts of the second and third text encoder.
    pub fn with_further_negative_prompts(
        mut self,
        negative_prompt_2: Option<Vec<String>>,
        negative_prompt_3: Option<Vec<String>>,
    ) -> Self {
        (self.negative_prompt_2, self.negative_prompt_3) = (negative_prompt_2, negative_prompt_3);
        self
    }

    /// Number of prompts.
    pub fn len(&self) -> usize {
        self.prompt.len()
    }

    /// Whether there are no prompts.
    pub fn is_empty(&self) -> bool {
        self.prompt.is_empty()
    }

    /// All lists by their names.
    pub(crate) fn lists(&self) -> [(&'static str, Option<&Vec<String>>); 6] {
        [
            ("prompt", Some(&self.prompt)),
            ("prompt_2", self.prompt_2.as_ref()),
            ("prompt_3", self.prompt_3.as_ref()),
            ("negative_prompt", self.negative_prompt.as_ref()),
            ("negative_prompt_2", self.negative_prompt_2.as_ref()),
            ("negative_prompt_3", self.negative_prompt_3.as_ref()),
        ]
    }

    /// The texts of prompt `row` by their names, if there are several prompts.
    pub(crate) fn settings(&self, row: usize) -> Vec<(String, String)> {
        if self.len() < 2 {
            return vec![];
        }
        let text = |(name, list): (&str, Option<&Vec<String>>)| {
            Some((name.to_owned(), list?.get(row)?.clone()))
        };
        self.lists().into_iter().filter_map(text).collect()
    }

    /// The prompts of encoder `which`, from 0 on: an empty text stands for that of the first.
    pub(crate) fn positive(&self, which: usize) -> Vec<String> {
        let own = [None, self.prompt_2.as_ref(), self.prompt_3.as_ref()][which];
        or_first(own, &self.prompt)
    }

    /// The negative prompts of encoder `which`; empty ones without any.
    pub(crate) fn negative(&self, which: usize) -> Vec<String> {
        let empty = || vec![String::new(); self.prompt.len()];
        let first = self.negative_prompt.clone().unwrap_or_else(empty);
        let own = [
            None,
            self.negative_prompt_2.as_ref(),
            self.negative_prompt_3.as_ref(),
        ][which];
        or_first(own, &first)
    }
}

/// The texts of an encoder; where there are none, or an empty one, those of the first.
fn or_first(own: Option<&Vec<String>>, first: &[String]) -> Vec<String> {
    let Some(own) = own else {
        return first.to_vec();
    };
    let texts = own.iter().zip(first);
    texts
        .map(|(own, first)| if own.is_empty() { first } else { own }.clone())
        .collect()
}

/// What an encoder received, for those who want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncoderInput {
    /// The encoder's directory: `text_encoder`, `text_encoder_2`, `text_encoder_3`.
    pub encoder: &'static str,
    /// Whether the texts were negative prompts.
    pub negative: bool,
    /// The tokens, with start, end and padding, a row for each text (and for each piece of it).
    pub ids: Vec<Vec<u32>>,
}

/// Prompts encoded by the text encoders of a pipeline. They can be used for several requests.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PromptEmbeddings {
    /// The prompts, a row for each.
    pub prompt: TextEmbeddings,
    /// The negative prompts; `None` if there is no classifier-free guidance.
    pub negative: Option<TextEmbeddings>,
    /// What the encoders received, in the order of the calls.
    pub inputs: Vec<EncoderInput>,
    /// What the user should know: parts of prompts that were cut.
    pub warnings: Vec<String>,
}

impl PromptEmbeddings {
    /// Embeddings that were computed elsewhere.
    pub fn new(prompt: TextEmbeddings, negative: Option<TextEmbeddings>) -> Self {
        Self {
            prompt,
            negative,
            inputs: vec![],
            warnings: vec![],
        }
    }

    /// Number of prompts.
    pub fn len(&self) -> usize {
        self.prompt.hidden_states.dims()[0]
    }

    /// Whether there are no prompts.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The rows of these prompts, of negative ones first if `negative` are given.
pub(crate) fn rows(
    prompt: &TextEmbeddings,
    negative: Option<&TextEmbeddings>,
    prompts: &[usize],
) -> TextEmbeddings {
    let device = prompt.hidden_states.device();
    let index: Vec<i32> = prompts.iter().map(|row| *row as i32).collect();
    let index = Tensor::<1, Int>::from_data(&index[..], &device);
    let all = negative.into_iter().chain([prompt]);
    let select = |part: &TextEmbeddings| {
        let mut rows = TextEmbeddings::new(part.hidden_states.clone().select(0, index.clone()));
        rows.pooled = part
            .pooled
            .clone()
            .map(|pooled| pooled.select(0, index.clone()));
        rows.attention_mask = part
            .attention_mask
            .clone()
            .map(|mask| select_mask(mask, &index));
        rows
    };
    let parts: Vec<TextEmbeddings> = all.map(select).collect();
    cat(parts)
}

fn select_mask(mask: Tensor<2, Bool>, index: &Tensor<1, Int>) -> Tensor<2, Bool> {
    mask.int().select(0, index.clone()).equal_elem(1)
}

fn cat(mut parts: Vec<TextEmbeddings>) -> TextEmbeddings {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let states = parts
        .iter()
        .map(|part| part.hidden_states.clone())
        .collect();
    let mut all = TextEmbeddings::new(Tensor::cat(states, 0));
    let pooled: Option<Vec<_>> = parts.iter().map(|part| part.pooled.clone()).collect();
    all.pooled = pooled.map(|pooled| Tensor::cat(pooled, 0));
    let masks: Option<Vec<_>> = parts
        .iter()
        .map(|part| part.attention_mask.clone())
        .collect();
    all.attention_mask = masks.map(|masks| Tensor::cat(masks, 0));
    all
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::values;
    use burn::tensor::Device;

    #[test]
    fn further_prompts_default_to_the_first() {
        let prompts = Prompts::new(["a", "b"])
            .with_further_prompts(Some(vec!["c".into(), String::new()]), None);
        assert_eq!(prompts.positive(1), ["c", "b"]);
        assert_eq!(prompts.positive(2), ["a", "b"]);
        assert_eq!(prompts.negative(1), ["", ""]);
        let prompts = prompts.with_negative_prompt(["x", "y"]);
        assert_eq!(prompts.negative(2), ["x", "y"]);
    }

    #[test]
    fn rows_of_negative_prompts_come_first() {
        let device = Device::flex();
        let embeddings = |from: f32| {
            let states = Tensor::<1>::from_floats([from, from + 1.0], &device).reshape([2, 1, 1]);
            let mask = Tensor::<2, Bool>::from_data([[true], [false]], &device);
            TextEmbeddings::new(states.clone())
                .with_pooled(states.squeeze_dim(2))
                .with_attention_mask(mask)
        };
        let (prompt, negative) = (embeddings(0.0), embeddings(5.0));
        let chosen = rows(&prompt, Some(&negative), &[1, 1, 0]);
        let expected = [6.0, 6.0, 5.0, 1.0, 1.0, 0.0];
        assert_eq!(values(chosen.hidden_states), expected);
        assert_eq!(values(chosen.pooled.unwrap()), expected);
        let mask = values(chosen.attention_mask.unwrap().float());
        assert_eq!(mask, [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
        assert_eq!(rows(&prompt, None, &[1]).hidden_states.dims(), [1, 1, 1]);
    }
}
