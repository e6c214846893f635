"""Replay buffer of the steps of B lanes, in NumPy: rows by time, so that returns over several steps can be read off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.core.env_runner import Flags
from recsim_llm.errors import DataError

Arrays = dict[str, NDArray[Any]]
Indices = NDArray[np.int64]
REWARD, VALID, TERMINATED, TRUNCATED = "reward", "valid", "terminated", "truncated"


class Experience:
    """The last T steps of B lanes.

    Args:
        steps: T, rows kept.
        lanes: B.
        fields: Shape and type of one lane's part of each field, by name; those of the reward and the flags are added.
    """

    def __init__(self, steps: int, lanes: int, fields: Mapping[str, tuple[tuple[int, ...], Any]]) -> None:
        self.steps, self.lanes = steps, lanes
        flags = {name: ((), np.bool_) for name in (VALID, TERMINATED, TRUNCATED)}
        kinds = {**fields, REWARD: ((), np.float32), **flags}
        self.fields: Arrays = {
            name: np.zeros((steps, lanes, *shape), kind) for name, (shape, kind) in kinds.items()
        }  # fmt: skip
        self.added = np.zeros(1, np.int64)

    def __len__(self) -> int:
        return min(int(self.added[0]), self.steps)

    def add(self, **values: NDArray[Any]) -> None:
        """Adds one step of every lane; the oldest goes when all rows are taken."""
        at = int(self.added[0]) % self.steps
        for name, array in self.fields.items():
            array[at] = values[name]
        self.added += 1

    def sample(self, count: int, rng: np.random.Generator) -> tuple[Indices, Indices]:
        """Draws steps that count for learning, uniformly and with replacement: rows by age (0 the oldest) and lanes."""
        where = np.flatnonzero(self._rows(VALID).reshape(-1))
        drawn = where[rng.integers(0, len(where), count)] if len(where) else where
        return drawn // self.lanes, drawn % self.lanes

    def get(self, name: str, ages: Indices, lanes: Indices) -> NDArray[Any]:
        """A field of some steps."""
        first = max(int(self.added[0]) - self.steps, 0)
        return self.fields[name][(first + ages) % self.steps, lanes]

    def returns(
        self, ages: Indices, lanes: Indices, steps: int, gamma: float, name: str = REWARD
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], Indices, Flags]:
        """Returns over up to ``steps`` steps, fewer where an episode or the buffer ends.

            G = sum over j < n of gamma^j r_{t+j},  to which gamma^n times the value of the state after them is added

        Args:
            ages: [N] rows by age.
            lanes: [N].
            steps: Most steps.
            gamma: Discount.
            name: Field that is summed.

        Returns:
            G [N]; gamma^n [N], 0 where the user left for good; age of the last step of each [N]; whether an episode
            ended with it [N].
        """
        total, weight, last = np.zeros(len(ages)), np.ones(len(ages)), ages.copy()
        going, gone, over = np.ones(len(ages), np.bool_), np.zeros(len(ages), np.bool_), np.zeros(len(ages), np.bool_)
        for j in range(steps):
            at = np.minimum(ages + j, len(self) - 1)
            going &= ages + j < len(self)
            total += np.where(going, weight * self.get(name, at, lanes), 0.0)
            weight = np.where(going, weight * gamma, weight)
            last = np.where(going, at, last)
            gone |= going & self.get(TERMINATED, at, lanes)
            over |= going & (self.get(TERMINATED, at, lanes) | self.get(TRUNCATED, at, lanes))
            going &= ~over
        return total, np.where(gone, 0.0, weight), last, over

    def _rows(self, name: str) -> NDArray[Any]:
        """A field in order of age."""
        array = self.fields[name]
        first = max(int(self.added[0]) - self.steps, 0) % self.steps
        return array[: len(self)] if first == 0 else np.concatenate([array[first:], array[:first]])

    def arrays(self) -> Arrays:
        """What was kept, oldest first, and how much was ever added."""
        return {f"experience/{name}": self._rows(name) for name in self.fields} | {"experience/added": self.added}

    def restore(self, arrays: Mapping[str, NDArray[Any]], source: object) -> None:
        """Takes over what :meth:`arrays` gave; with another number of lanes nothing is kept.

        Raises:
            DataError: If an array is missing or of another form.
        """
        try:
            added, given = arrays["experience/added"], {name: arrays[f"experience/{name}"] for name in self.fields}
        except KeyError as error:
            raise DataError(f"{source}: array {error} is missing") from error
        if added.shape != (1,) or added.dtype != np.int64 or added[0] < 0:
            raise DataError(f"{source}: the number of steps in the replay buffer is not valid: {added}")
        kept = min(int(added[0]), self.steps)
        for name, own in self.fields.items():
            array = given[name]
            if array.shape[2:] != own.shape[2:] or array.dtype != own.dtype or array.shape[0] != kept or array.ndim < 2:
                raise DataError(f"{source}: experience/{name} is {array.dtype} {array.shape}, not as this agent's")
        if any(array.shape[1] != self.lanes for array in given.values()):
            return
        self.added[...] = added
        first = max(int(added[0]) - self.steps, 0)
        for name, own in self.fields.items():
            own[(first + np.arange(kept)) % self.steps] = given[name]
