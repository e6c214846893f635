"""Stance classifier: splits free text about a person into clauses, each with a valence from dislike to like.

A paragraph is split into clauses, and a logistic regression on their encodings tells likes, dislikes and lines that say
nothing of taste apart. It is fitted to the generated statements of ``stance.txt`` (301 frames, 110 things that no
built-in world is about); on frames and things left out of the fit the AUC of likes against dislikes is .90. A lexicon
does not do: VADER reaches .55. For all-MiniLM-L6-v2 the coefficients are shipped, for other encoders they are fitted
when first needed and remembered in the cache folder.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from recsim_llm.encoders.cache import encode_cached
from recsim_llm.encoders.text import Encoder
from recsim_llm.errors import require
from recsim_llm.paths import home

logger = logging.getLogger(__name__)

THINGS_PER_FRAME = 20
PENALTY = 0.3  # inverse strength of the L2 penalty: least penalty within .005 of the best AUC in cross-validation
SHIPPED = "stance.safetensors"
_NEUTRAL_WEIGHT = 3.0  # neutral lines are rarer than frames times things
_FEWEST_WORDS = 2
_SPLIT = re.compile(
    r"(?<=[.!?;])\s+"  # sentences
    r"|\s*;\s*|\s+[-–—]\s+"
    r"|,?\s+(?:(?=but\b|though\b|although\b|whereas\b|except\b|yet\b)|(?:while)\s)"
    r"|,\s+(?:and|so|because|still)\s+(?=(?:i|i'm|i've|she|he|they|we|my|her|his|their|the|nothing|what|no|not|never|"
    r"please|if|give|keep|spare|there|one|it|friends|lately|on)\b)"
    r"|,\s+(?=(?:i|i'm|i've|she|he|they|my|her|his|their)\s)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class StanceClassifier:
    """A fitted stance classifier: softmax regression on encodings of clauses.

    Attributes:
        weights: ``[3, E]`` for dislike, neutral, like.
        bias: ``[3]``.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def valence(self, encodings: NDArray[Any]) -> NDArray[np.float32]:
        """P(like) - P(dislike) of clauses, ``[N, E]`` to ``[N]`` in [-1, 1]."""
        logits = encodings.astype(np.float64) @ self.weights.T.astype(np.float64) + self.bias
        share = np.exp(logits - logits.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        return np.asarray(share[:, 2] - share[:, 0], dtype=np.float32)


def split_clauses(text: str) -> list[str]:
    """Splits a paragraph at sentences, semicolons, dashes, contrasts (but, though, while, except) and new subjects."""
    parts = [part.strip(" ,;\n\t") for part in _SPLIT.split(text)]
    clauses: list[str] = []
    for part in parts:
        if not part:
            continue
        if clauses and len(part.split()) < _FEWEST_WORDS and not clauses[-1].endswith((".", "!", "?")):
            clauses[-1] = f"{clauses[-1]}, {part}"
        else:
            clauses.append(part)
    return [clause.rstrip(".").strip() for clause in clauses if clause.strip(" .")]


def split_persona(text: str, encoder: Encoder) -> list[tuple[str, float]]:
    """Splits free text about a person into clauses with valences.

    Args:
        text: What somebody says of herself, or is said of her.
        encoder: The encoder of the world.

    Returns:
        ``(clause, valence)`` pairs in the order of the text; valence in [-1, 1], near 0 for lines that say nothing of
        taste. Show them to the person: they may be corrected.

    Raises:
        MissingExtraError: If the classifier must be fitted for this encoder and scikit-learn is not installed.
    """
    return split_personas([text], encoder)[0]


def split_personas(texts: Sequence[str], encoder: Encoder, progress: bool = False) -> list[list[tuple[str, float]]]:
    """:func:`split_persona` for many texts at once, which is faster."""
    clauses = [split_clauses(text) for text in texts]
    flat = [clause for part in clauses for clause in part]
    valence = stance_classifier(encoder).valence(encode_cached(encoder, flat, progress)) if flat else np.zeros(0)
    out: list[list[tuple[str, float]]] = []
    start = 0
    for part in clauses:
        numbers = valence[start : start + len(part)]
        out.append([(clause, round(float(number), 3)) for clause, number in zip(part, numbers, strict=True)])
        start += len(part)
    return out


def stance_classifier(encoder: Encoder) -> StanceClassifier:
    """The classifier for an encoder: shipped, remembered, or fitted now."""
    shipped = resources.files(__package__).joinpath(SHIPPED)
    remembered = home() / "stance" / f"{encoder.digest[:32]}-{_recipe()[:16]}.safetensors"
    for source in (shipped, remembered):
        try:
            found = _read(source.read_bytes(), encoder)
        except OSError:
            continue
        if found is not None:
            return found
    stance = fit_stance(encoder)
    _remember(remembered, write_stance(stance, encoder))
    return stance


def fit_stance(encoder: Encoder, progress: bool = False) -> StanceClassifier:
    """Fits the classifier to the generated statements (a minute on one core with all-MiniLM-L6-v2)."""
    linear = require("sklearn.linear_model", "llm")
    texts, labels = training_statements()
    features = encode_cached(encoder, texts, progress)
    weight = np.where(labels == 0, _NEUTRAL_WEIGHT, 1.0)
    model = linear.LogisticRegression(C=PENALTY, max_iter=5_000, tol=1e-6)
    model.fit(features.astype(np.float64), labels, sample_weight=weight)
    return StanceClassifier(model.coef_.astype(np.float32), model.intercept_.astype(np.float32))


def write_stance(stance: StanceClassifier, encoder: Encoder) -> bytes:
    """Serialises a stance classifier as safetensors, with the encoder and recipe that it holds for."""
    # safetensors writes memory as it lies; scikit-learn's coefficients lie column by column
    arrays = {"weights": np.ascontiguousarray(stance.weights), "bias": np.ascontiguousarray(stance.bias)}
    return bytes(save(arrays, metadata={"encoder": encoder.digest, "recipe": _recipe()}))


@functools.lru_cache(maxsize=1)
def training_statements() -> tuple[list[str], NDArray[np.int64]]:
    """The training data of the classifier: generated statements and their labels, -1 dislike, 0 neutral, 1 like."""
    lines = _source().splitlines()
    by_kind: dict[str, list[str]] = {}
    for line in lines:
        kind, colon, text = line.partition(": ")
        if colon and not line.startswith("#"):
            by_kind.setdefault(kind, []).append(text)
    things = by_kind["thing"]
    texts: list[str] = []
    labels: list[int] = []
    for kind, label in (("like", 1), ("dislike", -1)):
        for number, frame in enumerate(by_kind[kind]):
            for step in range(THINGS_PER_FRAME):  # each frame with other things
                texts.append(frame.replace("{o}", things[(number * 7 + step * 13) % len(things)]))
                labels.append(label)
    texts += by_kind["neutral"]
    labels += [0] * len(by_kind["neutral"])
    return texts, np.array(labels)


def _source() -> str:
    return resources.files(__package__).joinpath("stance.txt").read_text(encoding="utf-8")


@functools.lru_cache(maxsize=1)
def _recipe() -> str:
    return hashlib.sha256(f"{THINGS_PER_FRAME} {PENALTY} {_NEUTRAL_WEIGHT}\n{_source()}".encode()).hexdigest()


def _read(data: bytes, encoder: Encoder) -> StanceClassifier | None:
    """The classifier in a file, if it was fitted for this encoder with this recipe."""
    try:
        length = int.from_bytes(data[:8], "little")
        header = data[8 : 8 + length]
        arrays = load(data)
        weights, bias = arrays["weights"], arrays["bias"]
    except (SafetensorError, ValueError, KeyError) as error:
        logger.warning("passing over a damaged file of the stance classifier: %s", error)
        return None
    fits = encoder.digest.encode() in header and _recipe().encode() in header
    return (
        StanceClassifier(weights, bias) if fits and weights.shape == (3, encoder.width) and bias.shape == (3,) else None
    )


def _remember(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{os.getpid()}-{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        logger.warning("the stance classifier is not remembered: %s cannot be written (%s)", path.parent, error)
