"""Contract checks for environments, shipped so that environments from elsewhere can be held to the same rules.

    from recsim_llm.testing import check_env

    for check in check_env("recsim_llm/News-v0"):
        print(check)

Gymnasium's own checker compares observations that may share one buffer and looks at a few steps only; these checks copy
at once and roll out for long.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from recsim_llm.errors import install

RESERVED = frozenset(
    {"episode", "final_obs", "final_info", "terminal_observation", "TimeLimit.truncated", "reward_weights"}
)
"""Keys of infos that Gymnasium, Stable-Baselines3 and MO-Gymnasium write themselves."""

SHORT_EPISODE = 12
"""Horizon of the comparison of vector and scalar environments [step], so that episodes end often."""

FORK_STEP = 37
"""Step at which an environment is copied to see whether the copy goes on alike."""


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        name: What was checked.
        passed: True or False; None where it does not apply or a library is missing.
        detail: Why it failed or was left out.
    """

    name: str
    passed: bool | None
    detail: str = ""

    def __str__(self) -> str:
        mark = {True: "ok", False: "FAILED", None: "left out"}[self.passed]
        return f"{mark:8s} {self.name}" + (f": {self.detail}" if self.detail else "")


class Skipped(Exception):
    """A check does not apply; the text says why."""


def check_env(
    env: str | gym.Env[Any, Any], *, steps: int = 1000, seed: int = 0, lanes: int = 3, **options: Any
) -> list[Check]:
    """Holds an environment to the contract: checkers, spaces, infos, determinism, copies, vector against scalar.

    Args:
        env: A registered id, or an environment (it is used up; a copy of it must behave like it).
        steps: Length of the rollouts.
        seed: Seed of the rollouts.
        lanes: Lanes of the vector environment that is compared with scalar ones.
        options: Keyword arguments of the environment; with an id only.

    Returns:
        One result for each check; none is raised. Warnings count as failures.
    """
    make = _maker(env, options)
    checks: list[tuple[str, Callable[[], None]]] = [
        ("gymnasium check_env", lambda: _gymnasium(make())),
        ("stable-baselines3 check_env", lambda: _stable_baselines3(make())),
        ("spec as JSON and back", lambda: _spec(make())),
        (f"observations, rewards and infos over {steps} steps", lambda: _rollout(make(), steps, seed)),
        ("same seed, same trajectory", lambda: _same(make(), make(), steps, seed)),
        ("second reset with a seed starts again", lambda: _restart(make(), seed)),
        (f"a copy taken at step {FORK_STEP} goes on alike", lambda: _fork(make(), seed)),
        ("closing twice", lambda: _close(make())),
    ]
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        name = f"vector = scalar, {mode.value}, {lanes} lanes"
        checks.append((name, functools.partial(_vector, env, options, mode, lanes, min(steps, 200), seed)))
    return [_run(name, function) for name, function in checks]


def difference(left: Any, right: Any, where: str = "") -> str | None:
    """The first place where two nested structures of arrays and numbers differ, or None; exact, types included."""
    if type(left) is not type(right):
        return f"{where or 'value'}: type {type(left).__name__} against {type(right).__name__}"
    if isinstance(left, dict):
        if set(left) != set(right):
            return f"{where or 'dict'}: keys {sorted(set(left) ^ set(right))} on one side only"
        pairs = [(f"{where}[{key!r}]", left[key], right[key]) for key in left]
    elif isinstance(left, list | tuple):
        if len(left) != len(right):
            return f"{where or 'list'}: length {len(left)} against {len(right)}"
        pairs = [(f"{where}[{n}]", a, b) for n, (a, b) in enumerate(zip(left, right, strict=True))]
    elif isinstance(left, np.ndarray):
        return _array_difference(left, right, where)
    else:
        same = left == right or (left != left and right != right)
        return None if same else f"{where or 'value'}: {left!r} against {right!r}"
    return next((found for name, a, b in pairs if (found := difference(a, b, name))), None)


def _array_difference(left: np.ndarray, right: np.ndarray, where: str) -> str | None:
    if (left.shape, left.dtype) != (right.shape, right.dtype):
        return f"{where or 'array'}: {left.dtype}{left.shape} against {right.dtype}{right.shape}"
    if left.dtype.hasobject:
        return difference(left.tolist(), right.tolist(), where)
    same = (left == right) | ((left != left) & (right != right))
    if np.all(same):
        return None
    place = tuple(int(n) for n in np.argwhere(~np.asarray(same))[0])
    return f"{where or 'array'}{list(place)}: {left[place]!r} against {right[place]!r}"


def actions(space: spaces.Space[Any], seed: int) -> Iterator[Any]:
    """An endless stream of actions that depends on the seed alone, not on any library's generator.

    For spaces of integers action t comes from a hash of "seed:t"; other spaces are sampled.
    """
    if isinstance(space, spaces.Discrete):
        low, sizes = np.asarray(space.start), np.asarray(space.n, np.uint64)
    elif isinstance(space, spaces.MultiDiscrete):
        low, sizes = space.start, space.nvec.astype(np.uint64)
    elif isinstance(space, spaces.Box) and space.dtype is not None and space.dtype.kind in "iu":  # batched slates
        low, sizes = space.low, (space.high - space.low + 1).astype(np.uint64)
    else:
        space.seed(seed)
        while True:
            yield space.sample()
    t = 0
    while True:
        words = np.frombuffer(hashlib.shake_256(f"{seed}:{t}".encode()).digest(8 * sizes.size), "<u8")
        drawn = low + (words.reshape(sizes.shape) % sizes).astype(np.int64)
        yield drawn[()] if isinstance(space, spaces.Discrete) else drawn
        t += 1


def trajectory_digest(env: gym.Env[Any, Any], seed: int, steps: int) -> str:
    """SHA-256 of everything that ``steps`` fixed actions give: observations, rewards, flags, and the state's arrays.

    The state is taken from ``env.unwrapped.get_state()`` where there is one. Equal digests mean equal bits.
    """
    digest = hashlib.sha256()
    stream = actions(env.action_space, seed)
    observation, _ = env.reset(seed=seed)
    _feed(digest, observation)
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(next(stream))
        _feed(digest, observation)
        digest.update(np.float64(reward).tobytes() + bytes([terminated, truncated]))
        if hasattr(env.unwrapped, "get_state"):
            state = env.unwrapped.get_state()
            _feed(digest, {name: part for name, part in state.items() if isinstance(part, np.ndarray)})
        if terminated or truncated:
            observation, _ = env.reset()
            _feed(digest, observation)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    """Adds arrays to a digest, field by field (padding between fields is not defined), in one byte order."""
    if isinstance(value, dict):
        for name in sorted(value):
            digest.update(name.encode())
            _feed(digest, value[name])
    elif isinstance(value, np.ndarray) and value.dtype.names:
        for name in value.dtype.names:
            _feed(digest, value[name])
    elif isinstance(value, np.ndarray):
        digest.update(np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<")).tobytes())


def _run(name: str, function: Callable[[], None]) -> Check:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            function()
    except Skipped as reason:
        return Check(name, None, str(reason))
    except Exception as error:  # whatever an environment raises is the result of the check
        return Check(name, False, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    return Check(name, True)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _maker(env: str | gym.Env[Any, Any], options: dict[str, Any]) -> Callable[[], gym.Env[Any, Any]]:
    if isinstance(env, str):
        return lambda: gym.make(env, **options)
    if options:
        raise TypeError(f"options {sorted(options)} need an id; the environment was made already")
    fresh = copy.deepcopy(env)
    return lambda: copy.deepcopy(fresh)


def _gymnasium(env: gym.Env[Any, Any]) -> None:
    from gymnasium.utils.env_checker import check_env as check

    check(env.unwrapped, skip_render_check=env.render_mode is None)


def _stable_baselines3(env: gym.Env[Any, Any]) -> None:
    try:
        from stable_baselines3.common.env_checker import check_env as check
    except ImportError:
        raise Skipped(f"stable-baselines3 is not installed: {install('agents')}") from None
    check(env, warn=True, skip_render_check=True)


def _spec(env: gym.Env[Any, Any]) -> None:
    if env.spec is None:
        raise Skipped("the environment was not made through gym.make")
    text = env.spec.to_json()
    json.loads(text)
    again = EnvSpec.from_json(text).make()
    _require(again.observation_space == env.observation_space, "the observation space differs after the round trip")
    _require(again.action_space == env.action_space, "the action space differs after the round trip")
    _equal(_record(env, 20, 0), _record(again, 20, 0))


def _rollout(env: gym.Env[Any, Any], steps: int, seed: int) -> None:
    """Long rollout with copies taken at once: spaces, exact types, constant infos, no shared buffers."""
    stream = actions(env.action_space, seed)
    observation, info = env.reset(seed=seed)
    form = _form(info)
    _require(not RESERVED & set(info), f"infos use reserved keys {sorted(RESERVED & set(info))}")
    _require(not [key for key in info if key.startswith("_")], "infos have keys with a leading underscore")
    for step in range(steps):
        _require(env.observation_space.contains(observation), f"step {step}: the observation is outside its space")
        kept, saved = (observation, info), copy.deepcopy((observation, info))
        action = next(stream)
        tried = copy.deepcopy(action)
        observation, reward, terminated, truncated, info = env.step(action)
        _equal(tried, action, f"step {step}: the environment changed the action it was given")
        _equal(saved, kept, f"step {step}: a returned observation or info was written to by the next step")
        _require(type(reward) is float, f"step {step}: reward is a {type(reward).__name__}, not a Python float")
        _require(bool(np.isfinite(float(reward))), f"step {step}: reward is {reward}")
        _require(type(terminated) is bool and type(truncated) is bool, f"step {step}: flags must be Python bools")
        _equal(form, _form(info), f"step {step}: keys, types or shapes of the info changed")
        if terminated or truncated:
            observation, info = env.reset()
            _equal(form, _form(info), f"reset after step {step}: keys, types or shapes of the info changed")


def _form(info: dict[str, Any]) -> dict[str, str]:
    """Type and shape of each entry; numbers and fixed-shape numeric arrays only."""
    _require(type(info) is dict, f"info is a {type(info).__name__}, not a dict")
    forms = {}
    for key, value in info.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            forms[key] = f"{value.dtype}{value.shape}"
        else:
            _require(type(value) in (bool, int, float), f"info[{key!r}] is a {type(value).__name__}, not a number")
            forms[key] = type(value).__name__
    return forms


def _record(env: gym.Env[Any, Any], steps: int, seed: int) -> list[Any]:
    stream = actions(env.action_space, seed)
    history: list[Any] = [copy.deepcopy(env.reset(seed=seed))]
    for _ in range(steps):
        result = copy.deepcopy(env.step(next(stream)))
        history.append(result)
        if result[2] or result[3]:
            history.append(copy.deepcopy(env.reset()))
    return history


def _equal(left: Any, right: Any, message: str = "the trajectories differ") -> None:
    found = difference(left, right)
    _require(found is None, f"{message} at {found}")


def _same(first: gym.Env[Any, Any], second: gym.Env[Any, Any], steps: int, seed: int) -> None:
    _equal(_record(first, steps, seed), _record(second, steps, seed))
    other = difference(_record(first, 50, seed), _record(first, 50, seed + 1))
    _require(other is not None, f"seeds {seed} and {seed + 1} give the same 50 steps")


def _restart(env: gym.Env[Any, Any], seed: int) -> None:
    _equal(_record(env, 60, seed), _record(env, 60, seed))


def _fork(env: gym.Env[Any, Any], seed: int) -> None:
    stream = actions(env.action_space, seed)
    env.reset(seed=seed)
    for _ in range(FORK_STEP):
        if any(env.step(next(stream))[2:4]):
            env.reset()
    twin = copy.deepcopy(env)
    for step in range(100):
        action = next(stream)
        result = copy.deepcopy(env.step(action))
        _equal(result, twin.step(action), f"step {FORK_STEP + step}: the copy differs")
        if result[2] or result[3]:
            _equal(copy.deepcopy(env.reset()), twin.reset(), "reset: the copy differs")


def _close(env: gym.Env[Any, Any]) -> None:
    env.close()
    env.close()


def _vector(
    env: str | gym.Env[Any, Any], options: dict[str, Any], mode: AutoresetMode, lanes: int, steps: int, seed: int
) -> None:
    """The native vector environment against Gymnasium's of scalar ones: every output, masks of infos included."""
    if not isinstance(env, str):
        raise Skipped("needs a registered id")
    spec = gym.spec(env)
    if spec.vector_entry_point is None:
        raise Skipped("the id has no vector environment of its own")
    entry = spec.vector_entry_point
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    known = inspect.signature(creator).parameters
    chosen = dict(options)
    if "autoreset_mode" in known:
        chosen["autoreset_mode"] = mode.value
    elif mode is not AutoresetMode.NEXT_STEP:
        raise Skipped("the vector environment takes no autoreset_mode")
    native = gym.make_vec(
        env, num_envs=lanes, vectorization_mode="vector_entry_point", max_episode_steps=SHORT_EPISODE, **chosen
    )
    scalar = SyncVectorEnv(
        [lambda: gym.make(env, max_episode_steps=SHORT_EPISODE, **options)] * lanes, autoreset_mode=mode
    )
    _equal(scalar.reset(seed=seed), native.reset(seed=seed), "reset")
    stream = actions(native.action_space, seed)
    for step in range(steps):
        action = next(stream)
        _equal(scalar.step(action), native.step(action), f"step {step}, scalar against vector")
    native.close()
    scalar.close()
