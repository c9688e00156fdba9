"""Trains a byte-level language model of 11M parameters on the source text of Python's own library.

It is there to measure what weights in few bits cost a model that is not tiny; its weights are not
kept. Six mLSTM blocks and one sLSTM block with feed-forward, of width 512. Every twentieth file of
the library is held out: `excerpt.txt`; `calibration.txt` is of the training files. Every machine
with the same Python has the same text, and training ends by the clock: `--minutes`, the learning
rate falling to zero until then. Products are in bfloat16.
"""

import argparse
import math
import sysconfig
import time
from pathlib import Path

import torch
from checkpoint import (
    Config,
    Run,
    load_checkpoint,
    model_from_config,
    save_checkpoint,
    write_metrics,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from xlstm import xLSTMLMModel

LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "encodings", "pydoc_data", "lib2to3"}
"""Folders of what is installed, of tests, and of tables."""
HELD_OUT_EVERY = 20
EXCERPT_LENGTH = 32_768  # bytes; of both texts
CONTEXT_LENGTH = 128
BATCH = 8
LEARNING_RATE = 2e-3
WARM_UP = 0.03  # of the time
SAVE_EVERY = 300.0  # seconds

CONFIG: Config = {
    "vocab_size": 256,
    "context_length": CONTEXT_LENGTH,
    "num_blocks": 7,
    "embedding_dim": 512,
    "slstm_at": [1],
    "mlstm_block": {"mlstm": {"conv1d_kernel_size": 4, "qkv_proj_blocksize": 4, "num_heads": 4}},
    "slstm_block": {
        "slstm": {
            "backend": "vanilla",
            "dtype": "float32",
            "num_heads": 4,
            "conv1d_kernel_size": 4,
        },
        "feedforward": {"proj_factor": 1.3, "act_fn": "gelu"},
    },
}


def library_text() -> tuple[str, str]:
    """Python's own library, joined by path: what is trained on, and every twentieth file."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = [p for p in root.rglob("*.py") if LEFT_OUT.isdisjoint(p.relative_to(root).parts)]
    texts = [path.read_text(encoding="utf-8", errors="ignore") for path in sorted(found)]
    held_out = texts[::HELD_OUT_EVERY]
    del texts[::HELD_OUT_EVERY]
    return "\n".join(texts), "\n".join(held_out)


def excerpt(text: str) -> str:
    """Whole lines from the middle of ``text``, about EXCERPT_LENGTH bytes of ASCII."""
    start = text.index("\n", len(text) // 2) + 1
    piece = text[start : text.rindex("\n", start, start + EXCERPT_LENGTH) + 1]
    return piece.encode("ascii", "ignore").decode()


def byte_tokenizer() -> Tokenizer:
    """One id per byte of UTF-8, in the order of byte-level BPE's alphabet."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def learning_rate(part: float) -> float:
    """At ``part`` of the time: a linear start, then half a cosine down to zero."""
    return LEARNING_RATE * min(part / WARM_UP, 0.5 * (1 + math.cos(math.pi * min(part, 1.0))))


def train(model: xLSTMLMModel, ids: torch.Tensor, seed: int, minutes: float, out: Path) -> int:
    """Train until ``minutes`` are over, saving now and then; return the number of steps."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.05)
    window = torch.arange(CONTEXT_LENGTH + 1)
    model.train()
    start = saved = time.monotonic()
    step, part = 0, 0.0
    while part < 1.0:
        optimizer.param_groups[0]["lr"] = learning_rate(part)
        chosen = torch.randint(len(ids) - CONTEXT_LENGTH, (BATCH, 1), generator=generator)
        windows = ids[chosen + window]  # [BATCH, CONTEXT_LENGTH + 1]
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(windows[:, :-1])
        loss = cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        now = time.monotonic()
        part = (now - start) / (60 * minutes)
        if step % 50 == 0:
            print(f"step {step:6d}, {now - start:6.0f} s: loss {loss.item():.4f}", flush=True)
        if now - saved > SAVE_EVERY:
            save_checkpoint(model, CONFIG, out)
            saved = now
    save_checkpoint(model, CONFIG, out)
    return step


@torch.no_grad()
def perplexity(model: xLSTMLMModel, ids: torch.Tensor) -> float:
    """Of a byte, in windows of CONTEXT_LENGTH from the zero state; what is over is left out."""
    count = (len(ids) - 1) // CONTEXT_LENGTH
    inputs = ids[: count * CONTEXT_LENGTH].view(count, -1)
    targets = ids[1 : count * CONTEXT_LENGTH + 1].view(count, -1)
    total = sum(
        cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum").item()
        for x, y in zip(inputs.split(16), targets.split(16), strict=True)
    )
    return math.exp(total / targets.numel())


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the byte-level model of 11M parameters.")
    parser.add_argument("--out", type=Path, default=Path("out/byte_lm"), help="folder to write")
    parser.add_argument("--minutes", type=float, default=50.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    training, held_out = library_text()
    tokenizer = byte_tokenizer()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(arguments.out / "tokenizer.json"))
    (arguments.out / "excerpt.txt").write_text(excerpt(held_out), encoding="utf-8")
    (arguments.out / "calibration.txt").write_text(excerpt(training), encoding="utf-8")
    ids = torch.tensor(tokenizer.encode(training).ids, dtype=torch.long)
    model = model_from_config(CONFIG)
    model.reset_parameters()
    start = time.monotonic()
    steps = train(model, ids, arguments.seed, arguments.minutes, arguments.out)
    seconds = time.monotonic() - start
    reloaded = load_checkpoint(arguments.out)
    metrics = {
        "task": "next byte of Python's library",
        "training_bytes": len(ids),
        "perplexity": perplexity(reloaded, torch.tensor(tokenizer.encode(excerpt(held_out)).ids)),
    }
    run = Run(arguments.seed, steps, arguments.threads)
    write_metrics(arguments.out, reloaded, run, seconds, metrics)


if __name__ == "__main__":
    main()
