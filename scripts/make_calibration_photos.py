"""Remake the photos that edgeport calibrates with, and verifies on, when the user brings none.

The photos ship inside the package, so they must be small and free of rights. scikit-image's wheel holds a few
photos which it states to be CC0 or in the public domain, and SciPy's one; this takes those and no others, makes
their shorter side 256 pixels and writes them as JPEG, with a LICENSES.md beside them.

Usage:

    pip download --no-deps scikit-image==0.26.0
    pip download --no-deps --python-version 3.9 --only-binary=:all: scipy==1.9.3    # the last ones with the photo
    python scripts/make_calibration_photos.py scikit_image-0.26.0-*.whl scipy-1.9.3-*.whl

The same Pillow and the same wheels give the same bytes.
"""

import argparse
import bz2
import io
import zipfile
from pathlib import Path

from PIL import Image

SHORT_SIDE = 256
QUALITY = 88
DESTINATION = Path(__file__).resolve().parents[1] / "edgeport" / "data" / "photos"
# (file in skimage/data, what it shows, author and source, licence), by skimage/data/_fetchers.py. Left out:
# motorcycle (no licence stated), ihc (a microscope slide, and only "no known copyright restrictions") and the
# textures, which are grey. No ranges are taken from camera and raccoon (edgeport/export/calibrate.py).
PHOTOS = (
    (
        "astronaut.png",
        "the astronaut Eileen Collins",
        "NASA, Great Images database, <https://flic.kr/p/r9qvLn>",
        "no known copyright restrictions, released into the public domain",
    ),
    (
        "camera.png",
        "a photographer with a camera, in grey",
        "Lav Varshney (the photographer)",
        "CC0",
    ),
    (
        "chelsea.png",
        "Chelsea the cat",
        "Stefan van der Walt (the photographer)",
        "CC0",
    ),
    (
        "coffee.png",
        "a coffee cup",
        "Rachel Michetti (the photographer), courtesy of Pikolo Espresso Bar",
        "CC0",
    ),
    (
        "hubble_deep_field.jpg",
        "Hubble eXtreme Deep Field",
        "NASA, HubbleSite, <http://hubblesite.org/newscenter/archive/releases/2012/37/image/a/>",
        "may be freely used in the public domain",
    ),
    (
        "retina.jpg",
        "a human retina",
        "Wikimedia Commons, `Fundus_photograph_of_normal_left_eye.jpg` (medical gallery of Mikael Häggström)",
        "CC0 1.0",
    ),
    (
        "rocket.jpg",
        "launch of DSCOVR on a Falcon 9",
        "SpaceX Photos, <https://www.flickr.com/photos/spacexphotos/16511594820/in/photostream/>",
        "released in the public domain",
    ),
)
# The same of SciPy's photo, by scipy/misc/_common.py: bytes of the pixels, packed by bzip2.
RACCOON = (
    "raccoon.jpg",
    "the face of a raccoon",
    "`raccoon-procyon-lotor.jpg`, <http://www.public-domain-image.com>",
    "public domain, as the site's name says of all that it holds",
)
RACCOON_FILE, RACCOON_SIZE = "scipy/misc/face.dat", (1024, 768)


def shrink(image: Image.Image) -> bytes:
    """Return the image as a JPEG whose shorter side is SHORT_SIDE, without metadata."""
    image = image.convert("RGB")
    scale = SHORT_SIDE / min(image.size)
    small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=QUALITY, optimize=True, comment=b"")
    return out.getvalue()


def licences() -> str:
    """Return LICENSES.md: the photos' rights as scikit-image and SciPy state them."""
    photos = sorted((*PHOTOS, RACCOON))
    rows = [f"| {Path(name).stem}.jpg | {what} | {who} | {terms} |" for name, what, who, terms in photos]
    head = [
        "# Licences of the calibration photos",
        "",
        "Each photo comes from the scikit-image wheel, raccoon.jpg from SciPy's, scaled down by",
        "`scripts/make_calibration_photos.py`; source and licence are as stated in scikit-image's",
        "`skimage/data/_fetchers.py` and SciPy's `scipy/misc/_common.py`.",
        "",
        "| file | what | author / source | licence |",
        "| --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *rows]) + "\n"


def write(name: str, image: Image.Image) -> None:
    """Write one photo into the package."""
    target = DESTINATION / f"{Path(name).stem}.jpg"
    target.write_bytes(shrink(image))
    print(f"{target.name}: {target.stat().st_size} bytes")


def main() -> None:
    """Write the photos and LICENSES.md into the package."""
    parser = argparse.ArgumentParser(description="Remake edgeport's default calibration photos.")
    parser.add_argument("skimage", type=Path, help="path of a scikit-image wheel")
    parser.add_argument("scipy", type=Path, help="path of a SciPy wheel before 1.10")
    args = parser.parse_args()
    DESTINATION.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(args.skimage) as archive:
        for name, *_ in PHOTOS:
            write(name, Image.open(io.BytesIO(archive.read(f"skimage/data/{name}"))))
    with zipfile.ZipFile(args.scipy) as archive:
        pixels = bz2.decompress(archive.read(RACCOON_FILE))
        write(RACCOON[0], Image.frombytes("RGB", RACCOON_SIZE, pixels))
    (DESTINATION / "LICENSES.md").write_text(licences(), encoding="utf-8")


if __name__ == "__main__":
    main()
