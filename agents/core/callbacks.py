"""What can be called while an agent learns: functions, our own hooks, and callbacks of Stable-Baselines3."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.core.env_runner import EnvironmentSpec, EnvRunner, Transition
from recsim_llm.errors import ConfigError

if TYPE_CHECKING:
    from recsim_llm.agents.core.base import Agent

Names = dict[str, Any]


class Hook:
    """Base of what is called while an agent learns; ``names`` are the local variables of ``learn``."""

    def begin(self, names: Names, globals_: Names) -> None:
        """Called before the first step."""

    def step(self, names: Names, globals_: Names) -> bool:
        """Called after every step; False ends learning."""
        return True

    def end(self) -> None:
        """Called when learning has ended."""


class _Function(Hook):
    """A function of (locals, globals), as Stable-Baselines3 takes them too."""

    def __init__(self, function: Callable[[Names, Names], Any]) -> None:
        self.function = function

    def step(self, names: Names, globals_: Names) -> bool:
        """Only False ends learning."""
        return self.function(names, globals_) is not False


class _Several(Hook):
    """One after the other; all are called, also when one of them ends learning."""

    def __init__(self, hooks: list[Hook]) -> None:
        self.hooks = hooks

    def begin(self, names: Names, globals_: Names) -> None:
        for hook in self.hooks:
            hook.begin(names, globals_)

    def step(self, names: Names, globals_: Names) -> bool:
        return all([hook.step(names, globals_) for hook in self.hooks])

    def end(self) -> None:
        for hook in self.hooks:
            hook.end()


def hooked(callback: Any, agent: Agent) -> Hook:
    """What was given as ``callback``, as a hook.

    Args:
        callback: None, a function of (locals, globals), a :class:`Hook`, a ``BaseCallback`` of Stable-Baselines3, or a
            list of them.
        agent: The agent that learns.

    Raises:
        ConfigError: If it is something else.
    """
    if callback is None:
        return Hook()
    if isinstance(callback, Hook):
        return callback
    if isinstance(callback, list | tuple):
        return _Several([hooked(one, agent) for one in callback])
    if hasattr(callback, "init_callback") and hasattr(callback, "on_step"):
        return _Foreign(callback, agent)
    if callable(callback):
        return _Function(callback)
    raise ConfigError(
        f"callback is a {type(callback).__name__}; pass a function of (locals, globals), a Hook, a BaseCallback of "
        "Stable-Baselines3, or a list of them"
    )


class EvaluationCallback(Hook):
    """Evaluates the agent now and then, as Stable-Baselines3's ``EvalCallback`` does, and keeps the best one.

    Every evaluation is of the same users with the same random numbers.

    Args:
        env: Environment of this package to evaluate in, scalar or vector, with the catalogue that the agent knows.
        n_eval_episodes: Episodes, spread evenly over the lanes, so that short ones do not come more often.
        eval_freq: Steps of users between two evaluations, summed over lanes [steps].
        log_path: Folder for evaluations.npz: timesteps [E], results and ep_lengths [E, n], and successes where known.
        best_model_save_path: Folder for best_model.zip.
        deterministic: Leave exploration out.
        seed: Seed of the environment and of the agent's choices.

    Attributes:
        best_mean_reward: The highest mean return so far.
        last_mean_reward: That of the last evaluation.
    """

    def __init__(
        self,
        env: Any,
        n_eval_episodes: int = 5,
        eval_freq: int = 10_000,
        log_path: str | Path | None = None,
        best_model_save_path: str | Path | None = None,
        deterministic: bool = True,
        seed: int = 0,
    ) -> None:
        if n_eval_episodes < 1 or eval_freq < 1:
            raise ConfigError(f"n_eval_episodes and eval_freq must be >= 1, got {n_eval_episodes} and {eval_freq}")
        self.env_spec = EnvironmentSpec.of(env)
        self.runner = EnvRunner(env, self.env_spec)
        self.episodes, self.every = n_eval_episodes, eval_freq
        self.log_path, self.best_path = (None if p is None else Path(p) for p in (log_path, best_model_save_path))
        self.deterministic, self.seed = deterministic, seed
        self.best_mean_reward = self.last_mean_reward = -np.inf
        self._rows: list[tuple[int, list[float], list[int], list[bool]]] = []
        self._next: int | None = None

    def begin(self, names: Names, globals_: Names) -> None:
        """Notes where the agent stands."""
        agent: Agent = names["self"]
        if agent.env_spec.digest != self.env_spec.digest or agent.env_spec.slate_size != self.env_spec.slate_size:
            raise ConfigError("the environment to evaluate in has another catalogue or slate than the agent's")
        if self._next is None or self._next > agent.num_timesteps + self.every:
            self._next = agent.num_timesteps + self.every

    def step(self, names: Names, globals_: Names) -> bool:
        """Evaluates when it is time."""
        agent: Agent = names["self"]
        if self._next is not None and agent.num_timesteps >= self._next:
            self._next = agent.num_timesteps + self.every
            self.evaluate(agent)
        return True

    def evaluate(self, agent: Agent) -> float:
        """Mean return of the agent as it is now, noted, logged and saved."""
        agent.finish()
        results, lengths, successes = played(agent, self.runner, self.episodes, self.deterministic, self.seed)
        self._rows.append((agent.num_timesteps, results, lengths, successes))
        self.last_mean_reward = float(np.mean(results))
        agent.logger["eval/mean_reward"] = self.last_mean_reward
        agent.logger["eval/mean_ep_length"] = float(np.mean(lengths))
        if successes:
            agent.logger["eval/success_rate"] = float(np.mean(successes))
        agent.logger.record("time/total_timesteps", agent.num_timesteps, exclude="tensorboard")
        agent.logger.dump(agent.num_timesteps)
        if self.log_path is not None:
            self._write(self.log_path / "evaluations.npz")
        if self.last_mean_reward > self.best_mean_reward:
            self.best_mean_reward = self.last_mean_reward
            if self.best_path is not None:
                self.best_path.mkdir(parents=True, exist_ok=True)
                agent.save(self.best_path / "best_model")
        return self.last_mean_reward

    def _write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        timesteps, results, lengths, successes = zip(*self._rows, strict=True)
        columns: dict[str, Any] = {
            "timesteps": np.array(timesteps, np.int64),
            "results": np.array(results, np.float64),
            "ep_lengths": np.array(lengths, np.int64),
        }
        if all(successes):
            columns["successes"] = np.array(successes, np.bool_)
        np.savez(path, **columns)


def played(
    agent: Agent, lanes: EnvRunner, episodes: int, deterministic: bool, seed: int
) -> tuple[list[float], list[int], list[bool]]:
    """Returns, lengths and, where infos tell, successes of so many episodes of an agent that does not learn."""
    rng = np.random.Generator(np.random.PCG64(seed))
    lanes.reset(seed=seed)
    wanted = (episodes + np.arange(lanes.count)) // lanes.count
    done, running = np.zeros(lanes.count, np.int64), np.zeros((2, lanes.count))
    results: list[float] = []
    lengths: list[int] = []
    successes: list[bool] = []
    state: Any = None
    while (done < wanted).any():
        agent.observe(lanes.info)
        agent.where = lanes.served
        slates, state = agent.choose(lanes.observation, state, lanes.fresh, deterministic, lanes.available(), rng)
        transition = lanes.step(slates, state)
        running += transition.valid * np.stack([transition.reward, np.ones(lanes.count)])
        for lane in np.flatnonzero(transition.terminated | transition.truncated).tolist():
            if done[lane] < wanted[lane]:
                results.append(float(running[0, lane]))
                lengths.append(int(running[1, lane]))
                if "is_success" in transition.info:
                    successes.append(bool(transition.info["is_success"][lane]))
            done[lane] += 1
            running[:, lane] = 0.0
    agent.shown = agent.where = None
    return results, lengths, successes


class _Foreign(Hook):
    """A callback of Stable-Baselines3 beside an agent of ours."""

    def __init__(self, callback: Any, agent: Agent) -> None:
        self.callback = callback
        self.model = Model(agent)
        self._running = agent.episode_sums.copy()
        with warnings.catch_warnings():
            # its check is of classes; the training environment here is a stand-in
            warnings.filterwarnings("ignore", "Training and eval env are not of the same type")
            callback.init_callback(self.model)

    def begin(self, names: Names, globals_: Names) -> None:
        self.callback.on_training_start(dict(names), globals_)
        self.callback.on_rollout_start()

    def step(self, names: Names, globals_: Names) -> bool:
        transition: Transition = names["transition"]
        self.model.stale = True
        self.callback.update_locals({**names, **self._told(transition)})
        return bool(self.callback.on_step())

    def end(self) -> None:
        self.callback.on_rollout_end()
        self.callback.on_training_end()

    def _told(self, transition: Transition) -> Names:
        """What loops of Stable-Baselines3 have as local variables."""
        self._running += transition.valid * np.stack([transition.reward, np.ones(len(transition.valid))])
        done = transition.terminated | transition.truncated
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in done]
        for lane in np.flatnonzero(done).tolist():
            infos[lane] = {name: value[lane] for name, value in transition.info.items() if np.ndim(value)}
            infos[lane]["TimeLimit.truncated"] = bool(transition.truncated[lane] and not transition.terminated[lane])
            infos[lane]["terminal_observation"] = transition.next_observation[lane]
            infos[lane]["episode"] = {"r": float(self._running[0, lane]), "l": int(self._running[1, lane])}
        self._running[:, done] = 0.0
        return {
            "dones": done, "infos": infos, "rewards": transition.reward.astype(np.float32),
            "actions": transition.action, "new_obs": transition.next_observation,
        }  # fmt: skip


class Model:
    """An agent as callbacks of Stable-Baselines3 see a model: the agent, and what only their models have.

    Args:
        agent: The agent.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._env = _TrainingEnv(agent)
        self.stale = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._agent, name)

    @property
    def ep_info_buffer(self) -> list[dict[str, float]]:
        """Returns and lengths of the last episodes."""
        return [{"r": total, "l": length} for total, length in self._agent.episodes]

    def get_env(self) -> Any:
        """The environment that it learns in."""
        return self._env

    def get_vec_normalize_env(self) -> None:
        """There is none: observations are scaled by the environments themselves."""

    def dump_logs(self) -> None:
        """Writes a row."""
        self._agent.logger.dump(self._agent.num_timesteps)

    def predict(self, observation: Any, *args: Any, **kwargs: Any) -> tuple[NDArray[np.int64], Any]:
        """The agent's, which takes in first what it has learnt."""
        if self.stale:
            self._agent.finish()
            self.stale = False
        return self._agent.predict(observation, *args, **kwargs)


class _TrainingEnv:
    """The environment with the number of lanes that callbacks ask for."""

    def __init__(self, agent: Agent) -> None:
        self.env, self.num_envs = agent.env, agent.runner.count

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)
