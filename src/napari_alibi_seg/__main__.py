"""`python -m napari_alibi_seg` is the command line."""

import sys

from napari_alibi_seg._cli import main

sys.exit(main())
