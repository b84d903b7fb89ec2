"""mIoU against working scale, density, components and halo, for given backbones.

Needs trained weights (--backbone); with --random it runs on random ones, which shows
only that it works. Each result is appended to results/sweep.jsonl at once and not
computed again, so a sweep can be stopped and gone on with; tokens are kept in a store
for the same reason. Every image is trained and scored by itself, on the shared
scribbles, with classical features alone beside it.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from _common import (
    RESULTS,
    SCRIBBLES,
    Sample,
    machine,
    parser,
    public_sets,
    report,
    save,
    table,
    timed,
    without_data,
)
from _vits import RANDOM_NOTE, add_backbones, load_chosen, random_vit
from quality import IGNORE_ID

from napari_alibi_seg import (
    AlibiSegError,
    ClassifierSettings,
    FeatureSettings,
    Segmenter,
)
from napari_alibi_seg.data import confusion

PART = "sweep"
Setting = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    args = _options().parse_args(argv)
    if not args.backbone and not args.random:
        print(
            "A sweep over random features would choose defaults by chance: name "
            "trained weights with --backbone, or insist with --random.",
            file=sys.stderr,
        )
        return 2
    if without_data(args.data, "public", "the sweep"):
        return 0
    if args.quick:
        args.sets = args.sets or ["superalloy_16bit"]
        args.scales, args.densities, args.components, args.halos = [1.0], [1], [24], [0]
    with tempfile.TemporaryDirectory() as folder:
        names = args.backbone or [str(random_vit(Path(folder)))]
        alibi = args.alibi if args.backbone else "constant"
        store = args.store or Path(folder) / "stores"
        results = Results(args.out)
        settings = list(itertools.chain(_classical(), _grid(args)))
        for name in names:
            try:
                backbone = load_chosen(name, alibi, args.device)
            except AlibiSegError as err:
                print(f"{name}: {err}", file=sys.stderr)
                return 1
            _run(args, backbone, settings, store, results)
    rows = sweep_rows(results.rows)
    note = RANDOM_NOTE if args.random and not args.backbone else "all results so far"
    report(PART, f"mIoU, mean of the sets' means ({note})", table(_HEAD, rows))
    save(PART, {"results": results.rows})
    return 0


def _options() -> Any:
    options = parser(__doc__)
    add_backbones(options)
    options.add_argument("--random", action="store_true", help="run without weights")
    options.add_argument("--sets", nargs="+", metavar="NAME", help="only these sets")
    options.add_argument("--kinds", nargs="+", default=["both"])
    options.add_argument("--scales", nargs="+", type=float, default=[1.0, 2.0])
    options.add_argument("--densities", nargs="+", type=int, default=[1, 2])
    options.add_argument(
        "--components",
        nargs="+",
        type=int,
        default=[8, 24, 48, 0],
        help="principal components, 0 for all channels as they are",
    )
    options.add_argument("--halos", nargs="+", type=int, default=[0, 4])
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=RESULTS / "sweep.jsonl")
    options.add_argument(
        "--store", type=Path, metavar="DIR", help="keep tokens here (default: nowhere)"
    )
    return options


def _classical() -> Iterator[Setting]:
    yield {"kind": "classical", "scale": 1.0, "density": 1, "components": 0, "halo": 0}


def _grid(args: Any) -> Iterator[Setting]:
    """Yield settings so that those with the same tokens follow one another."""
    for scale, density, halo in itertools.product(
        args.scales, args.densities, args.halos
    ):
        for kind, components in itertools.product(args.kinds, args.components):
            yield {
                "kind": kind,
                "scale": scale,
                "density": density,
                "components": components,
                "halo": halo,
            }


# ------------------------------------------------------------------------------ running


class Results:
    """Results in a file of JSON lines: appended as they are made, never made twice.

    Parameters
    ----------
    path : Path
        Of the file. A line that a kill cut off does not count.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = read_results(path)
        path.parent.mkdir(parents=True, exist_ok=True)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return list(self._rows.values())

    def get(
        self,
        backbone: Any,
        setting: Setting,
        sample: Sample,
        scribbles: str,
        store: Path,
    ) -> dict[str, Any]:
        """Return a result, from the file or by making it."""
        key = result_key(backbone, setting, sample, scribbles)

        def make() -> dict[str, Any]:
            row = {**setting, "set": sample.dataset, "scribbles": scribbles}
            row |= {"image": sample.image_path.name, "megapixels": sample.megapixels}
            row["backbone"] = "" if setting["kind"] == "classical" else backbone.name
            return row | score(backbone, setting, sample, scribbles, store)

        return self.kept(key, make)

    def kept(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the result of a key, from the file or by making it."""
        if key not in self._rows:
            row = {"key": key, "commit": machine()["commit"], **make()}
            with self._path.open("a") as file:
                file.write(json.dumps(row, sort_keys=True) + "\n")
            self._rows[key] = row
        return self._rows[key]


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Return the results so far by key; a line cut off by a kill does not count."""
    out = {}
    if path.is_file():
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            out[row["key"]] = row
    return out


def result_key(backbone: Any, setting: Setting, sample: Sample, scribbles: str) -> str:
    """Return what names one result: all that decides it."""
    identity = None if setting["kind"] == "classical" else backbone.identity
    parts = {
        "backbone": identity,
        "setting": setting,
        "image": f"{sample.dataset}/{sample.image_path.name}",
        "scribbles": scribbles,
    }
    return json.dumps(parts, sort_keys=True)


def _run(
    args: Any, backbone: Any, settings: list[Setting], store: Path, results: Results
) -> None:
    samples = [
        sample
        for name, own in public_sets(args.data).items()
        for sample in own
        if not args.sets or name in args.sets
    ]
    for sample, setting, scribbles in itertools.product(
        samples, [{**s, "seed": args.seed} for s in settings], SCRIBBLES
    ):
        results.get(backbone, setting, sample, scribbles, store)


def score(
    backbone: Any, setting: Setting, sample: Sample, scribbles: str, store: Path
) -> dict[str, Any]:
    """Train and score one image with one setting."""
    kind = setting["kind"]
    given: dict[str, Any] = {
        "density": setting["density"],
        "components": setting["components"] or None,
    }
    # what is not said is the package's choice
    if setting["scale"] is not None:
        given["scale"] = setting["scale"]
    if setting["halo"] is not None:
        given["halo_tokens"] = setting["halo"]
    segmenter = Segmenter(
        None if kind == "classical" else backbone,
        features=FeatureSettings(kind=kind, **given),
        classifier=ClassifierSettings(seed=setting["seed"]),
        store=store,
    )
    embed_s, embedding = timed(segmenter.embed, sample.image())
    fit_s, _ = timed(segmenter.fit, embedding, sample.painted(scribbles))
    predict_s, result = timed(segmenter.predict, embedding)
    counts = confusion(result.labels, sample.mask(), labels_offset=1, ignore=IGNORE_ID)
    return {
        "miou": counts.miou,
        "accuracy": counts.accuracy,
        "embed_s": embed_s,
        "fit_s": fit_s,
        "predict_s": predict_s,
    }


# ------------------------------------------------------------------------------- table

_SETTINGS = ("backbone", "kind", "scale", "density", "components", "halo")
_HEAD = (*_SETTINGS, "results", *SCRIBBLES, "worst set against classical", "s")


def sweep_rows(results: list[dict[str, Any]]) -> list[list[Any]]:
    """Return a row a setting: mIoU by scribbles, and where it loses most."""
    means = {}
    for row in results:
        key = tuple(row[s] for s in _SETTINGS)
        means.setdefault(key, {}).setdefault((row["set"], row["scribbles"]), []).append(
            row
        )
    classical = next((v for k, v in means.items() if k[1] == "classical"), {})
    rows = []
    for key, by_set in means.items():
        score_of = {at: _mean(own, "miou") for at, own in by_set.items()}
        shown = [
            _mean_of(v for (_, s), v in score_of.items() if s == k) for k in SCRIBBLES
        ]
        losses = {
            f"{at[0]} {at[1]}": v - _mean(classical[at], "miou")
            for at, v in score_of.items()
            if at in classical
        }
        worst = min(losses, key=lambda k: losses[k]) if losses else ""
        text = (
            f"{worst} {losses[worst]:+.3f}" if worst and key[1] != "classical" else ""
        )
        own = [r for rows_ in by_set.values() for r in rows_]
        seconds = sum(r["embed_s"] + r["fit_s"] + r["predict_s"] for r in own)
        rows.append([*map(str, key), len(own), *shown, text, f"{seconds:.1f}"])
    return rows


def _mean(rows: list[dict[str, Any]], name: str) -> float:
    return statistics.mean(r[name] for r in rows)


def _mean_of(values: Iterator[float]) -> float | None:
    known = list(values)
    return statistics.mean(known) if known else None


if __name__ == "__main__":
    raise SystemExit(main())
