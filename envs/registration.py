"""The table of environment ids. Strings only, so that importing the package stays cheap."""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

NAMESPACE = "recsim_llm"

# RecSim's three environments, which have no world. The better policy of their thresholds is a fixed one: best topic
# first; highest quality first; most clickbait.
CLASSICS: dict[str, tuple[str, str, str, int, float | None]] = {
    "InterestEvolution-v0": (
        "recsim_llm.envs.interest_evolution", "InterestEvolutionEnv", "InterestEvolutionVectorEnv", 1000, 217.0,
    ),
    "InterestExploration-v0": (
        "recsim_llm.envs.interest_exploration", "InterestExplorationEnv", "InterestExplorationVectorEnv", 100, 30.8,
    ),
    "LongTermSatisfaction-v0": (
        "recsim_llm.envs.long_term_satisfaction", "LongTermSatisfactionEnv", "LongTermSatisfactionVectorEnv", 100,
        1036.0,
    ),
}  # fmt: skip

# name -> (module, scalar class, vector class, horizon, reward threshold). The threshold, a score that counts as solved,
# lies half-way between a random policy and the myopic oracle.
TABLE: dict[str, tuple[str, str, str, int, float | None]] = {
    "Music-v0": ("recsim_llm.envs.music", "MusicEnv", "MusicVectorEnv", 100, 59.0),
    "News-v0": ("recsim_llm.envs.news", "NewsEnv", "NewsVectorEnv", 100, 62.0),
    **CLASSICS,
}


def ids() -> list[str]:
    """All registered ids of this package."""
    return [f"{NAMESPACE}/{name}" for name in TABLE]


def scenarios() -> list[str]:
    """The ids whose users and items come from a world: all but RecSim's classics."""
    return [f"{NAMESPACE}/{name}" for name in TABLE if name not in CLASSICS]


def mo_ids() -> list[str]:
    """The ids with a vector reward, in MO-Gymnasium's form."""
    return [name.replace("/", "/mo-") for name in scenarios()]


def register_all() -> None:
    """Registers every id; doing it twice is silent."""
    for name, (module, scalar, vector, horizon, threshold) in TABLE.items():
        if f"{NAMESPACE}/{name}" in registry:
            continue
        register(
            f"{NAMESPACE}/{name}",
            entry_point=f"{module}:{scalar}",
            vector_entry_point=f"{module}:{vector}",
            max_episode_steps=horizon,
            reward_threshold=threshold,
        )
        if name not in CLASSICS:
            register(
                f"{NAMESPACE}/mo-{name}",
                entry_point=f"recsim_llm.envs.multi_objective:Mo{scalar}",
                vector_entry_point=f"recsim_llm.envs.multi_objective:Mo{vector}",
                max_episode_steps=horizon,
                disable_env_checker=True,  # it wants one number as reward
            )
