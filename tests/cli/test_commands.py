"""Every command doing its work: what is printed, what --json holds, exit codes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file
from xlstm_export_cli.arguments import FamilyOption

from tests.cli.conftest import Made
from tests.cli.terminal import (
    assert_short_error,
    run_cli,
    run_process,
    succeed,
    succeed_json,
)
from xlstm_export import __version__
from xlstm_export.bundle.manifest import MANIFEST_FILE
from xlstm_export.families.registry import FAMILIES

COMMANDS = ("inspect", "export", "validate", "run", "bench", "serve", "triton", "doctor")


def test_help_fits_a_terminal() -> None:
    text = run_process("--help").out
    assert all(f"\n  {command} " in text for command in COMMANDS)
    assert "..." not in text.partition("Commands:")[2]  # a summary that was cut
    for command in COMMANDS:
        lines = succeed(command, "--help").splitlines()
        assert lines[0].startswith(f"Usage: xlstm-export {command} ")
        assert max(map(len, lines)) <= 80


def test_version() -> None:
    assert succeed("--version") == f"{__version__}\n"


def test_the_help_of_family_names_them_all() -> None:
    (option,) = FamilyOption.__metadata__
    assert {"auto", *FAMILIES} == set(re.findall(r"\w+", option.help)) - {"or"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "Usage"),
        ("expor", "export"),
        ("inspect", "SOURCE"),
        ("inspect here --colour", "--colour"),
        ("export here", "--output"),
        ("export here -o x --dtype int8", "--dtype: int8 is not one of fp32, fp16, bf16"),
        ("export here -o x --opset 17", "--opset: 17 is not one of 18, 19, 20, 21"),
        ("export here -o x --opset new", "--opset"),
        ("export here -o x --weight-format int2", "--weight-format: int2 is not one of int8"),
        ("export here -o x --weight-format int4 --block-size 20", "--block-size: 20 is no power"),
        ("export here -o x --asymmetric", "--symmetric: is for weights in few bits"),
        ("export here -o x --logits some", "all, last"),
        ("export here -o x --state-names hf", "native, genai, edgellm"),
        (
            "export here -o x --family gpt",
            "--family: gpt is not one of auto, hf, ",
        ),
        ("run here --ids 1,x", "--ids"),
        ("inspect here --family gpt", "auto, hf, xlstm_large, vil, block_stack"),
        ("validate here", "--reference"),
        ("validate here --reference there --family gpt", "auto, hf"),
        ("validate here --reference there --batch 0", "--batch"),
        ("run here --ids 1 -n 0", "--max-new-tokens"),
        ("run here --ids 1 --top-p 1.5", "--top-p"),
        ("run here --ids 1 --temperature -1", "--temperature"),
        ("run here --ids 1 --seed -1", "--seed"),
        ("run here --ids 1 --prompt a", "one of --prompt, --prompt-file, --ids"),
        ("run here --ids 1 -o x.npy", "--inputs-embeds and --output go together"),
        ("run here --prompt-file nowhere.txt", "nowhere.txt"),
        ("run here --prompt a --horizon 5", "--horizon goes with --csv"),
        ("run here --ids 1 --plot x.png", "--plot goes with --csv"),
        ("run here --csv x.csv --horizon 5 --temperature 1", "--temperature goes with --prompt"),
        ("run here --csv x.csv --horizon 5 --stop a", "--stop goes with --prompt"),
        ("run here --inputs-embeds x.npy -o y.npy -n 5", "--max-new-tokens goes with --prompt"),
        ("run here --inputs-embeds x.npy -o y.npy --together", "--together goes with --csv"),
    ],
)
def test_wrong_usage(words: str, message: str) -> None:
    outcome = run_cli(*words.split())
    assert outcome.code == 2, outcome
    assert message in outcome.err + outcome.out
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("command", ["run", "validate", "inspect"])
@pytest.mark.parametrize("json_words", [[], ["--json"]])
def test_errors_go_to_stderr_with_json_too(
    made: Made, tmp_path: Path, command: str, json_words: list[str]
) -> None:
    """A manifest of a newer format, by every command that reads one."""
    bundle = tmp_path / "bundle"
    shutil.copytree(made.bundles / "stack", bundle)
    manifest = bundle / "xlstm_export.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 2'))
    words = {"run": ["--ids", "1"], "validate": ["--reference", made.checkpoints / "stack"]}
    outcome = run_cli(command, bundle, *words.get(command, []), *json_words)
    assert_short_error(outcome, "xlstm_export.json", "format_version 2", "upgrade")


def test_inspect_a_checkpoint(made: Made) -> None:
    source = made.checkpoints / "stack"
    text = succeed("inspect", source)
    for words in ("block_stack", "8,608", "sLSTM 2 heads of 8", "model.safetensors"):
        assert words in text
    facts = succeed_json("inspect", source)
    assert facts["family"] == "block_stack"
    assert facts["source"] == str(source)
    assert [Path(f).name for f in facts["files"]] == ["config.yaml", "model.safetensors"]
    assert (facts["parameters"], facts["vocab_size"]) == (8608, 11)
    assert [tensor["name"] for tensor in facts["inputs"]] == ["input_ids"]
    assert facts["outputs"][0]["shape"] == ["batch", "sequence", 11]
    leaves = {leaf["path"]: leaf for layer in facts["layers"] for leaf in layer["layers"]}
    kinds = [leaf["kind"] for path, leaf in leaves.items() if path.endswith("lstm")]
    assert kinds == ["UpProjectedMLSTM", "SLSTM", "UpProjectedMLSTM"]
    assert leaves["layers.1.slstm"]["fields"]["heads"] == 2
    assert leaves["head"]["fields"]["tied_to"] == ""
    norm = leaves["layers.1.mixer_norm"]
    assert (norm["kind"], norm["fields"]["kind"]) == ("Norm", "layer")
    assert facts["state_bytes"] % 4 == 0
    assert sum(facts["tensors"].values()) > 20
    alone = source / "model.safetensors"
    assert succeed_json("inspect", alone, "--config", source / "config.yaml")["parameters"] == 8608


def test_inspect_a_bundle(made: Made) -> None:
    text = succeed("inspect", made.bundles / "hf")
    assert "input_ids" in text
    assert "past.0.mlstm.C -> present.0.mlstm.C" in text
    facts = succeed_json("inspect", made.bundles / "hf")
    manifest = json.loads((made.bundles / "hf" / MANIFEST_FILE).read_text())
    own = {"bundle": str(made.bundles / "hf"), "is_unchanged": True, "verdict": None}
    own["is_complete"] = None
    assert facts == own | manifest


def test_export_says_what_it_made_and_what_comes_next(made: Made, tmp_path: Path) -> None:
    out, source = tmp_path / "my bundle", made.checkpoints / "stack"
    weights, config = source / "model.safetensors", source / "config.yaml"
    text = succeed("export", weights, "--config", config, "-o", out)
    assert "block_stack, float32, opset 18" in text
    assert "model.onnx.data" in text
    expected = f"next: xlstm-export validate '{out}' --reference {weights} --config {config}"
    assert text.splitlines()[-1] == expected


def test_a_model_within_the_users_own(made: Made, tmp_path: Path) -> None:
    tensors = load_file(made.checkpoints / "stack" / "model.safetensors")
    whole = {f"encoder.{name}": tensor for name, tensor in tensors.items()}
    whole["head.weight"] = np.zeros((3, 2), np.float32)
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    save_file(whole, source / "model.safetensors")
    shutil.copy(made.checkpoints / "stack" / "config.yaml", source)
    assert_short_error(run_cli("export", source, "-o", out), "give --prefix encoder.")
    prefixed = ("--prefix", "encoder")
    text = succeed("export", source, "-o", out, *prefixed)
    assert "left out: 1 tensors outside the prefix (head.weight)" in text
    assert text.splitlines()[-1].endswith(f"--reference {source} --prefix encoder")
    content = succeed_json("export", source, "-o", out, *prefixed, "--overwrite")
    assert content["left_out"] == ["head.weight"]
    bare = succeed_json("inspect", made.bundles / "stack")
    assert content["manifest"]["sha256"] == bare["sha256"]
    inspected = succeed("inspect", source, *prefixed)
    assert "left out           1 tensors outside the prefix" in inspected
    assert succeed_json("inspect", source, *prefixed)["left_out"] == ["head.weight"]
    report = succeed_json("validate", out, "--reference", source, *prefixed)
    assert (report["verdict"], report["source_matches_bundle"]) == ("validated", True)


def test_export_options_reach_the_bundle(made: Made, tmp_path: Path) -> None:
    source, out = made.checkpoints / "stack", tmp_path / "out"
    words = ["--dtype", "float16", "--opset", "20", "--logits", "last", "--ragged"]
    content = succeed_json("export", source, "-o", out, *words, "--state_names", "genai")
    manifest = content["manifest"]
    assert manifest == json.loads((out / "xlstm_export.json").read_text())
    assert (manifest["dtype"], manifest["opset"], manifest["logits"]) == ("float16", 20, "last")
    assert [i["name"] for i in manifest["inputs"]] == ["input_ids", "sequence_lengths"]
    assert manifest["states"][0]["input"].startswith("past_key_values.0.")
    assert content["files"]["model.onnx.data"] == (out / "model.onnx.data").stat().st_size
    assert content["bundle"] == str(out)
    assert content["seconds"] > 0
    assert content["nodes"] > 10


def test_validate_agrees(made: Made, tmp_path: Path) -> None:
    bundle, source = tmp_path / "bundle", made.checkpoints / "hf"
    shutil.copytree(made.bundles / "hf", bundle)
    report = succeed_json("validate", bundle, "--reference", source)
    assert report["verdict"] == "validated"
    assert report["source_matches_bundle"] is True
    assert json.loads((bundle / "reports" / "validation.json").read_text()) == report
    text = succeed("validate", bundle, "--reference", source, "--no-upstream", "--batch", 1)
    assert text.startswith("verdict: self-consistent")
    assert f"{bundle}/reports/validation.html" in text


def test_native_kernels_compute_unless_told_otherwise(made: Made, tmp_path: Path) -> None:
    """What run and validate print, and what their --json holds."""
    bundle, native, bodies = tmp_path / "bundle", "native CPU kernels (", "function bodies of"
    shutil.copytree(made.bundles / "hf", bundle)
    for words, expected in (([], native), (["--no-native"], bodies)):
        run = ["run", bundle, "--ids", "1,2", "-n", 2, *words]
        assert succeed_json(*run)["operators"]["ai.xlstm"].startswith(expected)
        assert f"; {expected}" in run_cli(*run).err
        validate = ["validate", bundle, "--reference", made.checkpoints / "hf", *words]
        assert succeed_json(*validate)["subject_ops"]["ai.xlstm"].startswith(expected)
        assert f"operators  ai.xlstm: {expected}" in succeed(*validate)
        assert f"`ai.xlstm`: {expected}" in (bundle / "reports" / "validation.md").read_text()
    np.save(tmp_path / "in.npy", np.zeros((1, 2, 16)))
    stack = ["run", made.bundles / "bare", "--inputs-embeds", tmp_path / "in.npy"]
    text = succeed(*stack, "-o", tmp_path / "out.npy", "--no-native")
    assert f"; {bodies}" in text


def test_validate_finds_a_damaged_bundle(made: Made, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(made.bundles / "stack", bundle)
    scale_embedding(bundle, 1.01)
    outcome = run_cli("validate", bundle, "--reference", made.checkpoints / "stack")
    assert outcome.code == 1
    assert outcome.out.startswith("verdict: failed")
    assert "[✗] logits" in outcome.out
    outcome = run_cli("validate", bundle, "--reference", made.checkpoints / "stack", "--json")
    assert (outcome.code, outcome.err) == (1, "")
    assert json.loads(outcome.out, parse_constant=no_json)["verdict"] == "failed"


def test_validate_of_a_model_that_computes_nan_is_still_json(made: Made, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(made.bundles / "stack", bundle)
    scale_embedding(bundle, float("nan"))
    outcome = run_cli("validate", bundle, "--reference", made.checkpoints / "stack", "--json")
    assert outcome.code == 1
    assert json.loads(outcome.out, parse_constant=no_json)["verdict"] == "failed"
    outcome = run_cli("run", bundle, "--ids", 1)
    assert_short_error(outcome._replace(out=""), "NaN")


@pytest.mark.parametrize("other", ["large", "bare"])
def test_validate_with_another_source(made: Made, other: str) -> None:
    outcome = run_cli("validate", made.bundles / "stack", "--reference", made.checkpoints / other)
    assert_short_error(outcome, str(made.bundles / "stack"))


def test_bundles_are_not_sources(made: Made, tmp_path: Path) -> None:
    bundle = made.bundles / "hf"
    for words in (
        ["export", bundle, "-o", tmp_path / "x"],
        ["validate", bundle, "--reference", bundle],
    ):
        assert_short_error(run_cli(*words), str(bundle), "is a bundle")
    outcome = run_cli("run", made.checkpoints / "hf", "--ids", 1)
    assert_short_error(outcome, "no xlstm_export.json")


def test_run_text(made: Made, tmp_path: Path) -> None:
    bundle = made.bundles / "hf"
    outcome = run_cli("run", bundle, "--prompt", "Once ü", "-n", 12)
    assert outcome.code == 0
    assert "7 prompt + 12 new tokens" in outcome.err
    content = succeed_json("run", bundle, "-p", "Once ü", "-n", 12)
    assert outcome.out == content["text"] + "\n"
    assert len(content["ids"]) == 12
    assert len(content["prompt_ids"]) == 7
    assert set(content["operators"]) == {"ai.xlstm"}
    (tmp_path / "prompt.txt").write_text("Once ü", encoding="utf-8")
    for file in (tmp_path / "prompt.txt", "-"):
        words = ["run", bundle, "--prompt-file", file, "-n", 12]
        assert succeed(*words, stdin="Once ü".encode()) == outcome.out


def test_run_samples_by_seed(made: Made) -> None:
    def ids(seed: int) -> list[int]:
        words = ["--seed", seed, "--temperature", 0.9, "--top_k", 50, "--top-p", 0.95]
        content = succeed_json(
            "run", made.bundles / "hf", "-p", "a", "--max_new_tokens", 30, *words
        )
        return list(content["ids"])

    assert ids(1) == ids(1)
    assert ids(1) != ids(2)


def test_run_ids(made: Made) -> None:
    text = succeed("run", made.bundles / "stack", "--ids", "1,2,3", "-n", 5)
    content = succeed_json("run", made.bundles / "stack", "--ids", "1 2 3", "-n", 5)
    assert text.split() == [str(i) for i in content["ids"]]
    assert content["text"] is None
    with_tokenizer = succeed_json("run", made.bundles / "hf", "--ids", "5", "-n", 2)
    assert with_tokenizer["prompt_ids"] == [5]


def test_run_a_bare_stack(made: Made, tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.random.default_rng(0).standard_normal((2, 9, 16)))
    words = ["run", made.bundles / "bare", "--inputs-embeds", tmp_path / "in.npy"]
    text = succeed(*words, "-o", tmp_path / "out.npy")
    assert text.startswith(f"{tmp_path / 'out.npy'}: last_hidden_state [2, 9, 16]")
    content = succeed_json(*words, "--output", tmp_path / "again.npy")
    assert content["shape"] == [2, 9, 16]
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "again.npy").read_bytes()


@pytest.mark.parametrize(
    ("bundle", "words", "message"),
    [
        ("stack", ["-p", "text"], "no tokenizer.json; give token ids (--ids 1,2,3)"),
        ("stack", [], "no tokenizer.json"),
        ("stack", ["--ids", "11"], "outside the vocabulary of 11"),
        ("hf", [], "the prompt is empty"),
        ("bare", ["--ids", "1"], "takes inputs_embeds"),
        ("bare", ["--ids", "1"], "--inputs-embeds FILE.npy"),
        ("bf16", ["--ids", "1"], "Export with --dtype fp32 or fp16"),
        ("nowhere", ["--ids", "1"], "no such folder"),
    ],
)
def test_run_that_cannot_be(made: Made, bundle: str, words: list[str], message: str) -> None:
    assert_short_error(run_cli("run", made.bundles / bundle, *words), message)


@pytest.mark.parametrize("damage", ["graph cut", "data cut", "graph missing", "data missing"])
def test_run_a_damaged_bundle(made: Made, tmp_path: Path, damage: str) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(made.bundles / "stack", bundle)
    what, how = damage.split()
    path = bundle / {"graph": "model.onnx", "data": "model.onnx.data"}[what]
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:1000])
    outcome = run_process("run", bundle, "--ids", "1")
    told = {"graph": "export again", "data": "a bundle is its whole folder: copy it again"}[what]
    assert_short_error(outcome, str(path), told)


def test_prompt_file_that_is_no_text(made: Made, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_bytes(b"ab\xff")
    outcome = run_cli("run", made.bundles / "hf", "--prompt-file", tmp_path / "prompt.txt")
    assert outcome.code == 2
    assert "not UTF-8 text" in outcome.err


def test_doctor() -> None:
    text = succeed("doctor")
    assert "[✓] run: ONNX Runtime" in text
    assert re.search(r"\[✓\] run: native CPU kernels +native CPU kernels \(\w+\), .+\.so", text)
    findings = succeed_json("doctor")
    assert {"what", "ok", "found", "cure"} == set(findings[0])
    assert all(finding["ok"] or finding["cure"] for finding in findings)


def test_sources_on_the_hub_when_offline(tmp_path: Path) -> None:
    outcome = run_cli("export", "org/name", "-o", tmp_path / "out")
    assert_short_error(outcome, "org/name", "config.json", "download by hand")
    assert list(tmp_path.iterdir()) == []


def scale_embedding(bundle: Path, factor: float) -> None:
    """Multiply the embedding in the bundle's data file."""
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    (tensor,) = [t for t in model.graph.initializer if t.name == "embedding.weight"]
    if tensor.HasField("raw_data"):
        tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) * factor).tobytes()
        onnx.save(model, bundle / "model.onnx")
        return
    where = {entry.key: entry.value for entry in tensor.external_data}
    data = np.memmap(
        bundle / "model.onnx.data", np.float32, "r+", int(where["offset"]),
        (int(where["length"]) // 4,),
    )  # fmt: skip
    data *= np.float32(factor)
    data.flush()


def no_json(word: str) -> Any:
    raise AssertionError(f"{word} is no JSON")
