"""Social: a feed of five posts by creators who need an audience."""

from __future__ import annotations

from recsim_llm.envs.scalar_env import RecEnv
from recsim_llm.envs.scenario import Scenario
from recsim_llm.envs.vector_env import RecVectorEnv
from recsim_llm.simulator import Rules

SOCIAL = Scenario(
    name="Social",
    world="social",
    slate_size=5,
    rules=Rules(
        choice="position",
        position_bias=0.3,
        no_click=1.5,
        freshness=1.0,
        freshness_life=1.0,
        shelf_life=4.0,
        satiation=1.0,
        satiation_click=0.1,
        satiation_look=0.01,
        satiation_life=3.0,
        repeat=8.0,
        repeat_look=0.11,
        repeat_life=0.0,
        look_life=96.0,
        audience_life=2.0,
        audience_start=4.0,
        audience_needed=1.0,
        audience_look=0.5,
        audience_click=2.0,
        buzz=1.0,
        buzz_like=0.15,
        buzz_share=0.4,
        buzz_life=2.0,
        look_time=3.0,
        dwell_time=25.0,
        dwell_spread=0.7,
        dwell_satisfaction=0.3,
        like=1.0,
        share=2.5,
        cart=8.0,
        rating_rate=0.0,
        clickbait_pull=0.7,
        clickbait_regret=1.2,
        session_time=420.0,
        leave=-3.5,
        leave_mood=0.7,
        churn=-4.0,
        churn_mood=1.0,
        gap=7.0,
        gap_mood=0.4,
        drift=0.03,
        diffusion=0.02,
    ),
    reward={"click": 1.0, "like": 1.0, "share": 2.0},
    horizon=100,
)


class SocialEnv(RecEnv):
    """Five posts of a feed.

    ## Description

    A member scrolls through five posts and opens those that she likes. Creators publish as long as somebody looks at
    them: attention is their audience, it wears off in days, and who has none left publishes nothing more. What she
    likes and shares is talked about, and everything of that creator attracts her more for a while: members do not meet,
    each has creators and an audience of her own. Tastes follow what is read. A post
    that was read is not read again.

    The difficulty is the commons: a feed that shows only the best creators loses the others, and with them what it
    could have shown next week; a feed that follows likes narrows what its member likes (`truth_leaning` tells how far;
    :func:`recsim_llm.metrics.filter_bubbles.narrowing` measures it).

    ## Action Space

    `MultiDiscrete([I] * 5)`: positions in the catalogue, in the order of the feed; `Discrete(I)` with `slate_size=1`. A
    post twice in the feed, one that is not out yet or older than four days, or one that was never written because its
    creator had stopped, is a wasted slot.

    ## Observation Space

    `Box(-1, 1, (P,), float32)`, or with `observation="dict"` the same parts by name:

    | part | width | content |
    |---|---|---|
    | profile | D | encoding of the persona's statements with their valences |
    | interest | D | decayed mean of the encodings of opened posts |
    | context | 10 | time of day (2), session, step in it, step, days away, engagement, idle steps, sameness, start |
    | feedback | 8 K | last step's click, dwell [600 s], like, share, cart, purchase, rating [5], skip of each slot |
    | candidates | C D | with `num_candidates=C`: encodings of the listed items |
    | history | 9 H | with `history=H`: the last shown items and what was done with them, latest first |
    | group | groups | with `group=True`: gender, age band and region, one-hot |

    ## Rewards

    1 for each opened post, 1 for a like, 2 for a share. `reward=` takes other weights, a registered name or a function.

    ## Starting State

    A random user of the split, on day 0 at a random time, rested, in a neutral mood.

    ## Episode End

    1. Termination: the member closed the app and never comes back.
    2. Truncation: 100 screens, or `retention` days where that is given.

    ## Arguments

    | argument | default | meaning |
    |---|---|---|
    | world | "social" | built-in world or folder of another |
    | slate_size | 5 | K |
    | users | "all" | split of the population: "all", "train", "test" |
    | observation | "flat" | "flat" or "dict" |
    | num_candidates | None | C: each step offers a list of so many items, and actions are positions in it |
    | history | 0 | H: length of the history in the observation |
    | group | False | groups of the user in the observation |
    | reward | {"click": 1, "like": 1, "share": 2} | weights, registered name or function |
    | rules | {} | rule parameters to change |
    | choice | "position" | choice model |
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

    `user_id, clicks, ctr, wasted, session, day, diversity, is_success, slate [K], slot_reward [K]`, `living_providers`
    and the signals `click, dwell [s], like, share, cart, purchase, rating, skip` [K]; with `truth=True`
    `truth_appeal [I]`, `truth_value [I]`, `truth_leaning [T]`, `truth_mood`, `truth_satisfaction`.
    With `judge="live"` there is `judge_missing`, slots that the judge gave no rating for.

    ## Vectorized environment

    `gym.make_vec("recsim_llm/Social-v0", num_envs=B)` is one compiled simulator; lane i equals the scalar
    environment seeded with seed + i. `autoreset_mode` is "NextStep", "SameStep" or "Disabled".

    ## References

    Creators: Mladenov, Creager, Ben-Porat et al. (2020), "Optimizing long-term social welfare in recommender systems";
    Zhan et al. (2021), "Towards content provider aware recommender systems". Filter bubbles: Pariser (2011); Chaney,
    Stewart and Engelhardt (2018), "How algorithmic confounding in recommendation systems increases homogeneity and
    decreases utility". What is consumed again, and what is not: Anderson, Kumar, Tomkins and Vassilvitskii (2014), "The
    dynamics of repeat consumption".

    ## Version History

    * v0: first version.
    """

    scenario = SOCIAL


class SocialVectorEnv(RecVectorEnv):
    """B members of :class:`SocialEnv`."""

    scenario = SOCIAL
