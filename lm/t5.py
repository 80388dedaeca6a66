"""The text encoder of MusicGen models: T5 (Raffel et al., 2020, arXiv:1910.10683), by the transformers library.

Each sentence is encoded alone, so that its states do not depend on its neighbours in a batch, and kept: by a hash of
the sentence in memory and, where a folder is given, by a hash of model and sentence on disk. The encoder itself is
loaded when the first sentence comes that is not known.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .shards import Shards

#: Most characters and tokens of a sentence: attention takes memory by the square of the tokens, 600 MB for these.
MOST_CHARACTERS, MOST_TOKENS = 16384, 2048
_KEPT = 256
_PREFIX = "text_encoder."
_TIED = ("shared.weight", "encoder.embed_tokens.weight")
_MOST = {"d_model": 1 << 15, "d_kv": 1 << 12, "d_ff": 1 << 17, "num_layers": 256, "num_heads": 1024,
         "vocab_size": 1 << 20, "relative_attention_num_buckets": 1 << 12}  # fmt: skip
_READ = {*_MOST, "relative_attention_max_distance", "layer_norm_epsilon", "feed_forward_proj"}
_DEFAULTS = {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "vocab_size": 32128,
             "relative_attention_num_buckets": 32}  # fmt: skip


class TextEncoder:
    """The T5 encoder in a folder of the transformers library's format. ``cache``: a folder for states, or None."""

    def __init__(self, row: Mapping[str, Any], weights: Shards, cache: str | os.PathLike[str] | None = None) -> None:
        self.row = dict(row)
        self.weights = weights
        self.shapes = shapes(row)
        self._cache = None if cache is None else Path(cache)
        self._known: OrderedDict[str, Tensor] = OrderedDict()
        self._model: Any = None
        self._tokenizer: Any = None
        self._digest = ""
        self.runs = 0
        """Sentences that had to be encoded: all others were known."""

    def encode(self, texts: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """B sentences -> states float32 [B, L, D] and mask bool [B, L]; None is one state that the mask leaves out."""
        rows = [None if text is None else self.states(text) for text in texts]
        length = max((len(row) for row in rows if row is not None), default=1)
        width = self.shapes["encoder.final_layer_norm.weight"][0]
        states, mask = torch.zeros(len(rows), length, width), torch.zeros(len(rows), length, dtype=torch.bool)
        for i, row in enumerate(rows):
            if row is not None:
                states[i, : len(row)] = row
                mask[i, : len(row)] = True
        return states, mask

    def states(self, text: str) -> Tensor:
        """A sentence -> states [L, D]; L is at least 1, for the token that ends it."""
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"the sentence has {len(text)} characters: at most {MOST_CHARACTERS} are read")
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        if key not in self._known:
            self._known[key] = self._stored(key, text)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def tokens(self, text: str) -> list[int]:
        """A sentence -> token numbers [L]; the last one ends it."""
        ids: list[int] = self._tokenize(text)
        return ids

    @property
    def digest(self) -> str:
        """A hash of the encoder's configuration, weights and tokenizer."""
        if not self._digest:
            made = hashlib.sha256(json.dumps(self.row, sort_keys=True, default=str).encode())
            made.update(self.weights.digest(self._stored_names().values()).encode())
            for name in tokenizer_files(self.weights.folder):
                made.update((self.weights.folder / name).read_bytes())
            self._digest = made.hexdigest()
        return self._digest

    def _stored(self, key: str, text: str) -> Tensor:
        from safetensors import SafetensorError
        from safetensors.torch import load_file, save_file

        if self._cache is None:
            return self._run(text)
        name = hashlib.sha256(f"{self.digest}\0{key}".encode()).hexdigest()
        path = self._cache / f"{name}.safetensors"
        width = self.shapes["encoder.final_layer_norm.weight"][0]
        if path.is_file():
            try:
                known: Tensor = load_file(path)["states"]
                if known.dim() == 2 and known.shape[1] == width and bool(torch.isfinite(known).all()):
                    return known
            except (SafetensorError, KeyError):
                pass  # a damaged entry is made again
        states = self._run(text)
        self._cache.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=self._cache, suffix=".part")
        os.close(handle)
        try:
            save_file({"states": states.contiguous()}, part)
            os.replace(part, path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
        return states

    def _run(self, text: str) -> Tensor:
        ids = torch.tensor([self._tokenize(text)])
        if ids.shape[1] > MOST_TOKENS:
            raise ValueError(f"the sentence has {ids.shape[1]} tokens: at most {MOST_TOKENS} are read, shorten it")
        if int(ids.max()) >= self.shapes["shared.weight"][0]:
            raise ValueError(f"the tokenizer in {self.weights.folder} belongs to another model: token {int(ids.max())}")
        if self._model is None:
            self._model = self._load()
        self.runs += 1
        with torch.inference_mode():
            states = self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        return torch.as_tensor(states).float().clone()

    def _load(self) -> Any:
        # published files carry a hundred settings of generation that the encoder has no use for
        row = {name: value for name, value in self.row.items() if name in _READ}
        with quietly() as transformers, torch.device("meta"):
            model = transformers.T5EncoderModel(transformers.T5Config(**row))
        tensors = {name: self.weights.weight(stored) for name, stored in self._stored_names().items()}
        for name in _TIED:
            tensors[name] = tensors["shared.weight"]
        model.load_state_dict({name: tensors[name] for name in model.state_dict()}, assign=True)
        return model.eval().requires_grad_(False)

    def _stored_names(self) -> dict[str, str]:
        """Names of the encoder's tensors -> names in the files; the embedding may be stored under either of two."""
        names = {name: _PREFIX + name for name in self.shapes}
        if names["shared.weight"] not in self.weights.names:
            names["shared.weight"] = _PREFIX + _TIED[1]
        return names

    def _tokenize(self, text: str) -> list[int]:
        if self._tokenizer is None:
            folder = self.weights.folder
            if not tokenizer_files(folder):
                raise FileNotFoundError(
                    f"{folder} has no tokenizer: it needs tokenizer.json or spiece.model beside config.json"
                )
            with quietly() as transformers:
                try:
                    self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
                except Exception as error:  # the library raises whatever its parsers meet
                    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                    raise ValueError(f"the tokenizer in {folder} cannot be read: {reason}") from error
        # surrogates stand for bytes that were no text: the library refuses them
        clean = text.encode("utf-8", "replace").decode("utf-8")
        return list(self._tokenizer(clean, verbose=False).input_ids)


def tokenizer_files(folder: Path) -> list[str]:
    """Files of a tokenizer in ``folder``, none when neither of the two that matter is there."""
    if not any((folder / name).is_file() for name in ("tokenizer.json", "spiece.model")):
        return []
    known = ("tokenizer.json", "spiece.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    return [name for name in known if (folder / name).is_file()]


def shapes(row: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """A T5 configuration -> shape of every tensor of its encoder. Raises ValueError for sizes that cannot be."""
    if row.get("model_type", "t5") != "t5":
        raise ValueError(f"text_encoder is a {row['model_type']!r}: only 't5' is known")
    size = {}
    for name, most in _MOST.items():
        value = size[name] = row.get(name, _DEFAULTS[name])
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise ValueError(f"text_encoder: {name} must be a whole number in 1..{most}, got {value!r}")
    width, inner, wide = size["d_model"], size["num_heads"] * size["d_kv"], size["d_ff"]
    kind = row.get("feed_forward_proj", "relu")
    if kind not in ("relu", "gated-gelu"):
        raise ValueError(f"text_encoder: feed_forward_proj {kind!r}; known: relu, gated-gelu")
    out: dict[str, tuple[int, ...]] = {"shared.weight": (size["vocab_size"], width)}
    for layer in range(size["num_layers"]):
        stem = f"encoder.block.{layer}.layer"
        for part in "qkv":
            out[f"{stem}.0.SelfAttention.{part}.weight"] = (inner, width)
        out[f"{stem}.0.SelfAttention.o.weight"] = (width, inner)
        if layer == 0:
            buckets = (size["relative_attention_num_buckets"], size["num_heads"])
            out[f"{stem}.0.SelfAttention.relative_attention_bias.weight"] = buckets
        out[f"{stem}.0.layer_norm.weight"] = (width,)
        for part in ("wi",) if kind == "relu" else ("wi_0", "wi_1"):
            out[f"{stem}.1.DenseReluDense.{part}.weight"] = (wide, width)
        out[f"{stem}.1.DenseReluDense.wo.weight"] = (width, wide)
        out[f"{stem}.1.layer_norm.weight"] = (width,)
    return {**out, "encoder.final_layer_norm.weight": (width,)}


@contextlib.contextmanager
def quietly() -> Iterator[Any]:
    """The transformers library, which keeps its warnings and progress bars to itself inside the block.

    Raises ModuleNotFoundError, naming the extra, when it is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise ModuleNotFoundError(
            "sentences are read by the transformers library: pip install 'descant[hub]'", name="transformers"
        ) from error
    log: Any = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield transformers
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
