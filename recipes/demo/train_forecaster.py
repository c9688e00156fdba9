"""Trains the forecaster demo: a small TiRex, by upstream's own modules, on hourly series.

After every patch of 24 values, a day, the model foretells nine quantiles of the next one; the loss
is the quantile loss, in units of the context's spread. What lies beyond the context is fed as
missing values, as in a forecast, and so are the last patches of half of the contexts: the model
learns to go on for many patches on its state alone. Some contexts are short, some have holes.

The held-out loss is measured on the model reloaded from its file, beside a seasonal-naive
forecast that is told the period: the last season again, plus the quantiles of the differences
between neighbouring seasons. Takes about three minutes on one CPU core.
"""

import time
from pathlib import Path
from typing import Any

import torch
from checkpoint import Run, run_arguments, write_metrics
from synthetic_series import Series, holes, random_series
from tirex.models.patcher import StandardScaler
from tirex.models.tirex import TiRexZero
from torch import Tensor

PATCH, CONTEXT = 24, 504
TRAIN_AHEAD, TEST_AHEAD = 96, 504
LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
HYPER_PARAMETERS: dict[str, Any] = {
    "model_config": {
        "input_patch_size": PATCH,
        "output_patch_size": PATCH,
        "quantiles": LEVELS,
        "block_kwargs": {"embedding_dim": 64, "num_heads": 4, "num_blocks": 2},
        "input_ff_dim": 128,
    },
    "train_ctx_len": CONTEXT,
}
BATCH = 64
LEARNING_RATE = 6e-3
MOST_LOSS = 10.0
"""Of one value: a series that leaves the scale of a short context teaches nothing but itself."""
TEST_SERIES, TEST_SEED = 512, 10_000  # the seed is added to the run's
HORIZONS = (24, 96, 168, 504)
PROTOCOL = (
    "context 504 values of which a third of the series misses some; quantile loss 2 max(q (y - p), "
    "(q - 1) (y - p)), mean over series, levels and the first steps of the horizon, divided by the "
    "spread of the context; the model forecasts by _forecast_quantiles, seasonal_naive knows the "
    "period of the stronger season"
)
Quantiles = Tensor  # [B, L, 9]


def new_model(generator: torch.Generator) -> TiRexZero:
    """Upstream leaves gates, R and biases empty; forget gates begin between 0.95 and 0.998."""
    model = TiRexZero(backend="torch", **HYPER_PARAMETERS)
    heads = model.config.block_kwargs["num_heads"]
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("gate.weight"):
                torch.nn.init.normal_(value, std=value.shape[-1] ** -0.5, generator=generator)
            elif "_recurrent_kernel_" in name:
                torch.nn.init.normal_(value, std=0.5 * value.shape[1] ** -0.5, generator=generator)
            elif name.endswith("_bias_"):
                bias = torch.zeros(heads, 4, value.numel() // heads // 4)
                bias[:, 1] = torch.linspace(3.0, 6.0, bias.shape[-1])
                value.copy_(bias.flatten())
    return model


def hide(values: Tensor, generator: torch.Generator) -> Tensor:
    """A context [B, CONTEXT] with holes, cut short in front, or ended early, as NaN."""
    count = len(values)
    time = torch.arange(CONTEXT)
    patches = CONTEXT // PATCH
    shorter = torch.rand(count, 1, generator=generator) < 0.3
    begin = shorter * torch.randint(CONTEXT - PATCH, (count, 1), generator=generator)
    earlier = torch.rand(count, 1, generator=generator) < 0.5
    ended = earlier * torch.randint(patches - 1, (count, 1), generator=generator) * PATCH
    end = torch.maximum(CONTEXT - ended, begin + PATCH)
    missing = holes(count, CONTEXT, generator) | (time < begin) | (time >= end)
    return values.masked_fill(missing, torch.nan)


def predict(model: TiRexZero, context: Tensor, ahead: int) -> tuple[Quantiles, Tensor]:
    """Quantiles of values PATCH.. of context and horizon, over the spread; loc and spread.

    One call over context [B, CONTEXT] and a horizon of missing values: the carried rollout.
    """
    tokens, scale = model.tokenizer.input_transform(context)
    unknown = torch.full((len(context), ahead // PATCH - 1, PATCH), torch.nan)
    predicted = model._forward_model_tokenized(torch.cat([tokens, unknown], dim=1))
    return predicted.flatten(2).transpose(1, 2), torch.cat(list(scale), dim=1)


def quantile_loss(predicted: Quantiles, target: Tensor) -> Tensor:
    """2 max(q (y - p), (q - 1) (y - p)) [B, L, 9]; at 0.5 it is the absolute error."""
    over = target[..., None] - predicted
    levels = torch.tensor(LEVELS)
    return 2 * torch.maximum(levels * over, (levels - 1) * over)


def train(model: TiRexZero, run: Run, generator: torch.Generator) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=run.steps, pct_start=0.05
    )
    total = 0.0
    for step in range(run.steps):
        values = random_series(BATCH, CONTEXT + TRAIN_AHEAD, generator).values
        context = hide(values[:, :CONTEXT], generator)
        predicted, scale = predict(model, context, TRAIN_AHEAD)
        target = (values - scale[:, :1]) / scale[:, 1:]
        loss = quantile_loss(predicted, target[:, PATCH:]).clamp(max=MOST_LOSS).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % 50 == 49:
            print(f"step {step + 1:5d}  training loss {total / 50:.4f}", flush=True)
            total = 0.0


def seasonal_naive(context: Tensor, period: Tensor, ahead: int) -> Quantiles:
    """The last whole season again and again, plus quantiles of what seasons differed by.

    Missing values are taken from the season before them, and are 0 where there is none.
    """
    found = []
    for row, season in zip(context, period.tolist(), strict=True):
        filled = row.clone()
        for at in torch.isnan(row).nonzero().flatten().tolist():
            filled[at] = filled[at - season] if at >= season else 0.0
        again = filled[-season:].repeat(-(-ahead // season))[:ahead]
        differences = row[season:] - row[:-season]
        spread = torch.nanquantile(differences, torch.tensor(LEVELS))
        found.append(again[:, None] + torch.nan_to_num(spread - spread[len(LEVELS) // 2]))
    return torch.stack(found)


def held_out(seed: int) -> tuple[Series, Tensor, Tensor]:
    """Fresh series, their contexts [TEST_SERIES, CONTEXT] with holes, and what comes after."""
    generator = torch.Generator().manual_seed(seed)
    series = random_series(TEST_SERIES, CONTEXT + TEST_AHEAD, generator)
    is_hole = holes(TEST_SERIES, CONTEXT, generator)
    context = series.values[:, :CONTEXT].masked_fill(is_hole, torch.nan)
    return series, context, series.values[:, CONTEXT:]


def spread(context: Tensor) -> Tensor:
    """Standard deviation [B, 1, 1] of what is there."""
    return StandardScaler().get_loc_scale(context).scale[..., None]


@torch.no_grad()
def measure(model: TiRexZero, seed: int) -> dict[str, dict[str, float]]:
    """Mean quantile loss over the first steps of the horizon, in units of the context's spread."""
    series, context, target = held_out(seed)
    forecasts = {
        "model": model._forecast_quantiles(context, TEST_AHEAD)[0],
        "seasonal_naive": seasonal_naive(context, series.period, TEST_AHEAD),
    }
    losses = {name: quantile_loss(q, target) / spread(context) for name, q in forecasts.items()}
    return {
        f"{steps}": {name: round(loss[:, :steps].mean().item(), 4) for name, loss in losses.items()}
        for steps in HORIZONS
    }


def save_checkpoint(model: TiRexZero, folder: Path) -> None:
    """`model.ckpt` with the two entries of a Lightning checkpoint that upstream reads."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"hyper_parameters": HYPER_PARAMETERS, "state_dict": model.state_dict()}
    torch.save(content, folder / "model.ckpt")


def load_checkpoint(folder: Path) -> TiRexZero:
    """The model whose numbers `model.ckpt` in `folder` holds."""
    content = torch.load(folder / "model.ckpt", weights_only=True)
    model = TiRexZero(backend="torch", **content["hyper_parameters"])
    model.load_state_dict(content["state_dict"], strict=True)
    return model.eval()


def main() -> None:
    parser = run_arguments("Train the forecaster demo (a small TiRex).", "forecaster", steps=800)
    arguments = parser.parse_args()
    run = Run(arguments.seed, arguments.steps, arguments.threads)
    run.start()
    generator = torch.Generator().manual_seed(run.seed)
    model = new_model(generator)
    start = time.monotonic()
    train(model, run, generator)
    seconds = time.monotonic() - start
    save_checkpoint(model, arguments.out)
    reloaded = load_checkpoint(arguments.out)
    metrics = {
        "task": "nine quantiles of synthetic hourly series, patch by patch",
        "protocol": PROTOCOL,
        "test_series": TEST_SERIES,
        "quantile_loss_by_horizon": measure(reloaded, run.seed + TEST_SEED),
    }
    write_metrics(arguments.out, reloaded, run, seconds, metrics, packages=("torch", "tirex-ts"))


if __name__ == "__main__":
    main()
