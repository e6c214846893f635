"""Named experiments: "demo" for a first look, "standard" for the tables of the README, "classics" on RecSim's."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from recsim_llm.agents import families
from recsim_llm.benchmarks.harness.experiment import SAMPLED, Experiment, agent_of
from recsim_llm.errors import unknown

MUSIC, NEWS = "recsim_llm/Music-v0", "recsim_llm/News-v0"
ADS, VIDEO = "recsim_llm/Ads-v0", "recsim_llm/Video-v0"
ECOMMERCE, SOCIAL = "recsim_llm/Ecommerce-v0", "recsim_llm/Social-v0"

RETENTION = "recsim_llm/Video-retention-v0"
"""Users may leave for good within a month: does looking ahead pay?"""
COLD_ITEMS = "recsim_llm/Music-cold-items-v0"
"""Items are released on the way: who can recommend what nobody has consumed yet?"""
ABRUPT_DRIFT = "recsim_llm/Social-abrupt-v0"
"""The tastes of all users change at once, again and again: who follows?"""

DEMO_AGENTS = (
    "random", "popularity", "epsilon_greedy", "thompson", "linucb", "q_learning", "sarsa", "mf", "ppo", "oracle",
)  # fmt: skip
STOCHASTIC_AGENTS = ("reinforce", "ppo", "a2c", "masked_ppo", "sac")
"""Policy gradients whose policy is a distribution: they are evaluated at its mode and sampled."""
STANDARD_AGENTS = tuple(
    row
    for family, members in families().items()
    if family not in ("language model", "own")
    for name in members
    for row in ((name, name + SAMPLED) if name in STOCHASTIC_AGENTS else (name,))
)
"""All built-in agents but those with a language model: these serve less than one user a second, and what they are
without one would stand under their name in the tables."""
SLOW_AGENTS = (
    "neural_linear", "dqn", "double_dqn", "slateq", "reinforce", "ppo", "a2c", "masked_ppo", "sac", "td3", "two_tower",
    "sasrec", "gru4rec", "multi_task", "siamese", "joint", "tuned",
)  # fmt: skip
"""Agents on PyTorch, which take most of the time and run with five seeds of ten."""
RETENTION_AGENTS = (
    "random", "popularity", "ucb1", "thompson", "linucb", "lints", "sarsa_lambda", "lspi", "double_dqn", "slateq",
    "masked_ppo", "masked_ppo" + SAMPLED, "oracle",
)  # fmt: skip
COLD_ITEMS_AGENTS = (
    "random", "popularity", "ucb1", "thompson", "item_knn", "mf", "als", "bpr", "ease", "nearest", "kmeans", "ridge",
    "linucb", "lints", "two_tower", "oracle",
)  # fmt: skip
ABRUPT_DRIFT_AGENTS = (
    "random", "epsilon_greedy", "constant_step", "thompson", "discounted_thompson", "ucb1", "discounted_ucb",
    "sliding_window_ucb", "linucb", "discounted_linucb", "oracle",
)  # fmt: skip

DEMO = Experiment(
    name="demo",
    scenarios=(MUSIC, NEWS),
    agents=DEMO_AGENTS,
    seeds=(0, 1, 2),
    budget=20_000,
    checkpoints=(0, 1_000, 3_000, 7_000, 13_000, 20_000),
    lanes=32,
    episodes=100,
)
STANDARD = Experiment(
    name="standard",
    scenarios=(ADS, MUSIC, VIDEO, NEWS, ECOMMERCE, SOCIAL, RETENTION, COLD_ITEMS, ABRUPT_DRIFT),
    agents=STANDARD_AGENTS,
    seeds=tuple(range(10)),
    budget=20_480,
    checkpoints=(0, 5_120, 10_240, 20_480),
    lanes=64,
    episodes=64,
    env_kwargs={
        ABRUPT_DRIFT: {
            "drift_common": True,
            "drift_period": 80,
            "max_episode_steps": 320,
            "rules": {"repeat": 3.0, "repeat_life": 96.0},  # posts come back, or the catalogue would be read up
        }
    },
    only={RETENTION: RETENTION_AGENTS, COLD_ITEMS: COLD_ITEMS_AGENTS, ABRUPT_DRIFT: ABRUPT_DRIFT_AGENTS},
    fewer_seeds=dict.fromkeys((row for row in STANDARD_AGENTS if agent_of(row) in SLOW_AGENTS), 5),
)
CLASSICS = Experiment(
    name="classics",
    scenarios=tuple(
        f"recsim_llm/{name}-v0" for name in ("InterestEvolution", "InterestExploration", "LongTermSatisfaction")
    ),
    agents=("random", "thompson", "linucb", "q_learning", "sarsa", "oracle"),
    seeds=(0, 1, 2),
    budget=10_240,
    checkpoints=(0, 2_560, 10_240),
    lanes=32,
    episodes=100,
)
PRESETS: Mapping[str, Experiment] = MappingProxyType({one.name: one for one in (DEMO, STANDARD, CLASSICS)})
"""Experiments by name."""


def preset(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        ConfigError: If there is none; the message has the closest one.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name]
