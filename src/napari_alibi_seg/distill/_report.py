"""What a run leaves for people: metrics as CSV and TensorBoard, and a model card."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.data import write_text_atomic
from napari_alibi_seg.distill._settings import DistillSettings

__all__ = ["Metrics", "write_card"]

_COLUMNS = (
    *("step", "stage", "loss", "cosine", "smooth_l1", "few_shot", "lr"),
    *("crops_per_s", "transfer_r2", "max_channel_r2", "seconds"),
)


class Metrics:
    """``metrics.csv`` and, if wanted, TensorBoard events; rows after `step` are cut.

    Parameters
    ----------
    folder : Path
        Of the run.
    step : int
        Where the run goes on: later rows come from steps that are done again.
    tensorboard : bool
        Needs the package tensorboard.
    """

    def __init__(self, folder: Path, step: int, *, tensorboard: bool) -> None:
        self._path = folder / "metrics.csv"
        rows = [r for r in _read(self._path) if int(r["step"]) <= step]
        with self._path.open("w", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        self._board = _board(folder, step) if tensorboard else None

    def add(self, values: Mapping[str, Any]) -> None:
        """Append a row; what is not said stays empty."""
        with self._path.open("a", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
            writer.writerow({k: _text(v) for k, v in values.items()})
        if self._board is not None:
            for key, value in values.items():
                if isinstance(value, float):
                    self._board.add_scalar(key, value, values["step"])

    def close(self) -> None:
        """Write what is left."""
        if self._board is not None:
            self._board.close()


def _text(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    # the last row of a killed run may be cut off
    return [
        {k: r[k] or "" for k in _COLUMNS}
        for r in rows
        if str(r.get("step")).isdigit() and all(r.get(k) is not None for k in _COLUMNS)
    ]


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as err:
        raise SettingsError(
            "TensorBoard events were asked for, but tensorboard is not installed: "
            'pip install "napari-alibi-seg[distill]", or leave --tensorboard out.'
        ) from err
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)


def write_card(path: Path, settings: DistillSettings, facts: Mapping[str, Any]) -> None:
    """Write the model card of a result.

    Parameters
    ----------
    path : Path
        Of the Markdown file.
    settings : DistillSettings
        What was asked for.
    facts : mapping
        What came of it: "parameters", "pictures", "megapixels", "crops", "seconds",
        "device", "sha256", "versions" and the last metrics.
    """
    student = settings.student
    arch = (
        "a copy of the teacher"
        if student is None
        else f"{student.depth} blocks, width {student.embed_dim}, {student.num_heads} "
        f"heads, patch {student.patch_size}, {student.registers} registers"
    )
    position = f"2-D ALiBi {settings.alibi.to_dict()}" if settings.alibi else "table"
    data = settings.data
    shares = {k: v for k, v in data.model_dump().items() if k.endswith("_share") and v}
    stages = "\n".join(
        f"| {s.crop_px} | {s.steps} | {s.batch} | {s.lr:g} |" for s in settings.stages
    )
    measured = "\n".join(f"| {k} | {v} |" for k, v in facts.items())
    # paths of this machine say nothing to a reader and are nobody's business
    plain = json.loads(settings.model_dump_json())
    plain["data"]["folders"] = [Path(f).name for f in plain["data"]["folders"]]
    if plain["teacher"]["weights"]:
        plain["teacher"]["weights"] = Path(plain["teacher"]["weights"]).name
    if "/" in plain["teacher"]["name"]:
        plain["teacher"]["name"] = Path(plain["teacher"]["name"]).name
    text = f"""# {settings.name}

A vision transformer for the features of micrographs, made by `alibi-seg distill`.

- Architecture: {arch}; position: {position}
- Teacher: {plain["teacher"]["name"]}
- Licence: {settings.licence or "not stated"}
- Crops by source: {shares}; folders: {", ".join(plain["data"]["folders"]) or "none"}

| crop px | steps | batch | learning rate |
|---:|---:|---:|---:|
{stages}

| measured | |
|---|---|
{measured}

Use it with `load_backbone("{settings.name}.safetensors")`, or on the command line with
`--backbone {settings.name}.safetensors`.

## Settings

```json
{json.dumps(plain, indent=1)}
```
"""
    write_text_atomic(path, text)
