//! The flow between the latents of text and of sound.

use super::{VitsConfig, wavenet::WaveNet};
use aigc_core::nn::{Conv1d, Conv1dConfig, Initializer};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Coupling layers that shift one half of the channels by a function of the other, so that volumes
/// stay (Kim et al. 2021, §2.2.2). The order of the channels is reversed between them.
#[derive(Module, Debug)]
pub(super) struct CouplingFlow {
    flows: Vec<Coupling>,
}

#[derive(Module, Debug)]
struct Coupling {
    conv_pre: Conv1d,
    wavenet: WaveNet,
    conv_post: Conv1d,
}

impl CouplingFlow {
    pub(super) fn new(config: &VitsConfig, device: &Device) -> Self {
        let (half, hidden) = (config.flow_size / 2, config.hidden_size);
        let layers = config.prior_encoder_num_wavenet_layers;
        let coupling = |_| Coupling {
            conv_pre: Conv1dConfig::new([half, hidden], 1).init(device),
            wavenet: WaveNet::new(config, layers, device),
            // A new flow is the identity, up to the order of the channels.
            conv_post: Conv1dConfig::new([hidden, half], 1)
                .with_initializer(Initializer::ZEROS)
                .init(device),
        };
        Self {
            flows: (0..config.prior_encoder_num_flows).map(coupling).collect(),
        }
    }

    /// From latents of sound to latents of text, all `[batch, flow_size, time]`.
    pub(super) fn forward(
        &self,
        z: Tensor<3>,
        mask: &Tensor<3>,
        condition: Option<&Tensor<3>>,
    ) -> Tensor<3> {
        self.flows.iter().fold(z, |z, flow| {
            let [kept, mapped] = halves(z);
            let shift = flow.shift(kept.clone(), mask, condition);
            Tensor::cat(vec![kept, shift + mapped * mask.clone()], 1).flip([1])
        })
    }

    /// The inverse of [`forward`](Self::forward).
    pub(super) fn inverse(
        &self,
        z: Tensor<3>,
        mask: &Tensor<3>,
        condition: Option<&Tensor<3>>,
    ) -> Tensor<3> {
        self.flows.iter().rev().fold(z, |z, flow| {
            let [kept, mapped] = halves(z.flip([1]));
            let shift = flow.shift(kept.clone(), mask, condition);
            Tensor::cat(vec![kept, (mapped - shift) * mask.clone()], 1)
        })
    }
}

impl Coupling {
    fn shift(&self, kept: Tensor<3>, mask: &Tensor<3>, condition: Option<&Tensor<3>>) -> Tensor<3> {
        let x = self.conv_pre.forward(kept) * mask.clone();
        let x = self.wavenet.forward(x, mask, condition);
        self.conv_post.forward(x) * mask.clone()
    }
}

/// The first and the second half of the channels.
pub(super) fn halves(x: Tensor<3>) -> [Tensor<3>; 2] {
    let half = x.dims()[1] / 2;
    [x.clone().narrow(1, 0, half), x.narrow(1, half, half)]
}
