"""What agents have in common whose algorithm is Stable-Baselines3's or sb3-contrib's."""

from __future__ import annotations

import abc
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import CooldownConfig, RecentItems
from recsim_llm.agents.common.item_stats import ItemCounts, credited
from recsim_llm.agents.core import agent_file as saving
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, Transition
from recsim_llm.errors import ConfigError, DataError, require, unknown
from recsim_llm.threads import one_thread

if TYPE_CHECKING:
    from recsim_llm.agents.core.callbacks import Hook

logger = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]
DEVICES = ("cpu", "cuda", "auto")
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps of each weight."""

STRENGTH = 10.0
"""Looks at an item that weigh as much as what all items earned on average."""


@dataclass(frozen=True)
class Sb3Config(CooldownConfig):
    """Settings of agents of Stable-Baselines3.

    Attributes:
        learning_rate: Step size of Adam.
        gamma: Discount of the future, per step.
        hidden: Width of the hidden layers.
        device: "cpu", "cuda", or "auto" for CUDA where there is a device; results are repeatable bit by bit on "cpu".
    """

    learning_rate: float = 1e-2
    gamma: float = 0.3
    hidden: int = 64
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1e-9, 1.0, "learning_rate")
        self._within(0.0, 1.0, "gamma")
        self._within(1, 10_000, "hidden")
        if self.device not in DEVICES:
            raise unknown("device", self.device, DEVICES)


class Sb3Agent(Agent):
    """Base: its own torch stream, learning by the library's loop, and files without pickle.

    Stable-Baselines3 draws from PyTorch's global generator: it is borrowed, with a state of the agent's own, and given
    back unchanged. Everything that it would draw from NumPy's comes from the agent's stream.

    Attributes:
        model: The library's algorithm.
    """

    State: ClassVar[type | None] = RecentItems
    needs_torch: ClassVar[bool] = True
    logs_propensity: ClassVar[bool] = False
    Config: ClassVar[type[Sb3Config]] = Sb3Config
    config: Sb3Config
    model: Any
    recency: ClassVar[bool] = False
    """Whether the networks see what was looked at and clicked lately, item by item."""

    def setup(self, rng: np.random.Generator) -> None:
        """Builds the algorithm."""
        self._torch = require("torch", "agents")
        sb3 = require("stable_baselines3", "agents")
        if self.config.device == "cuda" and not self._torch.cuda.is_available():
            raise ConfigError('PyTorch finds no CUDA device; use device="cpu", or "auto" to take one where there is')
        self.device = sb3.common.utils.get_device(self.config.device)
        seed = int(rng.integers(2**31))
        self._streams = {"cpu": self._torch.Generator().manual_seed(seed).get_state()}
        if self.device.type == "cuda":
            self._streams["cuda"] = self._torch.Generator(self.device).manual_seed(seed).get_state()
        self.counts, self.squares = ItemCounts(self.env_spec.items), np.zeros(2)
        self._now: tuple[Floats, RecentItems, Flags] | None = None
        self._ended: Floats | None = None
        with self._own_streams():
            self.model = self.build()
        self.model.set_logger(self.logger)  # its own would write into a folder of its own at each call of learn()

    @abc.abstractmethod
    def build(self) -> Any:
        """The algorithm, on :meth:`vec_env`."""

    @abc.abstractmethod
    def played(self, actions: NDArray[Any]) -> Transition:
        """Shows what the algorithm chose to the users."""

    def vec_env(self, action_space: Any) -> Any:
        """The agent's lanes as the library wants them."""
        from recsim_llm.agents.sb3.vec_env import LanesVecEnv, Step

        def play(actions: NDArray[Any]) -> Step:
            transition = self.played(actions)
            self.num_timesteps += self.runner.count
            self._course.step(transition)
            return Step(transition, self.now()[0], self._ended, self.told_scale, list(self.episodes))

        width = self.env_spec.width + len(self.env_spec.catalog.topics) + 1 + 3 * self.remembered
        return LanesVecEnv(self.runner, width, action_space, play, self.open)

    def shape(self, candidates: slice | None = None, bonus: bool = False) -> Any:
        """What the networks are made for."""
        from recsim_llm.agents.sb3.item_policy import Shape

        env_spec = self.env_spec
        return Shape(
            env_spec.catalog,
            env_spec.slate_size,
            env_spec.width,
            self.config.hidden,
            candidates,
            bonus,
            self.remembered,
        )

    @property
    def remembered(self) -> int:
        """H, items of the memory that networks see."""
        return RecentItems.empty(0, self.env_spec).item.shape[1] if self.recency else 0

    def inputs(self, obs: Floats, memory: RecentItems, action_mask: Flags) -> Floats:
        """What networks see, [B, P + T + 1 + 3 H].

        Observations, the wear of topics, the newest release on the shelf, and where they see it the memory: items,
        looks at them and clicks on them.
        """
        released = self.env_spec.catalog.released_at
        newest = np.where(action_mask, released, -np.inf).max(1, keepdims=True)
        newest = np.where(np.isfinite(newest), newest, released.min())
        known = [memory.item, memory.looks, memory.takes] if self.recency else []
        inputs: Floats = np.concatenate([obs, memory.wear, newest, *known], 1, dtype=np.float32)
        return inputs

    def now(self) -> tuple[Floats, RecentItems, Flags]:
        """Inputs, memory and shelf of the present moment; worked out once."""
        lanes = self.runner
        if self._now is None:
            memory, action_mask = self.cooldown.recall(lanes.observation, self.state, lanes.fresh), lanes.available()
            self._now = self.inputs(lanes.observation, memory, action_mask), memory, action_mask
        return self._now

    def open(self) -> Flags:
        """Items that may be shown next, [B, I]: on the shelf and rested."""
        _, memory, action_mask = self.now()
        return self.cooldown.eligible(memory, action_mask)

    def show(self, slates: Slates) -> Transition:
        """Shows slates [B, K], remembers them, and counts what they earned."""
        _, memory, action_mask = self.now()
        self.state, self._now = memory.noting(slates), None
        transition = self.runner.step(slates, self.state)
        self.squares += np.square(transition.reward).sum(), len(slates)
        self.counts.add(transition, credited(transition))
        self._ended = None
        if (transition.terminated | transition.truncated).any():
            obs = transition.next_observation
            self._ended = self.inputs(
                obs, self.cooldown.recall(obs, self.state, np.zeros(len(obs), np.bool_)), action_mask
            )
        return transition

    @property
    def reward_scale(self) -> float:
        """What rewards are multiplied with before the algorithm sees them: their root mean square becomes 1."""
        total, count = self.squares.tolist()
        return float(np.sqrt(count / total)) if total > 0 else 1.0

    @property
    def told_scale(self) -> float:
        """The same at the moment of a step; 1 where rewards are kept and scaled later."""
        return self.reward_scale

    def rates(self) -> NDArray[np.float64]:
        """What each item earned when it was looked at, less the mean of all, in units of their spread, [I]."""
        rates = self.counts.rate(STRENGTH) - self.counts.mean()
        scaled: NDArray[np.float64] = rates / (float(rates.std()) or 1.0)
        return scaled

    def learn(
        self,
        total_timesteps: int,
        callback: Any = None,
        log_interval: int | None = None,
        tb_log_name: str = "run",
        reset_num_timesteps: bool = False,
        progress_bar: bool = False,
    ) -> Self:
        """The library's own loop; goes on where it stopped. Whole rollouts: up to one more than was asked for."""
        from recsim_llm.agents.core import training
        from recsim_llm.agents.core.callbacks import hooked
        from recsim_llm.agents.core.progress import Progress

        training.begin(self, total_timesteps, reset_num_timesteps)
        if total_timesteps == 0:
            return self
        hook = hooked(callback, self)
        model, self._now = self.model, None
        model.num_timesteps = self.num_timesteps
        model._last_obs, model._last_episode_starts = self.now()[0], self.runner.fresh
        with training.logging_to(self, tb_log_name, log_interval, reset_num_timesteps) as logs, self._own_streams():
            hook.begin(locals(), globals())
            with Progress(total_timesteps, tb_log_name, progress_bar) as advance:
                self._course = _Course(self, hook, logs, log_interval, tb_log_name, advance)
                model.learn(total_timesteps, self._course.goes_on, log_interval=None, reset_num_timesteps=False)
        self.finish()
        hook.end()
        self.shown = self.where = None
        return self

    def relevance(self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags) -> NDArray[np.float64]:
        """Scores by which it ranks items, [B, I]."""
        return self.scores(obs, self.cooldown.recall(obs, state, episode_start), action_mask)

    @abc.abstractmethod
    def scores(self, obs: Floats, memory: RecentItems, action_mask: Flags) -> NDArray[np.float64]:
        """Scores of items [B, I] for observations [B, P]."""

    def optimizers(self) -> Mapping[str, Any]:
        """Its optimisers, by name."""
        return {"policy": self.model.policy.optimizer}

    def counters(self) -> tuple[str, ...]:
        """Attributes of the algorithm that count what it did and decide what it does next."""
        return ("_n_updates",)

    def arrays(self) -> Arrays:
        """Weights, the optimisers' moments and the state of PyTorch's random stream."""
        found = {f"policy/{name}": _array(tensor) for name, tensor in self.model.policy.state_dict().items()}
        for part, optimizer in self.optimizers().items():
            for number, values in optimizer.state_dict()["state"].items():
                found |= {f"optimizer/{part}/{number}/{name}": _array(value) for name, value in values.items()}
        found |= {f"counts/{name}": array for name, array in self.counts.arrays().items()}
        found["rewards/squares"] = self.squares
        return found | {f"stream/{device}": stream.numpy().copy() for device, stream in self._streams.items()}

    def extra(self) -> dict[str, Any]:
        """Counters of the algorithm."""
        return {name: int(getattr(self.model, name)) for name in self.counters()}

    def restore(self, arrays: Arrays, extra: dict[str, Any], source: object) -> None:
        """Takes them over, every name and shape checked."""
        parts: dict[str, Arrays] = {"policy": {}, "optimizer": {}, "stream": {}, "counts": {}, "rewards": {}}
        for name, array in arrays.items():
            part, _, rest = name.partition("/")
            if part not in parts:
                raise DataError(f"{source}: unexpected array {name}")
            parts[part][rest] = array
        own: Arrays = {name: _array(tensor) for name, tensor in self.model.policy.state_dict().items()}
        saving.fill(own, parts["policy"], source)
        self.model.policy.load_state_dict({name: self._torch.as_tensor(array) for name, array in own.items()})
        for part, optimizer in self.optimizers().items():
            self._restore_optimizer(part, optimizer, parts["optimizer"], source)
        if parts["optimizer"]:
            raise DataError(f"{source}: unexpected arrays of the optimisers: {sorted(parts['optimizer'])[:4]}")
        saving.fill(self.counts.arrays(), parts["counts"], source)
        saving.fill({"squares": self.squares}, parts["rewards"], source)
        self._restore_counters(extra, source)
        self._restore_streams(parts["stream"], source)

    def _restore_counters(self, extra: dict[str, Any], source: object) -> None:
        names = self.counters()
        if set(extra) != set(names) or not all(type(extra[name]) is int and extra[name] >= 0 for name in names):
            raise DataError(f"{source}: counters must be whole numbers named {sorted(names)}, got {extra}")
        for name in names:
            setattr(self.model, name, extra[name])

    def _restore_streams(self, given: Arrays, source: object) -> None:
        try:
            for device in self._streams:
                if device == "cpu" or device in given:  # without one for its device it begins a new one
                    self._streams[device] = self._torch.as_tensor(given.pop(device))
            if set(given) - {"cuda"}:
                raise KeyError(sorted(given))
            with self._own_streams():
                pass
        except (KeyError, RuntimeError, TypeError) as error:
            raise DataError(f"{source}: the state of PyTorch's random stream is not valid: {error}") from error

    def _restore_optimizer(self, part: str, optimizer: Any, given: Arrays, source: object) -> None:
        """Takes its moments out of ``given``; a weight that had no gradient yet has none."""
        state: dict[int, dict[str, Any]] = {}
        for number, weights in enumerate(optimizer.param_groups[0]["params"]):
            names = {name: f"{part}/{number}/{name}" for name in MOMENTS}
            if not any(name in given for name in names.values()):
                continue
            found = {name: given.pop(full, np.zeros(0)) for name, full in names.items()}
            for name, array in found.items():
                shape = () if name == "step" else tuple(weights.shape)
                if array.shape != shape or array.dtype != np.float32:
                    raise DataError(f"{source}: array optimizer/{names[name]} is missing or not float32 {shape}")
            state[number] = {name: self._torch.as_tensor(array) for name, array in found.items()}
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

    @contextmanager
    def _own_streams(self) -> Iterator[None]:
        """PyTorch on one thread and with this agent's random streams; afterwards both are as they were."""
        torch, streams = self._torch, self._streams
        devices = [self.device] if "cuda" in streams else []
        with one_thread(), torch.random.fork_rng(devices=devices):
            torch.set_rng_state(streams["cpu"])
            for device in devices:
                torch.cuda.set_rng_state(streams["cuda"], device)
            yield
            streams["cpu"] = torch.get_rng_state()
            for device in devices:
                streams["cuda"] = torch.cuda.get_rng_state(device)


class _Course:
    """What happens around each step of a call of ``learn``: counts, logs, callbacks, as in the loop of all agents."""

    def __init__(
        self, agent: Sb3Agent, hook: Hook, logs: Any, interval: int | None, run: str, advance: Callable[[int], None]
    ) -> None:
        self.agent, self.hook, self.logs = agent, hook, logs
        self.interval, self.run, self.advance = interval, run, advance
        self.ended, self.going = 0, True

    def step(self, transition: Transition) -> None:
        """Takes note of a step."""
        from recsim_llm.agents.core.training import count

        agent = self.agent
        self.advance(agent.runner.count)
        self.ended += count(agent, transition)
        if self.logs is not None:
            self.logs.after_step(agent, transition)
        elif self.interval is not None and self.ended >= self.interval:
            self.ended = 0
            logger.info("%s %s: %s", self.run, agent.name, agent.logger)
        self.going = self.hook.step({"self": agent, "transition": transition}, globals())

    def goes_on(self, names: dict[str, Any], globals_: dict[str, Any]) -> bool:
        """What the library's loop asks after each step."""
        return self.going


def _array(value: Any) -> NDArray[Any]:
    """A copy of a tensor."""
    copy: NDArray[Any] = np.array(value.detach().cpu().numpy())
    return copy
