"""Captions tell the truth, in many words."""

from __future__ import annotations

import random
import re

import pytest

from descant.lm import vocab
from descant.recipes import captions
from descant.recipes.captions import Facts


@pytest.fixture
def facts() -> Facts:
    return Facts(
        genre="electronic",
        tempo=128.0,
        key="F# minor",
        beats_per_bar=4,
        lead="oboe",
        instruments=("drums", "synth bass", "oboe", "organ"),
    )


def test_there_are_many_different_sentences(facts: Facts) -> None:
    assert len(captions.TEMPLATES) >= 20
    texts = {text for seed in range(40) for text in captions.captions(facts, seed)}
    assert len(texts) > 200


def test_numbers_and_keys_are_the_pieces(facts: Facts) -> None:
    for seed in range(100):
        for text in captions.captions(facts, seed):
            assert "{" not in text and "  " not in text
            for number in re.findall(r"(\d+) ?(?:bpm|beats per minute)", text.lower()):
                assert number == "128"
            for key in re.findall(r"\b[a-g][#b]? (?:minor|major)\b", text.lower()):
                # "a minor" may be an article
                assert key in ("f# minor", "a minor")
            named = {name for name in vocab.INSTRUMENTS if re.search(rf"\b{name}\b", text.lower())}
            assert named <= {"drums", "synth bass", "oboe", "organ"}


def test_articles(facts: Facts) -> None:
    for seed in range(150):
        for text in captions.captions(facts, seed):
            assert not re.search(r"\ba [aeio]", text.lower()), text
            assert not re.search(r"\ban [^aeiou]", text.lower()), text


def test_count_and_repeatability(facts: Facts) -> None:
    made = captions.captions(facts, 3, count=4)
    assert len(made) == 5 == len(set(made))
    assert made == captions.captions(facts, 3, count=4)


def test_tags_are_kept_or_left_out(facts: Facts) -> None:
    rows = [captions.tags(facts, random.Random(seed)).split(", ") for seed in range(80)]
    known = {"electronic", "128 bpm", "F# minor", "4/4", *facts.instruments}
    words = {tag for row in rows for tag in row} - known
    assert words and all(re.fullmatch(r"[a-z -]+", word) for word in words)
    assert len({len(row) for row in rows}) > 3
    assert all(row for row in rows)


def test_words_for_tempo_rise_with_it() -> None:
    assert "slow" in {captions.speed(60, random.Random(s)) for s in range(40)}
    assert {captions.speed(170, random.Random(s)) for s in range(40)} <= {"very fast", "driving", "rapid", "high-speed"}
