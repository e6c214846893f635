"""Recommenders: one algorithm per file, one protocol.

The table holds strings, so that naming the agents imports none of them. What an agent of your own is made of is
imported on first use.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsim_llm.errors import unknown
from recsim_llm.lazy import lazy_exports

if TYPE_CHECKING:
    from recsim_llm.agents.common.cooldown import CooldownConfig, RecentItems
    from recsim_llm.agents.common.item_stats import credited, seen_slots
    from recsim_llm.agents.common.top_k import top_k
    from recsim_llm.agents.core.base import Agent
    from recsim_llm.agents.core.config import Config
    from recsim_llm.agents.core.env_runner import EnvironmentSpec, Transition
    from recsim_llm.agents.core.serving_session import UnknownEnvironmentWarning

__all__ = [
    "Agent",
    "Config",
    "CooldownConfig",
    "EnvironmentSpec",
    "RecentItems",
    "Transition",
    "UnknownEnvironmentWarning",
    "credited",
    "families",
    "get",
    "load",
    "make",
    "names",
    "register",
    "seen_slots",
    "top_k",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "common.cooldown": ("CooldownConfig", "RecentItems"),
        "common.item_stats": ("credited", "seen_slots"),
        "common.top_k": ("top_k",),
        "core.base": ("Agent",),
        "core.config": ("Config",),
        "core.env_runner": ("EnvironmentSpec", "Transition"),
        "core.serving_session": ("UnknownEnvironmentWarning",),
    },
)

# family -> name -> (module, class)
_FAMILIES: dict[str, dict[str, tuple[str, str]]] = {
    "reference": {
        "random": ("recsim_llm.agents.reference.random_policy", "RandomAgent"),
        "popularity": ("recsim_llm.agents.reference.popularity", "PopularityAgent"),
        "recency": ("recsim_llm.agents.reference.recency", "RecencyAgent"),
        "best_static": ("recsim_llm.agents.reference.best_static", "BestStaticAgent"),
        "oracle": ("recsim_llm.agents.reference.oracle", "OracleAgent"),
        "lookahead": ("recsim_llm.agents.reference.lookahead", "LookaheadAgent"),
    },
    "bandit": {
        "epsilon_greedy": ("recsim_llm.agents.bandits.epsilon_greedy", "EpsilonGreedyAgent"),
        "constant_step": ("recsim_llm.agents.bandits.constant_step", "ConstantStepAgent"),
        "softmax": ("recsim_llm.agents.bandits.softmax", "SoftmaxAgent"),
        "ucb1": ("recsim_llm.agents.bandits.ucb1", "UCB1Agent"),
        "kl_ucb": ("recsim_llm.agents.bandits.kl_ucb", "KLUCBAgent"),
        "thompson": ("recsim_llm.agents.bandits.thompson", "ThompsonAgent"),
        "exp3": ("recsim_llm.agents.bandits.exp3", "Exp3Agent"),
        "sliding_window_ucb": ("recsim_llm.agents.bandits.sliding_window_ucb", "SlidingWindowUCBAgent"),
        "discounted_ucb": ("recsim_llm.agents.bandits.discounted_ucb", "DiscountedUCBAgent"),
        "discounted_thompson": ("recsim_llm.agents.bandits.discounted_thompson", "DiscountedThompsonAgent"),
        "cascade_ucb": ("recsim_llm.agents.bandits.cascade_ucb", "CascadeUCBAgent"),
    },
    "contextual bandit": {
        "linucb": ("recsim_llm.agents.contextual.linucb", "LinUCBAgent"),
        "discounted_linucb": ("recsim_llm.agents.contextual.discounted_linucb", "DiscountedLinUCBAgent"),
        "linucb_items": ("recsim_llm.agents.contextual.linucb_items", "LinUCBItemsAgent"),
        "lints": ("recsim_llm.agents.contextual.lints", "LinTSAgent"),
        "logistic_thompson": ("recsim_llm.agents.contextual.logistic_thompson", "LogisticThompsonAgent"),
        "neural_linear": ("recsim_llm.agents.contextual.neural_linear", "NeuralLinearAgent"),
        "shortlist": ("recsim_llm.agents.contextual.shortlist", "ShortlistAgent"),
    },
    "temporal difference": {
        "q_learning": ("recsim_llm.agents.td.q_learning", "QLearningAgent"),
        "sarsa": ("recsim_llm.agents.td.sarsa", "SarsaAgent"),
        "dqn": ("recsim_llm.agents.td.dqn", "DQNAgent"),
        "expected_sarsa": ("recsim_llm.agents.td.expected_sarsa", "ExpectedSarsaAgent"),
        "sarsa_lambda": ("recsim_llm.agents.td.sarsa_lambda", "SarsaLambdaAgent"),
        "lspi": ("recsim_llm.agents.td.lspi", "LSPIAgent"),
        "double_dqn": ("recsim_llm.agents.td.double_dqn", "DoubleDQNAgent"),
        "slateq": ("recsim_llm.agents.td.slateq", "SlateQAgent"),
    },
    "policy gradient": {
        "reinforce": ("recsim_llm.agents.policy_gradient.reinforce", "ReinforceAgent"),
        "ppo": ("recsim_llm.agents.policy_gradient.ppo", "PPOAgent"),
        "a2c": ("recsim_llm.agents.policy_gradient.a2c", "A2CAgent"),
        "masked_ppo": ("recsim_llm.agents.policy_gradient.masked_ppo", "MaskedPPOAgent"),
        "sac": ("recsim_llm.agents.policy_gradient.sac", "SACAgent"),
        "td3": ("recsim_llm.agents.policy_gradient.td3", "TD3Agent"),
    },
    "supervised": {
        "ridge": ("recsim_llm.agents.logged.ridge", "RidgeAgent"),
        "item_knn": ("recsim_llm.agents.logged.item_knn", "ItemKNNAgent"),
        "mf": ("recsim_llm.agents.logged.mf", "MFAgent"),
        "als": ("recsim_llm.agents.logged.als", "ALSAgent"),
        "bpr": ("recsim_llm.agents.logged.bpr", "BPRAgent"),
        "ease": ("recsim_llm.agents.logged.ease", "EASEAgent"),
        "kmeans": ("recsim_llm.agents.logged.kmeans", "KMeansAgent"),
        "nearest": ("recsim_llm.agents.logged.nearest", "NearestAgent"),
        "two_tower": ("recsim_llm.agents.neural.two_tower", "TwoTowerAgent"),
        "siamese": ("recsim_llm.agents.neural.siamese", "SiameseAgent"),
        "joint": ("recsim_llm.agents.neural.joint", "JointAgent"),
        "vbpr": ("recsim_llm.agents.logged.vbpr", "VBPRAgent"),
        "sasrec": ("recsim_llm.agents.neural.sasrec", "SASRecAgent"),
        "gru4rec": ("recsim_llm.agents.neural.gru4rec", "GRU4RecAgent"),
        "multi_task": ("recsim_llm.agents.neural.multi_task", "MultiTaskAgent"),
        "tuned": ("recsim_llm.agents.llm.tuned", "FinetunedEncoderAgent"),
    },
    "language model": {
        "embedding_ranker": ("recsim_llm.agents.llm.embedding_ranker", "EmbeddingRankerAgent"),
        "llm_profile": ("recsim_llm.agents.llm.llm_profile", "LLMProfileAgent"),
        "llm_ranker": ("recsim_llm.agents.llm.llm_ranker", "LLMRankerAgent"),
    },
    "wrapper": {
        "mmr": ("recsim_llm.agents.wrappers.mmr", "MMRAgent"),
        "dpp": ("recsim_llm.agents.wrappers.dpp", "DPPAgent"),
        "fair_exposure": ("recsim_llm.agents.wrappers.fair_exposure", "FairExposureAgent"),
        "explore_epsilon": ("recsim_llm.agents.wrappers.explore_epsilon", "ExploreEpsilonAgent"),
        "explore_softmax": ("recsim_llm.agents.wrappers.explore_softmax", "ExploreSoftmaxAgent"),
        "scalarised": ("recsim_llm.agents.wrappers.scalarised", "ScalarisedAgent"),
    },
}
_TABLE: dict[str, tuple[str, str]] = {name: place for family in _FAMILIES.values() for name, place in family.items()}
_registered: dict[str, type[Agent]] = {}


def register(agent: type[Agent]) -> type[Agent]:
    """Adds an agent of your own under its ``name``; can be used as a decorator.

    Raises:
        ValueError: If the name is taken by a built-in agent.
    """
    if agent.name in _TABLE:
        raise ValueError(f"agent {agent.name!r} is built in; give yours another name")
    _registered[agent.name] = agent
    return agent


def names() -> list[str]:
    """Names of all agents."""
    return [*_TABLE, *_registered]


def families() -> dict[str, list[str]]:
    """Names of the built-in agents by family; those that were registered are "own"."""
    table = {family: list(members) for family, members in _FAMILIES.items()}
    return table | ({"own": list(_registered)} if _registered else {})


def get(name: str) -> type[Agent]:
    """The class of an agent.

    Raises:
        ConfigError: If there is none of that name; the message has the closest one.
    """
    if name in _registered:
        return _registered[name]
    if name not in _TABLE:
        raise unknown("agent", name, names())
    module, attribute = _TABLE[name]
    found: type[Agent] = getattr(importlib.import_module(module), attribute)
    return found


def make(name: str, env: Any, seed: int = 0, **config: Any) -> Agent:
    """Makes an agent.

    Args:
        name: One of :func:`names`.
        env: Id of an environment, or a scalar or vector environment of this package.
        seed: Seed of the agent's own random streams.
        **config: Settings of the agent.

    Raises:
        ConfigError: If a name or setting is not valid; the message has the closest one.
    """
    kind = get(name)
    return kind(env, kind.Config.from_dict(config), seed=seed)


def load(path: str | Path, env: Any = None, **config: Any) -> Agent:
    """Reads an agent that was saved, whichever it is; see :meth:`recsim_llm.agents.core.base.Agent.load`.

    Args:
        path: The file.
        env: Environment to go on in; None makes the one that the file names, if that is built in.
        **config: Settings in place of the file's.
    """
    from recsim_llm.agents.core import agent_file as saving

    return get(str(saving.read(path).description["agent"])).load(path, env, **config)
