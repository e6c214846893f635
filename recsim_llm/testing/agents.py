"""Contract checks for agents, shipped so that agents from elsewhere can be held to the same rules.

    from recsim_llm.testing import check_agent

    for check in check_agent("linucb"):
        print(check)

    for check in check_agent(lambda env, seed: MyAgent(env, seed=seed)):
        print(check)

Every agent has ``predict``, ``learn``, ``save`` and ``load`` as Stable-Baselines3's have. What only agents of this
package have (``arrays``, ``propensity``, ``config``, masks) is checked where it is there.
"""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import install
from recsim_llm.testing.evidence import pickles, require_frequencies
from recsim_llm.testing.subject import (
    NEW_PROCESS,
    SCRIPT,
    Actions,
    Make,
    Step,
    Subject,
    alike,
    arrays,
    choices_and_slots,
    learnt,
    predict,
    recorded,
    require,
    rows_of,
    served,
    skipped,
)

if TYPE_CHECKING:
    from recsim_llm.testing.environments import Check

DRAWS = 3_000
CANDIDATES = 12


def check_agent(
    make: str | Make,
    env: str = "recsim_llm/News-v0",
    *,
    steps: int = 256,
    lanes: int = 4,
    seed: int = 0,
    config: dict[str, Any] | None = None,
    new_process: bool = False,
    **options: Any,
) -> list[Check]:
    """Holds an agent to the contract: shapes, masks, determinism, files, exact continuation, probabilities.

    Args:
        make: Name of an agent, or a function of (environment, seed) that makes one.
        env: A registered id.
        steps: Steps of users that it learns from in each check; a multiple of ``lanes``, and of its update period if it
            has one.
        lanes: Users at a time.
        seed: Seed of the agent and of the environments.
        config: Settings of an agent given by its name.
        new_process: Also learn on in a new process; with a name only.
        options: Keyword arguments of the environment.

    Returns:
        One result for each check; none is raised. Warnings count as failures.
    """
    from recsim_llm.testing.environments import _run

    about = Subject(make, env, options, lanes, seed, steps, config or {})
    checks: list[tuple[str, Callable[[], None]]] = [
        ("shapes and types of actions", lambda: _shapes(about)),
        ("masks are kept, nothing is shown twice", lambda: _masks(about)),
        ("an empty shelf is no error", lambda: _empty(about)),
        ("candidate lists", lambda: _candidates(about)),
        ("same seed, same agent", lambda: _same_seed(about)),
        ("learning changes it", lambda: _learns(about)),
        ("serving does not disturb learning", lambda: _serving(about)),
        ("global random generators are left alone", lambda: _generators(about)),
        ("a saved agent serves the same", lambda: _saved(about)),
        ("its file holds no pickle", lambda: _no_pickle(about)),
        ("learning twice is learning for twice as long", lambda: _twice(about)),
        ("learning, saving, loading and learning is learning for twice as long", lambda: _continued(about)),
        ("a batch is served as its users one by one", lambda: _elementwise(about)),
        ("probabilities are those of what is shown", lambda: _propensities(about)),
        ("the truth in infos changes nothing", lambda: _truth(about)),
        ("stable-baselines3 evaluate_policy", lambda: _evaluate_policy(about)),
        ("settings as JSON and back", lambda: _settings(about)),
    ]
    if new_process:
        checks.append(("the same in a new process", lambda: _new_process(about)))
    return [_run(name, function) for name, function in checks]


def _shapes(about: Subject) -> None:
    env = about.env()
    agent, (choices, slate_size) = about.agent(env=env), choices_and_slots(about, env)
    script = about.script
    for count in {about.lanes, about.lanes if about.needs("truth") else 1}:  # the truth is that of all lanes
        state: Any = None
        for step in script[:3]:
            actions, state = predict(agent, step, state, False, slice(0, count))
            expected = (count,) if slate_size == 1 else (count, slate_size)
            require(isinstance(actions, np.ndarray), f"actions are a {type(actions).__name__}, not an array")
            require(np.shape(actions) == expected, f"actions have shape {np.shape(actions)}, expected {expected}")
            require(actions.dtype.kind in "iu", f"actions are {actions.dtype}, not integers")
            require(0 <= actions.min() <= actions.max() < choices, f"actions must lie in [0, {choices}), got {actions}")
    if about.needs("truth") and about.lanes > 1:
        return
    single = _single(agent, script[0])
    require(
        np.shape(single) == (() if slate_size == 1 else (slate_size,)),
        f"one observation gives shape {np.shape(single)}",
    )


def _single(agent: Any, step: Step) -> Any:
    if hasattr(agent, "observe"):
        agent.observe(rows_of(step.info, slice(0, 1)))
    masks = {"action_masks": step.shelf[0]} if "action_masks" in inspect.signature(agent.predict).parameters else {}
    return agent.predict(rows_of(step.observation, 0), **masks)[0]


def _takes_masks(agent: Any) -> None:
    if "action_masks" not in inspect.signature(agent.predict).parameters:
        raise skipped("its predict takes no action_masks")


def _slates(actions: Any, slate_size: int) -> Actions:
    return np.asarray(actions).reshape(-1, slate_size)


def _masks(about: Subject) -> None:
    env = about.env()
    agent, (_, slate_size) = about.agent(env=env), choices_and_slots(about, env)
    _takes_masks(agent)
    rng = np.random.Generator(np.random.PCG64(about.seed))
    learnt(agent, about)
    for deterministic in (True, False):
        state: Any = None
        for step in about.script:
            masks = _some(step.shelf, slate_size, rng)
            actions, state = predict(agent, step, state, deterministic, action_masks=masks)
            slates = _slates(actions, slate_size)
            require(bool(np.take_along_axis(masks, slates, 1).all()), "an item that is not on the shelf was shown")
            require(_distinct(slates), "an item is in a slate twice")


def _distinct(slates: Actions) -> bool:
    return all(len(set(slate)) == len(slate) for slate in slates.tolist())


def _some(shelf: NDArray[np.bool_], slate_size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A fifth of the shelf [B, I], at least as many as there are slots."""
    order = np.where(shelf, rng.random(shelf.shape), 2.0).argsort(1).argsort(1)
    masks: NDArray[np.bool_] = order < np.maximum(shelf.sum(1, keepdims=True) // 5, slate_size)
    return masks


def _empty(about: Subject) -> None:
    env = about.env()
    agent, (choices, slate_size) = about.agent(env=env), choices_and_slots(about, env)
    _takes_masks(agent)
    for deterministic in (True, False):
        actions, _ = predict(
            agent, about.script[0], None, deterministic, action_masks=np.zeros((about.lanes, choices), np.bool_)
        )
        slates = _slates(actions, slate_size)
        require(0 <= slates.min() <= slates.max() < choices, f"actions must lie in [0, {choices}), got {slates}")
        require(_distinct(slates), "an item is in a slate twice")


def _candidates(about: Subject) -> None:
    if "num_candidates" in about.options:
        raise skipped("the environment has candidates in all checks")
    try:
        env = about.env(num_candidates=CANDIDATES)
    except TypeError:
        raise skipped(f"{about.env_id} has no candidates") from None
    try:
        agent = about.agent(env=env)
    except ValueError as error:  # ConfigError is one
        raise skipped(str(error)) from None
    slate_size = choices_and_slots(about, env)[1]
    learnt(agent, about)
    for step in recorded(about.env(num_candidates=CANDIDATES), about.seed):
        slates = _slates(predict(agent, step, None, False)[0], slate_size)
        require(
            0 <= slates.min() <= slates.max() < CANDIDATES, f"positions must lie in [0, {CANDIDATES}), got {slates}"
        )
        require(_distinct(slates), "a position is in a slate twice")


def _same_seed(about: Subject) -> None:
    alike(learnt(about.agent(), about), learnt(about.agent(), about), about, "two agents with one seed")


def _learns(about: Subject) -> None:
    agent = about.agent()
    if not getattr(agent, "learns", True):
        raise skipped("it does not learn")
    before, did = arrays(agent), served(agent, about.script)
    result = agent.learn(about.steps)
    require(result is agent, "learn must return the agent itself")
    require(agent.num_timesteps >= about.steps, f"num_timesteps is {agent.num_timesteps} after {about.steps} steps")
    after = arrays(agent)
    changed = any(name not in before or before[name].tobytes() != array.tobytes() for name, array in after.items())
    changed = changed or bool((did != served(agent, about.script)).any())
    require(changed, f"{about.steps} steps of learning changed neither arrays nor actions")


def _serving(about: Subject) -> None:
    quiet, busy = about.agent(), about.agent()
    for agent in (quiet, busy):
        learnt(agent, about)
        if agent is busy:
            served(agent, about.script, deterministic=False)
            served(agent, about.script)
        learnt(agent, about)
    left, right = arrays(quiet), arrays(busy)
    for name, array in left.items():
        require(
            array.tobytes() == right[name].tobytes(), f"array {name} differs from that of an agent that served nobody"
        )
    if _settled(quiet, about):
        same = (served(quiet, about.script) == served(busy, about.script)).all()
        require(bool(same), "actions differ from those of an agent that served nobody")


def _settled(agent: Any, about: Subject) -> bool:
    """Whether it serves twice alike without exploration; the uniform policy does not."""
    return bool((served(agent, about.script) == served(agent, about.script)).all())


def _generators(about: Subject) -> None:
    agent = about.agent()  # what it imports is imported now
    before = list(_global_states())
    agent = about.agent()
    learnt(agent, about)
    served(agent, about.script, deterministic=False)
    for (name, old), (_, new) in zip(before, _global_states(), strict=True):
        require(old == new, f"{name} was changed")


def _global_states() -> Iterator[tuple[str, Any]]:
    watched = (("random", "getstate"), ("numpy.random", "get_state"))  # nothing else here may name them
    for module, reader in watched:
        yield f"the state of {module}", repr(getattr(importlib.import_module(module), reader)())
    torch = sys.modules.get("torch")
    if torch is not None:
        yield "the state of torch's generator", torch.get_rng_state().numpy().tobytes()
        yield "torch's number of threads", torch.get_num_threads()
        yield "torch's default type", str(torch.get_default_dtype())


def _file(agent: Any, folder: str) -> Path:
    path = Path(folder) / "agent.zip"
    agent.save(path)
    require(path.is_file(), f"save({path.name!r}) wrote no file of that name")
    return path


def _saved(about: Subject) -> None:
    agent = learnt(about.agent(), about)
    with tempfile.TemporaryDirectory() as folder:
        again = about.loaded(_file(agent, folder), about.env())
    require(type(again) is type(agent), f"a {type(agent).__name__} was saved, a {type(again).__name__} loaded")
    require(again.num_timesteps == agent.num_timesteps, "num_timesteps differs after loading")
    alike(agent, again, about, "after loading")


def _no_pickle(about: Subject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = _file(learnt(about.agent(), about), folder)
        found = list(pickles(path.name, path))
    require(not found, f"{found} can be unpickled; loading such a file runs whatever code it names")


def _twice(about: Subject) -> None:
    whole = learnt(about.agent(), about, 2)
    parts = _up_to(learnt(about.agent(), about), whole)
    alike(whole, parts, about, "learning in two calls")


def _up_to(agent: Any, whole: Any) -> Any:
    """An agent that learns on until it has seen as many steps as another, which is a step of each lane more or less."""
    left = whole.num_timesteps - agent.num_timesteps
    require(
        left > 0, f"it learnt from {agent.num_timesteps} steps at once; steps must be a multiple of its update period"
    )
    agent.learn(left)
    seen, expected = agent.num_timesteps, whole.num_timesteps
    require(seen == expected, f"num_timesteps is {seen} after two calls of learn and {expected} after one")
    return agent


def _continued(about: Subject) -> None:
    whole = learnt(about.agent(), about, 2)
    with tempfile.TemporaryDirectory() as folder:
        again = about.loaded(_file(learnt(about.agent(), about), folder), about.env())
    alike(whole, _up_to(again, whole), about, "learning on after loading")


def _new_process(about: Subject) -> None:
    if not isinstance(about.maker, str):
        raise skipped("needs the name of a registered agent")
    try:
        options = json.dumps(about.arguments())
    except (TypeError, ValueError):
        raise skipped("the environment's arguments cannot be written as JSON") from None
    whole = learnt(about.agent(), about, 2)
    with tempfile.TemporaryDirectory() as folder:
        agent, after = learnt(about.agent(), about), Path(folder) / "after.zip"
        left = whole.num_timesteps - agent.num_timesteps
        files = [str(_file(agent, folder)), str(after)]
        command = [sys.executable, "-c", NEW_PROCESS, *files, str(left), about.env_id, str(about.lanes), options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
        require(done.returncode == 0, f"the new process ended with {done.returncode}: {done.stderr[-500:]}")
        again = about.loaded(after, about.env())
    alike(whole, again, about, "learning on in a new process")


def _elementwise(about: Subject) -> None:
    agent = about.agent()
    if not getattr(agent, "elementwise", False):
        raise skipped("it does not say that users are served independently of each other (elementwise)")
    learnt(agent, about)
    if not _settled(agent, about):
        raise skipped("it draws what it serves")
    together = served(agent, about.script)
    for lane in range(about.lanes):
        alone = served(agent, about.script, index=slice(lane, lane + 1))[:, 0]
        step = np.flatnonzero((alone != together[:, lane]).reshape(len(alone), -1).any(1))
        require(not len(step), f"user {lane} is served otherwise at step {step[:1]} when she is alone")


def _propensities(about: Subject) -> None:
    env = about.env()
    agent, (_, slate_size) = about.agent(env=env), choices_and_slots(about, env)
    if not isinstance(getattr(agent, "propensity", None), np.ndarray):
        raise skipped("it gives no probabilities (propensity)")
    learnt(agent, about)
    for step in about.script:
        for deterministic in (True, False):
            actions, _ = predict(agent, step, None, deterministic)
            chances = agent.propensity
            shape = _slates(actions, slate_size).shape
            require(chances.shape == shape, f"propensity has shape {chances.shape}, expected {shape}")
            good = np.isnan(chances) | ((chances > 0.0) & (chances <= 1.0 + 1e-12))
            require(bool(good.all()), f"propensity must lie in (0, 1] or be NaN, got {chances[~good][:4]}")
    if not getattr(agent, "elementwise", False):
        return
    step = about.script[SCRIPT // 2]
    actions, _ = predict(agent, step, None, False, np.zeros(DRAWS, np.int64))
    require_frequencies(_slates(actions, slate_size), agent.propensity)


def _truth(about: Subject) -> None:
    if about.needs("truth"):
        raise skipped("it needs the truth")
    without, with_truth = (learnt(about.agent(env=about.env(truth=truth)), about) for truth in (False, True))
    alike(without, with_truth, about, "with the truth in infos")


def _evaluate_policy(about: Subject) -> None:
    try:
        from stable_baselines3.common.evaluation import evaluate_policy
    except ImportError:
        raise skipped(f"stable-baselines3 is not installed: {install('agents')}") from None
    agent = learnt(about.agent(), about)
    env = agent.env if about.needs("truth") else about.env()  # those read the truth of their own environment
    played: Any = evaluate_policy(agent, env.unwrapped.sb3(), n_eval_episodes=about.lanes, return_episode_rewards=True)
    returns, lengths = played
    require(len(returns) == about.lanes, f"{len(returns)} episodes were played, expected {about.lanes}")
    require(bool(np.isfinite(returns).all()) and min(lengths) > 0, f"returns {returns}, lengths {lengths}")


def _settings(about: Subject) -> None:
    agent = about.agent()
    config: Any = getattr(agent, "config", None)
    if not hasattr(config, "to_dict") or not hasattr(config, "from_dict"):
        raise skipped("it has no settings with to_dict and from_dict")
    again = type(config).from_dict(json.loads(json.dumps(config.to_dict())))
    require(again == config, f"settings differ after the round trip: {again} against {config}")
