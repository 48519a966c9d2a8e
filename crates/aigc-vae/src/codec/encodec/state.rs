//! What the layers of a causal model keep from one piece of a signal to the next.
//!
//! Each layer gives what is certain: the outputs of the pieces, one after the other, are those of
//! the whole signal. Where a signal is reflected at its start, a convolution waits until it has
//! as many samples as it reflects.

use super::{
    layers::{SeanetBlock, SeanetConv, SeanetConvTranspose, SeanetLayer, elu},
    seanet::Seanet,
};
use crate::codec::codes::joined;
use aigc_core::{
    nn::{LstmState, PaddingMode},
    ops,
};
use burn::tensor::Tensor;

/// The state of every layer.
#[derive(Debug, Default)]
pub(super) struct SeanetState(Vec<LayerState>);

#[derive(Debug, Default)]
struct LayerState {
    /// Inputs that outputs to come depend on.
    kept: Option<Tensor<3>>,
    /// Whether what lies before the signal has been added.
    is_padded: bool,
    /// What the shortcut of a block has given and the block has not.
    waiting: Option<Tensor<3>>,
    lstm: Option<LstmState>,
}

impl Seanet {
    /// The next piece of the output, for the next piece of the input, `[batch, channels, time]`;
    /// `None` if there is nothing yet. With `is_last`, the signal ends with this piece.
    pub(super) fn step(
        &self,
        state: &mut SeanetState,
        x: Option<Tensor<3>>,
        is_last: bool,
    ) -> Option<Tensor<3>> {
        state.0.resize_with(self.layers.len(), LayerState::default);
        let layers = self.layers.iter().zip(&mut state.0);
        layers.fold(x, |x, (layer, state)| match layer {
            SeanetLayer::Conv(conv) => conv.step(state, x, is_last),
            SeanetLayer::Upsample(conv) => conv.step(state, x?),
            SeanetLayer::Block(block) => block.step(state, x, is_last),
            SeanetLayer::Lstm(layer) => {
                let x = x?;
                let steps = x.clone().swap_dims(1, 2);
                let (y, next) = layer.lstm.forward(steps, state.lstm.take());
                state.lstm = Some(next);
                Some(x + y.swap_dims(1, 2))
            }
            SeanetLayer::Elu(_) => x.map(elu),
        })
    }
}

impl SeanetConv {
    fn step(
        &self,
        state: &mut LayerState,
        x: Option<Tensor<3>>,
        is_last: bool,
    ) -> Option<Tensor<3>> {
        let history = self.history();
        let mut x = joined(state.kept.take(), x)?;
        if !state.is_padded {
            if is_last {
                return Some(self.forward(x));
            }
            // So many that the reflection at the end, too, is one of samples of the signal.
            let needed = match self.pad_mode {
                PaddingMode::Reflect => history.max(self.stride - 1) + 1,
                _ => 1,
            };
            if x.dims()[2] < needed {
                state.kept = Some(x);
                return None;
            }
            x = ops::pad1d(x, [history, 0], self.pad_mode);
            state.is_padded = true;
        }
        if is_last {
            let new = x.dims()[2] - history;
            let missing = new.next_multiple_of(self.stride) - new;
            x = ops::pad1d(x, [0, missing], self.pad_mode);
        }
        let time = x.dims()[2];
        let used = (time - history) / self.stride * self.stride;
        if used < time {
            state.kept = Some(x.clone().narrow(2, used, time - used));
        }
        (used > 0).then(|| self.conv.forward(x.narrow(2, 0, used + history)))
    }
}

impl SeanetConvTranspose {
    fn step(&self, state: &mut LayerState, x: Tensor<3>) -> Option<Tensor<3>> {
        let new = x.dims()[2];
        let x = joined(state.kept.take(), Some(x))?;
        let time = x.dims()[2];
        let kept = (self.kernel.div_ceil(self.stride) - 1).min(time);
        if kept > 0 {
            state.kept = Some(x.clone().narrow(2, time - kept, kept));
        }
        let y = self.conv.forward(x);
        Some(y.narrow(2, (time - new) * self.stride, new * self.stride))
    }
}

impl SeanetBlock {
    fn step(
        &self,
        state: &mut LayerState,
        x: Option<Tensor<3>>,
        is_last: bool,
    ) -> Option<Tensor<3>> {
        let (_, first, _, second) = &self.block;
        let shortened = x.clone().map(|x| self.shortened(x));
        state.waiting = joined(state.waiting.take(), shortened);
        let y = first.step(state, x.map(elu), is_last)?;
        let y = second.forward(elu(y));
        let waiting = state.waiting.take()?;
        let (ready, time) = (y.dims()[2], waiting.dims()[2]);
        if ready < time {
            state.waiting = Some(waiting.clone().narrow(2, ready, time - ready));
        }
        Some(waiting.narrow(2, 0, ready) + y)
    }
}
