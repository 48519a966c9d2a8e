"""The residual quantiser of the workloads, in PyTorch."""
import torch, torch.nn.functional as F


class ResidualQuantizer:
    """Stages of tables, each of which quantises what the stages before it left over. The codes
    follow moving averages of their vectors (decay 0.99, Laplace smoothing of 1e-5); a code that is
    used less than 3 % of the mean use becomes a vector of the batch. `count` is the number of
    vectors of a batch."""

    def __init__(self, stages, rows, dim, count):
        self.codes, self.uses = torch.randn(stages, rows, dim) / dim ** 0.5, torch.ones(stages, rows)
        self.sums, self.ones = self.codes.clone(), torch.ones(count)

    def __call__(self, vectors):
        """The sums of the codes, with the gradient of the vectors, and the sum of the squared
        distances that each stage leaves."""
        rest, commitment, self.inputs, self.indices = vectors, 0, [], []
        norms = self.codes.square().sum(2)
        for table, norm in zip(self.codes, norms):
            self.inputs.append(rest.detach())
            self.indices.append(torch.addmm(norm, self.inputs[-1], table.T, alpha=-2).argmin(1))
            nearest = F.embedding(self.indices[-1], table)
            commitment = commitment + F.mse_loss(rest, nearest, reduction="sum")
            rest = rest - nearest
        return vectors - rest.detach(), commitment

    @torch.no_grad()
    def follow(self):
        """Moves the codes of all stages to the vectors that were assigned to them."""
        (stages, rows), count = self.uses.shape, len(self.ones)
        used, total = torch.zeros_like(self.uses), torch.zeros_like(self.sums)
        for stage, (vectors, index) in enumerate(zip(self.inputs, self.indices)):
            used[stage].index_add_(0, index, self.ones)
            total[stage].index_add_(0, index, vectors)
        self.uses.lerp_(used, 0.01)
        self.sums.lerp_(total, 0.01)
        whole = self.uses.sum(1, keepdim=True)
        smoothed = (self.uses + 1e-5) * (whole / (whole + rows * 1e-5))
        mean, drawn = whole / rows, torch.randint(count, (stages, rows))
        dead = self.uses < 0.03 * mean
        random = torch.stack([v[i] for v, i in zip(self.inputs, drawn)])
        self.codes.copy_(torch.where(dead[..., None], random, self.sums / smoothed[..., None]))
        self.sums.copy_(torch.where(dead[..., None], random * mean[..., None], self.sums))
        self.uses.copy_(torch.where(dead, mean, self.uses))
