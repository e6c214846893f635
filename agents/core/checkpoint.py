"""What every agent has for being kept: files, and going on in the middle of episodes."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.core import agent_file as saving
from recsim_llm.agents.core.env_runner import Lanes, Setting, like
from recsim_llm.agents.core.packing import inside, pack, unpack
from recsim_llm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from recsim_llm.agents.core.config import Config

LANES = "lanes"
"""Arrays of a file under this name say where the lanes stand."""


class Persistent:
    """The part of :class:`~recsim_llm.agents.core.base.Agent` that saves and loads."""

    name: ClassVar[str]
    Config: ClassVar[type[Config]]
    State: ClassVar[type | None]
    env: Any
    config: Any
    seed: int
    num_timesteps: int
    setting: Setting
    lanes: Lanes
    rng: np.random.Generator
    _serving: np.random.Generator
    _state: Any
    _running: NDArray[np.float64]
    _returns: deque[tuple[float, int]]

    def __init__(self, env: Any, config: Any = None, *, seed: int = 0) -> None:
        raise NotImplementedError

    def act(self, rows: Any, state: Any, starts: Any, deterministic: bool, allowed: Any, rng: Any) -> Any:
        """As :class:`~recsim_llm.agents.core.base.Agent` has it."""
        raise NotImplementedError

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything learnt, by name; the arrays themselves, so that they can be filled when a file is loaded."""
        return {}

    def extra(self) -> dict[str, Any]:
        """Numbers beside the arrays that belong to what was learnt; must be JSON."""
        return {}

    def restore(self, arrays: dict[str, NDArray[Any]], extra: dict[str, Any], source: object) -> None:
        """Takes over what :meth:`arrays` and :meth:`extra` gave when it was saved."""
        if extra:
            raise DataError(f"{source}: unexpected values {sorted(extra)}")
        saving.fill(self.arrays(), arrays, source)

    def snapshot(self) -> dict[str, Any]:
        """Where its lanes stand in the middle of episodes; {} before the first step. Arrays, JSON, nested mappings."""
        lanes = self.lanes.snapshot()
        if not lanes:
            return {}
        returns = np.array(self._returns, np.float64).reshape(-1, 2)
        return {**lanes, "state": self._state, "running": self._running, "returns": returns}

    def resume(self, arrays: dict[str, NDArray[Any]], rest: dict[str, Any]) -> None:
        """Goes on from :meth:`snapshot`, taken apart by :func:`recsim_llm.agents.core.packing.pack`."""
        self.lanes.resume(arrays, rest)
        self._state = None if "state" in rest else unpack(self.State, arrays, rest, "state")
        self._running[...] = like(self._running, arrays["running"], "running")
        self._returns.extend((float(total), int(length)) for total, length in arrays["returns"])
        lanes, rng = self.lanes, np.random.Generator(np.random.PCG64(0))
        self.act(
            lanes.observation, self._state, lanes.fresh, False, lanes.available(), rng
        )  # raises if it does not fit

    def save(self, path: str | Path) -> Path:
        """Writes the agent as a zip of JSON and safetensors; ".zip" is added where the path has no suffix."""
        description = {
            "agent": self.name,
            "config": self.config.to_dict(),
            "seed": self.seed,
            "num_timesteps": self.num_timesteps,
            "streams": [rng.bit_generator.state for rng in (self.rng, self._serving)],
            "catalog": self.setting.digest,
            "extra": self.extra(),
        }
        lanes, description[LANES] = pack(self.snapshot(), LANES)
        return saving.write(path, saving.Saved(description, self.arrays() | lanes, saving.spec_of(self.env)))

    @classmethod
    def load(cls, path: str | Path, env: Any = None, **config: Any) -> Self:
        """Reads an agent that was saved.

        In an environment like the one it learnt in (the same id, arguments and lanes) it goes on in the middle of the
        users' episodes, as if it had never been away; in another it begins new ones.

        A file from others is data: nothing that it names outside of the installed packages is opened or asked.

        Args:
            path: The file.
            env: Environment to go on in; None makes the one that the file names, if it is one of this package in a
                built-in world with arguments that are plain values.
            **config: Settings in place of the file's; those that name a folder, a hub's id or an address must be given.

        Raises:
            ConfigError: If it is another agent's file, the environment has another catalogue, or something that the
                file names must be given here.
            DataError: If the file is damaged or not an agent's.
        """
        saved = saving.read(path)
        about = saved.description
        if about["agent"] != cls.name:
            raise ConfigError(f"{path} holds the agent {about['agent']!r}, not {cls.name!r}; use agents.load")
        settings = cls.Config.from_dict({**about["config"], **config})
        for name, value in settings.outside().items():
            if name not in config:
                raise ConfigError(
                    f"{path} sets {name}={value!r}, which is not part of a package, and what a file names is neither "
                    f"opened nor asked; if you trust it, pass load(path, {name}=...)"
                )
        agent = cls(saving.env_from(saved.env_spec, path) if env is None else env, settings, seed=about["seed"])
        if agent.setting.digest != about["catalog"]:
            raise ConfigError(
                f"{path} was trained on another catalogue than this environment has; items would be mixed up"
            )
        try:
            agent.num_timesteps = int(about["num_timesteps"])
            for rng, state in zip((agent.rng, agent._serving), about["streams"], strict=True):
                rng.bit_generator.state = state
        except (TypeError, ValueError, KeyError) as error:
            raise DataError(f"{path}: steps or random streams are not valid: {error}") from error
        lanes = {name: array for name, array in saved.arrays.items() if name.startswith(LANES + "/")}
        own = {name: array for name, array in saved.arrays.items() if name not in lanes}
        agent.restore(own, about["extra"], path)
        if lanes and saved.env_spec["id"] is not None and saving.spec_of(agent.env) == saved.env_spec:
            try:
                agent.resume(inside(lanes, LANES), inside(about[LANES], LANES))
            except (KeyError, ValueError, TypeError, IndexError, AttributeError, DataError, ConfigError) as error:
                raise DataError(f"{path}: where the lanes stand is not valid: {error!r}") from error
        return agent
