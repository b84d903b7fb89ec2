"""Work shared by processes: the same bytes as one process, whatever happens to them."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from segmenter.samples import sample, write_tiny_vit
from threadpoolctl import threadpool_limits

pytest.importorskip("distributed")

from napari_alibi_seg import iter_apply_on, iter_features_on, open_cluster
from napari_alibi_seg._base import (
    Alibi,
    ClassifierSettings,
    ComputeError,
    FeatureSettings,
    SettingsError,
    StoreError,
)
from napari_alibi_seg._cli import main
from napari_alibi_seg._segmenter import (
    BackboneChoice,
    BatchOptions,
    FeatureFile,
    FileResult,
    Progress,
    Segmenter,
    find_inputs,
    iter_apply,
    iter_feature_files,
)
from napari_alibi_seg.data import write_image
from napari_alibi_seg.features import load_backbone

# Processes that start on a machine that may be busy.
pytestmark = pytest.mark.timeout(900)

REPOSITORY = Path(__file__).resolve().parents[2]
MAPS = BatchOptions(probabilities=True)
SMALL_TILES = {"scale": 1.0, "tile_px": 252}
FEW = ClassifierSettings(n_trees=5)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A classifier with a tiny ViT, one without, and an image of 4 megapixels."""
    folder = tmp_path_factory.mktemp("home")
    image, _, scribbles = sample()
    weights = write_tiny_vit(folder / "tiny.safetensors")
    backbone = load_backbone(weights, alibi=Alibi(slope="constant"), device="cpu")
    features = FeatureSettings(kind="both", **SMALL_TILES)
    segmenter = Segmenter(backbone, features=features, classifier=FEW)
    segmenter.weights_hint = str(weights)
    segmenter.fit(image, scribbles).save(folder / "vit.alibiseg")
    classical = Segmenter(classifier=FEW).fit(image, scribbles)
    classical.save(folder / "classical.alibiseg")
    rng = np.random.default_rng(0)
    big = np.tile(image, (22, 16))[:2050, :2048]
    big = np.clip(big + rng.integers(0, 20, big.shape), 0, 255).astype(np.uint8)
    write_image(folder / "big.tif", big, axes="YX")
    write_image(folder / "small.tif", image, axes="YX")
    return folder


@pytest.fixture(scope="module")
def inputs(home):
    return [home / "big.tif", home / "small.tif"]


@pytest.fixture(scope="module")
def two():
    """Two workers."""
    with open_cluster(workers=2, device="cpu") as client:
        yield client


@pytest.fixture(scope="module")
def alone(home, inputs, tmp_path_factory):
    """What one process makes, without any cluster."""
    out = tmp_path_factory.mktemp("alone")
    segmenter = Segmenter.load(home / "vit.alibiseg", store=out / "store")
    results(iter_apply(segmenter, inputs, out / "out", MAPS))
    return out / "out"


def results(steps) -> list[FileResult]:
    return [step for step in steps if isinstance(step, FileResult)]


def outputs(folder: Path) -> dict[str, bytes]:
    """Return every file of an output folder, without the seconds in them."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path.suffix == ".jsonl":
            data = re.sub(rb'"seconds": [\d.]+', b"", data)
        if path.suffix == ".csv":
            data = re.sub(rb",\d+\.\d{3},", b",,", data)
            data = data.replace(str(folder).encode(), b"")
        found[path.relative_to(folder).as_posix()] = data
    return found


def shared(client, home, inputs, out, **more):
    options = {"store": out.with_name(out.name + "-store"), "device": "cpu", **more}
    return iter_apply_on(client, home / "vit.alibiseg", inputs, out, MAPS, **options)


# ------------------------------------------------------------------- the same bytes


def test_one_and_two_workers_write_what_one_process_writes(
    home, inputs, alone, two, tmp_path
):
    steps = list(shared(two, home, inputs, tmp_path / "two"))
    done = [s for s in steps if isinstance(s, FileResult)]
    assert sorted((Path(r.file).name, r.status) for r in done) == [
        ("big.tif", "done"),
        ("small.tif", "done"),
    ]
    last = {}
    for step in steps:
        if isinstance(step, Progress) and not step.note:
            assert step.done > last.get(step.stage, (0, 0))[0]
            last[step.stage] = step.done, step.total
    # ten token tiles a side less the overlap, five by four output tiles
    assert last == {"features": (81, 81), "segmentation": (20, 20)}
    expected = outputs(alone)
    assert {"big_labels.tif", "small_probabilities.tif"} < set(expected)
    assert outputs(tmp_path / "two") == expected
    again = results(shared(two, home, inputs, tmp_path / "two"))
    assert [r.status for r in again] == ["skipped", "skipped"]
    assert (
        outputs(tmp_path / "two")["alibi-seg-manifest.jsonl"]
        == (expected["alibi-seg-manifest.jsonl"])
    )
    with open_cluster(workers=1, device="cpu") as one:
        results(shared(one, home, inputs, tmp_path / "one"))
    assert outputs(tmp_path / "one") == expected


def ask(client, n: int, function, *args) -> list:
    """Return the answers of `n` workers, once one that was killed is replaced.

    Until then the scheduler may list one that is dead, and the client's ``run`` fails.
    """
    until = time.monotonic() + 600
    while len(found := client.run(function, *args, on_error="ignore")) != n:
        assert time.monotonic() < until, found
        time.sleep(0.1)
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_worker_killed_at_any_time_changes_nothing(
    home, inputs, alone, two, tmp_path, seed
):
    """At a random step and a random moment after it: some run, some lie between."""
    rng = random.Random(seed)
    n_before, out = rng.randrange(1, 25), tmp_path / "out"
    pid = rng.choice(ask(two, 2, os.getpid))
    timer = threading.Timer(rng.uniform(0, 0.3), os.kill, (pid, signal.SIGKILL))
    steps = []
    for step in shared(two, home, inputs, out):
        steps.append(step)
        if len(steps) == n_before:
            timer.start()
    timer.join()
    assert pid not in ask(two, 2, os.getpid)
    assert sorted(r.status for r in results(steps)) == ["done", "done"]
    assert outputs(out) == outputs(alone)
    # nothing of the way is left
    assert not list(out.glob(".*"))
    store = out.with_name(out.name + "-store")
    assert not [p for p in store.rglob("*") if p.is_file()]


def test_a_generator_that_is_closed_leaves_what_the_next_run_completes(
    home, inputs, alone, two, tmp_path
):
    out = tmp_path / "out"
    steps = shared(two, home, inputs, out)
    for step in steps:
        if isinstance(step, Progress) and step.stage == "segmentation" and step.done:
            break
    steps.close()
    assert not (out / "big_labels.tif").exists()
    segmenter = Segmenter.load(home / "vit.alibiseg", store=out.with_name("out-store"))
    # one process goes on where several were
    done = {
        Path(r.file).name for r in results(iter_apply(segmenter, inputs, out, MAPS))
    }
    assert done == {"big.tif", "small.tif"}
    found = outputs(out)
    expected = outputs(alone)
    assert {n: found[n] for n in expected if n.endswith(".tif")} == {
        n: data for n, data in expected.items() if n.endswith(".tif")
    }
    assert set(found) == set(expected)


def test_features_of_one_image_spread_over_workers(home, two, tmp_path):
    choice = BackboneChoice(str(home / "tiny.safetensors"), alibi="constant")
    settings = FeatureSettings(kind="vit", **SMALL_TILES)
    images = [home / "big.tif", tmp_path / "none.tif"]
    steps = list(
        iter_features_on(two, choice, settings, images, tmp_path / "far", device="cpu")
    )
    found = [s for s in steps if isinstance(s, FeatureFile)]
    assert sorted((r.status, r.tiles) for r in found) == [("done", 81), ("failed", 0)]
    assert "none.tif" in next(r.error for r in found if r.error)
    list(
        iter_feature_files(choice.load("cpu"), settings, images[:1], tmp_path / "near")
    )
    assert outputs(tmp_path / "far") == outputs(tmp_path / "near")


# ------------------------------------------------------------------- scale, stacks


def test_resized_images_do_not_depend_on_the_threads_of_blas(home, two, tmp_path):
    image, _, scribbles = sample((300, 400))
    write_image(tmp_path / "a.tif", image, axes="YX")
    features = FeatureSettings(kind="both", scale=0.5, tile_px=252)
    backbone = load_backbone(
        home / "tiny.safetensors", alibi=Alibi(slope="constant"), device="cpu"
    )
    segmenter = Segmenter(backbone, features=features, classifier=FEW)
    segmenter.weights_hint = str(home / "tiny.safetensors")
    segmenter.fit(image, scribbles).save(tmp_path / "half.alibiseg")
    inputs, clf = [tmp_path / "a.tif"], tmp_path / "half.alibiseg"
    with threadpool_limits(4):  # a worker has one
        alone = Segmenter.load(clf, store=tmp_path / "near")
        results(iter_apply(alone, inputs, tmp_path / "alone", MAPS))
    far = {"store": tmp_path / "far", "device": "cpu"}
    results(iter_apply_on(two, clf, inputs, tmp_path / "shared", MAPS, **far))
    expected = outputs(tmp_path / "alone")
    assert "a_probabilities.tif" in expected
    assert outputs(tmp_path / "shared") == expected


@pytest.fixture(scope="module")
def stack(home, tmp_path_factory):
    """20 planes, just too many for one process; two are equal."""
    folder = tmp_path_factory.mktemp("stack")
    image, _, _ = sample()
    rng = np.random.default_rng(0)
    plane = np.tile(image, (5, 4))[:460, :460].astype(int)
    planes = np.clip(plane + rng.integers(0, 60, (20, 460, 460)), 0, 255)
    planes[11] = planes[2]
    write_image(folder / "s.tif", planes.astype(np.uint8), axes="ZYX")
    return folder / "s.tif"


@pytest.mark.parametrize(("z_smooth", "is_killed"), [(0.0, True), (0.4, False)])
def test_planes_of_a_stack_spread_over_workers(
    home, stack, two, tmp_path, z_smooth, is_killed
):
    options = BatchOptions(all_planes=True, z_smooth=z_smooth, probabilities=True)
    segmenter = Segmenter.load(home / "vit.alibiseg", store=tmp_path / "near")
    results(iter_apply(segmenter, [stack], tmp_path / "alone", options))
    far = {"store": tmp_path / "far", "device": "cpu"}
    clf, out = home / "vit.alibiseg", tmp_path / "two"
    steps, pid = [], ask(two, 2, os.getpid)[0]
    for step in iter_apply_on(two, clf, [stack], out, options, **far):
        if is_killed and len(steps) == 3:
            os.kill(pid, signal.SIGKILL)
        steps.append(step)
    (found,) = results(steps)
    assert (found.status, found.error) == ("done", "")
    planes = [s.done for s in steps if isinstance(s, Progress) and not s.note]
    # with a neighbour on each side, 16 planes are worth one process
    units = [[4, 20], [16, 20]] if z_smooth else [[*range(1, 21)]]
    assert planes in units
    assert outputs(out) == outputs(tmp_path / "alone")
    assert not [p for p in (tmp_path / "far").rglob("*") if p.is_file()]


# ------------------------------------------------------------------- many files


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """200 small files, of which 10 are broken, each in its own way."""
    folder = tmp_path_factory.mktemp("scans")
    image = sample()[0]
    for i in range(190):
        part = np.roll(image, (3 * i, 5 * i), (0, 1))[:48, :64]
        write_image(
            folder / f"{i:03}.{'png' if i % 7 == 0 else 'tif'}", part, axes="YX"
        )
    whole = (folder / "001.tif").read_bytes()
    nan = np.full((8, 8), np.nan, np.float32)
    write_image(folder / "b-nan.tif", nan, axes="YX")
    write_image(folder / "b-stack.tif", np.zeros((4, 8, 8), "u1"), axes="ZYX")
    broken = {
        "b-empty.tif": b"",
        "b-short.tif": whole[:300],
        "b-header.tif": whole[:8],
        "b-noise.png": bytes(range(256)) * 20,
        "b-text.tif": b"this is a letter",
        "b-short.png": (folder / "000.png").read_bytes()[:200],
        "b-zip.png": b"PK\3\4" + bytes(50),
    }
    for name, data in broken.items():
        (folder / name).write_bytes(data)
    (folder / "b-loop.tif").symlink_to("b-loop.tif")
    return folder


def test_a_folder_of_200_files_of_which_10_are_broken(home, scans, two, tmp_path):
    classifier = home / "classical.alibiseg"
    inputs = find_inputs([scans])
    assert len(inputs) == 200
    started = time.process_time()
    segmenter = Segmenter.load(classifier)
    near = results(iter_apply(segmenter, inputs, tmp_path / "near"))
    seconds = time.process_time() - started
    far = results(iter_apply_on(two, classifier, inputs, tmp_path / "far"))
    for found in (near, far):
        said = {Path(r.file).name: r.error for r in found if r.error}
        assert sorted(name[0] for name in said) == ["b"] * 10, said
        assert sum(r.status == "done" for r in found) == 190
        assert all(len(r.error) > 20 for r in found if r.status == "failed")
    assert len({r.error for r in near if r.error}) == 10
    expected = outputs(tmp_path / "near")
    assert outputs(tmp_path / "far") == expected
    rows = expected["alibi-seg-manifest.jsonl"].decode().splitlines()
    assert len(rows) == 200
    assert sum('"failed"' in row for row in rows) == 10
    # gross: a slow machine may take long, a quadratic loop takes longer
    assert seconds < 120
    again = results(iter_apply_on(two, classifier, inputs, tmp_path / "far"))
    assert sum(r.status == "skipped" for r in again) == 190
    assert (
        outputs(tmp_path / "far")["alibi-seg-manifest.jsonl"]
        == (expected["alibi-seg-manifest.jsonl"])
    )


# ------------------------------------------------------------------- the command line


def start(folder: Path, *args) -> subprocess.Popen:
    package = Path(sys.modules["napari_alibi_seg"].__file__).parents[1]
    code = (
        "import signal, sys;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from napari_alibi_seg._cli import main; sys.exit(main())"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(package), "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        # a terminal sends its signal to all processes of the group
        start_new_session=True,
    )


def interrupt(process: subprocess.Popen, is_time) -> None:
    """Press Ctrl-C once it is time, and read what a user reads then."""
    deadline = time.monotonic() + 400
    while not is_time():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("Interrupted. What was finished is kept")
    assert "Traceback" not in err


def again(where: list[str], client) -> list[str]:
    """Return who completes what was interrupted: workers that run, if it was workers.

    New ones of a second command would do what the first command's did.
    """
    return ["--scheduler", client.cluster.scheduler_address] if where else []


def features_line(home) -> list:
    spec = ("--backbone", home / "tiny.safetensors", "--alibi", "constant")
    return ["features", home / "big.tif", *spec, "--scale", "1", "--device", "cpu"]


def chunks(store: Path) -> dict[Path, tuple[bytes, int]]:
    """Return the bytes of every stored tile, and when it was written."""
    return {
        p.relative_to(store): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in store.rglob("*")
        if p.is_file() and "c" in p.parts
    }


@pytest.fixture(scope="module")
def whole(home, tmp_path_factory):
    """Features of the large image that nobody interrupted."""
    store = tmp_path_factory.mktemp("whole")
    assert main([*map(str, features_line(home)), "--store", str(store)]) == 0
    return chunks(store)


@pytest.mark.parametrize("where", [[], ["--workers", "2"]], ids=["here", "workers"])
def test_interrupted_and_completed(home, alone, two, tmp_path, monkeypatch, where):
    line = ("apply", home / "vit.alibiseg", home / "small.tif", home / "big.tif")
    more = ("--out", "o", "--store", "s", "--probabilities", "--device", "cpu")
    tiles = tmp_path / "o/.alibi-seg-unfinished/big.zarr/labels"
    interrupt(
        start(tmp_path, *line, *more, *where),
        lambda: any("c" in p.parts for p in tiles.rglob("0")),
    )
    assert not (tmp_path / "o/big_labels.tif").exists()
    monkeypatch.chdir(tmp_path)
    assert main([*map(str, line), *more, *again(where, two)]) == 0
    found, expected = outputs(tmp_path / "o"), outputs(alone)
    tif = {n for n in expected if n.endswith(".tif")}
    assert {n: found[n] for n in tif} == {n: expected[n] for n in tif}
    assert set(found) == set(expected)


@pytest.mark.parametrize("where", [[], ["--workers", "2"]], ids=["here", "workers"])
def test_interrupted_features_are_completed(
    home, two, whole, tmp_path, monkeypatch, where
):
    """Ctrl-C while an image is in work: tiles that are stored stay as they are."""
    line = features_line(home)
    process = start(tmp_path, *line, "--store", "s", *where)
    interrupt(process, lambda: len(chunks(tmp_path / "s")) >= 5)
    half = chunks(tmp_path / "s")
    monkeypatch.chdir(tmp_path)
    assert main([*map(str, line), "--store", "s", *again(where, two)]) == 0
    found, expected = chunks(tmp_path / "s"), whole
    assert 5 <= len(half) < len(expected)
    assert {p: v for p, v in found.items() if p in half} == half
    assert {p: v[0] for p, v in found.items()} == {p: v[0] for p, v in expected.items()}


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        pytest.param(["--workers", "0"], 2, "workers.*1 or more, got 0", id="none"),
        pytest.param(
            ["--scheduler", "tcp://127.0.0.1:9"],
            1,
            "No dask scheduler answers",
            id="dead",
        ),
        pytest.param(["--scheduler", "x://y"], 2, "must be an address", id="scheme"),
        pytest.param(["--threads", "0"], 2, "threads.*1 or more, got 0", id="threads"),
    ],
)
def test_a_cluster_that_cannot_be(
    home, tmp_path, capsys, monkeypatch, options, code, message
):
    monkeypatch.setattr("napari_alibi_seg._distributed._cluster._CONNECT_S", 1)
    line = ["apply", home / "classical.alibiseg", home / "small.tif", "--out", tmp_path]
    assert main([*map(str, line), *options]) == code
    assert re.search(message, capsys.readouterr().err)


def test_without_dask_one_line_says_what_to_install(
    home, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "distributed", None)
    line = ["features", home / "small.tif", "--backbone", "alibi-tiny"]
    assert main([*map(str, line), "--workers", "2", "--store", str(tmp_path)]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "pip install 'napari-alibi-seg[cluster]'" in error


@pytest.mark.parametrize(
    "given", [{}, {"workers": 1, "scheduler": "tcp://a:1"}], ids=["neither", "both"]
)
def test_workers_or_a_scheduler(given):
    with pytest.raises(SettingsError, match="Give either `workers` or `scheduler`"):  # noqa: SIM117
        with open_cluster(**given):
            pass


def test_a_gpu_each(monkeypatch):
    from napari_alibi_seg._distributed import _cluster

    devices = ["cuda:0 (A)", "cuda:1 (B)", "cpu"]
    monkeypatch.setattr("napari_alibi_seg.features.describe_devices", lambda: devices)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    seen = [
        {"CUDA_VISIBLE_DEVICES": gpu, "ALIBI_SEG_ONE_GPU": "1"} for gpu in ("4", "7")
    ]
    assert _cluster._devices(2, "auto") == seen
    assert _cluster._devices(1, "cuda:1") == seen[1:]
    assert _cluster._devices(3, "cpu") == [{"CUDA_VISIBLE_DEVICES": ""}] * 3
    with pytest.raises(SettingsError, match="at most 2 workers, got 3"):
        _cluster._devices(3, "auto")
    with pytest.raises(SettingsError, match=r"from cuda:0 to cuda:1, got 'cuda:2'"):
        _cluster._devices(1, "cuda:2")


def test_real_processes_see_a_gpu_each_also_after_one_died(monkeypatch):
    """The machine's list of GPUs is made up; processes and what they see are real."""

    def sights(device):  # sent by value: a worker need not import this module
        from napari_alibi_seg._distributed._units import device_here

        # what is set after the driver was asked comes too late
        is_late = "torch" in sys.modules
        return os.environ.get("CUDA_VISIBLE_DEVICES"), device_here(device), is_late

    devices = ["cuda:0 (A)", "cuda:1 (B)", "cpu"]
    monkeypatch.setattr("napari_alibi_seg.features.describe_devices", lambda: devices)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    expected = [("0", "cuda:0", False), ("1", "cuda:0", False)]
    with open_cluster(workers=2) as client:
        assert sorted(client.run(sights, "cuda:1").values()) == expected
        dead, _ = ask(client, 2, os.getpid)
        os.kill(dead, signal.SIGKILL)
        deadline = time.monotonic() + 300
        while dead in ask(client, 2, os.getpid):
            assert time.monotonic() < deadline
        assert sorted(ask(client, 2, sights, "cuda:1")) == expected
    with open_cluster(workers=1, device="cuda:1") as client:
        assert [*client.run(sights, "cuda:1").values()] == [("1", "cuda:0", False)]


def test_a_scheduler_that_runs_elsewhere(home, alone, two, tmp_path):
    line = ("apply", home / "vit.alibiseg", home / "small.tif", "--out", tmp_path / "o")
    address = two.cluster.scheduler_address
    more = ("--scheduler", address, "--probabilities", "--store", tmp_path / "s")
    assert main([*map(str, (*line, *more)), "--device", "cpu"]) == 0
    written = (tmp_path / "o/small_probabilities.tif").read_bytes()
    assert written == (alone / "small_probabilities.tif").read_bytes()


def test_a_scheduler_that_is_lost(home, inputs, tmp_path):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=0, processes=False, dashboard_address=":0", silence_logs=50
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        steps = shared(client, home, inputs, tmp_path / "out")
        threading.Timer(1, client.close).start()
        with pytest.raises(ComputeError, match="scheduler was lost"):
            next(steps)


# ------------------------------------------------------------ from cluster to laptop


def test_a_store_made_elsewhere_opens_and_fits_nothing_else(home, two, tmp_path):
    choice = BackboneChoice(str(home / "tiny.safetensors"), alibi="constant")
    settings = FeatureSettings(kind="vit", **SMALL_TILES)
    made = tmp_path / "node"
    small = home / "small.tif"
    list(iter_features_on(two, choice, settings, [small], made, device="cpu"))
    (store,) = made.iterdir()
    moved = tmp_path / "laptop" / "mine.zarr"
    shutil.copytree(store, moved)
    renamed = tmp_path / "other-name.tif"
    shutil.copy(small, renamed)

    def embedding(image, weights):
        backbone = load_backbone(weights, alibi=Alibi(slope="constant"), device="cpu")
        return Segmenter(backbone, features=settings, store=moved).prepare(image)

    weights = home / "tiny.safetensors"
    assert embedding(renamed, weights).store.missing() == []
    turned = sample()[0][::-1].copy()
    with pytest.raises(StoreError, match=r"made for something else: `image` is "):
        embedding(turned, weights)
    others = write_tiny_vit(tmp_path / "others.safetensors", seed=1)
    with pytest.raises(StoreError, match=r"something else: `backbone\.\w+` is "):
        embedding(renamed, others)


def test_the_job_script_of_the_guide(tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    monkeypatch.chdir(tmp_path)
    guide = (REPOSITORY / "docs" / "cluster.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    names: dict = {"__name__": "guide"}
    exec(compile(code, "cluster.md", "exec"), names)
    with names["slurm_cluster"]() as cluster:
        script = cluster.job_script().splitlines()
    assert {"#SBATCH -p gpu", "#SBATCH -t 04:00:00", "#SBATCH --gpus=1"} < set(script)
    assert "export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1" in script
    (worker,) = (x for x in script if "dask_worker" in x or "dask worker" in x)
    assert "--nthreads 1" in worker
    assert "--nworkers" not in worker


def test_rows_say_how_it_was_made(alone):
    rows = [
        json.loads(line)
        for line in (alone / "alibi-seg-manifest.jsonl").read_text().splitlines()
    ]
    assert [r["output"] for r in rows] == ["big_labels.tif", "small_labels.tif"]
    for row in rows:
        assert row["settings"] == {
            "kinds": ["labels", "probabilities"],
            "format": "tiff",
            "features": "both",
            "resolution": "pixel",
            "threads_per_tile": 1,
            "device": "cpu",
            "images_per_batch": 1,
        }
        assert {"torch", "numpy", "napari-alibi-seg"} < row["versions"].keys()
        assert row["recipe"].keys() == {"input", "classifier", "plane"}
        assert row["seconds"] > 0
