"""Measures Batuta; ``python -m benchmarks`` writes ``docs/performance.md``."""
