//! The processors of the options.

use super::{
    config::GenerationConfig,
    penalties::{
        ExponentialDecayLengthPenalty, Force, FrequencyPenalty, InfNanRemove, NoRepeatNgram,
        RepetitionPenalty, SequenceBias, Suppress,
    },
    processor::{GenerationState, LogitsProcessor, Processors, log_softmax},
    warpers::{EpsilonCutoff, EtaCutoff, MinP, Temperature, TopH, TopK, TopP, TypicalP},
};
impl GenerationConfig {
    /// The processors of these options, in the order of transformers. `longest` is the maximum
    /// length. `allowed` processors run before forced tokens, `custom` ones before warpers.
    pub(crate) fn processors(
        &self,
        longest: usize,
        allowed: Vec<Box<dyn LogitsProcessor>>,
        custom: Vec<Box<dyn LogitsProcessor>>,
    ) -> Processors {
        let mut all: Vec<Box<dyn LogitsProcessor>> = Vec::new();
        let eos = self.eos_token_ids();
        if !self.sequence_bias.is_empty() {
            all.push(Box::new(SequenceBias(self.sequence_bias.clone())));
        }
        if self.repetition_penalty != 1.0 {
            all.push(Box::new(RepetitionPenalty(self.repetition_penalty)));
        }
        if self.frequency_penalty != 0.0 || self.presence_penalty != 0.0 {
            let (frequency, presence) = (self.frequency_penalty, self.presence_penalty);
            all.push(Box::new(FrequencyPenalty {
                frequency,
                presence,
            }));
        }
        if self.no_repeat_ngram_size > 0 {
            all.push(Box::new(NoRepeatNgram(self.no_repeat_ngram_size)));
        }
        let bad = self
            .bad_words_ids
            .iter()
            .filter(|word| !matches!(word[..], [token] if eos.contains(&token)));
        let bad: Vec<_> = bad.map(|word| (word.clone(), f32::NEG_INFINITY)).collect();
        if !bad.is_empty() {
            all.push(Box::new(SequenceBias(bad)));
        }
        if self.min_length > 0 && !eos.is_empty() {
            let least = self.min_length;
            all.push(Box::new(Suppress {
                tokens: eos.clone(),
                while_: move |row: GenerationState<'_>| row.len() < least,
            }));
        }
        if let Some(least) = self
            .min_new_tokens
            .filter(|least| *least > 0 && !eos.is_empty())
        {
            all.push(Box::new(Suppress {
                tokens: eos.clone(),
                while_: move |row: GenerationState<'_>| row.new_tokens() < least,
            }));
        }
        all.extend(allowed);
        if let Some(token) = self.forced_bos_token_id {
            all.push(Box::new(Force {
                tokens: vec![token],
                when: |row: GenerationState<'_>| row.len() == 1,
            }));
        }
        if let Some(tokens) = &self.forced_eos_token_id {
            all.push(Box::new(Force {
                tokens: tokens.list(),
                when: move |row: GenerationState<'_>| row.len() + 1 == longest,
            }));
        }
        if self.remove_invalid_values {
            all.push(Box::new(InfNanRemove));
        }
        if let Some((start, factor)) = self.exponential_decay_length_penalty {
            all.push(Box::new(ExponentialDecayLengthPenalty {
                start,
                factor,
                eos: eos.clone(),
            }));
        }
        if !self.suppress_tokens.is_empty() {
            all.push(Box::new(Suppress {
                tokens: self.suppress_tokens.clone(),
                while_: |_: GenerationState<'_>| true,
            }));
        }
        if !self.begin_suppress_tokens.is_empty() {
            let forced = self.forced_bos_token_id.is_some();
            let begins = move |row: GenerationState<'_>| {
                row.new_tokens() == usize::from(forced && row.padding + row.prompt_len == 1)
            };
            all.push(Box::new(Suppress {
                tokens: self.begin_suppress_tokens.clone(),
                while_: begins,
            }));
        }
        all.extend(custom);
        if self.do_sample {
            self.warp(&mut all, eos.len());
        }
        if self.renormalize_logits {
            all.push(Box::new(|_: GenerationState<'_>, scores: &mut [f32]| {
                log_softmax(scores);
                Ok(())
            }));
        }
        Processors(all)
    }

    fn warp(&self, all: &mut Vec<Box<dyn LogitsProcessor>>, eos: usize) {
        // Beams need a token to continue with if the most likely tokens all end a sequence.
        let min_tokens_to_keep = if self.num_beams > 1 {
            (eos + 1).max(2)
        } else {
            1
        };
        if self.temperature != 1.0 {
            all.push(Box::new(Temperature(self.temperature)));
        }
        if let Some(top_h) = self.top_h {
            all.push(Box::new(TopH { top_h }));
        }
        if self.top_k > 0 {
            all.push(Box::new(TopK {
                k: self.top_k,
                min_tokens_to_keep,
            }));
        }
        if self.top_p < 1.0 {
            all.push(Box::new(TopP {
                p: self.top_p,
                min_tokens_to_keep,
            }));
        }
        if let Some(min_p) = self.min_p {
            all.push(Box::new(MinP {
                min_p,
                min_tokens_to_keep,
            }));
        }
        if self.typical_p < 1.0 {
            all.push(Box::new(TypicalP {
                p: self.typical_p,
                min_tokens_to_keep,
            }));
        }
        if self.epsilon_cutoff > 0.0 && self.epsilon_cutoff < 1.0 {
            all.push(Box::new(EpsilonCutoff {
                epsilon: self.epsilon_cutoff,
                min_tokens_to_keep,
            }));
        }
        if self.eta_cutoff > 0.0 && self.eta_cutoff < 1.0 {
            all.push(Box::new(EtaCutoff {
                epsilon: self.eta_cutoff,
                min_tokens_to_keep,
            }));
        }
    }
}
