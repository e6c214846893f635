"""Stock PPO of Stable-Baselines3 learns Music from short lists, and not from the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("stable_baselines3", reason="PPO needs the extra [agents]")
from stable_baselines3 import PPO

MUSIC = "recsim_llm/Music-v0"
LISTS = {"num_candidates": 10}
USERS = 512

Policy = Callable[[NDArray[np.float32]], NDArray[np.int64]]


def trained(steps: int, **form: Any) -> Policy:
    """The mode of PPO with its own hyper-parameters, trained on the users for training."""
    envs = gym.make_vec(MUSIC, num_envs=32, users="train", **form).unwrapped.sb3()
    model = PPO("MlpPolicy", envs, n_steps=64, seed=0).learn(steps)
    return lambda observation: model.predict(observation, deterministic=True)[0]


def uniform(actions: int) -> Policy:
    """A policy that draws evenly."""
    rng = np.random.default_rng(0)
    return lambda observation: rng.integers(0, actions, len(observation))


def episodes(policy: Policy, **form: Any) -> tuple[NDArray[np.float64], float]:
    """Returns [B] of one episode of each held-out user, and how often her most frequent action was taken (a share)."""
    envs = gym.make_vec(MUSIC, num_envs=USERS, users="test", **form).unwrapped.sb3()
    envs.seed(1_000)  # the same users with the same luck for every policy
    observation, returns, playing = envs.reset(), np.zeros(USERS), np.ones(USERS, bool)
    counts = np.zeros((USERS, envs.action_space.n))
    while playing.any():
        actions = policy(observation)
        counts[playing, actions[playing]] += 1
        observation, rewards, done, _ = envs.step(actions)
        returns += rewards * playing
        playing &= ~done
    return returns, float((counts.max(axis=1) / counts.sum(axis=1)).mean())


@pytest.mark.slow
def test_its_mode_is_better_than_chance_with_candidates():
    returns, _ = episodes(trained(20_480, **LISTS, horizon=1), **LISTS)  # held-out users, whole episodes
    chance, _ = episodes(uniform(10), **LISTS)
    gain = returns - chance
    assert gain.mean() > 3.0 * gain.std(ddof=1) / USERS**0.5
    assert chance.mean() == pytest.approx(29.0, abs=1.5)  # README and docs say so
    assert returns.mean() == pytest.approx(32.0, abs=1.5)


def test_its_mode_repeats_one_track_without_them():
    returns, share = episodes(trained(4_096))
    chance, share_of_chance = episodes(uniform(1_248))
    assert share > 0.5 > 0.1 > share_of_chance
    gain = returns - chance
    assert gain.mean() < -3.0 * gain.std(ddof=1) / USERS**0.5
