"""Settings of all unit tests."""

from hypothesis import settings

# No deadline: a busy machine is no failure. The same examples each time: a change fails in its own run, not later.
settings.register_profile("edgeport", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("edgeport")
