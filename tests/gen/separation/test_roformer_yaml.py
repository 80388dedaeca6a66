"""The small YAML reader against PyYAML."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from descant.gen.separation.roformer_yaml import read

_COMMUNITY = """
# settings of a training
audio:
  chunk_size: 352800
  min_mean_abs: 0.000   # silence
  dim_t: 801 # don't work (use in model)

model:
  dim: 384
  stereo: true
  flash_attn: False
  dropout: .5
  rate: 1.0e-05
  word: 1e-5
  nothing: ~
  empty:
  path: "a: b # c"
  other: 'it, [is]'
  freqs_per_bands: !!python/tuple
    - 2
    - -3
    - 129
  window_sizes: !!python/tuple
  - 4096
  - 2048
  probs:
    !!python/tuple # two of them
    - 0.2
    - 0.02
  flow: [1, 2.5, word, 'quoted, text', [], {a: 1, "b": [2]}]
  long: [
    'one',
    'two'   # a comment
  ]
  nested:
      deep:
        - name: x
          value: 3
        - name: y
        -
          - 1
          - 2
training:
  instruments:
  - vocals
  - other
  name: some words with - dashes and it's fine
  use: yes
"""


def oracle(text: str) -> Any:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("tag:yaml.org,2002:python/tuple", lambda loader, node: list(loader.construct_sequence(node)))
    return yaml.load(text, Loader)


def test_settings_are_read_as_pyyaml_reads_them() -> None:
    wanted = oracle(_COMMUNITY)
    assert read(_COMMUNITY, ("audio", "model", "training")) == wanted
    assert read(_COMMUNITY, ("training",)) == {"training": wanted["training"]}


def test_other_sections_may_hold_anything() -> None:
    text = "x: !!python/object/apply:os.system ['echo']\ny: &anchor\n  - *anchor\naudio:\n  rate: 3\n"
    assert read(text, ("audio",)) == {"audio": {"rate": 3}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: !!python/object/apply:os.system ['echo']", "line 1: .*tags"),
        ("a:\n  b: &x 1", "line 2"),
        ("a:\n  b: |\n    text", "line 2"),
        ("a:\n\tb: 1", "line 2: indented by a tab"),
        ("a:\n    b: 1\n  c: 2", "line 3: indented less"),
        ("a: [1, 2", "no ]"),
        ("a: [1] 2", "cannot read"),
        ("a: 'open", "quoted"),
        ("a:\n  b: 1\n  words", "line 3"),
        ("words", "line 1"),
        ("a: " + "[" * 3000, "nested too deep"),
        ("a:\n" + "".join(" " * n + "- \n" for n in range(1, 300)), "nested too deep"),
    ],
)
def test_what_is_not_read_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read(text, ("a",))
