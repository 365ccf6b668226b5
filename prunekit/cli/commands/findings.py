"""``prunekit doctor``: what is installed, what is missing, and what a model would do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunekit.cli.console.voice import busy, speaker

if TYPE_CHECKING:
    from rich.console import Console

NEEDED = ("torch", "numpy", "scipy", "networkx", "safetensors", "typer", "rich", "jinja2")
# what is there only if asked for -> what it is for, and how to get it
OPTIONAL: Mapping[str, tuple[str, str]] = {
    "timm": ("models timm:NAME", "pip install 'prunekit[timm]'"),
    "torchvision": ("models torchvision:NAME", "pip install 'prunekit[timm]'"),
    "matplotlib": ("curves in report.html, compare.png", "pip install 'prunekit[plots]'"),
    "pillow": ("pictures, folders of images", "pip install 'prunekit[plots]'"),
    "accelerate": ("several processes, --track", "pip install 'prunekit[distributed]'"),
    "onnx": ("export --to onnx", "pip install onnx onnxscript onnxruntime"),
    "onnxscript": ("export --to onnx", "pip install onnx onnxscript onnxruntime"),
    "onnxruntime": ("export --to onnx, which is read back", "pip install onnx onnxscript onnxruntime"),
    "tensorboard": ("--track tensorboard", "pip install tensorboard"),
    "wandb": ("--track wandb", "pip install wandb"),
    "mlflow": ("--track mlflow", "pip install mlflow"),
    "trackio": ("--track trackio", "pip install trackio"),
}


def doctor(
    model: Annotated[str | None, typer.Argument(help="A model to look at too, as prune takes it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, and nothing else.")] = False,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Measure which multiples of a width the kernels here want; keep that.")
    ] = False,
) -> None:
    """Say what is installed, what is missing, and what a model would do."""
    from prunekit.cli.console.notices import heard

    console = speaker()
    shown = None if as_json else console
    with heard(shown), busy(shown, "looking around"):
        told: dict[str, Any] = {"system": _system(), "versions": _versions(), "plugins": _plugins()}
        if model is not None:
            told["model"] = _model(model)
        if kernels:
            told["kernels"] = _kernel_rows()
    if as_json:
        import json

        console.file.write(json.dumps(told, indent=1) + "\n")
    else:
        _show_findings(console, told)


def _system() -> dict[str, Any]:
    import os
    import platform
    import shutil

    import psutil
    import torch

    devices = ["cpu", *(f"cuda:{n} {torch.cuda.get_device_name(n)}" for n in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "memory_free_gib": round(psutil.virtual_memory().available / 2**30, 1),
        "disk_free_gib": round(shutil.disk_usage(".").free / 2**30, 1),
        "devices": devices,
    }


def _versions() -> dict[str, str | None]:
    """Of every library that prunekit uses or could use; None where it is not there."""
    from importlib.metadata import PackageNotFoundError, version

    from prunekit import __version__

    found: dict[str, str | None] = {"prunekit": __version__}
    for name in (*NEEDED, *OPTIONAL):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _plugins() -> list[dict[str, Any]]:
    """Every distribution that says it brings a plug-in, whether it loads, and names that two of them claim."""
    from importlib.metadata import entry_points

    from prunekit.plugins import GROUP, Plugin

    rows = []
    taken: dict[str, str] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        source = "" if point.dist is None else f"{point.dist.name} {point.dist.version}"
        row: dict[str, Any] = {"name": point.name, "from": source, "state": "loads"}
        try:
            plugin = point.load()
        except Exception as error:  # whatever it raises while it loads is what the reader wants to know
            row["state"] = f"broken: {type(error).__name__}: {error}"
            rows.append(row)
            continue
        if not isinstance(plugin, Plugin):
            rows.append({**row, "state": "broken: it is not a prunekit.plugins.Plugin"})
            continue
        brought = {kind: sorted(getattr(plugin, kind)) for kind in ("models", "recipes", "scorers", "formats")}
        names = [f"{kind[:-1]} {name}" for kind in ("recipes", "scorers") for name in brought[kind]]
        clashes = [f"{name} is {taken[name]}'s too" for name in names if name in taken]
        taken |= {name: point.name for name in names if name not in taken}
        rows.append({**row, **brought, **({"state": f"loads, but {'; '.join(clashes)}"} if clashes else {})})
    return rows


def _kernel_rows() -> list[dict[str, Any]]:
    """What kernels of every device want, measured within a minute or so and kept for ``align="auto"``."""
    import torch

    from prunekit.quantities.kernels import NEAR, keep_kernels, measured_kernels

    devices = [torch.device("cpu"), *(torch.device("cuda", number) for number in range(torch.cuda.device_count()))]
    rows = []
    for device in devices:
        types = [torch.float32, torch.float16, torch.bfloat16] if device.type == "cuda" else [torch.float32]
        found = {each: measured_kernels(device, each) for each in types}
        quiet = {each: of for each, of in found.items() if of.noise <= NEAR}
        file = str(keep_kernels(device, quiet)) if quiet else None
        for each, of in found.items():
            name, costs = str(each).removeprefix("torch."), {kind: dict(row) for kind, row in of.costs.items()}
            row = {"device": str(device), "type": name, "steps": dict(of.steps), "costs": costs, "noise": of.noise}
            rows.append({**row, "file": file if each in quiet else None})
    return rows


def _model(spec: str) -> dict[str, Any]:
    """What pruning could do with the model, and which formats there are for it."""
    from prunekit.cli.commands.tracing import traced
    from prunekit.cli.loading.building import build_model
    from prunekit.errors import PrunekitError
    from prunekit.exports import formats_for

    built = build_model(spec, None, 0)
    part = built.model.get_submodule(built.part)
    try:
        told = traced(part, spec, built.part)
    except PrunekitError as error:
        return {"model": spec, "trouble": error.what, "next": error.hint}
    reached = {where.rpartition(":")[0] for group in told["groups"].values() for where in group["reaches"]}
    inside = sum(tensor.numel() for name, tensor in part.named_parameters() if name in reached)
    return {
        "model": spec,
        "part": built.part,
        "groups": len(told["groups"]),
        "roles": sorted({group["role"] for group in told["groups"].values()}),
        "parameters_in_groups": inside / max(1, told["cost"]["params"]),
        "frozen": told["frozen"],
        "unknown": told["unknown"],
        "formats": sorted(formats_for(spec)),
    }


def _show_findings(console: Console, told: Mapping[str, Any]) -> None:
    def say(label: str, text: object, style: str = "") -> None:
        console.print(f"{label:<17}{text}", soft_wrap=True, style=style or None)

    for name, value in told["system"].items():
        say(name.replace("_", " "), ", ".join(value) if isinstance(value, list) else value)
    here = {name: version for name, version in told["versions"].items() if version}
    say("versions", ", ".join(f"{name} {version}" for name, version in here.items()))
    for name in (name for name in told["versions"] if name not in here):
        use, get = OPTIONAL.get(name, ("everything", f"pip install {name}"))
        say("missing", f"{name}, for {use}: {get}", "yellow" if name in NEEDED else "dim")
    for row in told["plugins"]:
        say("plug-in", f"{row['name']} of {row['from']}: {row['state']}", "" if row["state"] == "loads" else "yellow")
    for row in told.get("kernels", ()):
        steps = ", ".join(f"{step} ({kind})" for kind, step in row["steps"].items())
        end = (
            f"kept at {row['file']}" if row["file"] else f"not kept: the machine is too busy (noise {row['noise']:.0%})"
        )
        say("kernels", f"{row['device']}, {row['type']}: multiples of {steps}; {end}", "" if row["file"] else "yellow")
    if "model" in told:
        _show_model(say, told["model"])


def _show_model(say: Any, model: Mapping[str, Any]) -> None:
    say("model", model["model"])
    if "trouble" in model:
        say("", model["trouble"], "yellow")
        say("next", model["next"])
        return
    share = f"{model['parameters_in_groups']:.0%} of the parameters lie in them"
    say("groups", f"{model['groups']} ({', '.join(model['roles'])}); {share}")
    for frozen in model["frozen"]:
        say("frozen", f"{frozen['name']} ({frozen['size']}): {frozen['reason']}", "dim")
    for name, where in model["unknown"].items():
        say("no rule", f"{name}, met at {where}: docs/operators.md says how to bring one", "yellow")
    say("formats", ", ".join(model["formats"]))
