"""The parts of benchmarks/campaign.py that its table rests on, and a tiny campaign."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_alibi_seg.data import open_image

_BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def campaign(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(_BENCHMARKS))
    return __import__("campaign")


def _row(megapixels: int, side: int, cpu: float, peak_mb: float) -> dict[str, Any]:
    stage = {"cpu": cpu / 4, "wall": cpu, "peak_mb": peak_mb, "memory": {}}
    disk = {"image": 1.0, "tokens": 2.0, "tiles": 3.0, "output": 4.0}
    stages = {"extraction": {**stage, "cpu": cpu / 2}, "prediction": stage}
    stages["export"] = {**stage, "peak_mb": 1.0}
    return {
        "megapixels": megapixels,
        "side": side,
        "stages": stages,
        "disk_mb": disk,
    }


def test_reference_runs_again_after_each_larger_size(campaign):
    assert campaign.planned([1, 4, 26, 400], 2) == [1, 1, 4, 4, 26, 4, 400, 4]
    assert campaign.planned([26, 100], 3) == [26, 100]


def test_table_has_medians_per_megapixel_and_their_ratio(campaign):
    rows = [_row(4, 2000, cpu, 300) for cpu in (4.0, 8.0, 400.0)]
    rows.append(_row(400, 20_000, 960.0, 512))
    seconds, memory, rest = campaign.text_of(rows).split("\n\n")
    cells = [
        [c.strip() for c in line.split("|")[1:-1]] for line in seconds.splitlines()
    ]
    assert cells[2] == [
        *("4", "3", "1.00", "0.50", "0.50"),
        *("2.00 (1.00 to 100.00)", "1.00", "6.00"),
    ]
    assert cells[3][5:7] == ["2.40 (2.40 to 2.40)", "1.20"]
    last = [c.strip() for c in memory.splitlines()[-1].split("|")[1:-1]]
    assert last == ["400", "512", "512", "1", "512", "1.0", "2.0", "3.0", "4.0"]
    assert rest.startswith("Not finished: 1, 26, 100 MP.")
    assert rest.endswith("campaign.py --sizes 1 26 100`.")


def test_ledger_goes_on_where_a_killed_run_was(campaign, tmp_path):
    path = tmp_path / "ledger.json"
    with campaign.Ledger(path) as first:
        first.switch("prediction")
        first.note(0.5)
    before = json.loads(path.read_text())
    second = campaign.Ledger(path)
    with second:
        sum(range(2_000_000))
    assert second.runs == 2
    assert second.stages["extraction"]["cpu"] > before["stages"]["extraction"]["cpu"]
    assert second.stages["prediction"] == before["stages"]["prediction"]
    assert list(second.stages["prediction"]["memory"]) == ["0.5"]


def test_ledger_counts_the_peak_of_each_stage_apart(campaign, tmp_path):
    ledger = campaign.Ledger(tmp_path / "ledger.json")
    with ledger:
        ledger.switch("prediction")
        np.ones(40 << 20, np.uint8)
        ledger.switch("export")
    peak = {name: stage["peak_mb"] for name, stage in ledger.stages.items()}
    assert peak["prediction"] > peak["extraction"] + 30
    # where the system cannot forget a peak, it stays
    assert peak["export"] <= peak["prediction"]


def test_mosaic_is_the_image_and_its_mirror_images_in_tiles(campaign, tmp_path):
    folder = tmp_path / "large"
    folder.mkdir()
    image = np.random.default_rng(0).integers(0, 255, (300, 420), dtype=np.uint8)
    tifffile.imwrite(folder / "a.tif", image)
    campaign.write_mosaic(str(tmp_path), 1000, str(tmp_path / "out.tif"))
    with tifffile.TiffFile(tmp_path / "out.tif") as tif:
        assert tif.pages.first.is_tiled
        found = tif.asarray()
    np.testing.assert_array_equal(found[:300, :420], image)
    np.testing.assert_array_equal(found[300:600, :420], image[::-1])
    np.testing.assert_array_equal(found[600:900, 420:840], image[:, ::-1])


def _here(task: str, **arguments: Any) -> Any:
    """What `in_child` does, in this process, which has imported torch already."""
    common = __import__("_common")
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        common.child(task, json.dumps(arguments, default=str), str(answer))
        return json.loads(answer.read_text())


@pytest.mark.slow
def test_a_tiny_campaign_runs_once_and_is_kept(campaign, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(campaign, "in_child", _here)
    monkeypatch.setattr(campaign, "_TRAIN_PX", 256)
    monkeypatch.setattr(campaign, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(campaign, "SIDES", {1: 300, 4: 600})
    saved: list[dict[str, Any]] = []
    monkeypatch.setattr(campaign, "save", lambda _, values: saved.append(values))
    here = {"--data": tmp_path, "--work": tmp_path / "work"}
    options = [str(x) for pair in here.items() for x in pair]
    options += ["--features", "classical", "--sizes", "1", "--quick"]
    assert campaign.main(options) == 0
    (row,) = saved[0]["runs"]
    assert list(row["stages"]) == ["extraction", "prediction", "export"]
    assert row["stages"]["prediction"]["cpu"] > 0
    assert row["disk_mb"]["tiles"] > 0.01
    assert row["disk_mb"]["tokens"] == 0
    first = capsys.readouterr().out
    assert first.startswith("1 MP: ")
    campaign.main([*options[:-1], "--show"])
    assert capsys.readouterr().out == first[first.index("\n") + 1 :]
    campaign.main(options)
    assert saved[1]["runs"] == [row]  # kept, not run again
    assert open_image(tmp_path / "work" / "image-300.tif").shape == (300, 300)
