"""GRU4Rec: a recurrent network over what was consumed in the episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from recsim_llm.agents.logged.base import LoggedConfig
from recsim_llm.agents.neural.sequence_base import SequenceAgent, SequenceConfig


@dataclass(frozen=True)
class GRU4RecConfig(SequenceConfig):
    """Settings of :class:`GRU4RecAgent`."""


class GRU4RecAgent(SequenceAgent):
    """A gated recurrent unit over the items consumed in this episode tells what is clicked next.

    Equation: h_0 = tanh(P profile), h_n = GRU(W v_n, h_n-1); s(i) = (U h_n + a * profile) . v_i + b_i + w . fresh(i),
    v_i the encoding of i and a vector of its own; minimising the softmax cross-entropy of the next click. Served is s +
    value * log(mean reward of a click on i).

    Paper: Hidasi et al. (2016), "Session-based recommendations with recurrent neural networks".

    Origin of the defaults: one layer is the paper's; width, passes, step size and decay were tried on held-out clicks
    of random logs of 20,000 steps from training users (seeds 100 and 101) of News and Music. Deviations: items are
    known by their texts and a shrunk vector instead of ids alone; the profile gives the first state and part of the
    query; softmax over the catalogue (or a sample of it) instead of the ranking losses on a batch's items; the last L
    items are read anew at each step; freshness has a term of its own.
    """

    name: ClassVar[str] = "gru4rec"
    Config: ClassVar[type[LoggedConfig]] = GRU4RecConfig
    config: GRU4RecConfig

    def network(self, **parts: Any) -> Any:
        """A gated recurrent unit."""
        from recsim_llm.agents.neural.gru4rec_net import GRU4RecNet

        return GRU4RecNet(**parts)
