"""RecSim's interest exploration: who always shows what most people like never learns what this one likes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.envs.classics.core import Classic, ClassicEnv, ClassicVectorEnv
from recsim_llm.simulator.classics.interest_exploration import InterestExploration
from recsim_llm.simulator.classics.simulator import ClassicSimulator


def _affinity(simulator: ClassicSimulator) -> NDArray[Any]:
    return simulator.state.traits.astype(np.float64)


INTEREST_EXPLORATION = Classic(
    name="InterestExploration",
    slate_size=2,
    num_candidates=10,
    parameters=InterestExploration,
    reward={"click": 1.0},
    horizon=100,
    truth={"truth_affinity": _affinity},
)


class InterestExplorationEnv(ClassicEnv):
    """Documents of two topics for users of two types.

    ## Description

    Documents of the first topic are rare and well made, those of the second common and plain. Users of the first type
    like the second topic better, users of the second type, the majority, the first. A user's affinity to each topic is
    drawn once, stays and is hidden. She opens one document of a slate, or none, by a multinomial logit of affinity plus
    quality. A myopic recommender favours what is well made; to learn who likes the niche it has to try.

    ## Action Space

    `MultiDiscrete([C] * K)`: positions in the list of candidates, in the order of the slate; `Discrete(C)` with
    `slate_size=1`. A document twice in a slate is a wasted slot.

    ## Observation Space

    `Box(0, 1, (P,), float32)`, or with `observation="dict"` the same parts by name (`layout` tells where they stand):

    | part | width | min | max | content |
    |---|---|---|---|---|
    | response | K (2 + M) | 0 | 1 | for each slot: clicked, quality, topic one-hot |
    | doc | C (1 + M) | 0 | 1 | for each candidate: quality, topic one-hot |

    Quality is divided by the largest that can occur. Nothing about the user is public but what she does.

    ## Rewards

    1 for a click. `reward=` takes weights of "click", a registered name or a function of the infos.

    ## Starting State

    A user of type 1 (probability 0.3) or 2, her affinities log-normal around the type's. Candidates: topics with
    probability 0.2 and 0.8, quality log-normal around the topic's.

    ## Episode End

    1. Termination: never, users do not leave.
    2. Truncation: 100 slates.

    ## Arguments

    | argument | default | meaning |
    |---|---|---|
    | users | "all" | "train" or "test" draws from one half of all users |
    | slate_size | 2 | K |
    | num_candidates | 10 | C |
    | resample_documents | True | new candidates for every user and step; else one list for all users and all time |
    | documents_seed | 0 | seed of that list |
    | observation | "flat" | "flat" or "dict" |
    | reward | {"click": 1} | weights, registered name or function |
    | truth | False | latent truth in the infos |
    | action_mask | False | action mask in the infos |
    | strict | False | raise on wasted slots |
    | horizon | None | truncate earlier than the spec |
    | no_click_mass | 5.0 | |
    | user_type_distribution | [0.3, 0.7] | |
    | user_document_mean_affinity_matrix | [[0.1, 0.7], [0.7, 0.1]] | |
    | user_document_stddev_affinity_matrix | [[0.1, 0.1], [0.1, 0.1]] | |
    | topic_distribution | [0.2, 0.8] | |
    | topic_quality_mean | [0.8, 0.2] | |
    | topic_quality_stddev | [0.1, 0.1] | |

    The last 7 are constants of the MDP with RecSim's names, explained at
    :class:`recsim_llm.simulator.classics.interest_exploration.InterestExploration`.

    ## Information

    `user_id, clicks, ctr, wasted, is_success, slate [K], cluster_id [K], click [K], quality [K]`; with `truth=True`
    `truth_affinity [M], truth_appeal [C]` (logit)`, truth_value [C]` (expected reward of a click).

    ## Vectorized environment

    `gym.make_vec("recsim_llm/InterestExploration-v0", num_envs=B)` is one compiled simulator; lane i equals the scalar
    environment seeded with seed + i. `autoreset_mode` is "NextStep", "SameStep" or "Disabled".

    ## References

    Ie et al. (2019), "RecSim: a configurable simulation platform for recommender systems". The dynamics are those of
    `recsim` 0.2.4, `interest_exploration.create_environment`, held to it by statistical tests. Deviations:

    1. Every draw is a hash of (seed, user, episode, step, purpose); there, part of them comes from NumPy's global
       generator.
    2. A document in two slots of a slate counts once; there it counts twice.
    3. float32 instead of float64.
    4. A horizon of 100 steps; there the runner sets one.
    5. `resample_documents=False`: the list comes from `documents_seed`.

    ## Version History

    * v0: first version.
    """

    scenario: ClassVar[Any] = INTEREST_EXPLORATION


class InterestExplorationVectorEnv(ClassicVectorEnv):
    """B users of :class:`InterestExplorationEnv`."""

    scenario: ClassVar[Any] = INTEREST_EXPLORATION
