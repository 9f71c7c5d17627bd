"""Whether devices can be measured on, found out before anything is exported for them."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from edgeport import pinning, preflight
from edgeport.catalog import Device
from edgeport.errors import EdgeportError
from edgeport.progress import Progress, Silent
from edgeport.sessions import Access, runner_on
from edgeport.transport import open_transport


def refusals(
    devices: Sequence[Device], access: Access, pin: str, allow_unstable: bool, progress: Progress
) -> Mapping[str, EdgeportError]:
    """Why some of the devices cannot be measured on, by their names. pin: as --pin has it, "" for none."""
    asked = [device for device in devices if pin or device.transport != "local"]
    if not asked:
        return {}
    step = f"reach {', '.join(device.name for device in asked)}"
    progress.started(step)
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(lambda device: _refusal(device, access, pin, allow_unstable), asked))
    told = {device.name: error for device, error in zip(asked, found, strict=True) if error}
    if told:
        progress.failed(step)
    else:
        progress.finished(step)
    return told


def _refusal(device: Device, access: Access, pin: str, allow_unstable: bool) -> EdgeportError | None:
    """Connects, looks at the system and at its state, and lets go of it again."""
    try:
        with open_transport(device) as transport:
            if device.runner != "agent":
                return None
            runner = runner_on(device, transport, access)
            is_local = device.transport == "local"
            facts = runner.facts() if is_local else preflight.check(runner, device, allow_unstable, Silent())
            if pin:
                pinning.cores(pin, facts)
    except EdgeportError as e:
        return e
    return None
