"""SASRec: self-attention over what was consumed in the episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from recsim_llm.agents.logged.base import LoggedConfig
from recsim_llm.agents.neural.sequence_base import SequenceAgent, SequenceConfig
from recsim_llm.errors import ConfigError


@dataclass(frozen=True)
class SASRecConfig(SequenceConfig):
    """Settings of :class:`SASRecAgent`.

    Attributes:
        blocks: Blocks of attention.
        heads: Heads of each; they divide ``hidden``.
    """

    blocks: int = 2
    heads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 64, "blocks", "heads")
        if self.hidden % self.heads:
            raise ConfigError(f"setting heads must divide hidden = {self.hidden}, got {self.heads}")


class SASRecAgent(SequenceAgent):
    """Causal self-attention over the items consumed in this episode tells what is clicked next.

    Equation: h = blocks of x <- x + attention(x), x <- x + relu(x W) W' over (profile, v_1 .. v_n) with vectors of
    their places; s(i) = (U h_n + a * profile) . v_i + b_i + w . fresh(i), v_i the encoding of i and a vector of its
    own; minimising the softmax cross-entropy of the next click. Served is s + value * log(mean reward of a click on i).

    Paper: Kang and McAuley (2018), "Self-attentive sequential recommendation".

    Origin of the defaults: two blocks and one head are the paper's; width, passes, step size and decay were tried on
    held-out clicks of random logs of 20,000 steps from training users (seeds 100 and 101) of News and Music.
    Deviations: items are known by their texts and a shrunk vector instead of ids alone; the profile is the first token
    and part of the query, so that a session begins with something; softmax over the catalogue (or a sample of it)
    instead of one negative; layers are normalised before, not after, they are added; freshness has a term of its own.
    """

    name: ClassVar[str] = "sasrec"
    Config: ClassVar[type[LoggedConfig]] = SASRecConfig
    config: SASRecConfig

    def network(self, **parts: Any) -> Any:
        """Blocks of attention."""
        from recsim_llm.agents.neural.sasrec_net import SASRecNet

        return SASRecNet(blocks=self.config.blocks, heads=self.config.heads, **parts)
