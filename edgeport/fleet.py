"""Measures on one device or on several: side by side where they are different machines, one after the other else."""

import collections
import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from edgeport import benchmark_model, pinning, preflight
from edgeport.catalog import Device
from edgeport.errors import DeviceError, EdgeportError, UsageError
from edgeport.measure import Artifact, Measurement, Settings
from edgeport.progress import Progress
from edgeport.records import Origin, Result
from edgeport.runner import Runner
from edgeport.sessions import Access, hold, push_kit, runner_on
from edgeport.transport import Transport, open_transport

STOP_SECONDS = 5.0
LOOK_SECONDS = 0.1
BOOT_ID = "/proc/sys/kernel/random/boot_id"  # another one for every start of every machine


class Job(msgspec.Struct, frozen=True):
    """What to measure on one device. settings.cores: where neither the device nor --pin says otherwise."""

    device: Device
    artifacts: tuple[Artifact, ...]
    settings: Settings


class Conditions(msgspec.Struct, frozen=True):
    """Under which to measure. pin: as --pin has it, "" for the device's own cores."""

    access: Access = Access()
    pin: str = ""
    allow_unstable: bool = False


def together(errors: Sequence[EdgeportError]) -> EdgeportError:
    """The one error, or one that tells of them all."""
    if len(errors) == 1:
        return errors[0]
    kind = UsageError if all(isinstance(e, UsageError) for e in errors) else DeviceError
    return kind("\n".join(map(str, errors)))


class Fleet:
    """Some jobs. results() may be asked for at any time, and after whatever error. origin: when and on which commit.
    refused: errors of further devices, by their names, which are known beforehand.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        conditions: Conditions,
        progress: Progress,
        origin: Origin | None = None,
        refused: Mapping[str, EdgeportError] | None = None,
    ) -> None:
        self._jobs, self._conditions, self._progress = jobs, conditions, progress
        self._measurements: dict[str, Measurement] = {}
        self._transports: list[Transport] = []
        self._errors: dict[str, EdgeportError] = dict(refused or {})
        self._stopped = threading.Event()
        self._origin = origin
        self._machines: dict[str, threading.Lock] = collections.defaultdict(threading.Lock)

    def run(self) -> None:
        """Raises the error of the device that failed, or one that names them all, once every other one has ended."""
        if len(self._jobs) == 1 and not self._errors:
            self._measure(self._jobs[0])
            return
        threads = [threading.Thread(target=self._try, args=(job,), daemon=True) for job in self._jobs]
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                time.sleep(LOOK_SECONDS)  # join() would not hear of a Ctrl-C that another thread was handed
        except KeyboardInterrupt:
            self._stop(threads)
            raise
        if self._errors:
            order = [job.device.name for job in self._jobs]
            names = sorted(self._errors, key=lambda name: order.index(name) if name in order else -1)
            raise together([self._errors[name] for name in names])

    def results(self) -> list[Result]:
        """Of what was measured at least once, in the order of the jobs."""
        found = (self._measurements.get(job.device.name) for job in self._jobs)
        return [result for measurement in found if measurement for result in measurement.results()]

    def _try(self, job: Job) -> None:
        try:
            self._measure(job)
        except EdgeportError as e:
            self._errors[job.device.name] = e

    def _measure(self, job: Job) -> None:
        device, conditions, progress = job.device, self._conditions, self._progress
        with (
            open_transport(device) as transport,
            self._alone_on(transport),
            self._runner(job, transport) as held,
        ):
            facts = preflight.check(held, device, conditions.allow_unstable, progress)
            cores = pinning.cores(conditions.pin, facts) if conditions.pin else device.cores
            settings = msgspec.structs.replace(job.settings, cores=cores)
            measurement = Measurement(job.artifacts, held, settings, progress, self._origin)
            self._measurements[device.name] = measurement
            measurement.run()

    @contextlib.contextmanager
    def _runner(self, job: Job, transport: Transport) -> Iterator[Runner]:
        """What measures there, with all that it needs in place; the device is kept for it, where it can be."""
        device, access = job.device, self._conditions.access
        if device.runner == "benchmark_model":
            yield benchmark_model.runner_on(device, transport, self._progress)
            return
        with hold(runner_on(device, transport, access), access.wait, self._progress) as held:
            if device.transport != "local":
                push_kit(held, list(dict.fromkeys(a.runtime for a in job.artifacts)), self._progress)

            def still_ours() -> None:
                self._go_on()
                held.still_ours()

            yield msgspec.structs.replace(held, still_ours=still_ours)

    @contextlib.contextmanager
    def _alone_on(self, transport: Transport) -> Iterator[None]:
        """Until no other job is on the same machine, by whatever name it goes."""
        self._transports.append(transport)
        machine = transport.run(["cat", BOOT_ID]).out.strip() or transport.name
        with self._machines[machine]:
            self._go_on()
            yield

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise DeviceError("interrupted")

    def _stop(self, threads: Sequence[threading.Thread]) -> None:
        self._stopped.set()
        for transport in self._transports:
            transport.close()
        for thread in threads:
            if thread.is_alive():
                thread.join(STOP_SECONDS)
