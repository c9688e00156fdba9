"""Trains the character-level language model demo, with both block kinds, on Newton's "Opticks".

Next-character prediction. Three mLSTM blocks (matrix memory, causal convolution) carry most of the
capacity; one sLSTM block with feed-forward adds memory mixing, so every kind of layer is in use.

The text (1730, public domain) is read from the Debian package golang-1.19-src (other golang-1.*-src
carry the same file) or from --text FILE; nothing is installed here. One passage is held out as
`excerpt.txt`; the perplexity on it is measured on the model reloaded from its files.
Takes about ten minutes on one CPU core.
"""

import math
import time
from pathlib import Path

import torch
from checkpoint import (
    Config,
    Run,
    load_checkpoint,
    model_from_config,
    run_arguments,
    save_checkpoint,
    write_metrics,
)
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from xlstm import xLSTMLMModel

PACKAGE = "golang-1.19-src"
TEXT_ROOT, TEXT_PATTERN = Path("/usr/share"), "go-*/src/testdata/Isaac.Newton-Opticks.txt"
TITLE = "OPTICKS:"  # the transcriber's notice before it is left out
UNKNOWN = "<unk>"
EXCERPT_START, EXCERPT_LENGTH = 0.8, 16_384  # fraction of the text, characters at most

CONTEXT_LENGTH = 256
TRAIN_LENGTH = 128  # shorter training windows: more steps for the same time
BATCH = 16
LEARNING_RATE = 8e-3
PROMPT = "The Rays of Light "
PROTOCOL = (
    "ids = tokenizer.encode(excerpt.txt).ids; for k = 0, 1, ...: inputs ids[kL : (k+1)L], targets "
    "ids[kL+1 : (k+1)L+1] with L = context_length, every window from the zero state, the last one "
    "shorter; so each id but the first is predicted once; perplexity = exp(mean negative "
    "log-likelihood over all predicted ids), fp32"
)


def config_for(vocab_size: int) -> Config:
    return {
        "vocab_size": vocab_size,
        "context_length": CONTEXT_LENGTH,
        "num_blocks": 4,
        "embedding_dim": 128,
        "slstm_at": [1],
        "mlstm_block": {
            "mlstm": {"conv1d_kernel_size": 4, "qkv_proj_blocksize": 4, "num_heads": 4}
        },
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


def read_text(path: Path | None) -> str:
    """The book from its title on, without the underscores that mark italics."""
    if path is None:
        found = sorted(TEXT_ROOT.glob(TEXT_PATTERN))
        if not found:
            wanted = TEXT_ROOT / TEXT_PATTERN
            raise SystemExit(f"no {wanted}: install Debian package {PACKAGE} or give --text FILE")
        path = found[-1]
    text = path.read_text(encoding="utf-8")
    return text[max(0, text.find(TITLE)) :].replace("_", "")


def split_text(text: str) -> tuple[list[str], str]:
    """Training parts (before and after) and the held-out excerpt, cut at paragraph ends."""
    start = text.index("\n\n", int(EXCERPT_START * len(text))) + 2
    end = text.rindex("\n\n", start, start + EXCERPT_LENGTH) + 1
    return [text[:start], text[end:]], text[start:end]


def character_tokenizer(text: str) -> Tokenizer:
    """One id per character, 0 for unknown ones; Fuse joins decoded characters without spaces."""
    vocabulary = {token: index for index, token in enumerate([UNKNOWN, *sorted(set(text))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def window_starts(parts: list[torch.Tensor]) -> torch.Tensor:
    """Starts, in the joined parts, of all windows that do not span the held-out excerpt."""
    starts, offset = [], 0
    for part in parts:
        starts.append(torch.arange(offset, offset + max(0, len(part) - TRAIN_LENGTH)))
        offset += len(part)
    return torch.cat(starts)


def train(model: xLSTMLMModel, parts: list[torch.Tensor], run: Run) -> None:
    generator = torch.Generator().manual_seed(run.seed)
    ids, starts, window = torch.cat(parts), window_starts(parts), torch.arange(TRAIN_LENGTH + 1)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=run.steps, pct_start=0.05
    )
    model.train()
    for step in range(run.steps):
        chosen = starts[torch.randint(len(starts), (BATCH,), generator=generator)]
        windows = ids[chosen[:, None] + window]  # [BATCH, TRAIN_LENGTH + 1]
        loss = cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == run.steps - 1:
            print(f"step {step:5d}  training loss {loss.item():.4f}", flush=True)


@torch.no_grad()
def perplexity(model: xLSTMLMModel, ids: torch.Tensor) -> float:
    """See PROTOCOL."""
    inputs, targets = ids[:-1].split(CONTEXT_LENGTH), ids[1:].split(CONTEXT_LENGTH)
    total = sum(
        cross_entropy(model(x[None])[0], y, reduction="sum").item()
        for x, y in zip(inputs, targets, strict=True)
    )
    return math.exp(total / (len(ids) - 1))


@torch.no_grad()
def sample(
    model: xLSTMLMModel, tokenizer: Tokenizer, characters: int, temperature: float = 0.7
) -> str:
    ids, state = tokenizer.encode(PROMPT).ids, None
    for position in range(len(ids) + characters - 1):
        logits, state = model.step(torch.tensor([[ids[position]]]), state=state)
        if position == len(ids) - 1:
            ids.append(int(torch.multinomial((logits[0, 0] / temperature).softmax(-1), 1)))
    return tokenizer.decode(ids)


def main() -> None:
    parser = run_arguments(
        "Train the character-level demo model (mLSTM, sLSTM).", "char_lm", steps=1300
    )
    parser.add_argument("--text", type=Path, help=f"UTF-8 text; default: the one in {PACKAGE}")
    arguments = parser.parse_args()
    run = Run(arguments.seed, arguments.steps, arguments.threads)
    text = read_text(arguments.text)
    parts, excerpt = split_text(text)
    tokenizer = character_tokenizer(text)
    ids = torch.tensor(tokenizer.encode(excerpt).ids)
    if tokenizer.decode(ids.tolist()) != excerpt:
        raise RuntimeError("the tokenizer does not give the excerpt back")
    run.start()
    config = config_for(tokenizer.get_vocab_size())
    model = model_from_config(config)
    model.reset_parameters()
    start = time.monotonic()
    train(model, [torch.tensor(tokenizer.encode(part).ids) for part in parts], run)
    seconds = time.monotonic() - start
    save_checkpoint(model, config, arguments.out)
    tokenizer.save(str(arguments.out / "tokenizer.json"))
    (arguments.out / "excerpt.txt").write_text(excerpt, encoding="utf-8")
    reloaded = load_checkpoint(arguments.out)
    metrics = {
        "task": "next character of Isaac Newton's Opticks",
        "training_characters": sum(map(len, parts)),
        "excerpt_characters": len(excerpt),
        "perplexity": perplexity(reloaded, ids),
        "protocol": PROTOCOL,
    }
    write_metrics(arguments.out, reloaded, run, seconds, metrics)
    print(sample(reloaded, tokenizer, 600))


if __name__ == "__main__":
    main()
