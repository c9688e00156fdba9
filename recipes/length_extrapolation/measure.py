"""How well a language model reads far beyond the length it was trained at: a plot and a table.

Takes the bundle of recipes/demo/char_lm, trained on windows of 128 characters from the zero state.
Windows of 32 times that length, one beginning every 96 characters of the held-out excerpt, are
read in pieces with the state carried on; the loss is averaged over windows at each position. Beside
it stands the loss of the very same characters where the state is begun anew every 128: a model that
falls apart with length is above that line, one that has use for a longer past below it.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tokenizers import Tokenizer

import xlstm_export as xe
from xlstm_export.runtime.session import Array, Session, run_split

CHECKPOINT = Path(__file__).parents[1] / "demo" / "char_lm"
TRAINED = 128
MOST = 32 * TRAINED
STRIDE = 96
PIECE, WINDOWS_AT_ONCE = 256, 32
SPANS = (0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


def losses(session: Session, windows: Array) -> Array:
    """Negative log-likelihood in bits [W, L] of windows of ids [W, L + 1]."""
    found = []
    for part in np.array_split(windows, -(-len(windows) // WINDOWS_AT_ONCE)):
        logits = run_split(session, "input_ids", part[:, :-1], PIECE)[0]["logits"]
        logits = logits - logits.max(-1, keepdims=True)
        log_sum = np.log(np.exp(logits).sum(-1))
        chosen = np.take_along_axis(logits, part[:, 1:, None], axis=-1)[..., 0]
        found.append((log_sum - chosen) / np.log(2))
    return np.concatenate(found)


def loss_by_position(session: Session, ids: Array) -> tuple[Array, Array]:
    """Mean loss [MOST] with the state carried on, and of the same characters with it begun anew."""
    starts = np.arange(0, len(ids) - MOST, STRIDE)
    carried = losses(session, ids[starts[:, None] + np.arange(MOST + 1)])
    anew_starts = np.arange(0, len(ids) - TRAINED, TRAINED)
    anew = losses(session, ids[anew_starts[:, None] + np.arange(TRAINED + 1)]).ravel()
    rest = losses(session, ids[None, len(anew) :])[0]
    anew = np.concatenate([anew, rest])
    return carried.mean(0), anew[starts[:, None] + np.arange(MOST)].mean(0)


def span_means(values: Array) -> list[float]:
    """Means over SPANS."""
    return [float(values[low:high].mean()) for low, high in pairwise(SPANS)]


def table(carried: Array, anew: Array) -> str:
    """Markdown: one row a span of positions."""
    lines = [
        f"| characters read | state carried on | begun anew every {TRAINED} |", "|---|---|---|",
    ]  # fmt: skip
    rows = zip(pairwise(SPANS), span_means(carried), span_means(anew), strict=True)
    lines += [
        f"| {low} to {high} | {ours:.3f} | {other:.3f} |" for (low, high), ours, other in rows
    ]
    return "\n".join(lines)


def draw(carried: Array, anew: Array, path: Path) -> None:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    edges = np.unique(np.geomspace(1, MOST + 1, 49).round().astype(int)) - 1
    pairs = list(pairwise(edges))
    centres = [np.sqrt((low + 1) * high) for low, high in pairs]
    for values, label, colour, style in (
        (anew, f"the same characters, begun anew every {TRAINED}", "#94a3b8", "--"),
        (carried, "state carried on", "#0f766e", "-"),
    ):
        means = [values[low:high].mean() for low, high in pairs]
        axes.plot(centres, means, style, color=colour, linewidth=1.8, label=label)
    for multiple in (1, 8, 32):
        axes.axvline(multiple * TRAINED, color="#cbd5e1", linewidth=0.9, zorder=0)
        text = f"{multiple} T" if multiple > 1 else "T, trained"
        axes.annotate(
            text, (multiple * TRAINED, 0.98), xycoords=("data", "axes fraction"), fontsize=8,
            xytext=(-4, 0), textcoords="offset points", ha="right", va="top", color="#475569",
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(0, None)
    axes.set_xlabel("position in the text since the zero state, characters")
    axes.set_ylabel("loss, bits a character")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e2e8f0", linewidth=0.8)
    axes.legend(frameon=False, loc="lower left")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=120)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Loss of the char_lm bundle by position.")
    parser.add_argument("bundle", type=Path, help="export of recipes/demo/char_lm")
    parser.add_argument("plot", type=Path, help=".svg, .png or .pdf to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    text = (CHECKPOINT / "excerpt.txt").read_text(encoding="utf-8")
    ids = np.array(tokenizer.encode(text).ids)
    carried, anew = loss_by_position(xe.open(arguments.bundle, threads=1), ids)
    draw(carried, anew, arguments.plot)
    print(table(carried, anew))


if __name__ == "__main__":
    main()
