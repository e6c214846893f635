"""News: slates of five, articles that appear and age."""

from __future__ import annotations

from recsim_llm.envs.scalar_env import RecEnv
from recsim_llm.envs.scenario import Scenario
from recsim_llm.envs.vector_env import RecVectorEnv
from recsim_llm.simulator import Rules

NEWS = Scenario(
    name="News",
    world="news",
    slate_size=5,
    rules=Rules(
        position_bias=0.4,
        no_click=2.5,
        freshness=1.5,
        freshness_life=1.0,
        shelf_life=7.0,
        satiation=1.2,
        satiation_click=0.2,
        satiation_look=0.01,
        satiation_life=4.0,
        repeat=8.0,
        repeat_life=0.0,
        repeat_look=0.05,
        look_life=240.0,
        look_time=2.0,
        dwell_time=75.0,
        dwell_spread=0.6,
        dwell_satisfaction=0.3,
        session_time=600.0,
        drift=0.02,
        diffusion=0.05,
        clickbait_pull=0.8,
        clickbait_regret=1.2,
        leave=-3.5,
        churn=-3.5,
        gap=12.0,
        like=2.5,
        cart=6.0,
    ),
    reward={"click": 1.0},
    horizon=100,
)


class NewsEnv(RecEnv):
    """A front page of five articles.

    ## Description

    A reader looks at a front page and opens at most one article. Articles appear through the episode, are most wanted
    in their first hours and are withdrawn after a week; sensational titles attract and disappoint; interests drift with
    what is read and between visits. An article that was read is not read again. Readers who are often disappointed
    come back later or never.

    ## Action Space

    `MultiDiscrete([I] * 5)`: positions in the catalogue, in the order of the page; `Discrete(I)` with `slate_size=1`.
    An article twice on a page, or one that is not out yet or withdrawn, is a wasted slot; `action_masks()` tells which
    are on the shelf.

    ## Observation Space

    `Box(-1, 1, (P,), float32)`, or with `observation="dict"` the same parts by name:

    | part | width | content |
    |---|---|---|
    | profile | D | encoding of the persona's statements with their valences |
    | interest | D | decayed mean of the encodings of opened articles |
    | context | 10 | time of day (2), session, step in it, step, days away, engagement, idle steps, sameness, start |
    | feedback | 8 K | last step's click, dwell [600 s], like, share, cart, purchase, rating [5], skip of each slot |
    | history | 9 H | with `history=H`: items shown last, (position + 1) / I and their signals, 0 for none |
    | candidates | C D | with `num_candidates=C`: their encodings, 0 for an empty place |
    | group | G | with `group=True`: gender, age band and region as ones and zeros |

    ## Rewards

    1 for a page on which an article was opened, else 0. `reward=` takes other weights, a registered name or a function.

    ## Starting State

    A random user of the split, on day 0 at a random time, rested, in a neutral mood.

    ## Episode End

    1. Termination: the reader ended a visit and never comes back.
    2. Truncation: 100 pages.

    ## Arguments

    | argument | default | meaning |
    |---|---|---|
    | world | "news" | built-in world or folder of another |
    | slate_size | 5 | K |
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

    `gym.make_vec("recsim_llm/News-v0", num_envs=B)` is one compiled simulator; lane i equals the scalar environment
    seeded with seed + i. `autoreset_mode` is "NextStep", "SameStep" or "Disabled".

    ## References

    Choice: McFadden (1974). Slates and drift of interest: Ie et al. (2019), "RecSim" and "SlateQ". Freshness in news:
    Li et al. (2010), "A contextual-bandit approach to personalized news article recommendation". What is
    consumed again, and what is not: Anderson, Kumar, Tomkins and Vassilvitskii (2014), "The dynamics of repeat
    consumption".

    ## Version History

    * v0: first version.
    """

    scenario = NEWS


class NewsVectorEnv(RecVectorEnv):
    """B readers of :class:`NewsEnv`."""

    scenario = NEWS
