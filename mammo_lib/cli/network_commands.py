"""What is done with a trained network: predictions, other collections, export; and official weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..config.run import TRANSFERRED
from ..errors import InputError, writing_to
from .options import AllowMissing, ProfileOption, chosen_profile
from .printing import echo_transfer


def predict(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="images or folders; file names or DICOM tags must give view and breast")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="folder of a finished run, with its checkpoint (default: the released network)")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder for a JSON file and a picture per breast")] = Path("predictions"),
    sample: Annotated[bool, typer.Option("--sample", help="score the eight breasts of the sample")] = False,
    cc: Annotated[Path | None, typer.Option("--cc", help="whole CC view of one breast")] = None,
    mlo: Annotated[Path | None, typer.Option("--mlo", help="whole MLO view")] = None,
    crop_cc: Annotated[Path | None, typer.Option("--crop-cc", help="the lesion in the CC view")] = None,
    crop_mlo: Annotated[Path | None, typer.Option("--crop-mlo", help="the lesion in the MLO view")] = None,
    box_cc: Annotated[
        str | None, typer.Option("--box-cc", help="the lesion's box instead: x0,y0,x1,y1 in pixels of the CC film")
    ] = None,
    box_mlo: Annotated[str | None, typer.Option("--box-mlo", help="the lesion's box in the MLO film")] = None,
    aspect: Annotated[
        float | None, typer.Option(min=0.2, max=5, help="pixel height over pixel width of whole views, if not square")
    ] = None,
) -> None:
    """Score mammograms with a trained network: probability, gates, maps. Research use only, not a medical device."""
    from ..inference.inputs import find_breasts, name_breast, parse_box

    named = {("whole", "CC"): cc, ("whole", "MLO"): mlo, ("crop", "CC"): crop_cc, ("crop", "MLO"): crop_mlo}
    named = {key: path for key, path in named.items() if path is not None}
    drawn = {"CC": box_cc, "MLO": box_mlo}
    boxes = {view: parse_box(text, f"--box-{view.lower()}") for view, text in drawn.items() if text is not None}
    if bool(paths) + bool(named or boxes) + sample != 1:
        raise InputError(
            "give one of: images or folders; one breast with --cc, --mlo, --crop-cc, --crop-mlo; or --sample"
        )
    if sample:
        from ..data.sample import sample_folder

        paths = [sample_folder() / "mass-800"]
    refused: list[str] = []
    breasts = find_breasts(paths, refused, out) if paths else [name_breast(named, boxes)]
    from ..files import try_folder
    from ..inference.predict import predict_breasts, write_prediction
    from ..inference.provenance import NOTICE, cost_of_crops, trained_on
    from ..inference.release import released_run
    from ..runs.records import Run

    chosen = Run(run.absolute()) if run else released_run()
    typer.secho(NOTICE, fg="red")
    predictions = predict_breasts(chosen, breasts, aspect=aspect, refused=refused if paths else None)
    for number, prediction in enumerate(predictions):
        if number == 0:
            with writing_to(out, "give another folder with --out"):  # before all others are scored
                try_folder(out)
            typer.echo(f"trained on {trained_on(chosen)}")
            if "crop" in chosen.config.model.streams:
                typer.echo(f"missing crops: {cost_of_crops(chosen)}")
        try:
            _, picture = write_prediction(prediction, out)
        except InputError as error:
            if not paths:
                raise
            refused.append(str(error))  # one file that stands in the way does not stop the other breasts
            continue
        typer.echo(f"{prediction.line}; {picture}")
    for reason in refused:
        typer.secho(f"mammo: refused: {reason}", fg="red", err=True)
    if refused:
        raise typer.Exit(2)


def external(
    data: Annotated[Path, typer.Option(help="folder of the collection, which is recognised by its tables")],
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", "--network", help="a finished run with its checkpoint, or a released network (default: ours)"
        ),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option(help="instead of --run: every finished run of an experiment or a group, with its checkpoint"),
    ] = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help=f"also this baseline: {' or '.join(TRANSFERRED)}; repeatable")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option("--cbis-ddsm", help="folder of CBIS-DDSM, for its held-out breasts (default: MAMMO_DATA)"),
    ] = None,
    profile: ProfileOption = None,
    allow_missing: AllowMissing = False,
) -> None:
    """Score a trained network, unchanged, on another collection: mini-MIAS, CMMD, INbreast or VinDr-Mammo.

    If CBIS-DDSM is given, its held-out breasts are scored too, and the views that the collection lacks are masked. A
    finished record is read, not made again.
    """
    for name in baseline or []:
        if name not in TRANSFERRED:
            raise InputError(f"--baseline {name}: choose one of {', '.join(TRANSFERRED)}")
    if run and experiment:
        raise InputError("give either --run RUN or --experiment NAME, not both")
    if profile and not experiment:
        raise InputError("--profile without --experiment: a profile says which runs an experiment has; name it too")
    from ..data.data_sets import data_folder, open_cbis_ddsm
    from ..data.external import open_other

    other = open_other(data)
    given = reference or os.environ.get("MAMMO_DATA")
    if baseline and not given:
        raise InputError("a baseline is fitted on CBIS-DDSM: give its folder with --cbis-ddsm DIR or MAMMO_DATA")
    home = open_cbis_ddsm(data_folder(given)) if given else None
    about = other.about
    typer.echo(f"{about.name}: {len(other.breasts)} breasts. {about.citation}\nLicence: {about.licence}")
    for reason, n in other.left_out["reason"].value_counts().items():
        typer.echo(f"left out: {n} x {reason}")
    from ..inference.provenance import NOTICE, networks_of
    from ..inference.release import released_run
    from ..inference.transfer import score_baseline, score_network
    from ..runs.records import Run

    typer.secho(NOTICE, fg="red")
    if experiment:
        networks = networks_of(chosen_profile(profile, Path(given) if given else None, allow_missing)[0], experiment)
    else:
        networks = [Run(run) if run else released_run()]
    for network in networks:
        echo_transfer(score_network(network, other, home, progress=True, allow_missing=allow_missing))
    for name in baseline or []:
        echo_transfer(score_baseline(name, networks[0].config, other, home, allow_missing=allow_missing))


def weights(
    variant: Annotated[str, typer.Argument(help="T, T2, S, B, B_21k, L, L_21k, L2 or L3_256_21k")],
    folder: Annotated[
        Path | None, typer.Option(help="where to put the checkpoint (default: where weights: official looks for it)")
    ] = None,
) -> None:
    """Download an official MambaVision checkpoint (CC-BY-NC-SA-4.0)."""
    from ..config.checkpoints import weights_folder
    from ..config.registry import BACKBONES
    from ..models.weights import fetch_weights

    path = fetch_weights(variant, folder or weights_folder())
    is_found = folder is None and variant in BACKBONES  # B_21k and others are second checkpoints of a variant
    how = "model.weights: official finds it" if is_found else "as model.weights, give this path"
    typer.echo(f"{path}: {how}")


def export_network(
    network: Annotated[
        str,
        typer.Argument(metavar="RUN|VARIANT", help="a run's folder, released/dual, T, T2, S, B, L, L2, L3 or nano"),
    ],
    to: Annotated[str, typer.Option(help="onnx or torch-export")] = "onnx",
    opset: Annotated[int, typer.Option(help="version of ONNX's operators, 18 to 23")] = 20,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="for a variant: leave height and width free")] = False,
    out: Annotated[Path | None, typer.Option(help="the file (default: the name, with .onnx or .pt2)")] = None,
    weights: Annotated[str | None, typer.Option(help="for a variant: a checkpoint, official, or random")] = None,
    size: Annotated[int | None, typer.Option(help="for a variant: side of the images in pixels (default: 224)")] = None,
) -> None:
    """Write a network to a file that runs without this library: ONNX of standard operators, or torch.export.

    The batch size is free. The image size of a trained run is fixed; masks say which views exist.
    """
    from ..inference.deploy import export

    typer.echo(export(network, out, to=to, opset=opset, weights=weights, size=size, is_dynamic=dynamic))
