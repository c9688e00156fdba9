"""What a language model is given to continue: text by the bundle's tokenizer, or ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xlstm_export.errors import BundleError, InputError
from xlstm_export.generation.text import TextCodec, begin_id, open_codec
from xlstm_export.runtime.feeds import check_goes_on, check_ids
from xlstm_export.runtime.session import Session


@dataclass(frozen=True)
class Prompt:
    """``ids``, of which ``begin`` is the first where it was put in front; ``codec`` for text."""

    ids: tuple[int, ...]
    begin: int | None
    codec: TextCodec | None

    @property
    def unknown(self) -> int:
        """Ids that stand for what the tokenizer does not know."""
        return self.codec.count_unknown(self.ids) if self.codec else 0


def read_prompts(
    session: Session, prompts: Sequence[str | Sequence[int]], bos: bool | None = None
) -> list[Prompt]:
    """``prompts`` as ``session`` takes them.

    A prompt of ids is continued in ids, whether there is a tokenizer or not. Raises BundleError
    when the bundle is no language model, carries no states or has no tokenizer for a text,
    InputError where a prompt does not fit it.
    """
    check_generates(session)
    has_text = any(isinstance(prompt, str) for prompt in prompts)
    codec = open_codec(session.bundle, bos) if has_text else None
    return [
        read_prompt(session, prompt, codec if isinstance(prompt, str) else None, bos)
        for prompt in prompts
    ]


def check_generates(session: Session) -> None:
    """Raise BundleError, with what to do, where ``session`` continues no text."""
    bundle, manifest = session.bundle, session.manifest
    if manifest.is_language_model:
        check_goes_on(bundle, manifest)
        return
    takes, yields = manifest.inputs[0].name, manifest.outputs[0].name
    cure = f'xlstm_export.open(BUNDLE).run({{"{takes}": array}}) gives them'
    if takes == "inputs_embeds":
        cure = "run it with --inputs-embeds FILE.npy --output FILE.npy"
    if manifest.forecast is not None:
        cure = "run it with --csv FILE --horizon N"
    raise BundleError(f"{bundle}: takes {takes} and yields {yields}: it generates no text; {cure}")


def read_prompt(
    session: Session,
    prompt: str | Sequence[int],
    codec: TextCodec | None,
    bos: bool | None = None,
) -> Prompt:
    """One prompt, to be continued in text by ``codec``, or in ids. Raises as ``read_prompts``."""
    begin: tuple[int, ...] = ()
    if not isinstance(prompt, str):
        begin = begin_id(session.bundle) if bos else ()
        ids = (*begin, *_ids(prompt))
    elif codec is not None:
        begin = codec.first
        ids = tuple(codec.encode(prompt))
    else:
        raise BundleError(f"{session.bundle}: no tokenizer.json; give token ids (--ids 1,2,3)")
    if not ids:
        raise InputError("the prompt is empty; give text (--prompt) or ids (--ids)")
    check_ids("prompt", np.asarray(ids), session.manifest)
    return Prompt(ids, begin[0] if begin else None, codec)


def _ids(prompt: Sequence[int]) -> list[int]:
    try:
        numbers = np.asarray(prompt)
    except ValueError:  # lists of different lengths in it
        numbers = np.asarray(None)
    if numbers.size and (numbers.ndim != 1 or numbers.dtype.kind not in "iu"):
        raise InputError("the prompt: give text, or a list of token ids (whole numbers)")
    return [int(number) for number in numbers]
