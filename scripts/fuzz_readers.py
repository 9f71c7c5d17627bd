"""Feeds damaged model files to edgeport's readers, and to whole commands; says what was slowest and took most memory.

    python scripts/fuzz_readers.py readers --files 100000 --seed 1
    python scripts/fuzz_readers.py commands --files 1000 --seed 1

Every file follows from the seed and its number, so that --first N goes on where a run ended, and a file that shows a
fault is made again by its number. A reader may refuse a file by ModelFileError and by nothing else; a command may
end with 0, 2 or 3 and with no traceback.
"""

import argparse
import contextlib
import io
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from edgeport import confined, formats
from edgeport.errors import ModelFileError

BLOCK = 500  # files that one child reads, one after the other
LIMITS = confined.Limits(seconds=600, memory=1_000_000_000, answer=1_000_000)
COMMAND_LIMITS = confined.Limits(seconds=120, memory=4_000_000_000, answer=1_000_000)
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(seeds: list[bytes], seed: int, number: int) -> bytes:
    """A seed file with some bytes, numbers or stretches changed, or cut short."""
    draw = random.Random(f"{seed}:{number}")
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at, how = draw.randrange(len(data)), draw.randrange(6)
        if how < 2:
            data[at] = draw.randrange(256)
        elif how == 2:
            data[at : at + 4] = draw.choice(INTERESTING).to_bytes(4, "little")
        elif how == 3:
            start = draw.randrange(len(data))
            data[at:at] = data[start : start + draw.randrange(1, 64)]
        elif how == 4:
            del data[at : at + draw.randrange(1, 16)]
        else:
            data[at:] = data[at : at + max(1, (len(data) - at) // draw.choice((1, 2, 8)))]
        if not data:
            return b"\0"
    return bytes(data)


def seed_files(folder: Path | None) -> dict[str, list[bytes]]:
    """By suffix: the files of the folder, or small ones that the tests make."""
    with tempfile.TemporaryDirectory() as made:
        if folder is None:
            sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "unit"))
            import small_models

            small_models.small_onnx(Path(made, "small.onnx"))
            small_models.small_tflite(Path(made, "small.tflite"))
            folder = Path(made)
        found = {
            suffix: [path.read_bytes() for path in sorted(folder.rglob(f"*{suffix}"))]
            for suffix in (".onnx", ".tflite")
        }
    return {suffix: contents for suffix, contents in found.items() if contents}


def read_block(suffix: str, seeds: list[bytes], seed: int, numbers: range) -> bytes:
    """Reads the files of these numbers with the reader itself. The answer: the slowest, its number, peak memory."""
    reader = formats._reader(Path(f"x{suffix}"))
    slowest, which = 0.0, numbers[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"mutated{suffix}")
        for number in numbers:
            path.write_bytes(mutated(seeds, seed, number))
            start = time.process_time()
            try:
                reader.read(path)
            except ModelFileError:
                pass  # as it should be
            except Exception as e:
                return f"{type(e).__name__}: {e} in file {number}".encode()
            took = time.process_time() - start
            if took > slowest:
                slowest, which = took, number
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return f"ok {slowest} {which} {peak}".encode()


def run_command(suffix: str, seeds: list[bytes], seed: int, numbers: range) -> bytes:
    """Runs profile and inspect on one file."""
    from edgeport import cli

    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"mutated{suffix}")
        path.write_bytes(mutated(seeds, seed, numbers[0]))
        quickly = ("--launches=1", "--num-runs=2", "--warmup-runs=0", "--no-history", "-q", "--allow-unstable")
        for argv in (["inspect", str(path)], ["profile", str(path), *quickly]):
            told = io.StringIO()
            with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
                code = cli.run(argv)
            if code not in (0, 2, 3) or "Traceback" in told.getvalue() or "mistake in edgeport" in told.getvalue():
                return f"{argv[0]} of file {numbers[0]} ended with {code}: {told.getvalue()[-2000:]}".encode()
    usages = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return f"ok {time.monotonic() - start} {numbers[0]} {max(usages) * 1024}".encode()


def main() -> int:
    """Returns 1 after a fault that it has told."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("readers", "commands"))
    parser.add_argument("--files", type=int, default=1000, help="of each format")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=Path, help="a folder of whole .onnx and .tflite files to damage")
    args = parser.parse_args()
    size = BLOCK if args.what == "readers" else 1
    numbers = range(args.first, args.first + args.files)
    parts = [numbers[at : at + size] for at in range(0, len(numbers), size)]
    faults = 0
    for suffix, seeds in seed_files(args.seeds).items():
        formats._reader(Path(f"x{suffix}"))  # so that no child imports it again
        answers = [asked(args.what, suffix, seeds, args.seed, part) for part in parts]
        faults += sum(not answer.startswith("ok ") for answer in answers)
        told = [answer.split()[1:] for answer in answers if answer.startswith("ok ")]
        slowest, which = max(((float(seconds), int(number)) for seconds, number, _ in told), default=(0.0, 0))
        peak = max((int(most) for _, _, most in told), default=0)
        sys.stdout.write(
            f"{suffix}: {args.files} files from number {args.first}, seed {args.seed}, of {len(seeds)} whole ones; "
            f"slowest {slowest:.2f} s (file {which}), peak {peak / 1e6:.0f} MB\n"
        )
        sys.stdout.flush()
    return bool(faults)


def asked(what: str, suffix: str, seeds: list[bytes], seed: int, numbers: range) -> str:
    """The answer of a child that looks at the files of these numbers. One that is a fault is written out."""
    work, limits = (read_block, LIMITS) if what == "readers" else (run_command, COMMAND_LIMITS)
    try:
        answer = confined.call(lambda: work(suffix, seeds, seed, numbers), limits).decode()
    except confined.ConfinedError as e:
        answer = f"one of the files {numbers[0]} to {numbers[-1]}: {e}"
    if not answer.startswith("ok "):
        sys.stdout.write(f"{suffix}: {answer}\n")
    return answer


if __name__ == "__main__":
    sys.exit(main())
