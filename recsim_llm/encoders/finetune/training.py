"""Fine-tunes a text encoder on interactions: LoRA, AdaLoRA or all weights; one or several tasks. Needs PyTorch.

    tuned = tune(load_text_encoder(), texts, Engagements(user, item, {"click": clicks}), method="lora")
    tuned.encode(["a text"]); tuned.save("folder"); load_text_encoder("folder")

Item i is the unit vector e_i of its text. A user is the mean of the vectors of what she engaged with (without the item
in question), or the vector of her persona where there is one. The score of a task t is b_t + a_t u . (w_t * e_i); the
head (a, b, w) is learnt beside the encoder, w only where there are several tasks.

Papers: Hu et al. (2022), "LoRA: Low-rank adaptation of large language models"; Zhang et al. (2023), "Adaptive budget
allocation for parameter-efficient fine-tuning" (AdaLoRA).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from recsim_llm.encoders.finetune.data import Engagements
from recsim_llm.encoders.finetune.files import Head, TunedEncoder, assembled
from recsim_llm.encoders.finetune.memory import Peak
from recsim_llm.encoders.progress import advance
from recsim_llm.encoders.text import Encoder, TextEncoder
from recsim_llm.errors import ConfigError, require, unknown

METHODS = ("lora", "adalora", "full")
LOSSES = ("cross_entropy", "squared", "bpr")
RATES = {"lora": 3e-3, "adalora": 1e-2, "full": 3e-4}
"""Step sizes at the beginning: the best of a few on seeds 100 and 101 of the study of films."""


@dataclass(frozen=True)
class Tuning:
    """Settings of :func:`tune`.

    Attributes:
        method: "lora", "adalora" or "full" (every weight of the upper layers).
        loss: "cross_entropy" (sampled softmax over the items of a block), "squared" (an affine of the dot product
            against the value) or "bpr" (pairs).
        tasks: Columns of the engagements that are learnt, together on one encoder.
        weights: Weight of each task's loss; ones if empty.
        rank: Rank of an adapter.
        layers: Upper layers that are trained; 0 for all.
        epochs: Passes over what users engaged with.
        steps: Most steps, whatever the epochs.
        block: M, items that are encoded together in a step.
        examples: Most examples of a task in a step.
        learning_rate: Step size of Adam at the beginning; it falls linearly to a tenth. 0 takes 3e-3 for LoRA, 1e-2
            for AdaLoRA, whose adapters start smaller, and 3e-4 for all weights.
        head_rate: The same for the heads.
        decay: Weight decay.
        corrected: Whether the softmax is corrected for how often an item is in a block. Scores then hold popularity;
            uncorrected, which is better on the films of the study, they hold taste.
        sharpness: a at the beginning, for losses of ranks.
        length: Most tokens of a text while tuning.
        seed: Seed of the order of users, of what is drawn, and of the adapters' initial weights.
    """

    method: str = "lora"
    loss: str = "cross_entropy"
    tasks: tuple[str, ...] = ("click",)
    weights: tuple[float, ...] = ()
    rank: int = 8
    layers: int = 2
    epochs: int = 3
    steps: int = 60
    block: int = 96
    examples: int = 1_024
    learning_rate: float = 0.0
    head_rate: float = 0.02
    decay: float = 0.0
    corrected: bool = False
    sharpness: float = 15.0
    length: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("tasks", "weights"):
            given = getattr(self, name)
            object.__setattr__(self, name, (given,) if isinstance(given, (str, float, int)) else tuple(given))
        if self.method not in METHODS:
            raise unknown("method", self.method, METHODS)
        if self.loss not in LOSSES:
            raise unknown("loss", self.loss, LOSSES)
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ConfigError(f"tasks must name one or several different columns, got {self.tasks}")
        if self.weights and (len(self.weights) != len(self.tasks) or min(self.weights) <= 0):
            raise ConfigError(f"weights {self.weights} must be positive, one for each of the tasks {self.tasks}")
        bounds = {"rank": (1, 256), "layers": (0, 1_000), "epochs": (1, 10_000), "steps": (1, 10**7),
                  "block": (2, 4_096), "examples": (1, 10**6), "learning_rate": (0.0, 1.0), "head_rate": (0.0, 1.0),
                  "decay": (0.0, 10.0), "sharpness": (1e-3, 1e3), "length": (4, 512),
                  "seed": (0, 2**62)}  # fmt: skip
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must lie in [{low:g}, {high:g}], got {getattr(self, name)!r}")

    @property
    def rate(self) -> float:
        """The step size at the beginning."""
        return self.learning_rate or RATES[self.method]


def tune(
    encoder: Encoder,
    texts: Sequence[str],
    data: Engagements,
    *,
    personas: Sequence[str | None] | None = None,
    progress: bool = False,
    **settings: Any,
) -> TunedEncoder:
    """Tunes an encoder; the same input and seed give the same bytes on one machine, on one thread of the CPU.

    Args:
        encoder: A :class:`~recsim_llm.encoders.text.TextEncoder`; it is left as it is.
        texts: [I] texts of the items.
        data: Who engaged with what.
        personas: [U] text of each user, None or "" for those who are known by what they did alone.
        progress: Show a progress bar.
        **settings: Those of :class:`Tuning`.

    Raises:
        ConfigError: If a setting is not valid or the encoder has no weights to be tuned.
        DataError: If the data name items or users that there are not, or hold nothing positive.
        MissingExtraError: If torch or peft is not installed.
    """
    config = _settings(settings)
    require("torch", "llm")
    if config.method != "full":
        require("peft", "llm")
    if not isinstance(encoder, TextEncoder):
        raise ConfigError(f"the encoder {encoder.name!r} cannot be tuned; load a transformer, as load_text_encoder()")
    told = [text or "" for text in personas or ()]
    _check(texts, told, data)
    from recsim_llm.encoders.finetune.optimisation import Course

    started = time.perf_counter()
    with Peak() as peak:
        course = Course(encoder, [*texts, *told], len(texts), data, config)
        with advance(f"tuning {encoder.name}", course.steps, progress) as step:
            for _ in range(course.steps):
                course.step()
                step(1)
        report = course.report()
    report |= {"seconds": time.perf_counter() - started, **peak.found}
    return assembled(encoder, course.plan, course.body.tensors(), course.heads(), asdict(config), report)


def _settings(given: Mapping[str, Any]) -> Tuning:
    names = [field.name for field in fields(Tuning)]
    for name in given:
        if name not in names:
            raise unknown("setting", name, names)
    return Tuning(**given)


def _check(texts: Sequence[str], told: Sequence[str], data: Engagements) -> None:
    if len(data) and data.item.max() >= len(texts):
        raise ConfigError(f"the data name item {data.item.max()}, there are {len(texts)} texts")
    if told and len(data) and data.user.max() >= len(told):
        raise ConfigError(f"the data name user {data.user.max()}, there are {len(told)} personas")


__all__ = ["LOSSES", "METHODS", "RATES", "Engagements", "Head", "TunedEncoder", "Tuning", "tune"]
