"""Makes tests/golden/images of photographs that scikit-image and scikit-learn ship.

    pip install pillow==13.0.0 && pip install --no-deps scikit-image==0.26.0 scikit-learn==1.9.1
    python tests/golden/make/photographs.py tests/golden/images

Files are copied where they are PNGs of at most 520 pixels a side; what is larger is shrunk with Lanczos.
"""

import importlib.util
import pathlib
import shutil
import sys

from PIL import Image

SHIPPED = [("skimage", "data"), ("sklearn", "datasets/images")]
# Name, and the size that it is shrunk to.
PHOTOGRAPHS = [("astronaut", None), ("camera", None), ("chelsea", None), ("coffee", (520, 347)),
               ("rocket", (420, 280)), ("china", (420, 280)), ("flower", (420, 280))]


def shipped(name):
    # The packages are not imported: their files are enough.
    for package, folder in SHIPPED:
        root = pathlib.Path(importlib.util.find_spec(package).origin).parent / folder
        for path in [root / f"{name}.png", root / f"{name}.jpg"]:
            if path.exists():
                return path
    sys.exit(f"{name} is not shipped by these versions")


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name, size in PHOTOGRAPHS:
        source, target = shipped(name), out / f"{name}.png"
        if size is None:
            shutil.copyfile(source, target)
        else:
            Image.open(source).resize(size, Image.LANCZOS).save(target)


main()
