"""The user population: persona texts, groups, profiles and latent tastes."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError, unknown
from recsim_llm.worlds.catalog import FACTORS, Floats, checked_array, empty_column

SPLITS = ("all", "train", "test")
TEST_SHARE = 0.25
"""Share of users held out for evaluation."""


@dataclass(frozen=True, eq=False)
class Population:
    """The users of a world: public columns and latent tastes, one row for each of U users.

    Attributes:
        user_id: Names of the users, unique text.
        persona: Texts that describe them; may be empty.
        statements: For each user the (statement, valence in [-1, 1]) pairs that her persona makes.
        gender: Group codes as text, for fairness measures; empty where unknown.
        age_band: As ``gender``.
        region: As ``gender``.
        profile: [U, D] public encoding of the persona, sum of valence times encoding of each statement, max |p| = 1.
        taste: [U, D] latent; multiplies the item's encoding [logit].
        factors: [U, 16] latent; multiplies the item's factors [logit].
        bias: [U] latent; general readiness to engage [logit].
        price_sensitivity: [U] latent; >= 0 [logit / currency].
        wallet: [U] latent; what she can spend [currency / 30 days]; zeros where there is no limit.
    """

    user_id: list[str]
    persona: list[str]
    profile: Floats
    taste: Floats
    factors: Floats
    bias: Floats
    price_sensitivity: Floats
    statements: list[list[tuple[str, float]]] = dataclasses.field(default_factory=list)
    gender: list[str] = dataclasses.field(default_factory=list)
    age_band: list[str] = dataclasses.field(default_factory=list)
    region: list[str] = dataclasses.field(default_factory=list)
    wallet: Floats = dataclasses.field(default_factory=empty_column)

    def __post_init__(self) -> None:
        count = len(self.user_id)
        if count == 0:
            raise ConfigError("a population needs at least one user, got none")
        if len(set(self.user_id)) != count:
            raise ConfigError("user_id has duplicates; every user needs her own id")
        empty: dict[str, list[object]] = {"statements": [[]] * count}  # one list for all: a million would be 60 MB
        for name in ("statements", "gender", "age_band", "region"):
            if not getattr(self, name):
                object.__setattr__(self, name, empty.get(name, [""] * count))
        for name in ("persona", "statements", "gender", "age_band", "region"):
            if len(getattr(self, name)) != count:
                raise ConfigError(f"column {name} has {len(getattr(self, name))} rows, user_id has {count}")
        width = self.taste.shape[-1]
        shapes = {"profile": (count, width), "taste": (count, width), "factors": (count, FACTORS)}
        if not self.wallet.size:
            object.__setattr__(self, "wallet", np.zeros(count, np.float32))
        for name in ("profile", "taste", "factors", "bias", "price_sensitivity", "wallet"):
            object.__setattr__(self, name, checked_array(name, getattr(self, name), shapes.get(name, (count,))))

    def __len__(self) -> int:
        return len(self.user_id)

    def split(self, name: str) -> NDArray[np.int32]:
        """Indices of the users in the training split, the test split, or all of them.

        The split of a user depends on her id alone, so that it survives additions to the population.

        Args:
            name: "all", "train" or "test" (a quarter of the users, held out for evaluation).

        Raises:
            ConfigError: If the name is not one of them or the split has no users.
        """
        if name not in SPLITS:
            raise unknown("split of users", name, SPLITS)
        everyone = np.arange(len(self), dtype=np.int32)
        if name == "all":
            return everyone
        held_out = np.fromiter((_position(user) < TEST_SHARE for user in self.user_id), np.bool_, len(self))
        chosen: NDArray[np.int32] = everyone[held_out if name == "test" else ~held_out]
        if len(chosen) == 0:
            raise ConfigError(f'users="{name}" selects none of the {len(self)} users; use users="all"')
        return chosen


def _position(user_id: str) -> float:
    digest = hashlib.blake2b(user_id.encode(), digest_size=4, person=b"recsim-split").digest()
    return int.from_bytes(digest, "little") / 2**32
