"""E-commerce: slates of ten products that are clicked, put into the cart and bought."""

from __future__ import annotations

from recsim_llm.envs.scalar_env import RecEnv
from recsim_llm.envs.scenario import Scenario
from recsim_llm.envs.vector_env import RecVectorEnv
from recsim_llm.simulator import Rules

ECOMMERCE = Scenario(
    name="Ecommerce",
    world="ecommerce",
    slate_size=10,
    rules=Rules(
        position_bias=0.4,
        no_click=3.0,
        satiation=0.8,
        satiation_click=0.1,
        satiation_look=0.005,
        satiation_life=2.0,
        repeat=1.0,
        repeat_look=0.1,
        repeat_life=48.0,
        look_life=48.0,
        repeat_bought=8.0,
        price_weight=1.5,
        wallet=2.0,
        owned=4.0,
        owned_life=21.0,
        look_time=1.5,
        dwell_time=40.0,
        dwell_spread=0.8,
        dwell_satisfaction=0.3,
        like=2.5,
        share=4.5,
        cart=3.5,
        purchase=2.0,
        rating_rate=0.05,
        clickbait_pull=0.6,
        clickbait_regret=1.2,
        session_time=600.0,
        leave=-3.0,
        leave_mood=0.5,
        churn=-4.0,
        churn_mood=0.8,
        gap=60.0,
        gap_mood=0.3,
        drift=0.01,
        diffusion=0.04,
    ),
    reward={"revenue": 1.0},
    horizon=100,
)


class EcommerceEnv(RecEnv):
    """A page of ten products.

    ## Description

    A customer sees ten products, looks closer at no more than one, may put it into the cart and may buy it. Prices hurt
    some customers more than others, a purchase must fit what is left of the month's money, and who has just bought a
    coat wants no other coat for weeks, and the same one never again; a product that she only looked at may be looked at
    again after some days. Every product has a text and a cover image; what the picture shows is not in the
    text, and customers have a taste for it.

    The difficulty is the funnel: what is clicked is not what is bought, what is bought is not what earns most, and
    every sale closes its category for a while.

    ## Action Space

    `MultiDiscrete([I] * 10)`: positions in the catalogue, in the order of the page; `Discrete(I)` with `slate_size=1`.
    A product twice on a page is a wasted slot.

    ## Observation Space

    `Box(-1, 1, (P,), float32)`, or with `observation="dict"` the same parts by name:

    | part | width | content |
    |---|---|---|
    | profile | D | encoding of the persona's statements with their valences |
    | interest | D | decayed mean of the encodings of clicked products |
    | context | 10 | time of day (2), session, step in it, step, days away, engagement, idle steps, sameness, start |
    | feedback | 8 K | last step's click, dwell [600 s], like, share, cart, purchase, rating [5], skip of each slot |
    | candidates | C D | with `num_candidates=C`: encodings of the listed items |
    | history | 9 H | with `history=H`: the last shown items and what was done with them, latest first |
    | group | groups | with `group=True`: gender, age band and region, one-hot |

    ## Rewards

    Revenue: the price of what was bought. `reward=` takes other weights (`{"purchase": 1}` for conversion), a
    registered name or a function.

    ## Starting State

    A random user of the split, on day 0 at a random time, rested, in a neutral mood.

    ## Episode End

    1. Termination: the customer left the shop and never comes back.
    2. Truncation: 100 pages, or `retention` days where that is given.

    ## Arguments

    | argument | default | meaning |
    |---|---|---|
    | world | "ecommerce" | built-in world or folder of another |
    | slate_size | 10 | K |
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

    `user_id, clicks, ctr, wasted, session, day, diversity, is_success, slate [K], slot_reward [K]`, `revenue, cvr`
    and the signals `click, dwell [s], like, share, cart, purchase, rating, skip` [K]; with `truth=True`
    `truth_appeal [I]`, `truth_value [I]`, `truth_leaning [T]`, `truth_mood`, `truth_satisfaction`.
    With `judge="live"` there is `judge_missing`, slots that the judge gave no rating for.

    ## Vectorized environment

    `gym.make_vec("recsim_llm/Ecommerce-v0", num_envs=B)` is one compiled simulator; lane i equals the scalar
    environment seeded with seed + i. `autoreset_mode` is "NextStep", "SameStep" or "Disabled".

    ## References

    Funnel: Ma et al. (2018), "Entire space multi-task model". Pictures: McAuley, Targett, Shi and van den Hengel
    (2015), "Image-based recommendations on styles and substitutes". Choice: McFadden (1974). What is
    consumed again, and what is not: Anderson, Kumar, Tomkins and Vassilvitskii (2014), "The dynamics of repeat
    consumption".

    ## Version History

    * v0: first version.
    """

    scenario = ECOMMERCE


class EcommerceVectorEnv(RecVectorEnv):
    """B customers of :class:`EcommerceEnv`."""

    scenario = ECOMMERCE
