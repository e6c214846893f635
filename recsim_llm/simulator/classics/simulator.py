"""The simulator of the classics: one MDP and B lanes, stepped in place by compiled code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError
from recsim_llm.simulator import simulator as shared
from recsim_llm.simulator.classics.model import ChoiceModel, Parameters
from recsim_llm.simulator.classics.parameters import term_weights
from recsim_llm.simulator.classics.user_step import DOCUMENT, DRAWN, LANE, LaneArrays
from recsim_llm.simulator.jit import COMPILED, loaded
from recsim_llm.simulator.simulator import Outcome


@dataclass(eq=False)
class ClassicState:
    """Everything that changes, for B lanes."""

    lane: NDArray[np.void]  # [B] of LANE
    traits: NDArray[np.float32]  # [B, N] interests or affinities
    slate: NDArray[np.int64]  # [B, K] candidates shown in the last step, -1 for a wasted slot
    shown: NDArray[np.int32]  # [B, K] their topics, -1 for a wasted slot
    signals: NDArray[np.float32]  # [S, B, K] of the last step
    documents: NDArray[np.void]  # [B, C] of DOCUMENT, or [1, C]


class ClassicSimulator:
    """B users side by side.

    Args:
        parameters: Constants of the MDP.
        lanes: B.
        slate_size: K, size of a slate.
        candidates: C, documents to choose from.
        resample: Draw new candidates for every user and step; else one list for all users and all time.
        documents_seed: Seed of that list.
        apart: Leave the list out of the rows of observations, where it is the same for all; it stands in
            :attr:`listed`.
        weights: Weights of reward terms.
        users: Whom to draw: "all", "train" or "test".
        threads: Threads for many lanes; None is the environment variable RECSIM_LLM_THREADS, else the machine's cores.
            The result does not depend on it.

    Raises:
        ConfigError: If a size, a weight or a constant is not valid.
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        lanes: int,
        slate_size: int,
        candidates: int,
        resample: bool,
        documents_seed: int,
        apart: bool,
        weights: Mapping[str, float],
        threads: int | None,
        users: str = "all",
    ) -> None:
        if lanes < 1:
            raise ConfigError(f"number of lanes must be at least 1, got {lanes}")
        if not 1 <= slate_size <= candidates:
            raise ConfigError(f"slate_size must lie in 1..{candidates} (num_candidates), got {slate_size}")
        self.parameters = parameters
        self.model = model = parameters.model(resample)
        self.lanes, self.slate_size, self.candidates, self.resample = lanes, slate_size, candidates, resample
        self.threads = shared.threads_of(threads)
        self.layout = self._layout()
        self._weights = term_weights(weights, model.terms)
        self._terms = dict(weights)
        self.state = ClassicState(
            lane=np.zeros(lanes, LANE),
            traits=np.zeros((lanes, model.traits), np.float32),
            slate=np.full((lanes, slate_size), -1, np.int64),
            shown=np.full((lanes, slate_size), -1, np.int32),
            signals=np.zeros((len(model.signals), lanes, slate_size), np.float32),
            documents=np.zeros((lanes if resample else 1, candidates), DOCUMENT),
        )
        self.state.lane["episode"] = -1
        self.state.documents["topic"] = -1
        listed = self.layout["doc"]
        width = listed.start if apart and not resample else listed.stop
        self.outcome = Outcome(
            np.zeros((lanes, width), np.float32),
            np.zeros(lanes, np.float64),
            np.zeros(lanes, np.bool_),
            np.zeros((lanes, slate_size), np.float32),
        )
        self.listed = np.zeros(listed.stop - listed.start, np.float32)
        """The part "doc" of every observation [C * F], where the candidates never change."""
        self.waiting = np.zeros(0, np.bool_)  # no document waits for its release
        self._mass = [np.zeros(slate_size, np.float32) for _ in range(self.threads)]
        self._nobody = np.full(lanes, DRAWN[users], np.int32)
        self._pool: tuple[int, ThreadPoolExecutor] | None = None
        self._load(documents_seed)

    def _layout(self) -> dict[str, slice]:
        """Where each part of a flat observation stands."""
        parts, at = {}, 0
        counts = {"user": 1, "response": self.slate_size, "doc": self.candidates}
        for name, width, _ in self.model.parts:
            if width:
                parts[name] = slice(at, at + width * counts[name])
                at = parts[name].stop
        return parts

    def _load(self, documents_seed: int) -> None:
        """Draws the list of candidates, and loads or compiles the rest by calls that touch no lane."""
        model, out = self.model, self.outcome
        keys = np.array([documents_seed % 2**64], np.uint64)
        documents = self.state.documents[0].copy()
        with shared.quiet():
            loaded(model.draw, model.parameters, model.tables, keys, documents, self.listed)
            # Again from the beginning: a first call that fails on damaged compiled code may be made twice.
            loaded(self._step, 0, 0, self._mass[0], np.zeros((self.lanes, self.slate_size), np.int64))
            loaded(self._reset, np.zeros(self.lanes, np.bool_), self._nobody)
        if not self.resample:
            self.state.documents[0] = documents
            part = self.layout["doc"]
            if out.observation.shape[1] == part.stop:
                out.observation[:, part] = self.listed

    def _step(self, low: int, high: int, mass: NDArray[np.float32], actions: NDArray[np.int64]) -> None:
        m, s, out = self.model, self.state, self.outcome
        m.step(
            low, high, m.parameters, self._weights, m.tables, s.documents, self._arrays(), mass, actions,
            out.observation, out.reward, out.terminated,
        )  # fmt: skip

    def _reset(self, mask: NDArray[np.bool_], wishes: NDArray[np.int32]) -> None:
        m, s = self.model, self.state
        m.reset(
            m.parameters, m.tables, s.documents, self._arrays(), mask, wishes, self.outcome.observation,
        )  # fmt: skip

    def _arrays(self) -> LaneArrays:
        s = self.state
        return LaneArrays(s.lane, s.traits, s.slate, s.shown, s.signals)

    def seed(self, seeds: NDArray[np.uint64], mask: NDArray[np.bool_] | None = None) -> None:
        """Gives lanes [B] a seed each; their episodes count from 0 again."""
        chosen = slice(None) if mask is None else mask
        self.state.lane["seed"][chosen] = seeds[chosen]
        self.state.lane["episode"][chosen] = -1

    def reset(self, mask: NDArray[np.bool_], users: NDArray[np.int32] | None = None) -> Outcome:
        """Begins an episode in every lane of the mask [B]; ``users`` [B] names users, -1 draws one."""
        with shared.quiet():
            self._reset(mask, self._nobody if users is None else users)
        return self.outcome

    def step(self, actions: NDArray[np.int64]) -> Outcome:
        """Shows slates [B, K] to all users; lanes that have ended are left alone."""
        parts = min(self.threads, self.lanes // shared.LANES_PER_THREAD) if COMPILED else 1
        if parts < 2:
            with shared.quiet():
                self._step(0, self.lanes, self._mass[0], actions)
            return self.outcome
        edges = np.linspace(0, self.lanes, parts + 1).astype(int).tolist()
        pool = self._workers(parts - 1)
        waiting = [
            pool.submit(self._step, low, high, mass, actions)
            for low, high, mass in zip(edges[1:-1], edges[2:], self._mass[1:parts], strict=True)
        ]
        self._step(edges[0], edges[1], self._mass[0], actions)
        for future in waiting:
            future.result()
        return self.outcome

    @property
    def rules(self) -> ChoiceModel:
        """How users choose."""
        return self.parameters.choice_model()

    def truth(
        self, weights: Mapping[str, float] | None = None, listed: None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Attraction [logit] and expected reward of a click of each candidate, [B, C] each.

        Args:
            weights: Other weights than those of the reward; "satisfaction" is what a click does for the future.
            listed: Only None: all candidates.
        """
        appeal, value = self.parameters.truth(self.state, self._terms if weights is None else weights)
        shape = self.lanes, self.candidates
        return np.array(np.broadcast_to(appeal, shape)), np.array(np.broadcast_to(value, shape))

    def available(self) -> NDArray[np.bool_]:
        """Every candidate can be shown, [B, C]."""
        return np.ones((self.lanes, self.candidates), np.bool_)

    def get_state(self) -> dict[str, NDArray[Any]]:
        """A snapshot: every array that changes, copied."""
        return {name: array.copy() for name, array in self._changing().items()}

    def set_state(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Restores a snapshot of the same simulator (or one of the same sizes).

        Raises:
            ConfigError: If a part is missing or of another shape.
        """
        targets = self._changing()
        for name, target in targets.items():
            if name not in snapshot or snapshot[name].shape != target.shape or snapshot[name].dtype != target.dtype:
                raise ConfigError(
                    f"snapshot does not fit: part {name!r} must be {target.dtype} of shape {target.shape}"
                )
        for name, target in targets.items():
            target[...] = snapshot[name]
        self.outcome.slot_reward[...] = 0.0

    def _changing(self) -> dict[str, NDArray[Any]]:
        rows = self.outcome.observation
        return {**vars(self.state), "observation": rows if self.resample else rows[:, : self.layout["doc"].start]}

    def _workers(self, count: int) -> ThreadPoolExecutor:
        if self._pool is None or self._pool[0] != os.getpid():  # threads do not survive a fork
            self._pool = (os.getpid(), ThreadPoolExecutor(count, thread_name_prefix="recsim-llm"))
        return self._pool[1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_pool", "model")}

    def __setstate__(self, parts: dict[str, Any]) -> None:
        vars(self).update(parts, _pool=None, model=parts["parameters"].model(parts["resample"]))
