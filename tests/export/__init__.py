"""Tests that need PyTorch, the converters and the runtimes. A package, so that its modules do not clash with others'."""
