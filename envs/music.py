"""Music: one track after another."""

from __future__ import annotations

from recsim_llm.envs.scalar_env import RecEnv
from recsim_llm.envs.scenario import Scenario
from recsim_llm.envs.vector_env import RecVectorEnv
from recsim_llm.simulator import Rules

MUSIC = Scenario(
    name="Music",
    world="music",
    slate_size=1,
    rules=Rules(
        position_bias=0.0,
        no_click=1.2,
        satiation=1.5,
        satiation_click=0.15,
        satiation_look=0.03,
        satiation_life=1.5,
        repeat=3.0,
        repeat_life=72.0,
        repeat_look=0.3,
        look_life=72.0,
        look_time=15.0,
        dwell_time=180.0,
        dwell_spread=0.25,
        dwell_satisfaction=0.1,
        session_time=3600.0,
        drift=0.01,
        clickbait_pull=0.3,
        leave=-4.5,
        churn=-4.0,
        like=2.0,
        cart=6.0,
    ),
    reward={"click": 1.0},
    horizon=100,
)


class MusicEnv(RecEnv):
    """One track at a time.

    ## Description

    A listener opens the player, hears one track after another and skips what she does not want. Tastes come from
    language-model encodings of what her persona says; genres wear out within a session and recover between sessions; a
    track that was played comes back: it is not wanted again soon, and wanted as before after some days. Satisfied
    listeners stay longer, come back sooner and leave for good less
    often.

    ## Action Space

    `Discrete(I)`: the position of a track in the catalogue; `MultiDiscrete([I] * K)` with `slate_size=K`. Tracks that
    are not released yet are wasted slots; `action_masks()` tells which are on the shelf.

    ## Observation Space

    `Box(-1, 1, (P,), float32)`, or with `observation="dict"` the same parts by name:

    | part | width | content |
    |---|---|---|
    | profile | D | encoding of the persona's statements with their valences |
    | interest | D | decayed mean of the encodings of played tracks |
    | context | 10 | time of day (2), session, step in it, step, days away, engagement, idle steps, sameness, start |
    | feedback | 8 K | last step's click, dwell [600 s], like, share, cart, purchase, rating [5], skip of each slot |
    | history | 9 H | with `history=H`: items shown last, (position + 1) / I and their signals, 0 for none |
    | candidates | C D | with `num_candidates=C`: their encodings, 0 for an empty place |
    | group | G | with `group=True`: gender, age band and region as ones and zeros |

    ## Rewards

    1 for a track played, 0 for one skipped. `reward=` takes other weights, a registered name or a function.

    ## Starting State

    A random user of the split, at a random time of day, rested, in a neutral mood.

    ## Episode End

    1. Termination: the listener ended a session and never comes back.
    2. Truncation: 100 steps.

    ## Arguments

    | argument | default | meaning |
    |---|---|---|
    | world | "music" | built-in world or folder of another |
    | slate_size | 1 | K |
    | users | "all" | split of the population: "all", "train", "test" |
    | observation | "flat" | "flat" or "dict" |
    | reward | {"click": 1} | weights, registered name or function |
    | rules | {} | rule parameters to change |
    | choice | "multinomial" | choice model |
    | dynamics | None | registered dynamics instead of the built-in drift |
    | truth | False | latent truth in the infos |
    | action_mask | False | action mask in the infos |
    | strict | False | raise on wasted slots |
    | horizon | None | truncate earlier than the spec |
    | num_candidates | None | C: actions are positions in a list of C items, drawn for each step and observed |
    | history | 0 | H: items shown last, with their signals, in the observation |
    | group | False | gender, age band and region in the observation |
    | judge | None | "live": a language model is asked about what is shown at every step, instead of the world's head |
    | judge_model | "smollm2" | with judge="live": name, folder or address of the judge, or a judge |
    | judge_options | None | settings of the judge, and "sample", "line", "store": how ratings become utilities |

    and the axes of `TaskVariant` (cold users and items, drift, retention, opting out, noise, delay, privacy).

    ## Information

    `user_id, clicks, ctr, wasted, session, day, diversity, is_success, slate [K], slot_reward [K]` and the signals
    `click, dwell [s], like, share, cart, purchase, rating, skip` [K]; with `truth=True` `truth_appeal [I]`,
    `truth_value [I]`, `truth_mood`, `truth_satisfaction`. With `num_candidates=C` there is `candidates [C]`
    (positions in the catalogue, -1 for an empty place), and the truth is theirs [C]; with `history=H` `history [H]`.
    With `judge="live"` there is `judge_missing`, slots that the judge gave no rating for.

    ## Vectorized environment

    `gym.make_vec("recsim_llm/Music-v0", num_envs=B)` is one compiled simulator; lane i equals the scalar environment
    seeded with seed + i. `autoreset_mode` is "NextStep", "SameStep" or "Disabled".

    ## References

    Choice: McFadden (1974). Satiation and sessions: Leqi et al. (2021), "Rebounding bandits for modeling satiation
    effects". Slates: Ie et al. (2019), "RecSim". Tracks that come back: Anderson, Kumar, Tomkins and Vassilvitskii
    (2014), "The dynamics of repeat consumption"; Kapoor et al. (2015), "Just in time recommendations".

    ## Version History

    * v0: first version.
    """

    scenario = MUSIC


class MusicVectorEnv(RecVectorEnv):
    """B listeners of :class:`MusicEnv`."""

    scenario = MUSIC
