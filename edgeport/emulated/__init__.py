"""Emulated devices to try edgeport on and to test it with: a Raspberry Pi behind ssh, a phone behind adb.

The Pi is a Debian for ARM with a real sshd on a loopback port and nothing else but Python. The phone has no Python and
no C library: busybox stands for Android's tools, and adbd.py serves it to the real adb client. Both compute by QEMU,
one instruction after another, so every answer is right and every time is meaningless.

Each start is a device just unboxed: its disk is a layer in memory over the cached root. A device lives in namespaces of
its own (unshare(1)): when its first process ends, however that happens, the kernel ends the others and takes the mounts
down with them. What a device is made of stands in kinds.py and in files/NAME, which is copied over its root.
"""
