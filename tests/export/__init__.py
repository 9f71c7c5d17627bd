"""Tests that need PyTorch, the converters and the runtimes. A package, so that module names do not clash."""
