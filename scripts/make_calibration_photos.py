"""Remake the photos that edgeport calibrates with when the user brings none.

The photos ship inside the package, so they must be small and free of rights. scikit-image's wheel holds a few
colour photos which it states to be CC0 or in the public domain; this takes those and no others, makes their
shorter side 256 pixels and writes them as JPEG, with a LICENSES.md beside them.

Usage:

    pip download --no-deps scikit-image==0.26.0
    python scripts/make_calibration_photos.py scikit_image-0.26.0-*.whl

The same Pillow and the same wheel give the same bytes.
"""

import argparse
import io
import zipfile
from pathlib import Path

from PIL import Image

SHORT_SIDE = 256
QUALITY = 88
DESTINATION = Path(__file__).resolve().parents[1] / "edgeport" / "data" / "photos"
# (file in skimage/data, what it shows, author and source, licence), by skimage/data/_fetchers.py. Left out:
# motorcycle (no licence stated), ihc (a microscope slide, and only "no known copyright restrictions") and the
# textures, which are grey.
PHOTOS = (
    (
        "astronaut.png",
        "the astronaut Eileen Collins",
        "NASA, Great Images database, <https://flic.kr/p/r9qvLn>",
        "no known copyright restrictions, released into the public domain",
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


def shrink(data: bytes) -> bytes:
    """Return the image as a JPEG whose shorter side is SHORT_SIDE, without metadata."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = SHORT_SIDE / min(image.size)
    small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=QUALITY, optimize=True, comment=b"")
    return out.getvalue()


def licences() -> str:
    """Return LICENSES.md: the photos' rights as scikit-image states them."""
    rows = [f"| {Path(name).stem}.jpg | {what} | {who} | {terms} |" for name, what, who, terms in PHOTOS]
    head = [
        "# Licences of the calibration photos",
        "",
        "Each photo comes from the scikit-image wheel, scaled down by `scripts/make_calibration_photos.py`;",
        "source and licence are as stated in scikit-image's `skimage/data/_fetchers.py`.",
        "",
        "| file | what | author / source | licence |",
        "| --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *rows]) + "\n"


def main() -> None:
    """Write the photos and LICENSES.md into the package."""
    parser = argparse.ArgumentParser(description="Remake edgeport's default calibration photos.")
    parser.add_argument("wheel", type=Path, help="path of a scikit-image wheel")
    wheel = parser.parse_args().wheel
    DESTINATION.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for name, *_ in PHOTOS:
            target = DESTINATION / f"{Path(name).stem}.jpg"
            target.write_bytes(shrink(archive.read(f"skimage/data/{name}")))
            print(f"{target.name}: {target.stat().st_size} bytes")
    (DESTINATION / "LICENSES.md").write_text(licences(), encoding="utf-8")


if __name__ == "__main__":
    main()
