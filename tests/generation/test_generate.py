"""Choosing tokens, feeding prompts in pieces, and the memory a long prompt takes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.cli.terminal import run_cli, run_process, succeed_json
from tests.families.block_stack_checkpoints import make_block_stack
from tests.families.large_checkpoints import make_xlstm_large
from xlstm_export.errors import BundleError, InputError, OptionError
from xlstm_export.generation.generate import generate_ids
from xlstm_export.generation.sampling import Sampling, choose
from xlstm_export.inference import generate
from xlstm_export.pipeline import export
from xlstm_export.runtime.choice import Choice, likeliest
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.session import Array

LOGITS = np.array([0.0, 2.0, 1.0, -1.0, 1.5, 1.0], np.float32)
PROMPT = [1, 7, 3, 3, 9, 0, 2]

REPORT_MEMORY = """
import sys
from xlstm_export_cli.main import main
try:
    main()
finally:
    status = open("/proc/self/status").read()
    print(status.split("VmHWM:")[1].split()[0], file=sys.stderr)
"""


class Counter:
    """A session whose next id is the sum of all ids so far, modulo 10; remembers its calls."""

    name = "counter"
    manifest = SimpleNamespace(
        inputs=(SimpleNamespace(name="input_ids"),), outputs=(SimpleNamespace(name="logits"),)
    )

    def __init__(self, most_steps: int = 512) -> None:
        self.most_steps = most_steps
        self.calls: list[list[int]] = []
        self.logits_asked = 0

    def run(
        self,
        feeds: Mapping[str, Array],
        states: Mapping[str, Array] | None = None,
        *,
        last: bool = False,
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        assert last, "the logits of a whole piece are not asked for"
        self.logits_asked += 1
        return self._run(feeds, states)

    def choose(
        self, feeds: Mapping[str, Array], states: Mapping[str, Array] | None = None
    ) -> tuple[list[Choice], dict[str, Array]]:
        outputs, after = self._run(feeds, states)
        return likeliest(outputs["logits"][:, -1]), after

    def _run(
        self, feeds: Mapping[str, Array], states: Mapping[str, Array] | None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        inputs = feeds["input_ids"]
        self.calls.append(inputs[0].tolist())
        sums = np.cumsum(inputs, axis=1) + (0 if states is None else states["sum"][:, None])
        logits = np.eye(10, dtype=np.float32)[sums % 10]
        return {"logits": logits}, {"sum": sums[:, -1]}


def ids_of(
    session: Any, count: int, sampling: Sampling | None = None, stop: Sequence[int] = ()
) -> list[int]:
    """The ids that continue the prompt."""
    return list(generate_ids(session, PROMPT, count, sampling or Sampling(), stop))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate")
    source, _ = make_block_stack(folder / "source")
    return export(source.path, folder / "bundle").path


def draws(sampling: Sampling, count: int = 20_000) -> Array:
    """How often each id comes up."""
    random = np.random.default_rng(sampling.seed)
    chosen = [choose(LOGITS, sampling, random) for _ in range(count)]
    return np.bincount(chosen, minlength=len(LOGITS)) / count


def softmax(logits: Array, kept: list[int]) -> Array:
    weights = np.zeros(len(logits))
    weights[kept] = np.exp(logits[kept])
    return weights / weights.sum()


@pytest.mark.parametrize(
    ("sampling", "temperature", "kept"),
    [
        (Sampling(1.0), 1.0, [0, 1, 2, 3, 4, 5]),
        (Sampling(0.5), 0.5, [0, 1, 2, 3, 4, 5]),
        (Sampling(1.0, top_k=2), 1.0, [1, 4]),
        (Sampling(1.0, top_k=3), 1.0, [1, 2, 4, 5]),  # 2 and 5 are equally likely
        (Sampling(1.0, top_k=99), 1.0, [0, 1, 2, 3, 4, 5]),
        (Sampling(1.0, top_p=0.5), 1.0, [1, 4]),  # 0.425 and 0.258
        (Sampling(1.0, top_p=0.69), 1.0, [1, 4, 2]),
        (Sampling(2.0, top_p=0.49), 2.0, [1, 4]),  # 0.279 and 0.217
        (Sampling(1.0, top_k=2, top_p=0.6), 1.0, [1]),  # 0.62 of the two that top_k left
        (Sampling(1.0, top_p=0.0), 1.0, [1]),
    ],
)
def test_sampling_follows_the_cut_distribution(
    sampling: Sampling, temperature: float, kept: list[int]
) -> None:
    expected = softmax(LOGITS / temperature, kept)
    deviation = np.sqrt(expected * (1 - expected) / 20_000)
    assert (np.abs(draws(sampling) - expected) <= 4.5 * deviation).all()


@pytest.mark.parametrize("temperature", [0.0, 1e-6, 1e-300, 5e-324])
def test_no_temperature_is_greedy(temperature: float) -> None:
    random = np.random.default_rng(0)
    assert choose(LOGITS, Sampling(temperature), random) == 1
    assert choose(LOGITS * 1e30, Sampling(temperature, top_k=3, top_p=0.9), random) == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_what_is_no_number_is_no_token(temperature: float, value: float, word: str) -> None:
    logits = np.array([0.0, value, 1.0], np.float32)
    with pytest.raises(BundleError, match=word):
        choose(logits, Sampling(temperature), np.random.default_rng(0))


def test_seeds_decide(bundle: Path) -> None:
    def text(seed: int) -> list[int]:
        return ids_of(OrtSession(bundle), 40, Sampling(1.0, 8, 0.95, seed))

    assert text(3) == text(3)
    assert text(3) != text(4)


def test_greedy_takes_the_arg_max_of_one_shot(bundle: Path) -> None:
    session = OrtSession(bundle)
    session.most_steps = 3
    tokens = ids_of(session, 24)
    outputs, _ = session.run({"input_ids": np.array([PROMPT + tokens], np.int64)})
    predicted = outputs["logits"][0, len(PROMPT) - 1 : -1].argmax(axis=-1)
    assert tokens == predicted.tolist()
    assert len(set(tokens)) > 1


@pytest.mark.parametrize(("longest", "lengths"), [(3, [3, 3, 1]), (7, [7]), (512, [7])])
def test_prompts_go_in_parts_then_tokens_one_by_one(longest: int, lengths: list[int]) -> None:
    session = Counter(longest)
    tokens = ids_of(session, 4)
    total = sum(PROMPT)
    for token in tokens:
        assert token == total % 10
        total += token
    fed = [*[len(call) for call in session.calls[: len(lengths)]]]
    assert fed == lengths
    assert list(itertools.chain(*session.calls)) == PROMPT + tokens[:-1]


@pytest.mark.parametrize(
    ("sampling", "asked"),
    [(Sampling(), 0), (Sampling(0.5, top_k=1), 4), (Sampling(repetition_penalty=1.1), 4)],
)
def test_logits_come_where_they_are_needed(sampling: Sampling, asked: int) -> None:
    session = Counter()
    ids_of(session, 4, sampling)
    assert session.logits_asked == asked
    assert len(session.calls) == 4


def test_a_stop_id_ends_and_is_the_last() -> None:
    assert ids_of(Counter(), 9, stop=(0,)) == [5, 0]
    assert len(ids_of(Counter(), 9, stop=(1,))) == 9


def test_the_session_is_not_asked_for_more_than_is_shown() -> None:
    session: Any = Counter()
    next(generate_ids(session, PROMPT, 100, Sampling()))
    assert len(session.calls) == 1


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([1, "x"], "whole numbers"), ([1.5], "whole numbers"), ([], "empty"), ((), "empty"),
        ([1, 11], "id 11 is outside the vocabulary of 11"), ([-1], "id -1 is outside"),
        ([True], "whole numbers"), (7, "whole numbers"), ([[1, 2]], "whole numbers"),
        ([[1], [2, 3]], "whole numbers"), ([10**30], "whole numbers"), (None, "whole numbers"),
    ],
)  # fmt: skip
def test_prompts_that_do_not_fit(bundle: Path, ids: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        generate(bundle, ids)


def test_a_text_needs_a_tokenizer(bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"no tokenizer.json; give token ids \(--ids"):
        generate(bundle, "text")


@pytest.mark.parametrize(
    "ids", [[1, 2, 3, 4], (1, 2, 3, 4), np.array([1, 2, 3, 4], np.uint8), range(1, 5)], ids=str
)
def test_ids_of_any_kind_of_sequence(bundle: Path, ids: Sequence[int]) -> None:
    generation = generate(bundle, ids, max_new_tokens=3)
    assert generation.prompt == (1, 2, 3, 4)
    assert "".join(generation) == generation.text == " ".join(map(str, generation.ids))
    assert len(generation.ids) == 3


@pytest.mark.parametrize("ids", ["1,x", "1.5"])
def test_ids_in_words_that_are_none(bundle: Path, ids: str) -> None:
    outcome = run_cli("run", bundle, "--ids", ids)
    assert outcome.code == 2
    assert "takes whole numbers separated by commas" in outcome.err


@pytest.mark.parametrize("ids", ["", " , "])
def test_no_ids_in_words(bundle: Path, ids: str) -> None:
    outcome = run_cli("run", bundle, "--ids", ids)
    assert outcome.code != 0
    assert "the prompt is empty" in outcome.err


def test_ids_with_commas_or_spaces(bundle: Path) -> None:
    made = succeed_json("run", bundle, "--ids", "1, 2 3,,4", "-n", 1)
    assert made["prompt_ids"] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("option", "value"),
    [("temperature", -1.0), ("temperature", np.nan), ("top_p", 1.5), ("top_p", np.nan),
     ("top_k", -1), ("seed", -1), ("repetition_penalty", 0.0), ("repetition_penalty", np.nan),
     ("repetition_penalty", np.inf), ("stop", ["x", ""]), ("stop", "a")],
)  # fmt: skip
def test_sampling_that_cannot_be(bundle: Path, option: str, value: float) -> None:
    with pytest.raises(OptionError) as caught:
        generate(bundle, [1], **{option: value})  # type: ignore[arg-type]
    assert caught.value.option == option


def test_memory_does_not_grow_with_the_prompt(tmp_path: Path) -> None:
    made = make_xlstm_large(tmp_path / "source", vocab_size=4000)
    export(made.source.path, tmp_path / "bundle")
    peaks = [peak_kib(tmp_path / "bundle", length) for length in (512, 16_384)]
    # the logits of the whole prompt would be 262 MB, those of a piece are 8 MB
    assert peaks[1] - peaks[0] < 5_000, peaks


def peak_kib(bundle: Path, length: int) -> int:
    ids = ",".join(str(i % 4000) for i in range(length))
    outcome = run_process(
        "run", bundle, "--ids", ids, "-n", 3, "--threads", 1, program=REPORT_MEMORY
    )
    assert outcome.code == 0, outcome
    assert f"{length} prompt + 3 new tokens" in outcome.err
    return int(outcome.err.split()[-1])
