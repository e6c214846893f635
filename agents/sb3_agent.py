"""What agents have in common whose algorithm is Stable-Baselines3's or sb3-contrib's."""

from __future__ import annotations

import abc
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents import saving
from recsim_llm.agents.lanes import Flags, Slates, Transition
from recsim_llm.agents.progress import Progress
from recsim_llm.agents.remembering import RememberingAgent, RememberingConfig
from recsim_llm.errors import ConfigError, DataError, require, unknown

Arrays = dict[str, NDArray[Any]]
DEVICES = ("cpu", "cuda", "auto")
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps of each weight."""


@dataclass(frozen=True)
class Sb3Config(RememberingConfig):
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


class Sb3Agent(RememberingAgent):
    """Base: its own torch stream, learning by the library's loop, and files without pickle.

    Stable-Baselines3 draws from PyTorch's global generator: it is borrowed, with a state of the agent's own, and given
    back unchanged. Everything that it would draw from NumPy's comes from the agent's stream.

    Attributes:
        model: The library's algorithm.
    """

    needs_torch: ClassVar[bool] = True
    Config: ClassVar[type[Sb3Config]] = Sb3Config
    config: Sb3Config
    model: Any

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
        with self._own_streams():
            self.model = self.build()
        # Its own logger would write into a folder of its own at each call of learn().
        self.model.set_logger(sb3.common.logger.Logger(folder=None, output_formats=[]))

    @abc.abstractmethod
    def build(self) -> Any:
        """The algorithm, on :meth:`vec_env`."""

    @abc.abstractmethod
    def played(self, actions: NDArray[Any]) -> Transition:
        """Shows what the algorithm chose to the users."""

    def vec_env(self, action_space: Any) -> Any:
        """The agent's lanes as the library wants them."""
        from recsim_llm.agents.sb3_adapter import MOST_REPORTED, LanesVecEnv

        def play(actions: NDArray[Any]) -> tuple[Transition, list[tuple[float, int]]]:
            transition = self.played(actions)
            self.num_timesteps += self.lanes.count
            self._report(transition)
            return transition, list(self._returns)[-MOST_REPORTED:]

        return LanesVecEnv(self.lanes, action_space, play, self.open)

    def open(self) -> Flags:
        """Items that may be shown next, [B, I]: on the shelf and rested."""
        lanes = self.lanes
        memory = self.recall(lanes.observation, self._state, lanes.fresh)
        return self.rested(memory, lanes.available())

    def show(self, slates: Slates) -> Transition:
        """Shows slates [B, K] and remembers them."""
        lanes = self.lanes
        self._state = self.recall(lanes.observation, self._state, lanes.fresh).noting(slates)
        return lanes.step(slates, self._state)

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
        if total_timesteps < 0:
            raise ConfigError(f"total_timesteps must not be negative, got {total_timesteps}")
        if reset_num_timesteps:
            self.num_timesteps = 0
        if total_timesteps == 0:
            return self
        if not self.lanes.started:
            self.lanes.reset(seed=self.seed)
        model = self.model
        model.num_timesteps = self.num_timesteps
        model._last_obs, model._last_episode_starts = self.lanes.observation, self.lanes.fresh
        self._log_every, self._logged, self._run = log_interval, 0, tb_log_name
        self._begun = time.perf_counter(), self.num_timesteps
        with self._own_streams(), Progress(total_timesteps, tb_log_name, progress_bar) as self._advance:
            model.learn(
                total_timesteps, callback, log_interval=None, tb_log_name=tb_log_name, reset_num_timesteps=False
            )
        self.logger |= {
            tag: float(value) for tag, value in model.logger.name_to_value.items() if isinstance(value, int | float)
        }
        self.logger["time/total_timesteps"] = self.num_timesteps
        self.finish()
        return self

    def _report(self, transition: Transition) -> None:
        """Counts returns, moves the bar, writes messages."""
        self._advance(self.lanes.count)
        self._logged += self._count(transition)
        if self._log_every is not None and self._logged >= self._log_every:
            self._logged = 0
            started, before = self._begun
            self._log(self._run, (self.num_timesteps - before) / (time.perf_counter() - started))

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
        return found | {f"stream/{device}": stream.numpy().copy() for device, stream in self._streams.items()}

    def extra(self) -> dict[str, Any]:
        """Counters of the algorithm."""
        return {name: int(getattr(self.model, name)) for name in self.counters()}

    def restore(self, arrays: Arrays, extra: dict[str, Any], source: object) -> None:
        """Takes them over, every name and shape checked."""
        parts: dict[str, Arrays] = {"policy": {}, "optimizer": {}, "stream": {}}
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
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.random.fork_rng(devices=devices):
                torch.set_rng_state(streams["cpu"])
                for device in devices:
                    torch.cuda.set_rng_state(streams["cuda"], device)
                yield
                streams["cpu"] = torch.get_rng_state()
                for device in devices:
                    streams["cuda"] = torch.cuda.get_rng_state(device)
        finally:
            torch.set_num_threads(threads)


def _array(value: Any) -> NDArray[Any]:
    """A copy of a tensor."""
    copy: NDArray[Any] = np.array(value.detach().cpu().numpy())
    return copy
