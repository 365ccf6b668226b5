"""The reference page of run files, out of their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunekit.runfiles.asked_run import ExportAsked
from prunekit.runfiles.keys import run_keys

HEAD = """# A run as a file

```
prunekit run slim.yaml
```

does what the flags of `prunekit prune` would, and its exports too. `--set`, `--out` and `--device` stand in for
what the file says; `--dry-run`, `--resume` and `--json` are as for `prune`.

```yaml
{example}```

Every run, by flags or by a file, leaves a `run.yaml` in its folder with all that it was told, defaults spelt out:
`prunekit run FOLDER/run.yaml` does it again. `-v` prints it before the run.

The file is checked before a model is built, and an error names the line, the key and the nearest right word:

```
prunekit: there is no key 'recipee' [at slim.yaml, line 2, recipee]
  next: did you mean recipe?
```

Paths are read from the folder where the command is run, as on the command line. Keys say what their values are, so
`no`, `0.50` and `1e-4` mean what the key takes; tags, anchors, keys that stand twice and a second document are
errors. A `python:` model imports that module: run such files only from those you trust. This page is made from the
options and the keys by `python -m benchmarks.run_page`.

## Keys

| key | takes | default | |
|---|---|---|---|
"""
EXAMPLE = """model: timm:resnet10t
recipe: oneshot
ratio: 0.3                 # or by role:  ratio: {mlp.hidden: 0.6, attention.heads: 0.25}
exclude: [layer4.0.conv1]  # or  target: macs<=50%, params<=9.1M  in place of a ratio
scorer: magnitude
settings:                  # of the recipe: prunekit recipes show oneshot
  images: 8
  val_images: 8
out: slim
export:
  to: exported
  out: slim-exported
"""


def run_reference() -> str:
    """Markdown: an example, and a table of every key."""
    rows = [
        f"| `{name}` | {key.takes} | {_default_shown(key.default)} | {key.doc.rstrip('.')}. |"
        for name, key in run_keys().items()
    ]
    tail = "\n\n## Keys of an export\n\n| key | |\n|---|---|\n"
    more = [f"| `{name}` | {field.metadata['said'].doc}. |" for name, field in ExportAsked.__dataclass_fields__.items()]
    return HEAD.replace("{example}", EXAMPLE) + "\n".join(rows) + tail + "\n".join(more) + "\n"


def _default_shown(value: Any) -> str:
    plain = str(value) if isinstance(value, Path) else value
    return "" if plain in (None, ()) or not isinstance(plain, (str, int, float, bool)) else f"`{plain}`"
