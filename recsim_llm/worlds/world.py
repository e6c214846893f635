"""The World: catalogue, population, preference model and rule parameters, saved as a folder.

    world.json           what it is, how it was made, digests of the other files
    items.parquet        columns of text of the items
    users.parquet        columns of text of the users
    arrays.safetensors   every array
    images.parquet       images of the items, only in worlds that have them

Loading runs no code: JSON, Parquet and safetensors only, sizes and SHA-256 digests checked before use.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError, DataError, unknown
from recsim_llm.files import temporary_sibling, write_file
from recsim_llm.worlds.catalog import FACTORS, Catalog, Floats
from recsim_llm.worlds.item_images import FILE as IMAGES
from recsim_llm.worlds.item_images import ItemImages, decode_png
from recsim_llm.worlds.population import Population
from recsim_llm.worlds.preference_model import PreferenceModel, utility

FORMAT = 1
BUILT_IN = Path(__file__).parent / "builtin"
ITEM_TEXT = ("item_id", "title", "text", "category", "provider", "image")
USER_TEXT = ("user_id", "persona", "statements", "gender", "age_band", "region")
ITEM_ARRAYS = ("embedding", "price", "released_at", "appeal", "factors", "quality", "clickbait")
USER_ARRAYS = ("profile", "taste", "factors", "bias", "price_sensitivity")
ITEM_MONEY = ("bid", "bid_event", "provider_budget")
USER_MONEY = ("wallet",)
"""Arrays that are zero, and not written, in worlds without advertisers or wallets."""
FILES = ("items.parquet", "users.parquet", "arrays.safetensors")
_KEYS = {
    "name": str, "items": int, "users": int, "preference_model": dict, "encoder": dict, "parameters": dict,
    "metrics": dict, "hash": str, "files": dict, "format": int, "encoding": dict,
}  # fmt: skip
"""What world.json holds; "blocks" only where the encodings come from more than text."""


@dataclass(frozen=True, eq=False)
class World:
    """Users and items with latent preferences, and the parameters of the rules they live by.

    Attributes:
        name: Short name.
        catalog: The items.
        population: The users.
        preference_model: Scalars of the preference model.
        encoder: Which text encoder made the embeddings: id, digest of its weights, width; the same of the image encoder
            as "image", where there is one.
        encoding: How it encoded items and personas, the fields of
            :class:`recsim_llm.worlds.embedding_space.TextEncoding`; empty where no encoder did.
        projection: Arrays "mean" [E], "components" [D, E] and "scale" [1] that bring new encodings of texts into the
            embedding space; the same with "image_" before the name for images, where embeddings have a block of them.
        parameters: Rule parameters that differ from the scenario's.
        metrics: What was measured when the world was built.
        item_images: Images of the items by the names in ``catalog.image``; None where the world keeps none.
    """

    name: str
    catalog: Catalog
    population: Population
    preference_model: PreferenceModel = field(default_factory=PreferenceModel)
    encoder: Mapping[str, Any] = field(default_factory=dict)
    encoding: Mapping[str, Any] = field(default_factory=dict)
    projection: Mapping[str, Floats] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    item_images: ItemImages | None = None

    def __post_init__(self) -> None:
        seen, expected = self.population.taste.shape[1], self.catalog.width
        if seen != expected:
            raise ConfigError(f"users' taste is {seen} wide and items' embedding {expected}; they must be the same")

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of all that decides what users do: arrays, text, preference model and parameters.

        How texts were encoded is not in it: users live by the arrays that came of it, which are.
        """
        digest = hashlib.sha256(_canonical(self._decisive()))
        for name, array in sorted(self._arrays().items()):
            digest.update(f"{name}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
        for table in (self._text(ITEM_TEXT, self.catalog), self._text(USER_TEXT, self.population)):
            digest.update(_canonical(table))
        return digest.hexdigest()

    def utility(self, users: NDArray[np.integer], items: NDArray[np.integer]) -> Floats:
        """Utility before noise, [len(users), len(items)] [logit]; see :mod:`recsim_llm.worlds.preference_model`."""
        return utility(self.preference_model, self.population, self.catalog, users, items)

    def image(self, item: int) -> NDArray[np.uint8]:
        """The image of an item, uint8 [H, W, 3].

        Args:
            item: Position in the catalogue.

        Raises:
            ConfigError: If the world has no image of it.
            DataError: If the file of images was altered or the image is damaged.
            MissingExtraError: If Pillow is not installed.
        """
        name = self.catalog.image[item]
        if self.item_images is None or name is None:
            raise ConfigError(f"the world {self.name!r} keeps no picture of item {item}; see catalog.image")
        return decode_png(self.item_images.png(name))

    def half(self) -> World:
        """The same world with every array rounded to float16, as built-in worlds are stored."""

        def rounded(table: Any, names: tuple[str, ...]) -> Any:
            arrays = {name: getattr(table, name).astype(np.float16).astype(np.float32) for name in names}
            return dataclasses.replace(table, **arrays)

        return dataclasses.replace(
            self,
            catalog=rounded(self.catalog, ITEM_ARRAYS + ITEM_MONEY),
            population=rounded(self.population, USER_ARRAYS + USER_MONEY),
        )

    def save(self, folder: str | Path, *, overwrite: bool = False, half: bool = False) -> Path:
        """Writes the world as a folder, whole or not at all.

        Args:
            folder: Where to; its parent must exist.
            overwrite: Replace a world that is there.
            half: Store arrays as float16 (a quarter of the digits, half the size).

        Raises:
            ConfigError: If the folder exists and ``overwrite`` is false, or is not a world.
        """
        target = Path(folder)
        if half:
            return self.half()._save(target, overwrite, np.dtype("<f2"))
        return self._save(target, overwrite, np.dtype("<f4"))

    def _save(self, target: Path, overwrite: bool, dtype: np.dtype[Any]) -> Path:
        if target.exists() and not overwrite:
            raise ConfigError(f"{target} exists already; name another folder or pass overwrite")
        if target.exists() and not target.is_dir():
            raise ConfigError(f"{target} is a file; a world is a folder")
        if target.exists() and any(target.iterdir()) and not (target / "world.json").exists():
            raise ConfigError(f"{target} is not empty and holds no world; it will not be overwritten")
        staging = temporary_sibling(target)
        staging.mkdir()
        try:
            self._write(staging, dtype)
            if target.exists():
                old = temporary_sibling(target)
                target.rename(old)
                staging.rename(target)
                shutil.rmtree(old)
            else:
                staging.rename(target)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        return target

    def _write(self, folder: Path, dtype: np.dtype[Any]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq
        from safetensors.numpy import save

        for file, names, table in (
            ("items.parquet", ITEM_TEXT, self.catalog),
            ("users.parquet", USER_TEXT, self.population),
        ):
            columns = {name: pa.array(values, pa.string()) for name, values in self._text(names, table).items()}
            sink = pa.BufferOutputStream()
            pq.write_table(pa.table(columns), sink, compression="zstd", compression_level=19)
            write_file(folder / file, sink.getvalue().to_pybytes())
        arrays = {
            name: np.ascontiguousarray(array, "<f4" if name.startswith("projection.") else dtype)
            for name, array in self._arrays().items()
        }
        write_file(folder / "arrays.safetensors", save(arrays))
        if self.item_images is not None:
            write_file(folder / IMAGES, self.item_images.packed())
        written = FILES if self.item_images is None else (*FILES, IMAGES)
        manifest = {name: _digest(folder / name) for name in written}
        description = {**self._description(), "metrics": dict(self.metrics), "hash": self.hash, "files": manifest}
        write_file(folder / "world.json", json.dumps(description, indent=1, sort_keys=True).encode() + b"\n")

    @classmethod
    def load(cls, name: str | Path) -> World:
        """Loads a built-in world by its name or any world by its folder (``./music`` is a folder, ``music`` is not).

        Raises:
            ConfigError: If there is no such world.
            DataError: If a file is missing, altered or not of the expected form.
        """
        return _load(_folder(name))

    def _description(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "name": self.name,
            "items": len(self.catalog),
            "users": len(self.population),
            "preference_model": dataclasses.asdict(self.preference_model),
            "encoder": dict(self.encoder),
            "encoding": dict(self.encoding),
            "parameters": dict(self.parameters),
            **_more_than_text(self.catalog),
        }

    def _decisive(self) -> dict[str, Any]:
        """The hashed part of the description; its labels never change, or results would lose their worlds."""
        described = self._description()
        described["head"] = described.pop("preference_model")
        return {name: value for name, value in described.items() if name != "encoding"}

    def _arrays(self) -> dict[str, Floats]:
        arrays = {f"items.{name}": getattr(self.catalog, name) for name in ITEM_ARRAYS}
        arrays |= {f"users.{name}": getattr(self.population, name) for name in USER_ARRAYS}
        for side, table, names in (("items", self.catalog, ITEM_MONEY), ("users", self.population, USER_MONEY)):
            money = {f"{side}.{name}": getattr(table, name) for name in names}
            arrays |= {name: array for name, array in money.items() if array.any()}
        return arrays | {f"projection.{name}": array for name, array in self.projection.items()}

    @staticmethod
    def _text(names: tuple[str, ...], table: Any) -> dict[str, list[str | None]]:
        columns = {name: list(getattr(table, name)) for name in names}
        if "statements" in columns:
            columns["statements"] = [json.dumps(pairs, ensure_ascii=False) for pairs in columns["statements"]]
        return columns


def _more_than_text(catalog: Catalog) -> dict[str, Any]:
    """The blocks of the encodings; worlds of text alone do not write them, and keep their hash."""
    if catalog.blocks == {"text": (0, catalog.width)}:
        return {}
    return {"blocks": {name: list(edges) for name, edges in catalog.blocks.items()}}


def built_in_worlds() -> list[str]:
    """Names of the worlds that ship with the package."""
    return sorted(path.parent.name for path in BUILT_IN.glob("*/world.json"))


@functools.lru_cache(maxsize=8)
def _cached(folder: str, stamp: int) -> World:
    del stamp
    return _load(Path(folder))


def load_world(name: str | Path) -> World:
    """Loads a world as :meth:`World.load` does, and caches the last few as long as their files are unchanged."""
    folder = _folder(name)
    return _cached(str(folder), (folder / "world.json").stat().st_mtime_ns)


def writable_folder(target: Path, overwrite: bool) -> Path:
    """Returns the folder, or raises ConfigError before any work is done if no world could be saved there."""
    if not target.parent.is_dir():
        raise ConfigError(f"{target.parent} is not a folder; make it first, the world will be saved in it")
    if target.exists() or target.is_symlink():
        if not overwrite:
            raise ConfigError(f"{target} exists already; name another folder or pass overwrite")
        if not (target / "world.json").is_file():
            raise ConfigError(f"{target} holds no world, it will not be overwritten; name another folder")
    return target


def _folder(name: str | Path) -> Path:
    """Where a world is; the names of built-in worlds come first."""
    folder = BUILT_IN / name if isinstance(name, str) and name in built_in_worlds() else Path(name)
    if not (folder / "world.json").is_file():
        error = unknown("world", name, built_in_worlds())
        raise ConfigError(f"{error} (or the folder of a world, made by: recsim-llm world build)")
    return folder.resolve()


def _load(folder: Path) -> World:
    description = _read_description(folder / "world.json")
    for name in FILES:
        expected, path = description["files"].get(name), folder / name
        if path.is_symlink() or not path.is_file():
            raise DataError(f"{path} is missing or a link; the world is not complete, build it again")
        if _digest(path) != expected:
            raise DataError(f"{path} was altered: size or SHA-256 differ from world.json; build the world again")
    arrays = _read_arrays(folder / "arrays.safetensors", description["items"], description["users"])
    items = _read_table(folder / "items.parquet", ITEM_TEXT)
    users = _read_table(folder / "users.parquet", USER_TEXT)
    try:
        statements = [[(str(s), float(v)) for s, v in json.loads(text)] for text in users.pop("statements")]
        items |= {name: arrays[f"items.{name}"] for name in ITEM_ARRAYS}
        items |= {name: arrays[f"items.{name}"] for name in ITEM_MONEY if f"items.{name}" in arrays}
        users |= {name: arrays[f"users.{name}"] for name in USER_ARRAYS}
        users |= {name: arrays[f"users.{name}"] for name in USER_MONEY if f"users.{name}" in arrays}
        catalog = Catalog(**items, blocks=description.get("blocks", {}))
        population = Population(**users, statements=statements)
        world = World(
            name=description["name"],
            catalog=catalog,
            population=population,
            preference_model=PreferenceModel(**description["preference_model"]),
            encoder=description["encoder"],
            encoding=description["encoding"],
            projection={n.split(".")[1]: a for n, a in arrays.items() if n.startswith("projection.")},
            parameters=description["parameters"],
            metrics=description["metrics"],
            item_images=_item_images(folder, description["files"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder} is not a world of format {FORMAT}: {error}") from error
    if world.hash != description["hash"]:
        raise DataError(f"{folder / 'world.json'}: the hash is not that of the content; build the world again")
    return world


def _item_images(folder: Path, files: Mapping[str, Any]) -> ItemImages | None:
    """The images of a world whose manifest names them; their digest is checked when the first one is looked at."""
    if IMAGES not in files:
        return None
    path = folder / IMAGES
    if path.is_symlink() or not path.is_file():
        raise DataError(f"{path} is missing or a link; the world is not complete, build it again")
    return ItemImages(path, files[IMAGES])


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(description, dict) or description.get("format") != FORMAT:
            raise ValueError(f"format is not {FORMAT}")
        if set(description) - {"blocks"} != set(_KEYS):
            raise ValueError(f"keys differ: {sorted(set(description) ^ set(_KEYS))}")
        if not isinstance(description.get("blocks", {}), dict):
            raise ValueError(f"blocks is a {type(description['blocks']).__name__}, expected dict")
        for name, kind in _KEYS.items():
            if type(description[name]) is not kind:
                raise ValueError(f"{name} is a {type(description[name]).__name__}, expected {kind.__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a world's description: {error}") from error
    return description


def _read_arrays(path: Path, items: int, users: int) -> dict[str, Floats]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = {name: array.astype(np.float32) for name, array in load_file(path).items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as safetensors: {error}") from error
    for name, array in arrays.items():
        rows = {"items": items, "users": users}.get(name.split(".")[0])
        if name == "items.provider_budget":  # as long as the catalogue has providers, which checks it
            continue
        if rows is not None and (array.ndim == 0 or len(array) != rows):
            raise DataError(f"{path}: array {name} has shape {array.shape}, expected {rows} rows")
    if arrays.get("items.factors", np.empty((0, 0))).shape[-1] != FACTORS:
        raise DataError(f"{path}: items.factors must have {FACTORS} columns")
    return arrays


def _read_table(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()  # read_table would load pandas, where it is installed
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    if table.column_names != list(names):
        raise DataError(f"{path} has columns {table.column_names}, expected {list(names)}")
    for name in names:
        column = table[name]
        if column.type != pa.string() or (column.null_count and name != "image"):
            raise DataError(f"{path}: column {name} must be text without gaps, got {column.type}")
    columns: dict[str, Any] = table.to_pydict()
    return columns


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
