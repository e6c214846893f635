"""PPO by Stable-Baselines3, behind the protocol of all agents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents import saving
from recsim_llm.agents.config import Config
from recsim_llm.agents.lanes import Flags, Floats, Slates
from recsim_llm.agents.remembering import RememberingAgent, RememberingConfig
from recsim_llm.agents.slates import best
from recsim_llm.errors import ConfigError, DataError, require

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class PPOConfig(RememberingConfig):
    """Settings of :class:`PPOAgent`.

    Attributes:
        rollout: Steps of users between two updates, summed over lanes [steps].
        batch: Largest size of a minibatch.
        epochs: Passes over a rollout in each update.
        learning_rate: Step size of Adam.
        gamma: Discount of the future, per step.
        gae_lambda: Trace of the advantage estimate.
        clip: Clipping range of the probability ratio.
        entropy: Weight of the entropy bonus.
        hidden: Width of the hidden layers.
    """

    rollout: int = 1024
    batch: int = 256
    epochs: int = 4
    learning_rate: float = 1e-2
    gamma: float = 0.3
    gae_lambda: float = 0.9
    clip: float = 0.2
    entropy: float = 0.001
    hidden: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(2, 10_000_000, "rollout", "batch")
        self._within(1, 10_000, "epochs", "hidden")
        self._within(1e-9, 1.0, "learning_rate")
        self._within(0.0, 1.0, "gamma", "gae_lambda", "clip")
        self._within(0.0, 1e3, "entropy")


class PPOAgent(RememberingAgent):
    """Proximal policy optimisation on a policy that scores items by their encodings.

    Equation: maximise E[min(rho_t A_t, clip(rho_t, 1 - clip, 1 + clip) A_t)] + entropy H, rho_t the ratio of new to old
    probability of what was shown, A_t the generalised advantage estimate.

    Paper: Schulman et al. (2017), "Proximal policy optimization algorithms"; the implementation is Stable-Baselines3's.

    Policy: logits_i = (W h(o) + a * p + c * z) . x_i + b_i for every slot, x_i the item's encoding, p and z those of
    profile and interest. An ordinary head with one weight vector for each of a thousand items sees each of them a few
    times within a demo's budget and learns nothing; here every step teaches something of all items.

    Origin of the defaults: clip is the paper's; fewer epochs, a larger step size and shorter rollouts than
    Stable-Baselines3's, found at budgets of 20,000 steps; gamma and lambda low, as what a slate does to later
    steps is small beside the noise of clicks. Deviations: none in the algorithm. Its rollouts know no masks: an item
    off the shelf or twice in a slate is a wasted slot, from which it learns. In ``predict`` items off the shelf are
    left out, what was just shown rests, and no item is in a slate twice.

    Stable-Baselines3 draws actions from PyTorch's global generator: it is borrowed, with a state of the agent's own,
    and given back unchanged. The order of minibatches comes from the agent's own stream not from NumPy's.
    """

    name: ClassVar[str] = "ppo"
    needs_torch: ClassVar[bool] = True
    Config: ClassVar[type[Config]] = PPOConfig
    config: PPOConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Builds Stable-Baselines3's PPO."""
        self._torch = require("torch", "agents")
        sb3 = require("stable_baselines3", "agents")
        if not isinstance(self.env.observation_space.shape, tuple):
            raise ConfigError('PPO reads flat observations; make the environment with observation="flat"')
        from recsim_llm.agents.ppo_policy import ItemPolicy, OwnOrderBuffer

        config, lanes = self.config, self.lanes.count
        steps = max(config.rollout // lanes, 2)
        self._stream = self._torch.Generator().manual_seed(int(rng.integers(2**31))).get_state()
        with self._own_stream():
            self.model: Any = sb3.PPO(
                ItemPolicy, self._vec_env(), n_steps=steps, batch_size=_divisor(steps * lanes, config.batch),
                n_epochs=config.epochs, learning_rate=config.learning_rate, gamma=config.gamma,
                gae_lambda=config.gae_lambda, clip_range=config.clip, ent_coef=config.entropy, device="cpu",
                rollout_buffer_class=OwnOrderBuffer, rollout_buffer_kwargs={"rng": self.rng},
                policy_kwargs={
                    "embedding": self.setting.catalog.embedding, "slots": self.setting.slots, "hidden": config.hidden,
                    "candidates": self.setting.layout.get("candidates"),
                },
            )  # fmt: skip

    def act(
        self,
        rows: Floats,
        state: Any,
        starts: Flags,
        deterministic: bool,
        allowed: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The most probable items, or K drawn without replacement (by adding Gumbel noise to the logits)."""
        memory = self.recall(rows, state, starts)
        scores = self.model.policy.logits(rows)
        if not deterministic:
            scores += rng.gumbel(size=scores.shape)
        if self.setting.candidates:
            scores = self._of_all_items(scores, self.setting.listed(rows))
        slates = best(scores, self.rested(memory, allowed), self.setting.slots)
        return slates, memory.noting(slates)

    def _of_all_items(self, scores: NDArray[np.float64], listed: Slates) -> NDArray[np.float64]:
        """Scores [B, C] of candidates in their places among all items, [B, I]; the others are not allowed anyway."""
        everywhere = np.zeros((len(scores), self.setting.items + 1))
        np.put_along_axis(everywhere, listed, scores, 1)  # an empty place, -1, is the last column
        return everywhere[:, :-1]

    def learn(
        self,
        total_timesteps: int,
        callback: Any = None,
        log_interval: int | None = None,
        tb_log_name: str = "run",
        reset_num_timesteps: bool = False,
        progress_bar: bool = False,
    ) -> Self:
        """Stable-Baselines3's own loop; goes on where it stopped. Whole rollouts: up to one more than was asked for."""
        if total_timesteps < 0:
            raise ConfigError(f"total_timesteps must not be negative, got {total_timesteps}")
        if total_timesteps == 0:
            return self
        if reset_num_timesteps:
            self.num_timesteps = 0
        if self.model._last_obs is None:
            self.model.get_env().seed(self.seed)
        self.model.num_timesteps = self.num_timesteps
        with self._own_stream():
            self.model.learn(total_timesteps, callback, log_interval, tb_log_name, False, progress_bar)
        self.num_timesteps = int(self.model.num_timesteps)
        returns = [episode["r"] for episode in self.model.ep_info_buffer]
        if returns:
            self.logger["rollout/ep_rew_mean"] = float(np.mean(returns))
        self.logger["time/total_timesteps"] = self.num_timesteps
        return self

    def arrays(self) -> Arrays:
        """Weights, the optimiser's moments and the state of PyTorch's random stream."""
        weights = {f"policy/{name}": tensor.numpy().copy() for name, tensor in self.model.policy.state_dict().items()}
        moments = {
            f"optimizer/{number}/{name}": np.asarray(value)
            for number, values in self.model.policy.optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        return {**weights, **moments, "stream/torch": self._stream.numpy()}

    def restore(self, arrays: Arrays, extra: dict[str, Any], source: object) -> None:
        """Takes them over, every name and shape checked."""
        parts: dict[str, Arrays] = {"policy": {}, "optimizer": {}, "stream": {}}
        for name, array in arrays.items():
            part, _, rest = name.partition("/")
            if part not in parts:
                raise DataError(f"{source}: unexpected array {name}")
            parts[part][rest] = array
        own: Arrays = {name: tensor.numpy().copy() for name, tensor in self.model.policy.state_dict().items()}
        saving.fill(own, parts["policy"], source)
        self.model.policy.load_state_dict({name: self._torch.as_tensor(array) for name, array in own.items()})
        if parts["optimizer"]:
            self._restore_optimizer(parts["optimizer"], source)
        try:
            self._stream = self._torch.as_tensor(parts["stream"]["torch"])
            with self._own_stream():
                pass
        except (KeyError, RuntimeError, TypeError) as error:
            raise DataError(f"{source}: the state of PyTorch's random stream is not valid: {error}") from error

    def _restore_optimizer(self, moments: Arrays, source: object) -> None:
        optimizer = self.model.policy.optimizer
        state: dict[int, dict[str, Any]] = {}
        for number, weights in enumerate(optimizer.param_groups[0]["params"]):
            shapes = {"step": (), "exp_avg": tuple(weights.shape), "exp_avg_sq": tuple(weights.shape)}
            given = {name: moments.pop(f"{number}/{name}", np.zeros(0)) for name in shapes}
            for name, shape in shapes.items():
                if given[name].shape != shape:
                    raise DataError(f"{source}: array optimizer/{number}/{name} is missing or not of shape {shape}")
            state[number] = {name: self._torch.as_tensor(array) for name, array in given.items()}
        if moments:
            raise DataError(f"{source}: unexpected arrays of the optimiser: {sorted(moments)[:4]}")
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

    def _vec_env(self) -> Any:
        bare = self.env.unwrapped
        return bare.sb3() if hasattr(bare, "sb3") else self.env

    @contextmanager
    def _own_stream(self) -> Iterator[None]:
        """PyTorch on one thread and with this agent's random stream; afterwards both are as they were."""
        torch = self._torch
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(self._stream)
                yield
                self._stream = torch.get_rng_state()
        finally:
            torch.set_num_threads(threads)


def _divisor(total: int, most: int) -> int:
    """The largest divisor of ``total`` that is not above ``most``."""
    return next(size for size in range(min(most, total), 0, -1) if total % size == 0)
