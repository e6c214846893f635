"""RecSim's long-term satisfaction: chocolate or kale."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.envs.classics.core import Classic, ClassicEnv, ClassicVectorEnv
from recsim_llm.simulator.classics.long_term_satisfaction import LongTermSatisfaction
from recsim_llm.simulator.classics.simulator import ClassicSimulator


def _exposure(simulator: ClassicSimulator) -> NDArray[Any]:
    return np.asarray(simulator.state.lane["exposure"], np.float64)


def _satisfaction(simulator: ClassicSimulator) -> NDArray[Any]:
    return np.asarray(simulator.state.lane["satisfaction"], np.float64)


LONG_TERM_SATISFACTION = Classic(
    name="LongTermSatisfaction",
    slate_size=1,
    num_candidates=10,
    parameters=LongTermSatisfaction,
    reward={"engagement": 1.0},
    horizon=100,
    truth={
        "truth_exposure": _exposure,
        "truth_satisfaction": _satisfaction,
    },
)


class LongTermSatisfactionEnv(ClassicEnv):
    """Clickbait engages now and wears the user out.

    ## Description

    Every document has a share c of clickbait in (0, 1). The user always consumes the document of the first slot; the
    logarithm of her engagement is normal with mean (5 c + 4 (1 - c)) s. Her satisfaction s = 1 / (1 + exp(-0.01 x))
    follows her net positive exposure x, which becomes 0.7 x - 2 (c - 0.5) plus noise: clickbait lowers it.
    Satisfaction is hidden and shows in engagement only.

    ## Action Space

    `Discrete(C)`: the position in the list of candidates; `MultiDiscrete([C] * K)` with `slate_size=K`, of which only
    the first slot matters.

    ## Observation Space

    `Box(0, 1, (P,), float32)`, or with `observation="dict"` the same parts by name (`layout` tells where they stand):

    | part | width | min | max | content |
    |---|---|---|---|---|
    | response | 2 K | 0 | 1 | for each slot: clicked, engagement [100], cut off at 100 |
    | doc | C | 0 | 1 | clickbait of each candidate |

    ## Rewards

    Engagement, not cut off. `reward=` takes weights of "click" and "engagement", a registered name or a function of the
    infos.

    ## Starting State

    Net positive exposure uniform in [-5/3, 5/3]; clickbait of candidates uniform in (0, 1).

    ## Episode End

    1. Termination: the user's time of 60 steps is spent.
    2. Truncation: 100 steps, never reached with the default budget.

    ## Arguments

    | argument | default | meaning |
    |---|---|---|
    | users | "all" | "train" or "test" draws from one half of all users |
    | slate_size | 1 | K |
    | num_candidates | 10 | C |
    | resample_documents | True | new candidates for every user and step; else one list for all users and all time |
    | documents_seed | 0 | seed of that list |
    | observation | "flat" | "flat" or "dict" |
    | reward | {"engagement": 1} | weights, registered name or function |
    | truth | False | latent truth in the infos |
    | action_mask | False | action mask in the infos |
    | strict | False | raise on wasted slots |
    | horizon | None | truncate earlier than the spec |
    | memory_discount | 0.7 | |
    | sensitivity | 0.01 | |
    | innovation_stddev | 0.05 | |
    | choc_mean | 5.0 | |
    | choc_stddev | 1.0 | |
    | kale_mean | 4.0 | |
    | kale_stddev | 1.0 | |
    | time_budget | 60.0 | |

    The last 8 are constants of the MDP with RecSim's names, explained at
    :class:`recsim_llm.simulator.classics.long_term_satisfaction.LongTermSatisfaction`.

    ## Information

    `user_id, clicks, ctr, wasted, is_success, slate [K], cluster_id [K] (always 0), click [K], engagement [K]`; with
    `truth=True` `truth_exposure, truth_satisfaction, truth_appeal [C]` (logit)`, truth_value [C]` (expected reward of a
    click).

    ## Vectorized environment

    `gym.make_vec("recsim_llm/LongTermSatisfaction-v0", num_envs=B)` is one compiled simulator; lane i equals the scalar
    environment seeded with seed + i. `autoreset_mode` is "NextStep", "SameStep" or "Disabled".

    ## References

    Ie et al. (2019), "RecSim: a configurable simulation platform for recommender systems"; the Choc/Kale problem of
    Mladenov et al. (2019), "Advantage amplification in slowly evolving latent-state environments". The dynamics are
    those of `recsim` 0.2.4, `long_term_satisfaction.create_environment`, held to it by statistical tests; they follow
    its code, whose docstring has the sign of clickbait in net positive exposure the other way round. Deviations:

    1. Every draw is a hash of (seed, user, episode, step, purpose); there, part of them comes from NumPy's global
       generator.
    2. float32 instead of float64.
    3. `resample_documents=False`: the list comes from `documents_seed`.

    ## Version History

    * v0: first version.
    """

    scenario: ClassVar[Any] = LONG_TERM_SATISFACTION


class LongTermSatisfactionVectorEnv(ClassicVectorEnv):
    """B users of :class:`LongTermSatisfactionEnv`."""

    scenario: ClassVar[Any] = LONG_TERM_SATISFACTION
