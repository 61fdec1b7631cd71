"""How many fits of a cross-validation show each failure signature of :mod:`mammo_lib.analysis.diagnostics`."""

from __future__ import annotations

import pandas as pd

from ..runs.records import Run
from .answers import Repeats
from .diagnostics import fusion_dominance, gate_saturation, over_breasts, overcalling, underfitting
from .learning import last_losses

SIGNS = ("underfitting", "overcalling", "gate saturation", "fusion dominance")


def failure_signs(repeats: Repeats) -> pd.DataFrame:
    """Return ``experiment fits`` and the number of fits that show each of :data:`SIGNS`.

    Underfitting is judged by the training loss (networks of one target). The others are judged on the
    held-out breasts of each fit: overcalling, saturated gates (if gates are learned), and dominance of one stream (if
    two are fused).
    """
    rows = [
        {"experiment": name, "fits": len(fits)} | {sign: sum(fit.get(sign, False) for fit in fits) for sign in SIGNS}
        for name, runs in repeats.items()
        if (fits := [fit for run in runs if not run.config.baseline for fit in _signs_by_fold(run)])
    ]
    return pd.DataFrame(rows)


def signs_in_words(table: pd.DataFrame) -> str:
    """Say in how many fits each signature occurred, and in how many networks, from :func:`failure_signs`."""
    networks = [(sign, int((table[sign] > 0).sum())) for sign in SIGNS]
    said = [f"{sign} in {table[sign].sum()} ({n} network{'' if n == 1 else 's'})" for sign, n in networks]
    return f"Of {table['fits'].sum()} fits of {len(table)} networks: {', '.join(said)}."


def _signs_by_fold(run: Run) -> list[dict[str, bool]]:
    """Return by fold which failures its network shows."""
    gates, gate, losses, found = run.gates, run.config.model.gate, last_losses(run), []
    for number, own in run.predictions.groupby("fold"):
        findings = [overcalling(own["label"].to_numpy(), own["probability"].to_numpy())]
        if number in losses:
            findings.append(underfitting(losses[number]))
        inside = gates[gates["fold"] == number] if gates is not None else pd.DataFrame(columns=["kind"])
        if gate.kind == "learned" and (inside["kind"] == "seqmoe").any():
            findings.append(gate_saturation(over_breasts(inside), gate.bias))
        if (fusion := inside[inside["kind"] == "fusion"]).size:
            findings.append(fusion_dominance(fusion["value"].to_numpy()))
        found.append({finding.name: finding.holds for finding in findings})
    return found
