"""RecSim's interest evolution: trash attracts, quality keeps."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.envs.classics.core import Classic, ClassicEnv, ClassicVectorEnv
from recsim_llm.simulator.classics.interest_evolution import InterestEvolution
from recsim_llm.simulator.classics.simulator import ClassicSimulator


def _quality(simulator: ClassicSimulator) -> NDArray[Any]:
    documents = simulator.state.documents["value"]
    return np.broadcast_to(documents, (simulator.lanes, documents.shape[1])).copy()


def _budget(simulator: ClassicSimulator) -> NDArray[Any]:
    return np.asarray(simulator.state.lane["budget"], np.float64)


INTEREST_EVOLUTION = Classic(
    name="InterestEvolution",
    slate_size=2,
    num_candidates=10,
    parameters=InterestEvolution,
    reward={"watch_time": 1.0},
    horizon=1000,
    truth={
        "truth_quality": _quality,
        "truth_budget": _budget,
    },
)


class InterestEvolutionEnv(ClassicEnv):
    """Videos of twenty topics, from trash to quality.

    ## Description

    A user with 200 minutes watches videos of four minutes. Her interest x in each topic lies in [-1, 1] and decides,
    proportionally to x + 1, which video of a slate she opens, if any. What she watches moves her interest in its
    topic: towards 1 with probability (x + 1) / 2, else away, by 0.3 (1 - |x|) (1 - x). A video of good quality gives
    back most of the time that it took, one of bad quality takes still more. Topics differ in quality and every user
    is as likely to like a bad topic as a good one: who serves what is clicked ends the session early.

    ## Action Space

    `MultiDiscrete([C] * K)`: positions in the list of candidates, in the order of the slate; `Discrete(C)` with
    `slate_size=1`. A document twice in a slate is a wasted slot.

    ## Observation Space

    `Box(P,)` of float32, or with `observation="dict"` the same parts by name (`layout` tells where they stand):

    | part | width | min | max | content |
    |---|---|---|---|---|
    | user | N | -1 | 1 | interest in each topic |
    | response | K (3 + N) | -1 | 1 | for each slot: clicked, share of the video watched, quality, topic one-hot |
    | doc | C N | 0 | 1 | topic of each candidate, one-hot |

    Quality is divided by the largest that can occur. Time left and the quality of candidates are hidden.

    ## Rewards

    Minutes watched. `reward=` takes weights of "click" and "watch_time", a registered name or a function of the infos.

    ## Starting State

    A user whose interests are uniform in [-1, 1], with all her time. Candidates: topics evenly, quality normal around
    the topic's mean, which rises from -3 to 0 over the first 70 % of the topics and from 0 to 3 over the rest.

    ## Episode End

    1. Termination: the user's time is spent.
    2. Truncation: 1,000 slates; with the default constants no session lasts so long.

    ## Arguments

    | argument | default | meaning |
    |---|---|---|
    | users | "all" | "train" or "test" draws from one half of all users |
    | slate_size | 2 | K |
    | num_candidates | 10 | C |
    | resample_documents | True | new candidates for every user and step; else one list for all users and all time |
    | documents_seed | 0 | seed of that list |
    | observation | "flat" | "flat" or "dict" |
    | reward | {"watch_time": 1} | weights, registered name or function |
    | truth | False | latent truth in the infos |
    | action_mask | False | action mask in the infos |
    | strict | False | raise on wasted slots |
    | horizon | None | truncate earlier than the spec |
    | num_topics | 20 | |
    | time_budget | 200.0 | |
    | video_length | 4.0 | |
    | step_penalty | 0.5 | |
    | no_click_mass | 1.0 | |
    | min_normalizer | -1.0 | |
    | min_utility | -3.0 | |
    | max_utility | 3.0 | |
    | quality_stddev | 0.1 | |
    | user_quality_factor | 0.0 | |
    | document_quality_factor | 1.0 | |
    | user_update_alpha | 0.9 / 3.4 | |
    | alpha_x_intercept | 1.0 | |
    | alpha_y_intercept | 0.3 | |

    The last 14 are constants of the MDP with RecSim's names, explained at
    :class:`recsim_llm.simulator.classics.interest_evolution.InterestEvolution`.

    ## Information

    `user_id, clicks, ctr, wasted, is_success, slate [K], cluster_id [K], click [K], watch_time [K] (min), quality [K]`;
    with `truth=True` `truth_quality [C], truth_budget` (min)`, truth_appeal [C]` (logit)`, truth_value [C]` (expected
    reward of a click).

    ## Vectorized environment

    `gym.make_vec("recsim_llm/InterestEvolution-v0", num_envs=B)` is one compiled simulator; lane i equals the scalar
    environment seeded with seed + i. `autoreset_mode` is "NextStep", "SameStep" or "Disabled". With
    `resample_documents=False` all lanes share one list, as RecSim's multi-user environment does; its features are
    written into the observations once; with `observation="dict"` and `copy=False` they are one read-only array for
    all.

    ## References

    Ie et al. (2019), "RecSim: a configurable simulation platform for recommender systems", and "SlateQ". The dynamics
    are those of `recsim` 0.2.4, `interest_evolution.create_environment`, held to it by statistical tests. Deviations:

    1. Every draw is a hash of (seed, user, episode, step, purpose); there, part of them comes from NumPy's global
       generator.
    2. A document in two slots of a slate counts once; there it counts twice.
    3. float32 instead of float64.
    4. The response's "liked" is left out: it is never set there.
    5. `resample_documents=False`: the list comes from `documents_seed`.

    ## Version History

    * v0: first version.
    """

    scenario: ClassVar[Any] = INTEREST_EVOLUTION


class InterestEvolutionVectorEnv(ClassicVectorEnv):
    """B users of :class:`InterestEvolutionEnv`."""

    scenario: ClassVar[Any] = INTEREST_EVOLUTION
