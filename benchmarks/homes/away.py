"""``python away.py FOLDER``: loads a folder of transformers where prunekit cannot be imported, and runs it.

It stands alone: nothing of this repository is imported.
"""

import json
import sys
from pathlib import Path


class _Nothing:
    """Makes prunekit a package that is not there."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in ("prunekit", "prunekit_hf", "prunekit_sam"):
            raise ImportError(f"{name} is kept out")


def main(folder: Path) -> None:
    sys.meta_path.insert(0, _Nothing())  # type: ignore[arg-type]
    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    told = json.loads((folder / "asked.json").read_text())
    inputs = load_file(folder / "inputs.safetensors")
    model = getattr(transformers, told["class"]).from_pretrained(folder / "model").eval()
    with torch.no_grad():
        out = model(**inputs)
    found = {f"out{k}": t.contiguous().clone() for k, t in enumerate(_tensors(out)) if t.is_floating_point()}
    if told["generate"]:
        found["text"] = model.generate(**inputs, max_new_tokens=8, do_sample=False).clone()
    save_file(found, folder / "away.safetensors")
    assert not any(name.startswith("prunekit") for name in sys.modules)


def _tensors(out: object) -> list:  # type: ignore[type-arg]
    import torch

    values = out.values() if isinstance(out, dict) else out if isinstance(out, (list, tuple)) else [out]
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
