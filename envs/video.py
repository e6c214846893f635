"""Video: slates of five, watch time, clickbait against quality."""

from __future__ import annotations

from recsim_llm.envs.scalar_env import RecEnv
from recsim_llm.envs.scenario import Scenario
from recsim_llm.envs.vector_env import RecVectorEnv
from recsim_llm.simulator import Rules

VIDEO = Scenario(
    name="Video",
    world="video",
    slate_size=5,
    rules=Rules(
        position_bias=0.3,
        no_click=4.0,
        satiation=1.2,
        satiation_click=0.2,
        satiation_look=0.01,
        satiation_life=3.0,
        repeat=8.0,
        repeat_look=0.05,
        repeat_life=0.0,
        look_life=240.0,
        clickbait_pull=3.0,
        clickbait_regret=3.0,
        quality_gain=1.0,
        look_time=4.0,
        dwell_time=240.0,
        dwell_spread=0.6,
        dwell_satisfaction=0.1,
        like=2.0,
        share=3.5,
        cart=6.0,
        session_time=3000.0,
        mood_rate=0.2,
        mood_skip=-0.3,
        leave=-3.0,
        leave_mood=0.6,
        churn=-2.5,
        churn_mood=1.5,
        gap=20.0,
        gap_mood=0.6,
        drift=0.015,
        diffusion=0.03,
    ),
    reward={"dwell": 1.0},
    horizon=100,
)


class VideoEnv(RecEnv):
    """A row of five videos.

    ## Description

    A viewer sees five videos and watches at most one. Almost a third have titles that promise too much: they are opened
    and soon closed. What she gets sets her mood, and the mood decides how soon she closes the app, when she comes back
    and whether she comes back at all. A video that was watched is not watched again.

    The difficulty is the long run: showing what is most likely to be opened fills this evening and empties the month.
    With `retention=30` an episode is a month of calendar time, however many rows are seen in it.

    ## Action Space

    `MultiDiscrete([I] * 5)`: positions in the catalogue, in the order of the row; `Discrete(I)` with `slate_size=1`. A
    video twice in a row, or one that is not out yet, is a wasted slot.

    ## Observation Space

    `Box(-1, 1, (P,), float32)`, or with `observation="dict"` the same parts by name:

    | part | width | content |
    |---|---|---|
    | profile | D | encoding of the persona's statements with their valences |
    | interest | D | decayed mean of the encodings of watched videos |
    | context | 10 | time of day (2), session, step in it, step, days away, engagement, idle steps, sameness, start |
    | feedback | 8 K | last step's click, dwell [600 s], like, share, cart, purchase, rating [5], skip of each slot |
    | candidates | C D | with `num_candidates=C`: encodings of the listed items |
    | history | 9 H | with `history=H`: the last shown items and what was done with them, latest first |
    | group | groups | with `group=True`: gender, age band and region, one-hot |

    ## Rewards

    Minutes watched. `reward=` takes other weights (`{"click": 1}`, `{"satisfaction": 1}`), a registered name or a
    function.

    ## Starting State

    A random user of the split, on day 0 at a random time, rested, in a neutral mood.

    ## Episode End

    1. Termination: the viewer closed the app and never comes back.
    2. Truncation: 100 rows, or `retention` days where that is given.

    ## Arguments

    | argument | default | meaning |
    |---|---|---|
    | world | "video" | built-in world or folder of another |
    | slate_size | 5 | K |
    | users | "all" | split of the population: "all", "train", "test" |
    | observation | "flat" | "flat" or "dict" |
    | num_candidates | None | C: each step offers a list of so many items, and actions are positions in it |
    | history | 0 | H: length of the history in the observation |
    | group | False | groups of the user in the observation |
    | reward | {"dwell": 1} | weights, registered name or function |
    | rules | {} | rule parameters to change |
    | choice | "multinomial" | choice model |
    | dynamics | None | registered dynamics instead of the built-in drift |
    | truth | False | latent truth in the infos |
    | action_mask | False | action mask in the infos |
    | strict | False | raise on wasted slots |
    | horizon | None | truncate earlier than the spec |
    | judge | None | "live": a language model is asked about what is shown at every step, instead of the world's head |
    | judge_model | "smollm2" | with judge="live": name, folder or address of the judge, or a judge |
    | judge_options | None | settings of the judge, and "sample", "line", "store": how ratings become utilities |

    and the axes of `TaskVariant` (cold users and items, drift, retention, opting out, noise, delay, privacy).

    ## Information

    `user_id, clicks, ctr, wasted, session, day, diversity, is_success, slate [K], slot_reward [K]`
    and the signals `click, dwell [s], like, share, cart, purchase, rating, skip` [K]; with `truth=True`
    `truth_appeal [I]`, `truth_value [I]`, `truth_leaning [T]`, `truth_mood`, `truth_satisfaction`.
    With `judge="live"` there is `judge_missing`, slots that the judge gave no rating for.

    ## Vectorized environment

    `gym.make_vec("recsim_llm/Video-v0", num_envs=B)` is one compiled simulator; lane i equals the scalar
    environment seeded with seed + i. `autoreset_mode` is "NextStep", "SameStep" or "Disabled".

    ## References

    Watch time and clickbait: Covington, Adams and Sargin (2016), "Deep neural networks for YouTube recommendations".
    Long-term satisfaction: Ie et al. (2019), "RecSim"; Hohnhold, O'Brien and Tang (2015), "Focusing on the long-term".
    What is consumed again, and what is not: Anderson, Kumar, Tomkins and Vassilvitskii (2014), "The dynamics of repeat
    consumption".

    ## Version History

    * v0: first version.
    """

    scenario = VIDEO


class VideoVectorEnv(RecVectorEnv):
    """B viewers of :class:`VideoEnv`."""

    scenario = VIDEO
