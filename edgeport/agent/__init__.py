"""The device agent: loads one model with one runtime, times it, and prints what it saw as JSON lines.

It runs on the device, so it uses nothing but the standard library of Python 3.8 and imports nothing of edgeport; the
runtimes' C libraries are handed to it as files and driven by ctypes. It measures and reports; it does not judge.
"""

PROTOCOL = 2
