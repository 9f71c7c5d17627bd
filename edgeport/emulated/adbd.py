"""The device's side of adb for an emulated phone: what the real adb client needs of it, over TCP, for one root folder.

It speaks the protocol of Android's own documents (system/core/adb: protocol.txt, shell_service.h, SYNC.TXT): connection
without encryption, shell v2, and sync with the second version of stat. Commands run in the root by chroot as the user
"shell" (2000), without the variables of this process; files are written below /data/local/tmp alone. --state makes it a
phone on which nobody has confirmed the question whether to trust this computer, or one that does not answer.

    python -m edgeport.emulated.adbd --root ROOT --port 6000
    adb connect 127.0.0.1:6000
"""

import argparse
import asyncio
import contextlib
import errno
import io
import os
import shutil
import signal
import stat
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path, PurePosixPath

VERSION, MAX_DATA = 0x01000001, 1 << 18
HEADER = struct.Struct("<4s5I")
BANNER = "device::ro.product.name=emulated;ro.product.model=Emulated_phone;ro.product.device=emulated;features="
FEATURES = "shell_v2,cmd,stat_v2,fixed_push_mkdir"
AUTH_TOKEN = 1
# Ids of shell v2's packets.
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
SHELL_USER = 2000
WRITABLE = PurePosixPath("/data/local/tmp")
ENVIRONMENT = {
    "PATH": "/product/bin:/apex/com.android.runtime/bin:/system/bin:/system/xbin:/vendor/bin",
    "ANDROID_ROOT": "/system",
    "ANDROID_DATA": "/data",
    "HOME": "/",
    "USER": "shell",
    "TMPDIR": "/data/local/tmp",
}
SYNC_CHUNK = 1 << 16


class Stream:
    """One service that the client has opened. Bytes come and go; each message of ours waits for the client's OKAY."""

    def __init__(self, send: Callable[[bytes, int, int, bytes], None], own_id: int, peer_id: int) -> None:
        self._send, self._own_id, self._peer_id = send, own_id, peer_id
        self._received = asyncio.StreamReader()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self.closed = asyncio.Event()

    def acknowledged(self) -> None:
        self._may_write.set()

    def receive(self, data: bytes) -> None:
        self._received.feed_data(data)
        self._send(b"OKAY", self._own_id, self._peer_id, b"")

    def end(self) -> None:
        """The client has closed it."""
        self.closed.set()
        self._may_write.set()
        self._received.feed_eof()

    async def read(self, n: int) -> bytes:
        """Exactly n bytes. Raises IncompleteReadError at the end."""
        return await self._received.readexactly(n)

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_DATA):
            await self._may_write.wait()
            if self.closed.is_set():
                return
            self._may_write.clear()
            self._send(b"WRTE", self._own_id, self._peer_id, data[start : start + MAX_DATA])

    def close(self) -> None:
        if not self.closed.is_set():
            self._send(b"CLSE", self._own_id, self._peer_id, b"")


class Phone:
    """What answers one client's connection."""

    def __init__(self, root: Path, state: str, writer: asyncio.StreamWriter) -> None:
        self._root, self._state, self._writer = root, state, writer
        self._streams: dict[int, Stream] = {}
        self._services: set[asyncio.Task[None]] = set()
        self._last_id = 0

    async def answer(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                command, arg0, arg1, length, _, _ = HEADER.unpack(await reader.readexactly(HEADER.size))
                await self._heard(command, arg0, arg1, await reader.readexactly(length))
        for stream in self._streams.values():
            stream.end()
        self._writer.close()

    async def _heard(self, command: bytes, arg0: int, arg1: int, data: bytes) -> None:
        stream = self._streams.get(arg1)
        if command == b"CNXN":
            self._greet()
        elif command == b"OPEN":
            self._open(arg0, data.rstrip(b"\0").decode())
        elif command == b"WRTE" and stream:
            stream.receive(data)
        elif command == b"OKAY" and stream:
            stream.acknowledged()
        elif command == b"CLSE" and stream:
            stream.end()
            del self._streams[arg1]
        await self._writer.drain()

    def _greet(self) -> None:
        if self._state == "unauthorized":  # and stays so, whatever the client signs
            self._send(b"AUTH", AUTH_TOKEN, 0, os.urandom(20))
        elif self._state == "device":
            self._send(b"CNXN", VERSION, MAX_DATA, (BANNER + FEATURES).encode())

    def _send(self, command: bytes, arg0: int, arg1: int, data: bytes) -> None:
        if not self._writer.is_closing():
            magic = int.from_bytes(command, "little") ^ 0xFFFFFFFF
            self._writer.write(HEADER.pack(command, arg0, arg1, len(data), sum(data) & 0xFFFFFFFF, magic) + data)

    def _open(self, peer_id: int, service: str) -> None:
        kind, _, argument = service.partition(":")
        serve = {"shell": self._shell, "exec": self._exec, "sync": self._sync}.get(kind.partition(",")[0])
        if serve is None:
            self._send(b"CLSE", 0, peer_id, b"")
            return
        self._last_id += 1
        stream = self._streams[self._last_id] = Stream(self._send, self._last_id, peer_id)
        self._send(b"OKAY", self._last_id, peer_id, b"")
        task = asyncio.get_running_loop().create_task(_served(serve(stream, argument), stream))
        self._services.add(task)  # the loop keeps none of its own
        task.add_done_callback(self._services.discard)

    async def _shell(self, stream: Stream, command: str) -> None:
        async def forward(packet: int, source: asyncio.StreamReader) -> None:
            while data := await source.read(SYNC_CHUNK):
                await stream.write(struct.pack("<BI", packet, len(data)) + data)

        process = await self._start(command, asyncio.subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        listening = asyncio.get_running_loop().create_task(_feed(stream, process))
        await asyncio.gather(forward(STDOUT, process.stdout), forward(STDERR, process.stderr))
        code = await process.wait()
        listening.cancel()
        # as a shell tells of a command that a signal ended
        await stream.write(struct.pack("<BIB", EXIT, 1, code if code >= 0 else 128 - code))

    async def _exec(self, stream: Stream, command: str) -> None:
        process = await self._start(command, asyncio.subprocess.STDOUT)
        assert process.stdout is not None
        while data := await process.stdout.read(SYNC_CHUNK):
            await stream.write(data)
        await process.wait()

    async def _start(self, command: str, stderr: int) -> asyncio.subprocess.Process:
        chroot = [shutil.which("chroot") or "chroot", f"--userspec={SHELL_USER}:{SHELL_USER}", str(self._root)]
        return await asyncio.create_subprocess_exec(
            *chroot,
            *("/system/bin/sh", *(("-c", command) if command else ())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env={**ENVIRONMENT, "QEMU_CPU": os.environ.get("QEMU_CPU", "max")},
            start_new_session=True,
        )

    async def _sync(self, stream: Stream, _: str) -> None:
        while True:
            request, length = struct.unpack("<4sI", await stream.read(8))
            path = (await stream.read(length)).decode(errors="surrogateescape")
            if request == b"QUIT":
                return
            if request in (b"STA2", b"LST2"):
                await stream.write(self._stat(request, path))
            elif request == b"RECV":
                await self._pull(stream, path)
            elif request == b"SEND":
                await self._push(stream, *path.rsplit(",", 1))
            elif request == b"LIST":
                await self._list(stream, path)
            else:
                await stream.write(_failed(f"unknown request {request!r}"))

    def _place(self, path: str) -> Path:
        return self._root / os.path.normpath(f"/{path}").lstrip("/")

    def _stat(self, request: bytes, path: str) -> bytes:
        try:
            s = self._place(path).stat(follow_symlinks=request == b"STA2")
        except OSError as e:
            return request + struct.pack("<I64x", e.errno or errno.EIO)
        owner = (s.st_nlink, s.st_uid, s.st_gid, s.st_size)
        times = (int(s.st_atime), int(s.st_mtime), int(s.st_ctime))
        return request + struct.pack("<IQQ4IQ3q", 0, s.st_dev, s.st_ino, s.st_mode, *owner, *times)

    async def _pull(self, stream: Stream, path: str) -> None:
        try:
            with self._place(path).open("rb") as f:
                while data := f.read(SYNC_CHUNK):
                    await stream.write(b"DATA" + struct.pack("<I", len(data)) + data)
        except OSError as e:
            await stream.write(_failed(f"open failed: {e.strerror}"))
            return
        await stream.write(b"DONE" + bytes(4))

    async def _push(self, stream: Stream, path: str, mode: str) -> None:
        """Takes all that is sent, also where it cannot be written, and then says how it went."""
        place, failure = self._place(path), ""
        target = None
        try:
            target = self._created(place)
        except OSError as e:
            failure = f"couldn't create file: {e.strerror}"
        async for data in _chunks(stream):
            try:
                if target:
                    target.write(data)
            except OSError as e:
                failure, target = f"write failed: {e.strerror}", None
        if target:
            target.close()
            place.chmod(stat.S_IMODE(int(mode)))
        await stream.write(_failed(failure) if failure else b"OKAY" + bytes(4))

    def _created(self, place: Path) -> io.FileIO:
        inside = PurePosixPath("/") / place.relative_to(self._root)
        if not inside.is_relative_to(WRITABLE):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        for folder in reversed(place.parents):
            if not folder.exists():
                folder.mkdir(0o775)
                os.chown(folder, SHELL_USER, SHELL_USER)
        place.unlink(missing_ok=True)
        target = io.FileIO(place, "w")
        os.chown(place, SHELL_USER, SHELL_USER)
        return target

    async def _list(self, stream: Stream, path: str) -> None:
        with contextlib.suppress(OSError):
            for entry in sorted(self._place(path).iterdir()):
                s, name = entry.lstat(), os.fsencode(entry.name)
                sizes = (s.st_mode, s.st_size & 0xFFFFFFFF, int(s.st_mtime), len(name))
                await stream.write(b"DENT" + struct.pack("<4I", *sizes) + name)
        await stream.write(b"DONE" + bytes(16))


async def _served(service: Coroutine[None, None, None], stream: Stream) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        await service
    stream.close()


async def _feed(stream: Stream, process: asyncio.subprocess.Process) -> None:
    """Standard input from the client; SIGHUP where the client goes away, as adbd does."""
    assert process.stdin is not None
    try:
        while True:
            packet, length = struct.unpack("<BI", await stream.read(5))
            data = await stream.read(length)
            if packet == STDIN:
                process.stdin.write(data)
                await process.stdin.drain()
            elif packet == CLOSE_STDIN:
                process.stdin.close()
    except asyncio.IncompleteReadError:
        process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGHUP)
    except ConnectionError:
        return  # the command has ended and reads nothing more


async def _chunks(stream: Stream) -> AsyncIterator[bytes]:
    while True:
        kind, number = struct.unpack("<4sI", await stream.read(8))
        if kind != b"DATA":  # DONE; the number is the time of the last change
            return
        yield await stream.read(number)


def _failed(text: str) -> bytes:
    return b"FAIL" + struct.pack("<I", len(text)) + text.encode()


async def _serve(root: Path, port: int, state: str) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Phone(root, state, writer).answer(reader)

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the phone's file system")
    parser.add_argument("--port", type=int, required=True, help="on 127.0.0.1")
    parser.add_argument("--state", choices=("device", "unauthorized", "offline"), default="device")
    args = parser.parse_args()
    asyncio.run(_serve(args.root, args.port, args.state))


if __name__ == "__main__":
    main()
