"""Losses of fine-tuning, as functions of scores. Needs PyTorch.

P examples of a block of M items; ``out`` says which items are no negatives of an example: others that its user liked.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BLOCKED = -1e9
"""Logit of what is left out."""


def cross_entropy(scores: Tensor, item: Tensor, out: Tensor, log_share: Tensor) -> Tensor:
    """Sampled softmax over the items of the block (Bengio and Senécal 2008).

        - mean_p log( e^(s_p,i(p) - log q_i(p)) / sum_j e^(s_pj - log q_j) )

    over j = i(p) and all j that are not left out.

    Args:
        scores: [P, M] s.
        item: [P] the item i(p) that was engaged with.
        out: [P, M] items left out.
        log_share: [M] log q, logarithm of how often the item is in a block.
    """
    own = nn.functional.one_hot(item, scores.shape[1]).bool()
    logits = (scores - log_share[None, :]).masked_fill(out & ~own, BLOCKED)
    return nn.functional.cross_entropy(logits, item)


def squared(scores: Tensor, value: Tensor) -> Tensor:
    """Mean of (s_p - value_p)^2; both [P]."""
    return torch.square(scores - value).mean()


def bpr(scores: Tensor, item: Tensor, out: Tensor) -> Tensor:
    """Bayesian personalised ranking (Rendle et al. 2009) over all pairs of the block, in place of one drawn pair.

        mean over p and j not left out of log(1 + e^(s_pj - s_p,i(p)))

    Args:
        scores: [P, M] s.
        item: [P] the item that was engaged with.
        out: [P, M] items left out.
    """
    own = nn.functional.one_hot(item, scores.shape[1]).bool()
    kept = (~(out | own)).to(scores.dtype)
    behind = scores - scores.gather(1, item[:, None])
    return (nn.functional.softplus(behind) * kept).sum() / kept.sum().clamp(min=1.0)
