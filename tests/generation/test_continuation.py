"""Where a continuation ends, what it shows before that, and several at once."""

from __future__ import annotations

import numpy as np
import pytest

import xlstm_export as xe
from tests.cli.terminal import succeed_json
from tests.families.large_checkpoints import make_hf
from tests.generation.byte_tokenizer import save_byte_tokenizer
from xlstm_export.errors import OptionError
from xlstm_export.generation.continuation import Continuation, Limits, longest_start
from xlstm_export.generation.prompt import Prompt, read_prompts
from xlstm_export.generation.sampling import Sampling, choose
from xlstm_export.runtime.ort import OrtSession

PROMPTS = ["Once", "upon a time there was", "x", "a longer prompt, of more than one piece " * 3]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> OrtSession:
    folder = tmp_path_factory.mktemp("text")
    made = make_hf(folder / "source", vocab_size=256)
    save_byte_tokenizer(folder / "source" / "tokenizer.json")
    bundle = xe.export(made.source.path, folder / "bundle").path
    session = OrtSession(bundle, threads=1)
    session.most_steps = 16
    return session


def spoken(session: OrtSession, text: str, limits: Limits) -> tuple[list[str], Continuation]:
    """The pieces that come where the model says ``text``."""
    (prompt,) = read_prompts(session, ["prompt"])
    assert prompt.codec is not None
    made, pieces = Continuation(prompt, limits, Sampling()), []
    for token in prompt.codec.tokenizer.encode(text).ids:
        if made.end is None:
            pieces.append(made.take(np.eye(256, dtype=np.float32)[token]))
    return pieces, made


@pytest.mark.parametrize(
    ("strings", "text", "shown", "end"),
    [
        (("END",), "the END of it", "the ", "stop"),
        (("END", "he"), "the END", "t", "stop"),
        (("END",), "the EN", "the EN", "length"),
        (("END",), "EEND", "E", "stop"),
        (("ü",), "schön, über", "schön, ", "stop"),
        (("zz",), "abc", "abc", "length"),
        ((), "abc", "abc", "length"),
        (("a",), "abc", "", "stop"),
    ],
)
def test_the_text_ends_before_a_stop_string(
    session: OrtSession, strings: tuple[str, ...], text: str, shown: str, end: str
) -> None:
    limits = Limits(len(text.encode()), (), strings)
    pieces, made = spoken(session, text, limits)
    assert ("".join(pieces), made.text, made.end) == (shown, shown, end)


def test_what_may_begin_a_stop_string_is_held_back(session: OrtSession) -> None:
    pieces, _ = spoken(session, "aENxENDb", Limits(99, (), ("END",)))
    assert pieces == ["a", "", "", "ENx", "", "", ""]


def test_a_stop_id_is_no_text(session: OrtSession) -> None:
    pieces, made = spoken(session, "ab", Limits(99, (spoken(session, "b", Limits(9))[1].ids[0],)))
    assert ("".join(pieces), made.end, len(made.ids)) == ("a", "stop", 2)


@pytest.mark.parametrize(
    ("text", "strings", "length"),
    [("abEN", ("END",), 2), ("abE", ("END",), 1), ("END", ("END",), 0), ("aba", ("abab",), 3),
     ("", ("a",), 0), ("xy", (), 0), ("ab", ("bcd", "abx"), 2)],
)  # fmt: skip
def test_longest_start(text: str, strings: tuple[str, ...], length: int) -> None:
    assert longest_start(text, strings) == length


@pytest.mark.parametrize("count", [0, -3])
def test_no_token_is_no_limit(session: OrtSession, count: int) -> None:
    for start in (xe.generate, lambda *a, **o: xe.generate_many(a[0], [a[1]], **o)):
        with pytest.raises(OptionError, match=f"^{count} is not 1 or more") as error:
            start(session, [1], max_new_tokens=count)
        assert error.value.option == "max_new_tokens"


def test_stop_strings_need_text() -> None:
    with pytest.raises(OptionError, match="a prompt of ids has no tokenizer"):
        Continuation(Prompt((1,), None, None), Limits(9, (), ("x",)), Sampling())


@pytest.mark.parametrize(
    ("logits", "penalty", "seen", "expected"),
    [
        ([0.0, 2.0, 1.9], 1.0, {1}, 1),
        ([0.0, 2.0, 1.9], 1.3, {1}, 2),  # 2 / 1.3 is below 1.9
        ([0.0, 2.0, 1.9], 1.3, {1, 2}, 1),
        ([-1.0, -0.1, -0.5], 10.0, {1}, 2),  # -0.1 * 10 is below -0.5
        ([0.0, 2.0, 1.9], 0.5, {2}, 2),  # below 1, what has come is favoured
        ([0.0, 2.0, 1.9], 1e30, set(), 1),
    ],
)
def test_what_has_come_is_penalised(
    logits: list[float], penalty: float, seen: set[int], expected: int
) -> None:
    given = np.array(logits, np.float32)
    sampling = Sampling(repetition_penalty=penalty)
    assert choose(given, sampling, np.random.default_rng(0), seen) == expected
    assert given.tolist() == np.array(logits, np.float32).tolist()


def test_nothing_repeats_under_a_great_penalty(session: OrtSession) -> None:
    made = xe.generate(session, [1, 2, 3], max_new_tokens=40, repetition_penalty=1e9)
    "".join(made)
    assert len({1, 2, 3, *made.ids}) == 43


@pytest.mark.parametrize("batch_size", [2, 3, 16])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_several_prompts_are_what_each_is_alone(
    session: OrtSession, batch_size: int, temperature: float
) -> None:
    options = {"max_new_tokens": 30, "temperature": temperature, "top_k": 20}
    several = xe.generate_many(session, PROMPTS, batch_size=batch_size, seed=5, **options)  # type: ignore[arg-type]
    for number, (prompt, made) in enumerate(zip(PROMPTS, several, strict=True)):
        (alone,) = xe.generate_many(session, [prompt], seed=5 + number, batch_size=9, **options)  # type: ignore[arg-type]
        assert (made.ids, made.text, made.end) == (alone.ids, alone.text, alone.end)
        assert "".join(made) == made.text


def test_several_prompts_are_nearly_what_generate_makes(session: OrtSession) -> None:
    """The same ids here; a row by itself rounds otherwise, so that they may part elsewhere."""
    several = xe.generate_many(session, PROMPTS, max_new_tokens=20)
    for prompt, made in zip(PROMPTS, several, strict=True):
        alone = xe.generate(session, prompt, max_new_tokens=20)
        assert "".join(alone) == made.text


def test_no_prompts_are_no_results(session: OrtSession) -> None:
    assert xe.generate_many(session, []) == []
    with pytest.raises(OptionError, match="0 is not 1 or more"):
        xe.generate_many(session, PROMPTS, batch_size=0)


def test_a_stop_string_on_the_command_line(session: OrtSession) -> None:
    whole = succeed_json("run", session.bundle, "--ids", "65,66", "-n", 3)
    assert whole["end"] == "length"
    made = succeed_json("run", session.bundle, "--prompt", "AB", "-n", 12)
    stop = made["text"][4:6]
    cut = succeed_json("run", session.bundle, "--prompt", "AB", "-n", 12, "--stop", stop)
    assert cut["text"] == made["text"].partition(stop)[0]
    assert cut["end"] == "stop"
