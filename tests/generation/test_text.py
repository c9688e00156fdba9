"""Tokens to text as they come, and what a bundle's files say about tokens."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteFallback, Fuse, Replace, Sequence, Strip
from tokenizers.models import BPE, WordLevel
from tokenizers.normalizers import Prepend
from tokenizers.normalizers import Replace as ReplaceText
from tokenizers.normalizers import Sequence as Steps

from tests.generation.byte_tokenizer import save_byte_tokenizer
from xlstm_export.errors import BackendUnavailableError, BundleError
from xlstm_export.generation.text import NumberStream, TextCodec, TextStream, open_codec, stop_ids

TEXT = "Grüße, 世界! 👩‍🔬 naïve\n¿qué?"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    save_byte_tokenizer(tmp_path / "tokenizer.json")
    return tmp_path


def byte_codec(folder: Path) -> TextCodec:
    codec = open_codec(folder)
    assert codec is not None
    return codec


def fallback_codec() -> TextCodec:
    """As in Llama: words start with a low line, unknown characters are spelled in bytes."""
    words = ["▁", "▁Hello", "▁world", "▁wide", "!", "a"]
    pieces = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    model = BPE({piece: i for i, piece in enumerate(pieces)}, [], byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = Steps([Prepend("▁"), ReplaceText(" ", "▁")])
    tokenizer.decoder = Sequence([Replace("▁", " "), ByteFallback(), Fuse(), Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    return TextCodec(tokenizer, ())


def streamed(codec: TextCodec, prompt: list[int], ids: list[int]) -> list[str]:
    stream = TextStream(codec, prompt)
    return [*(stream.push(token) for token in ids), stream.finish()]


def test_characters_of_several_bytes_come_whole(bundle: Path) -> None:
    codec = byte_codec(bundle)
    ids = codec.encode(TEXT)
    assert len(ids) == len(TEXT.encode())
    pieces = streamed(codec, codec.encode("a"), ids)
    assert "".join(pieces) == TEXT
    assert sorted(filter(None, pieces)) == sorted(TEXT)


def test_text_cut_within_a_character(bundle: Path) -> None:
    codec = byte_codec(bundle)
    ids = codec.encode("世界")[:-1]
    assert streamed(codec, [], ids) == ["", "", "世", "", "", "\ufffd"]


@pytest.mark.parametrize("seed", range(20))
def test_streams_of_random_bytes_add_up(bundle: Path, seed: int) -> None:
    codec, random = byte_codec(bundle), np.random.default_rng(seed)
    prompt = codec.encode(TEXT)
    # much text, some of it broken by bytes that fit nowhere
    ids = [i for i in codec.encode(TEXT * 3) if random.random() > 0.1]
    whole = codec.decode([*prompt, *ids])
    assert "".join(streamed(codec, prompt, ids)) == whole[len(codec.decode(prompt)) :]


def test_words_keep_the_space_before_them() -> None:
    codec = fallback_codec()
    hello, world, wide = (codec.tokenizer.token_to_id(f"▁{w}") for w in ("Hello", "world", "wide"))
    assert streamed(codec, [hello], [wide, world]) == [" wide", " world", ""]
    assert streamed(codec, [], [hello, world]) == ["Hello", " world", ""]


def test_characters_spelled_in_bytes() -> None:
    codec = fallback_codec()
    hello = codec.tokenizer.token_to_id("▁Hello")
    spelled = [codec.tokenizer.token_to_id(f"<0x{b:02X}>") for b in "世界語 👩‍🔬".encode()]
    pieces = streamed(codec, [hello, *spelled], spelled * 3)
    assert "".join(pieces) == "世界語 👩‍🔬" * 3
    assert "\ufffd" not in "".join(pieces)


@pytest.mark.parametrize(
    ("spelled", "pieces"),
    [
        # a tokenizer reads the bytes before as broken, too, when one comes that fits nowhere
        (b"\n\xe4", ["\n", "", "\ufffd!", ""]),
        ("é".encode() + b"\xe4", ["", "é", "", "\ufffd\ufffd!", ""]),
        (b"\xe4", ["", "\ufffd!", ""]),
    ],
)
def test_bytes_that_fit_nowhere_end_no_text(spelled: bytes, pieces: list[str]) -> None:
    """What was yielded stays; the text has as many characters as the tokenizer's of all ids."""
    codec = fallback_codec()
    ids = [codec.tokenizer.token_to_id(f"<0x{b:02X}>") for b in spelled]
    ids.append(codec.tokenizer.token_to_id("!"))
    assert streamed(codec, [], ids) == pieces
    assert len("".join(pieces)) == len(codec.decode(ids))


@pytest.mark.parametrize("seed", range(20))
def test_any_ids_make_text(seed: int) -> None:
    codec, random = fallback_codec(), np.random.default_rng(seed)
    prompt, ids = (random.integers(0, 264, count).tolist() for count in (5, 200))
    ids += [codec.tokenizer.token_to_id("▁Hello")]
    assert "".join(streamed(codec, prompt, ids)).endswith("Hello")


def test_a_prompt_that_ends_within_a_character_is_not_shown(bundle: Path) -> None:
    codec = byte_codec(bundle)
    first, second, third = codec.encode("世")
    prompt = [*codec.encode("once "), first]
    assert streamed(codec, prompt, [second, third, *codec.encode("!")]) == ["", "世", "!", ""]
    assert streamed(codec, prompt, codec.encode("!")) == ["!", ""]
    told = codec.encode("once \ufffd")
    assert streamed(codec, told, codec.encode("a!")) == ["a", "!", ""]
    fallback = fallback_codec()
    lone, mark = (fallback.tokenizer.token_to_id(p) for p in ("<0xE4>", "!"))
    assert streamed(fallback, [mark, lone], [mark, mark]) == ["!", "!", ""]


def test_special_and_stop_tokens_are_not_shown() -> None:
    codec = fallback_codec()
    hello, end, mark = (codec.tokenizer.token_to_id(p) for p in ("▁Hello", "</s>", "!"))
    assert streamed(codec, [hello], [end, mark]) == ["", "!", ""]
    stream = TextStream(codec, [hello], stop=(mark,))
    assert [stream.push(mark), stream.finish()] == ["", ""]


def test_numbers_stand_apart() -> None:
    stream = NumberStream()
    assert "".join([*map(stream.push, [5, 0, 17]), stream.finish()]) == "5 0 17"


def test_no_tokenizer_is_no_codec(tmp_path: Path) -> None:
    assert open_codec(tmp_path) is None


def test_damaged_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(BundleError, match=r"tokenizer\.json: not a readable tokenizer"):
        open_codec(tmp_path)


def test_without_the_tokenizers_package(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install .*tokenizers.*--ids"):
        open_codec(bundle)


@pytest.mark.parametrize(
    ("fields", "first"),
    [
        ({}, []),
        ({"bos_token_id": 7}, []),
        ({"bos_token_id": 7, "force_bos_token_insert": True}, [7]),
        ({"bos_token_id": None, "force_bos_token_insert": True}, []),
    ],
)
def test_first_token_where_the_model_wants_one(
    bundle: Path, fields: dict[str, object], first: list[int]
) -> None:
    (bundle / "config.json").write_text(json.dumps(fields))
    codec = byte_codec(bundle)
    plain = codec.tokenizer.encode("ab").ids
    assert codec.encode("ab") == [*first, *plain]
    assert codec.encode("") == first


def test_what_training_left_in_the_tokenizer_changes_no_prompt(bundle: Path) -> None:
    path = bundle / "tokenizer.json"
    whole = byte_codec(bundle).encode(TEXT)
    settings = json.loads(path.read_text())
    settings["truncation"] = {
        "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0
    }  # fmt: skip
    settings["padding"] = {
        "strategy": {"Fixed": 200}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "a",
    }  # fmt: skip
    path.write_text(json.dumps(settings))
    codec = open_codec(bundle)
    assert codec is not None
    assert codec.encode(TEXT) == whole


def test_unknown_tokens_are_counted(bundle: Path) -> None:
    codec = TextCodec(Tokenizer(WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>")), ())
    assert codec.count_unknown([0, 1, 0]) == 2
    without = byte_codec(bundle)
    assert without.count_unknown(without.encode(TEXT)) == 0


def test_half_characters_are_no_text(bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"the prompt is not text: .* at character 1"):
        byte_codec(bundle).encode("a\udcff")


def test_first_token_is_not_doubled(bundle: Path) -> None:
    bos = byte_codec(bundle).encode("a")[0]
    fields = {"bos_token_id": bos, "force_bos_token_insert": True}
    (bundle / "config.json").write_text(json.dumps(fields))
    assert byte_codec(bundle).encode("ab") == byte_codec(bundle).tokenizer.encode("ab").ids


@pytest.mark.parametrize(
    ("generation", "config", "stop"),
    [
        (None, None, ()),
        (None, {"eos_token_id": 2}, (2,)),
        ({"eos_token_id": [3, 4]}, {"eos_token_id": 2}, (3, 4)),
        ({"eos_token_id": None}, {"eos_token_id": 2}, (2,)),
        ({"eos_token_id": "two"}, [1], ()),
        ({"eos_token_id": []}, None, ()),
    ],
)
def test_stop_ids(tmp_path: Path, generation: object, config: object, stop: tuple[int]) -> None:
    for name, content in (("generation_config", generation), ("config", config)):
        if content is not None:
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert stop_ids(tmp_path) == stop


def test_damaged_configuration(tmp_path: Path) -> None:
    for text in ("{", "[" * 100_000):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(BundleError, match=r"config\.json: not readable as JSON"):
            stop_ids(tmp_path)
