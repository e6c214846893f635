"""SlateQ: values of slates from values of their items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.deep_value import ValueAgent, ValueConfig
from recsim_llm.agents.common.slate_optimisation import METHODS, optimal_slates
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates
from recsim_llm.errors import unknown

VALUE, APPEAL = 0, 1
"""Heads of the network."""
ROUNDS = {"exact": 3, "top_k": 1, "greedy": 3}
"""Rounds of Dinkelbach's iteration in targets; the first one alone is the heuristic "top_k"."""
LARGEST = 15.0


@dataclass(frozen=True)
class SlateQConfig(ValueConfig):
    """Settings of :class:`SlateQAgent`.

    Attributes:
        slates: How slates are chosen: "exact", "top_k" or "greedy".
        choice_weight: Weight of the loss of the choice model.
    """

    slates: str = "exact"
    choice_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1e6, "choice_weight")
        if self.slates not in METHODS:
            raise unknown("way to choose slates", self.slates, METHODS)


class SlateQAgent(ValueAgent):
    """Learns what a click on an item is worth, and how likely it is.

    Equation: with P(i | s, A) the chance that item i of slate A is clicked, and 0 standing for none,

        Q(s, A)  = sum over i in A and 0 of P(i | s, A) Qbar(s, i)
        Qbar(s_t, i_t) <- r_t + ... + gamma^(n-1) r_{t+n-1} + gamma^n max over A of Q(s_{t+n}, A)
        P(i | s, A)    = v(s, i) / (1 + sum over j in A of v(s, j))

    where i_t is what was clicked; the sum ends where the user left for good (terminated). v is a conditional logit,
    learnt from clicks; Qbar(s, i) = V(s) + a(s, i), and Qbar(s, 0) = V(s). The slate is the best one by

        max over A of sum v_i a_i / (1 + sum v_i)

    exactly ("exact", by Dinkelbach's iteration in place of Ie et al.'s linear programme; the same optimum), or
    by their heuristics "top_k" and "greedy".

    Paper: Ie et al. (2019), "SlateQ: a tractable decomposition for reinforcement learning with recommendation sets".

    Origin of the defaults: chosen on training users of Video-retention-v0 at 20,000 steps; Adam and a slowly following
    network as in later work on Q-learning. Deviations: the choice model is learnt (the paper is given one); the maximum
    in targets is that of three rounds of the iteration; returns over n steps; network and scores as in
    :class:`TorchAgent`; where several items of a slate are clicked, each is an example.
    """

    name: ClassVar[str] = "slateq"
    Config: ClassVar[type[Config]] = SlateQConfig
    heads: ClassVar[int] = 2
    config: SlateQConfig

    def ranked(self, states: Floats, action_mask: Flags) -> Slates:
        """The best slates by the network."""
        return self._slates(self.learner.net, self.learner.tensor(states), action_mask)

    def _slates(self, net: Any, states: Any, action_mask: Flags) -> Slates:
        with self.torch.no_grad():
            base, direction = net(states)
            appeal = (net.of_all(direction, APPEAL) + base[:, APPEAL, None]).cpu().numpy().astype(np.float64)
            value = net.of_all(direction, VALUE).cpu().numpy().astype(np.float64) + self.ties
        return optimal_slates(self.config.slates, appeal, value, action_mask, np.ones(self.env_spec.slate_size))

    def future(self, net: Any, states: Any, usable: Any) -> Any:
        """Max over A of Q(s, A), [N]: some rounds of the iteration, which is exact after a few.

        Args:
            net: The network.
            states: [N, .].
            usable: [N, I] items that can be shown.
        """
        torch = self.torch
        with torch.no_grad():
            base, direction = net(states)
            odds = torch.exp((net.of_all(direction, APPEAL) + base[:, APPEAL, None]).clamp(-LARGEST, LARGEST))
            odds, value = odds * usable, net.of_all(direction, VALUE)
            gain = torch.zeros_like(base[:, 0])
            for _ in range(ROUNDS[self.config.slates]):
                scores = (odds * (value - gain[:, None])).masked_fill(~usable, -np.inf)
                items = scores.topk(self.env_spec.slate_size, 1, sorted=False).indices
                drawn = odds.gather(1, items)
                gain = (drawn * value.gather(1, items)).sum(1) / (1.0 + drawn.sum(1))
            return base[:, VALUE] + gain

    def loss(self, ages: NDArray[np.int64], lanes: NDArray[np.int64]) -> Any:
        """Squared error of Qbar and cross-entropy of the choice."""
        torch, learner, kept, config = self.torch, self.learner, self.experience, self.config
        total, weight, last, _ = kept.returns(ages, lanes, config.steps, config.gamma)
        after, usable = learner.tensor(kept.get("after", last, lanes)), learner.tensor(self.usable(last, lanes))
        future = self.future(learner.target, after, usable)
        target = learner.tensor((total / self.scale[0]).astype(np.float32))
        target = target + learner.tensor(weight.astype(np.float32)) * future
        clicked = learner.tensor(kept.get("clicked", ages, lanes).astype(np.float32))  # [N, K]
        seen = learner.tensor(kept.get("seen", ages, lanes))
        shown = learner.tensor(kept.get("shown", ages, lanes))
        base, direction = learner.net(learner.tensor(kept.get("state", ages, lanes)))
        clicks = clicked.sum(1)
        effect = (clicked * learner.net.of(direction, VALUE, shown)).sum(1) / clicks.clamp(min=1.0)
        error = torch.nn.functional.smooth_l1_loss(base[:, VALUE] + effect, target)
        logits = learner.net.of(direction, APPEAL, shown) + base[:, APPEAL, None]
        logits = logits.masked_fill(~seen, -1e9)
        logits = torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)
        chosen = torch.cat([(clicks == 0.0).float()[:, None], clicked / clicks.clamp(min=1.0)[:, None]], 1)
        choice = -(chosen * torch.log_softmax(logits, 1)).sum(1).mean()
        return error + config.choice_weight * choice
