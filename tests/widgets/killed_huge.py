"""Run by test_dock_huge.py: paint on a huge image at many places, wait to be killed.

Prints how many pixels are painted and how many megabytes were needed for it, once the
libraries are loaded.
"""

from __future__ import annotations

import sys
from pathlib import Path

import napari
from widgets.driver import Driver, spin
from widgets.huge import kept, look, open_large


def _resident_mb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(x for x in lines if x.startswith("VmRSS"))
    return int(line.split()[1]) // 1024


def main() -> None:
    driver = Driver(napari.Viewer(show=True))
    driver.add_dock()
    spin(0.3)
    open_large(driver, Path(sys.argv[1]))
    driver.classes(1, 2)
    look(driver, 1000, 1000, 1.0)
    driver.key("1")
    driver.stroke((1000, 1000), (1000, 1040))
    driver.key("2")
    driver.stroke((1100, 1000), (1100, 1040))
    driver.settled()
    before = _resident_mb()
    for at in (3000, 6000, 9000):
        look(driver, at, at, 1.0)
        driver.key("1")
        driver.stroke((at, at), (at, at + 40))
        driver.settled()
    grown = _resident_mb() - before
    print("painted", len(kept(driver).ids), grown, flush=True)
    while True:
        spin(0.02)


if __name__ == "__main__":
    main()
