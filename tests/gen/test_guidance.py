"""A weight per control and a sentence to lead away from, from the command line to the tokens."""

import pytest
import torch

from descant.gen.generate import generate
from descant.gen.load import Studio
from descant.gen.load import load as load_studio
from descant.gen.request import Request, RequestError, guidance_of, resolve
from descant.lm.condition import Condition


@pytest.fixture(scope="module")
def studio() -> Studio:
    return load_studio("embedded", 1)


def test_what_is_typed() -> None:
    assert guidance_of("3") == 3.0 and guidance_of(" 2.5 ") == 2.5
    assert guidance_of("text=4, key=2") == {"text": 4.0, "key": 2.0}
    for odd in ("", "three", "text=", "=3", "3,4", "text=3,4", "text=3,text=4"):
        with pytest.raises(RequestError, match="guidance"):
            guidance_of(odd)


def test_requests_check_their_weights() -> None:
    request = Request(guidance={"text": 4, "rest": 2}, nested=True, negative=" loud\trock, drums ")
    assert request.sampling.guidance == {"text": 4, "rest": 2} and request.sampling.nested
    assert request.away == Condition(text="loud rock, drums", genre="rock", instruments=("drums",))
    assert resolve(request).asked["negative"] == "loud rock, drums"
    assert Request().away is None and Request(guidance=2).sampling.guidance == 2
    with pytest.raises(RequestError, match="name one or more of text"):
        Request(guidance={"loudness": 2.0})
    with pytest.raises(RequestError, match="guidance of key 21 is outside 0 to 20"):
        Request(guidance={"key": 21.0})
    with pytest.raises(RequestError, match="nested guidance needs a weight for each"):
        Request(nested=True)
    with pytest.raises(RequestError, match="empty"):
        Request(negative=" ")


def test_they_reach_the_tokens(studio: Studio) -> None:
    told = {"text": "a slow waltz with piano", "duration": 0.3, "seed": 5}
    plain = generate(studio, Request(**told))
    for other in ({"guidance": {"text": 6.0, "rest": 1.0}}, {"negative": "fast rock drums"}):
        music = generate(studio, Request(**told, **other))
        assert music.codes.shape == plain.codes.shape and not torch.equal(music.codes, plain.codes)
    # without weight there is nothing to lead away from
    one, two = (generate(studio, Request(**told, guidance=1.0, negative=negative)) for negative in (None, "rock"))
    assert torch.equal(one.codes, two.codes)
