"""A network of one's own without states continues nothing: it would see the last token alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import xlstm_export as xe
from tests.cli.terminal import assert_short_error, run_cli
from tests.generation.own_model import SIZE, speaker, stack
from xlstm_export.runtime.session import MOST_STEPS


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speaker(tmp_path_factory.mktemp("speaker") / "out", states=False)


def test_no_text_goes_on_by_it(bundle: Path) -> None:
    session = xe.open(bundle, threads=1)
    assert session.manifest.is_language_model
    words = "carries no states, .* export it again with --states"
    for start in (
        lambda: xe.generate(session, [1, 2, 3]),
        lambda: xe.generate_many(session, [[1, 2], [3]]),
        lambda: xe.StepBatch(session),
    ):
        with pytest.raises(xe.BundleError, match=words):
            start()
    assert_short_error(run_cli("run", bundle, "--ids", "1,2"), "carries no states", "--states")
    assert_short_error(run_cli("serve", bundle, "--port", 0), "carries no states", "--states")
    (choice,), _ = session.choose({"input_ids": np.array([[1, 2, 3]])})  # a whole sequence
    logits = session.run({"input_ids": np.array([[1, 2, 3]])})[0]["logits"]
    assert choice.token == logits[0, -1].argmax()


def test_with_states_it_goes_on(tmp_path: Path) -> None:
    session = xe.open(speaker(tmp_path / "out", states=True), threads=1)
    made = xe.generate(session, [1, 2, 3], max_new_tokens=5)
    "".join(made)
    whole, _ = session.run({"input_ids": np.array([[1, 2, 3, *made.ids]])})
    assert made.ids == whole["logits"][0, 2:-1].argmax(axis=1).tolist()


def test_embeddings_are_seen_in_one_call(tmp_path: Path) -> None:
    bundle = stack(tmp_path / "out")
    embeds = np.random.default_rng(0).standard_normal((1, MOST_STEPS + 9, SIZE)).astype(np.float32)
    np.save(tmp_path / "in.npy", embeds)
    made = xe.run_embeddings(bundle, tmp_path / "in.npy", tmp_path / "out.npy", threads=1)
    whole, _ = xe.open(bundle, threads=1).run({"inputs_embeds": embeds})
    np.testing.assert_array_equal(np.load(made.output), whole["last_hidden_state"])
