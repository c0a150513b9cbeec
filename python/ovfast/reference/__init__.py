"""Greedy generation in plain Python: the engine's oracle and its peer in the benchmarks."""

from ovfast.reference.generate import ReferenceLLM, ReferenceResult

__all__ = ["ReferenceLLM", "ReferenceResult"]
