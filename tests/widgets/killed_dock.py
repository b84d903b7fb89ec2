"""Run by test_dock_kill.py: open an image, paint by hand, wait to be killed.

Its own process, as only that can be killed. Prints a line when strokes are saved.
"""

from __future__ import annotations

import sys
from pathlib import Path

import napari
import numpy as np
from widgets.driver import Driver, spin


def main() -> None:
    image, out = Path(sys.argv[1]), Path(sys.argv[2])
    driver = Driver(napari.Viewer(show=True))
    driver.add_dock()
    spin(0.3)
    driver.open(image)
    classes = driver.dock.session.classes
    classes.add("pore", class_id=3, colour="#112233")
    classes.add("grain", class_id=7)
    driver.key("1")
    driver.stroke((20, 10), (20, 60), (40, 60))
    driver.key("2")
    driver.stroke((90, 20), (90, 80))
    driver.settled()
    np.save(out, driver.painted)
    print("painted", flush=True)
    while True:  # at work until the end
        driver.dock.update_once()
        spin(0.02)


if __name__ == "__main__":
    main()
