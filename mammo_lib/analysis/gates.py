"""Gates of a network: recorded per breast, and overridden to test whether they matter.

| kind | one value per | what it is |
|---|---|---|
| seqmoe | block, stream, view | SeqMoE's gate G, the share of the block's output that is used |
| token | block, stream, view | the gate inside a ``gated_conv`` mixer, mean over its channels |
| fusion | breast | the weight of the crop stream, mean over features |

A value is the mean over the view's windows or tokens, or the gate itself if there is one per image. ``spread`` is the
standard deviation over windows or tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..files import write_parquet
from ..models import GatedConvMixer, MammoMamba, MammoMambaOutput, mean_log_odds
from ..models.encoders import scatter
from ..models.mammo_mamba import Overrides
from ..models.network import Network, to_device
from ..models.seqmoe import gate_name, parse_gate_name
from ..runs.records import Run
from .diagnostics import AS_IS

N_SHUFFLES = 5  # draws of gates from other breasts
N_STREAM_SHUFFLES = 20  # draws of a stream from other breasts: no encoder runs, so they cost nothing
FROZEN, SHUFFLED, SHUT, OPEN = "frozen", "shuffled", "shut", "open"
TokenGates = dict[str, dict[str, list[Tensor]]]  # stream -> block -> one (windows, tokens) per pass


class GateKey(NamedTuple):
    """Identifies a gate of a view: ``kind`` is seqmoe or token, ``block`` counts within the stage."""

    kind: str
    stream: str
    stage: int
    block: int


@dataclass(frozen=True)
class GateValues:
    """The gates of some breasts: ``values`` (breasts, gates, views, 2), a mean and a spread; NaN = no view.

    ``keys`` names the gates. ``fusion`` has shape (breasts, 2), or is None if streams are not gated.
    """

    keys: tuple[GateKey, ...]
    values: Tensor
    fusion: Tensor | None


@dataclass(frozen=True)
class Observation:
    """The result of one forward pass over some breasts, in cohort order: logits (breasts,), gates, and embeddings.

    ``embeddings`` are reused by interventions. They have one entry per pass: the original images and, if flips are
    averaged, the upside-down ones.
    """

    logit: np.ndarray
    numbers: GateValues
    gates: dict[str, dict[str, Tensor]]
    embeddings: list[dict[str, Tensor]]
    present: dict[str, Tensor]


@contextmanager
def captured_token_gates(model: MammoMamba) -> Iterator[TokenGates]:
    """Collect the token gates of ``gated_conv`` mixers, averaged over channels, inside the context.

    A forward hook on each gate's projection records them and is removed at the end, so modules store nothing.
    (SeqMoE's gates need no hook, because ``MammoMambaOutput`` returns them.)
    """
    captured: TokenGates = {}
    hooks = []
    for stream, block, mixer in _gated_mixers(model):
        passes = captured.setdefault(stream, {}).setdefault(block, [])
        hooks.append(mixer.gate.register_forward_hook(_listener(passes)))
    try:
        yield captured
    finally:
        for hook in hooks:
            hook.remove()


def _listener(passes: list[Tensor]) -> Callable:
    return lambda _module, _inputs, output: passes.append(torch.sigmoid(output.float()).mean(dim=-1))


def _gated_mixers(model: MammoMamba) -> Iterator[tuple[str, str, GatedConvMixer]]:
    for stream, encoder in model.encoders.items():
        for stage, level in enumerate(getattr(encoder.network.backbone, "levels", ()), start=1):
            for j, block in enumerate(level.blocks):
                if isinstance(getattr(block, "mixer", None), GatedConvMixer):
                    yield stream, gate_name(stage, j), block.mixer


def gate_values(output: MammoMambaOutput, captured: TokenGates, present: Mapping[str, Tensor]) -> GateValues:
    """Reduce the gates of a pass to a mean and a spread per view; for token gates, the first pass is used.

    NOTE: a mixer processes every token of its windows, including those that only pad the last window of a map.
    """
    named = {
        _key("seqmoe", stream, block): gate.float().flatten(2) if gate.ndim > 2 else gate.float()[..., None]
        for stream, gates in output.gates.items()
        for block, gate in gates.items()
    }
    named |= {
        _key("token", stream, block): _per_view(passes[0], present[stream])
        for stream, blocks in captured.items()
        for block, passes in blocks.items()
        if passes
    }
    n, views = next(iter(present.values())).shape
    device = output.logits.device
    values = [torch.stack([one.mean(dim=2), one.std(dim=2, correction=0)], dim=-1) for one in named.values()]
    stacked = torch.stack(values, dim=1) if values else torch.empty(n, 0, views, 2, device=device)
    gate = None if output.stream_gate is None else output.stream_gate.float()
    fusion = None if gate is None else torch.stack([gate.mean(dim=1), gate.std(dim=1, correction=0)], dim=-1)
    return GateValues(tuple(named), stacked, fusion)


def _key(kind: str, stream: str, block: str) -> GateKey:
    return GateKey(kind, stream, *parse_gate_name(block))


def _per_view(tokens: Float[Tensor, "windows tokens"], present: Bool[Tensor, "batch views"]) -> Tensor:
    """Return every token of each view, (batch, views, tokens of the map); NaN where the view is missing."""
    return scatter(tokens.reshape(int(present.sum()), -1), present, torch.nan)


def join(parts: Iterable[GateValues]) -> GateValues:
    """Concatenate batches of breasts."""
    parts = list(parts)
    fusion = None if parts[0].fusion is None else torch.cat([one.fusion for one in parts])
    return GateValues(parts[0].keys, torch.cat([one.values for one in parts]), fusion)


def summarise(numbers: GateValues, views: tuple[str, ...]) -> list[dict]:
    """Return one row per gate and view: ``mean sd low high n`` over breasts, and the mean ``spread`` within a view."""
    keys = [(key, view) for key in numbers.keys for view in views]
    columns = numbers.values.flatten(1, 2)  # (breasts, gates * views, 2), views fastest
    if numbers.fusion is not None:
        keys.append((GateKey("fusion", "", 0, 0), ""))
        columns = torch.cat([columns, numbers.fusion[:, None]], dim=1)
    columns = columns.cpu().double().numpy()
    rows = []
    for (key, view), values in zip(keys, columns.transpose(1, 0, 2), strict=True):
        value, spread = values[~np.isnan(values[:, 0])].T
        if len(value):
            over = {"mean": value.mean(), "sd": value.std(), "low": value.min(), "high": value.max()}
            numbers_of = {name: float(one) for name, one in (over | {"spread": spread.mean()}).items()}
            rows.append({**key._asdict(), "view": view, **numbers_of, "n": len(value)})
    return rows


@torch.inference_mode()
def observe(network: Network, loader) -> Observation:
    """Run a loader's breasts through the network once, with unchanged gates; the logit is the one used for scoring."""
    model, batches, rows = network.model, [], []
    for batch in loader:
        batch = to_device(batch, network.device)
        with captured_token_gates(model) as captured:
            passes = network.passes(batch)
        batches.append((passes, gate_values(passes[0], captured, batch["present"]), batch["present"]))
        rows.append(batch["row"])
    order = torch.argsort(torch.cat(rows))

    def ordered(parts: Iterable[Tensor]) -> Tensor:
        return torch.cat(list(parts))[order]

    together = join(values for _, values, _ in batches)
    first = batches[0][0]
    return Observation(
        ordered(mean_log_odds(passes) for passes, _, _ in batches).cpu().numpy(),
        GateValues(together.keys, together.values[order], None if together.fusion is None else together.fusion[order]),
        {
            stream: {block: ordered(passes[0].gates[stream][block] for passes, _, _ in batches) for block in gates}
            for stream, gates in first[0].gates.items()
        },
        [
            {stream: ordered(passes[k].embeddings[stream] for passes, _, _ in batches) for stream in model.streams}
            for k in range(len(first))
        ],
        {stream: ordered(present[stream] for _, _, present in batches) for stream in model.streams},
    )


def gate_rows(seen: Observation, cohort: pd.DataFrame, views: tuple[str, ...], log_area: Mapping) -> pd.DataFrame:
    """Return one row per breast and gate: ``split sample_id kind stream view stage block value spread log_area``.

    ``log_area`` maps (sample_id, view) to the natural logarithm of the share of the network's input that the lesion's
    box covers. A fusion gate belongs to no view and gets the mean.
    """
    who = cohort[["split", "sample_id"]].reset_index(drop=True)
    size = np.array([[log_area.get((sample, view), np.nan) for view in views] for sample in who["sample_id"]])
    values, parts = seen.numbers.values.cpu().numpy(), []
    for i, key in enumerate(seen.numbers.keys):
        for j, view in enumerate(views):
            numbers = {"value": values[:, i, j, 0], "spread": values[:, i, j, 1], "log_area": size[:, j]}
            parts.append(who.assign(kind=key.kind, stream=key.stream, view=view, stage=key.stage, block=key.block,
                                    **numbers))  # fmt: skip
    if seen.numbers.fusion is not None:
        value, spread = seen.numbers.fusion.cpu().numpy().T
        area = pd.DataFrame(size).mean(axis=1).to_numpy()
        parts.append(who.assign(kind="fusion", stream="", view="", stage=0, block=0, value=value, spread=spread,
                                log_area=area))  # fmt: skip
    if not parts:
        return pd.DataFrame()
    frame = pd.concat(parts, ignore_index=True).dropna(subset="value")
    small = dict.fromkeys(("value", "spread", "log_area"), np.float32) | {"stage": np.int8, "block": np.int8}
    return frame.astype(small).reset_index(drop=True)


def mean_gates(rows: pd.DataFrame) -> dict[GateKey, dict[str, float]]:
    """Return {gate: {view: mean over breasts}} of SeqMoE's gates, averaged over the breasts of the given rows."""
    own = rows[rows["kind"] == "seqmoe"].groupby(["stream", "stage", "block", "view"])["value"].mean()
    means: dict[GateKey, dict[str, float]] = {}
    for (stream, stage, block, view), value in own.items():
        means.setdefault(GateKey("seqmoe", stream, stage, block), {})[view] = float(value)
    return means


def donors(present: Bool[Tensor, "breasts _"], rng: np.random.Generator) -> np.ndarray:
    """Return for each breast another breast with the same views, (breasts,); itself if there is no other."""
    chosen = np.arange(len(present))
    patterns = present.cpu().numpy()
    for pattern in np.unique(patterns, axis=0):
        group = rng.permutation(np.flatnonzero((patterns == pattern).all(axis=1)))
        chosen[group] = np.roll(group, 1)
    return chosen


@torch.inference_mode()
def intervene(
    network: Network, loader, seen: Observation, means: Mapping[GateKey, Mapping[str, float]],
    views: tuple[str, ...], seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Return ``row intervention draw logit``: the score of each breast with overridden gates or a swapped stream.

    ``as_is``; ``frozen`` (each SeqMoE gate at its mean, by block and view), ``shuffled`` (all gates of another breast,
    ``N_SHUFFLES`` draws), ``shut`` (0), ``open`` (1: plain MambaVision with these weights); ``crop_shuffled`` and
    ``whole_shuffled`` (the stream of another breast, ``N_STREAM_SHUFFLES`` draws).
    """
    rng = np.random.default_rng(seed)
    logits = {(AS_IS, 0): seen.logit} | _with_streams_shuffled(network.model, seen, rng)
    has_gates = any(seen.gates.values())
    plans = _plans(seen, means, views, rng) if has_gates else {}
    logits |= {name: np.full(len(seen.logit), np.nan, np.float32) for name in plans}
    for batch in loader if plans else ():
        batch = to_device(batch, network.device)
        rows = batch["row"]
        for name, plan in plans.items():
            logits[name][rows.cpu().numpy()] = network.score(batch, plan(rows))[0].cpu().numpy()
    return pd.concat([
        pd.DataFrame({"row": np.arange(len(logit)), "intervention": name, "draw": np.int8(draw),
                      "logit": logit.astype(np.float32)})
        for (name, draw), logit in logits.items()
    ], ignore_index=True)  # fmt: skip


def _with_streams_shuffled(model: MammoMamba, seen: Observation, rng: np.random.Generator) -> dict:
    """Return the logits of breasts that got one stream from another breast; only fusion and head run again."""
    logits = {}
    for stream in model.streams if len(model.streams) > 1 else ():
        for draw in range(N_STREAM_SHUFFLES):
            other = torch.from_numpy(donors(seen.present[stream], rng)).to(seen.present[stream].device)
            present = seen.present | {stream: seen.present[stream][other]}
            passes = [
                model.decide(embeddings | {stream: embeddings[stream][other]}, present)
                for embeddings in seen.embeddings
            ]
            logits[f"{stream}_shuffled", draw] = mean_log_odds(passes).cpu().numpy()
    return logits


def _plans(seen: Observation, means, views, rng) -> dict[tuple[str, int], Callable[[Tensor], Overrides]]:
    """Return, by (intervention, draw), a function from the rows of a batch to the gates that override theirs."""

    def every(value: Callable[[str, str, Tensor], Tensor]) -> Callable[[Tensor], Overrides]:
        return lambda rows: {
            stream: {block: value(stream, block, rows) for block in gates} for stream, gates in seen.gates.items()
        }

    def mean(stream: str, block: str, rows: Tensor) -> Tensor:
        by_view = means[_key("seqmoe", stream, block)]
        values = torch.tensor([by_view.get(view, torch.nan) for view in views], device=rows.device)
        return values.expand(len(rows), -1)

    def constant(value: float):
        return every(lambda _stream, _block, rows: torch.full((len(rows), len(views)), value, device=rows.device))

    def from_others(other: Tensor):
        return every(lambda stream, block, rows: seen.gates[stream][block][other[rows]])

    everything = torch.cat([seen.present[stream] for stream in sorted(seen.present)], dim=1)
    shuffles = [torch.from_numpy(donors(everything, rng)).to(everything.device) for _ in range(N_SHUFFLES)]
    return {(FROZEN, 0): every(mean), (SHUT, 0): constant(0.0), (OPEN, 0): constant(1.0)} | {
        (SHUFFLED, draw): from_others(other) for draw, other in enumerate(shuffles)
    }


def examine(
    run: Run, network: Network, loader, cohort: pd.DataFrame, log_area: Mapping,
    average_over: str = "validation",
) -> Observation:  # fmt: skip
    """Add a split's gates and interventions to the run's record; return what was seen with unchanged gates.

    Gates are frozen at their means over the breasts of the split ``average_over``, which must be examined first. A
    network without gates has no ``gates.parquet``.
    """
    views, split = run.config.model.views, cohort["split"].iloc[0]
    seen = observe(network, loader)
    gates = _beside(run.gates, gate_rows(seen, cohort, views, log_area), split)
    means = mean_gates(gates[gates["split"] == average_over]) if len(gates) else {}
    scored = intervene(network, loader, seen, means, views, seed=run.config.seed)
    who = cohort[["split", "sample_id"]].reset_index(drop=True)
    named = who.loc[scored["row"]].reset_index(drop=True).join(scored.drop(columns="row"))
    if len(gates):
        write_parquet(run.folder / "gates.parquet", gates)
    write_parquet(run.folder / "interventions.parquet", _beside(run.interventions, named, split))
    return seen


def _beside(old: pd.DataFrame | None, new: pd.DataFrame, split: str) -> pd.DataFrame:
    if old is None:
        return new
    return pd.concat([old[old["split"] != split], new], ignore_index=True)
