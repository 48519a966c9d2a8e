//! Music as tokens: what comes where, and which token may come next.

use crate::melody::{self, MelodyCursor};
use aigc_core::music::{ChordTokens, VOICES, VoiceTokens};
use serde::{Deserialize, Serialize};

/// Number of different [slots](Place::slot).
pub(crate) const SLOTS: usize = 20;
/// Number of different [beats](Place::beat).
pub(crate) const BEATS: usize = 16;

/// A way to write music as tokens. Every piece begins and ends with the same token, the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Notation {
    /// Melodies of the grammar ([`melody`]).
    #[default]
    Melodies,
    /// Chorales: four voices in every sixteenth, soprano first ([`VoiceTokens`]).
    Sixteenths,
    /// Chorales: the pitches of every quarter in ascending order ([`ChordTokens`]).
    Quarters,
}

/// What is known of a token before it is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its voice, its rank in a chord, or its kind.
    pub(crate) slot: usize,
    /// Its step in a bar of sixteenths or in a phrase of quarters, or its bar.
    pub(crate) beat: usize,
}

impl Notation {
    /// Number of tokens.
    pub(crate) fn vocab_size(self) -> usize {
        match self {
            Self::Melodies => melody::VOCABULARY,
            Self::Sixteenths => VoiceTokens::default().vocab_size(),
            Self::Quarters => ChordTokens::default().vocab_size(),
        }
    }

    /// The token before the first one of a piece, and after its last one.
    pub(crate) fn start_token(self) -> u32 {
        match self {
            Self::Melodies => melody::START,
            Self::Sixteenths => VoiceTokens::default().start_token(),
            Self::Quarters => ChordTokens::default().start_token(),
        }
    }

    /// Number of tokens after which places repeat, so that a window may begin there without what
    /// was before; `None` if only whole pieces can be read.
    pub(crate) fn period(self) -> Option<usize> {
        (self == Self::Sixteenths).then_some(VOICES * BEATS)
    }

    /// The place of what follows each token. The first token is the start, or a token at a multiple
    /// of the [period](Self::period).
    pub(crate) fn places(self, tokens: &[u32]) -> Vec<Place> {
        let mut cursor = Cursor::new(self, 0);
        let place = |(index, token): (usize, &u32)| {
            if index > 0 {
                cursor.push(*token);
            }
            cursor.place()
        };
        tokens.iter().enumerate().map(place).collect()
    }
}

/// A place in a piece that is being read or written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    notation: Notation,
    start: u32,
    /// Complete steps.
    steps: usize,
    /// Tokens of the step so far.
    rank: usize,
    /// The last pitch of a chord as a token; 0 without one.
    last: u32,
    melody: MelodyCursor,
}

impl Cursor {
    /// After the start, or after `steps` steps of a piece.
    pub(crate) fn new(notation: Notation, steps: usize) -> Self {
        Self {
            notation,
            start: notation.start_token(),
            steps,
            rank: 0,
            last: 0,
            melody: MelodyCursor::new(),
        }
    }

    /// The place of the next token.
    pub(crate) fn place(&self) -> Place {
        match self.notation {
            Notation::Melodies => self.melody.place(),
            Notation::Sixteenths | Notation::Quarters => Place {
                slot: self.rank.min(SLOTS - 1),
                beat: self.steps % BEATS,
            },
        }
    }

    /// Whether a step may begin here.
    pub(crate) fn is_boundary(&self) -> bool {
        match self.notation {
            Notation::Melodies => self.melody.is_boundary(),
            Notation::Sixteenths | Notation::Quarters => self.rank == 0,
        }
    }

    /// Goes on by a token. The start begins again.
    pub(crate) fn push(&mut self, token: u32) {
        if token == self.start {
            *self = Self::new(self.notation, 0);
            return;
        }
        self.rank += 1;
        let ends = match self.notation {
            Notation::Melodies => {
                self.melody.push(token);
                false
            }
            Notation::Sixteenths => self.rank == VOICES,
            Notation::Quarters => token == 0,
        };
        self.last = token;
        if ends {
            (self.steps, self.rank, self.last) = (self.steps + 1, 0, 0);
        }
    }

    /// Whether a token may come next: a piece ends between two steps and not before `least` of
    /// them, and the pitches of a chord ascend.
    pub(crate) fn allows(&self, token: u32, least: usize) -> bool {
        match self.notation {
            Notation::Melodies => self.melody.allows(token),
            _ if token == self.start => self.rank == 0 && self.steps >= least,
            Notation::Sixteenths => true,
            Notation::Quarters => token == 0 || token > self.last,
        }
    }
}
