"""The table of environment ids. Strings only, so that importing the package stays cheap."""

from __future__ import annotations

from typing import Any

from gymnasium.envs.registration import register, registry

NAMESPACE = "recsim_llm"

# RecSim's three environments, which have no world. The better policy of their thresholds is a fixed one: best topic
# first; highest quality first; most clickbait.
CLASSICS: dict[str, tuple[str, str, str, int, float | None]] = {
    "InterestEvolution-v0": (
        "recsim_llm.envs.classics.interest_evolution", "InterestEvolutionEnv", "InterestEvolutionVectorEnv", 1000,
        217.0,
    ),
    "InterestExploration-v0": (
        "recsim_llm.envs.classics.interest_exploration", "InterestExplorationEnv", "InterestExplorationVectorEnv", 100,
        30.8,
    ),
    "LongTermSatisfaction-v0": (
        "recsim_llm.envs.classics.long_term_satisfaction", "LongTermSatisfactionEnv", "LongTermSatisfactionVectorEnv",
        100,
        1036.0,
    ),
}  # fmt: skip

# name -> (module, scalar class, vector class, horizon, reward threshold). The threshold, a score that counts as solved,
# lies half-way between a random policy and the myopic oracle, means over 256 held-out users.
TABLE: dict[str, tuple[str, str, str, int, float | None]] = {
    "Ads-v0": ("recsim_llm.envs.ads", "AdsEnv", "AdsVectorEnv", 200, 106.0),
    "Ecommerce-v0": ("recsim_llm.envs.ecommerce", "EcommerceEnv", "EcommerceVectorEnv", 100, 394.0),
    "Music-v0": ("recsim_llm.envs.music", "MusicEnv", "MusicVectorEnv", 100, 51.0),
    "News-v0": ("recsim_llm.envs.news", "NewsEnv", "NewsVectorEnv", 100, 49.0),
    "Social-v0": ("recsim_llm.envs.social", "SocialEnv", "SocialVectorEnv", 100, 120.0),
    "Video-v0": ("recsim_llm.envs.video", "VideoEnv", "VideoVectorEnv", 100, 107.0),
    **CLASSICS,
}

# Variants of every scenario with a world: Music-v0 gives Music-abrupt-v0 and so on. Keyword arguments that the caller
# adds come on top.
VARIANTS: dict[str, dict[str, Any]] = {
    "warm": {"warm_start": 20},
    "cold-text": {"cold_users": True, "warm_start": 20},
    "cold-users": {"cold_users": True},
    "cold-items": {"cold_items": 0.3},
    "abrupt": {"drift": "abrupt"},
    "gradual": {"drift": "gradual"},
    "recurring": {"drift": "recurring", "drift_period": 25},
    "satiated": {"satiation": 2.0},
    "retention": {"retention": 30.0},
    "opt-out": {"opt_out": 0.3},
    "noisy": {"noise": 0.1},
    "missing": {"missing": 0.3},
    "delayed": {"delay": 5},
    "private": {"epsilon": 1.0},
}
ADJUSTED: dict[str, dict[str, Any]] = {"Ecommerce-private-v0": {"reward": {"click": 1.0}}}
"""What a variant needs beside its protocol: a purchase is not reported where only clicks are, so nor is revenue."""

LONGEST_MONTH = 2000
"""Steps at which a variant with a horizon in days is truncated whatever the calendar says."""


def ids() -> list[str]:
    """The ids of this package without the variants: scenarios and RecSim's classics."""
    return [f"{NAMESPACE}/{name}" for name in TABLE]


def scenarios() -> list[str]:
    """The ids whose users and items come from a world: all but RecSim's classics."""
    return [f"{NAMESPACE}/{name}" for name in TABLE if name not in CLASSICS]


def variants() -> list[str]:
    """The ids of the scenarios under each protocol of :data:`VARIANTS`."""
    return [_variant(name, variant) for name in scenarios() for variant in VARIANTS]


def mo_ids() -> list[str]:
    """The ids with a vector reward, in MO-Gymnasium's form."""
    return [name.replace("/", "/mo-") for name in scenarios()]


def register_all() -> None:
    """Registers every id; doing it twice is silent."""
    for name, (module, scalar, vector, horizon, threshold) in TABLE.items():
        entry = {"entry_point": f"{module}:{scalar}", "vector_entry_point": f"{module}:{vector}"}
        env_id = f"{NAMESPACE}/{name}"
        _register(env_id, **entry, max_episode_steps=horizon, reward_threshold=threshold)
        if name not in CLASSICS:
            vectors = (f"recsim_llm.envs.vector_reward.environments:Mo{kind}" for kind in (scalar, vector))
            mo_entry = dict(zip(entry, vectors, strict=True))
            # Gymnasium's checker wants one number as reward
            _register(f"{NAMESPACE}/mo-{name}", **mo_entry, max_episode_steps=horizon, disable_env_checker=True)
        for variant, protocol in VARIANTS.items() if name not in CLASSICS else ():
            steps = LONGEST_MONTH if "retention" in protocol else horizon
            kwargs = {**protocol, **ADJUSTED.get(_variant(name, variant), {})}
            _register(_variant(env_id, variant), **entry, max_episode_steps=steps, kwargs=kwargs)


def _variant(env_id: str, variant: str) -> str:
    stem, version = env_id.rsplit("-", 1)
    return f"{stem}-{variant}-{version}"


def _register(env_id: str, **spec: Any) -> None:
    if env_id not in registry:
        register(env_id, **spec)
