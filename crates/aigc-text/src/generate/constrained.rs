//! Phrases that a sequence must contain, by dynamic beam allocation: beams are distributed over
//! banks of equal progress (Post and Vilar 2018, <https://arxiv.org/abs/1804.06609>).

use super::config::WordConstraint;

/// Phrases that must be generated; each entry lists alternatives.
pub(crate) struct Constraints(Vec<Vec<Vec<u32>>>);

/// Progress of a sequence through the constraints.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Progress {
    met: Vec<bool>,
    /// The phrase that was begun, and the part of it at the end of the sequence.
    begun: Option<(usize, Vec<u32>)>,
}

impl Constraints {
    pub(crate) fn new(forced: &[WordConstraint]) -> Self {
        let alternatives = |forced: &WordConstraint| match forced {
            WordConstraint::Phrasal(phrase) => vec![phrase.clone()],
            WordConstraint::Disjunctive(phrases) => phrases.clone(),
        };
        Self(forced.iter().map(alternatives).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Progress before the first new token.
    pub(crate) fn start(&self) -> Progress {
        Progress {
            met: vec![false; self.0.len()],
            begun: None,
        }
    }

    /// Whether all constraints are met.
    pub(crate) fn are_met(&self, progress: &Progress) -> bool {
        progress.met.iter().all(|met| *met)
    }

    /// Tokens that advance a constraint.
    pub(crate) fn advancing(&self, progress: &Progress) -> Vec<u32> {
        let mut tokens: Vec<u32> = match &progress.begun {
            Some((which, part)) => self.next_tokens(*which, part).collect(),
            None => self
                .open(progress)
                .flat_map(|which| self.next_tokens(which, &[]))
                .collect(),
        };
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    fn open<'a>(&'a self, progress: &'a Progress) -> impl Iterator<Item = usize> + 'a {
        (0..self.0.len()).filter(|which| !progress.met[*which])
    }

    /// Tokens that may follow a part of a phrase.
    fn next_tokens<'a>(&'a self, which: usize, part: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        let follows =
            move |phrase: &&Vec<u32>| phrase.len() > part.len() && phrase.starts_with(part);
        self.0[which]
            .iter()
            .filter(follows)
            .map(move |phrase| phrase[part.len()])
    }

    /// Progress after one more token.
    pub(crate) fn after(&self, progress: &Progress, token: u32) -> Progress {
        let mut after = progress.clone();
        let begun = after.begun.take().map(|(which, mut part)| {
            part.push(token);
            (which, part)
        });
        // The current phrase continues, or another one begins.
        let is_part = |(which, part): &(usize, Vec<u32>)| {
            self.0[*which].iter().any(|phrase| phrase.starts_with(part))
        };
        let fresh = || {
            self.open(progress)
                .map(|which| (which, vec![token]))
                .find(is_part)
        };
        if let Some((which, part)) = begun.filter(is_part).or_else(fresh) {
            if self.0[which].contains(&part) {
                after.met[which] = true;
            } else {
                after.begun = Some((which, part));
            }
        }
        after
    }

    /// Number of tokens of forced phrases in the sequence.
    fn bank(&self, progress: &Progress) -> usize {
        let longest = |which: usize| self.0[which].iter().map(Vec::len).max().unwrap_or(0);
        let met: usize = (0..self.0.len())
            .filter(|which| progress.met[*which])
            .map(longest)
            .sum();
        met + progress.begun.as_ref().map_or(0, |(_, part)| part.len())
    }

    /// Chooses `count` of `all`: the best; with constraints, the best of each bank in rotation,
    /// beginning with the most advanced bank.
    pub(crate) fn spread<B>(
        &self,
        mut all: Vec<B>,
        count: usize,
        progress: impl Fn(&B) -> &Progress,
        score: impl Fn(&B) -> f32,
    ) -> Vec<B> {
        if !self.is_empty() {
            let bank = |beam: &B| self.bank(progress(beam));
            all.sort_by(|a, b| bank(b).cmp(&bank(a)).then(score(b).total_cmp(&score(a))));
            let mut before = None;
            let mut rank = 0;
            let ranks: Vec<usize> = all
                .iter()
                .map(|beam| {
                    rank = if before == Some(bank(beam)) {
                        rank + 1
                    } else {
                        0
                    };
                    before = Some(bank(beam));
                    rank
                })
                .collect();
            let mut order: Vec<(usize, B)> = ranks.into_iter().zip(all).collect();
            order.sort_by_key(|(rank, _)| *rank);
            all = order.into_iter().map(|(_, beam)| beam).collect();
        }
        all.truncate(count);
        all
    }
}
