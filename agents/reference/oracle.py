"""Myopic oracle: the best slate of this step, from the latent truth. It is the one of every score."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.slate_optimisation import LARGEST_UTILITY, best_assortment
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates
from recsim_llm.errors import ConfigError

Floats64 = NDArray[np.float64]


class OracleAgent(Agent):
    """Shows the slate of the highest expected immediate reward, from the latent truth.

    With a_i = exp(attraction of item i), a_0 = exp(no_click), v_i the expected reward of a click and d_k the attention
    of slot k:

        multinomial  max over slates of  R = sum_k d_k a_k v_k / (a_0 + sum_k d_k a_k),  exact: R* is the only root of
                     f(R) = max sum_k d_k a_k (v_k - R) - a_0 R, found by Dinkelbach's iteration; the maximum at a given
                     R takes the K largest a_i (v_i - R), the largest in the slot of most attention
        position     the K largest sigma(attraction_i - no_click) v_i, the largest first; exact
        cascade      the same order; exact where all clicks are worth the same

    Paper: Dinkelbach (1967), "On nonlinear fractional programming"; Rusmevichientong, Shen and Shmoys (2010), "Dynamic
    assortment optimization with a multinomial logit choice model and capacity constraint".

    It reads ``truth_appeal`` and ``truth_value`` from the infos shown to :meth:`observe` before each ``predict``; where
    none were shown, from the environment that it serves, which must have been made with ``truth=True``.
    """

    name: ClassVar[str] = "oracle"
    needs_truth: ClassVar[bool] = True
    learns: ClassVar[bool] = False

    def setup(self, rng: np.random.Generator) -> None:
        """Reads the choice model's parameters."""
        rules = self.env.unwrapped.core.simulator.rules
        self.choice, self.no_click = str(rules.choice), float(rules.no_click)
        places = np.arange(1, self.env_spec.slate_size + 1, dtype=np.float64)
        self.attention: Floats64 = np.power(places, -float(rules.position_bias), dtype=np.float64)

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The best slate; there is nothing to explore."""
        appeal, value = self._truth(len(obs))
        listed = self.candidates(obs)
        if listed is not None:
            appeal = _spread(appeal, listed, self.env_spec.items, -np.inf)
            value = _spread(value, listed, self.env_spec.items, 0.0)
        return self.slates(appeal, value, action_mask & np.isfinite(appeal)), state

    def slates(self, appeal: Floats64, value: Floats64, usable: Flags) -> Slates:
        """The best slates [B, K] for attraction, expected reward of a click and items on the shelf, [B, I] each."""
        if self.choice == "multinomial":
            return best_assortment(appeal, value, usable, self.attention, self.no_click)[0]
        click = 1.0 / (1.0 + np.exp(-np.clip(appeal - self.no_click, -LARGEST_UTILITY, LARGEST_UTILITY)))
        return top_k(click * value, usable, self.env_spec.slate_size)

    def _truth(self, lanes: int) -> tuple[Floats64, Floats64]:
        shown = self.shown or {}
        if "truth_appeal" not in shown or "truth_value" not in shown:
            raise ConfigError(
                "the oracle needs the latent truth and got none: make the environment that it serves with truth=True, "
                "and where that is in another process show it the infos of each step: agent.observe(info)"
            )
        appeal, value = _two_dimensional(shown["truth_appeal"]), _two_dimensional(shown["truth_value"])
        if len(appeal) != lanes:
            raise ConfigError(
                f"the truth is for {len(appeal)} lanes and the observation for {lanes}; show the oracle the infos of "
                "the same lanes: agent.observe(info)"
            )
        return appeal, value


def _two_dimensional(values: Any) -> Floats64:
    return np.atleast_2d(np.asarray(values, np.float64))


def _spread(values: Floats64, listed: Slates, items: int, rest: float) -> Floats64:
    """Values [B, C] of the candidates [B, C] in their places among all items [B, I], ``rest`` for the others."""
    everywhere = np.full((len(values), items + 1), rest)
    np.put_along_axis(everywhere, listed, values, 1)  # an empty place, -1, is the last column
    return everywhere[:, :-1]
