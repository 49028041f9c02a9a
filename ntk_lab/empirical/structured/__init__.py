"""Structured derivatives: kernels from the inputs and cotangents of each use of a parameter.

A dense layer ``y = A W`` with cotangents ``D`` of ``y`` has the gradient ``A^T D``, so that its
part of the kernel is ``(A1 A2^T) * (D1 D2^T)`` and the gradient is never formed
(arXiv:2206.08720). `trace` and `narrow` rewrite a function of one example to a flat list of
operations, `uses` finds the operations that are linear in a parameter, `factors` holds what they
contribute, and `program` computes it.
"""
