"""Ads: one advertisement for each impression, paid for out of daily budgets."""

from __future__ import annotations

from recsim_llm.envs.scalar_env import RecEnv
from recsim_llm.envs.scenario import Scenario
from recsim_llm.envs.vector_env import RecVectorEnv
from recsim_llm.simulator import Rules

ADS = Scenario(
    name="Ads",
    world="ads",
    slate_size=1,
    rules=Rules(
        position_bias=0.0,
        no_click=3.0,
        satiation=0.8,
        satiation_click=0.3,
        satiation_look=0.02,
        satiation_life=6.0,
        repeat=2.5,
        repeat_look=0.35,
        repeat_life=24.0,
        look_life=24.0,
        price_weight=1.0,
        bids=1.0,
        blindness=1.5,
        blindness_look=0.03,
        blindness_life=8.0,
        look_time=30.0,
        dwell_time=40.0,
        dwell_spread=0.8,
        dwell_satisfaction=0.3,
        like=4.0,
        share=6.0,
        cart=2.5,
        purchase=1.5,
        rating_rate=0.02,
        clickbait_pull=0.8,
        clickbait_regret=1.2,
        mood_skip=0.0,
        session_time=900.0,
        leave=-4.0,
        leave_mood=0.4,
        churn=-5.0,
        churn_mood=0.5,
        gap=10.0,
        gap_mood=0.2,
        drift=0.01,
        diffusion=0.03,
    ),
    reward={"revenue": 1.0},
    horizon=200,
)


class AdsEnv(RecEnv):
    """One ad for each impression.

    ## Description

    A visitor sees one ad at a time while she reads something else. Advertisers bid: most pay for a click, the others a
    commission when the visitor buys what is advertised. Each has a budget for the day (of this visitor); when it is
    spent, its ads are off the shelf until midnight, and `action_masks()` tells so. An ad that she has seen lately tires
    her and recovers within days (fatigue), and every ad that she leaves makes her look at ads less (blindness), which
    wears off over hours. Ads
    that promise too much are clicked and regretted; their advertisers bid high.

    The difficulty is to earn: a rare click on a high bid against frequent ones on low bids, commissions that
    need a purchase in the same step, and budgets that are gone when the right visitor comes. No conversion comes later
    than its impression; `delay=5` makes all feedback late.

    ## Action Space

    `Discrete(I)`: a position in the catalogue; `MultiDiscrete([I] * K)` with `slate_size=K`. An ad that is not running,
    or whose advertiser has spent today's budget, is a wasted impression.

    ## Observation Space

    `Box(-1, 1, (P,), float32)`, or with `observation="dict"` the same parts by name:

    | part | width | content |
    |---|---|---|
    | profile | D | encoding of the persona's statements with their valences |
    | interest | D | decayed mean of the encodings of clicked ads |
    | context | 10 | time of day (2), session, step in it, step, days away, engagement, idle steps, sameness, start |
    | feedback | 8 K | last step's click, dwell [600 s], like, share, cart, purchase, rating [5], skip of each slot |
    | candidates | C D | with `num_candidates=C`: encodings of the listed items |
    | history | 9 H | with `history=H`: the last shown items and what was done with them, latest first |
    | group | groups | with `group=True`: gender, age band and region, one-hot |

    ## Rewards

    Revenue: the bid for a click, or the commission for a purchase, whichever the advertiser pays for, and never more
    than it has left today. `reward=` takes other weights (`{"click": 1}`, `{"purchase": 1}`), a registered name or a
    function.

    ## Starting State

    A random user of the split, on day 0 at a random time, rested, in a neutral mood.

    ## Episode End

    1. Termination: the visitor went away and never comes back.
    2. Truncation: 200 impressions, or `retention` days where that is given.

    ## Arguments

    | argument | default | meaning |
    |---|---|---|
    | world | "ads" | built-in world or folder of another |
    | slate_size | 1 | K |
    | users | "all" | split of the population: "all", "train", "test" |
    | observation | "flat" | "flat" or "dict" |
    | num_candidates | None | C: each step offers a list of so many items, and actions are positions in it |
    | history | 0 | H: length of the history in the observation |
    | group | False | groups of the user in the observation |
    | reward | {"revenue": 1} | weights, registered name or function |
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

    `user_id, clicks, ctr, wasted, session, day, diversity, is_success, slate [K], slot_reward [K]`,
    `revenue, cvr, budget_spent, pacing`
    and the signals `click, dwell [s], like, share, cart, purchase, rating, skip` [K]; with `truth=True`
    `truth_appeal [I]`, `truth_value [I]`, `truth_leaning [T]`, `truth_mood`, `truth_satisfaction`.
    With `judge="live"` there is `judge_missing`, slots that the judge gave no rating for.

    ## Vectorized environment

    `gym.make_vec("recsim_llm/Ads-v0", num_envs=B)` is one compiled simulator; lane i equals the scalar
    environment seeded with seed + i. `autoreset_mode` is "NextStep", "SameStep" or "Disabled".

    ## References

    Budgets and pacing: Agarwal, Ghosh, Wei and You (2014), "Budget pacing for targeted online advertisements at
    LinkedIn". Fatigue: Aharon, Kaplan, Levy et al. (2019), "Soft frequency capping for improved ad click prediction".
    Wear-out by repetition: Pechmann and Stewart (1988), "Advertising repetition: a critical review of wearin and
    wearout". Choice: McFadden (1974).

    ## Version History

    * v0: first version.
    """

    scenario = ADS


class AdsVectorEnv(RecVectorEnv):
    """B visitors of :class:`AdsEnv`."""

    scenario = ADS
