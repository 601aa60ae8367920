"""A computation on a GPU that is recorded once and replayed: a small network waits for launches, not for arithmetic."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

__all__ = ["Recorded"]

R = TypeVar("R")

_ONE_AT_A_TIME = threading.Lock()


class Recorded(Generic[R]):
    """A function of tensors of fixed shapes as a CUDA graph; called, it does to memory what the function did.

    It must have been run before, on the current stream, which is not the default one. What it returns is overwritten
    by the next call.

    Args:
        function: Reads its arguments and tensors that stay where they are, and never waits for the GPU.
        shown: Arguments, whose values do not matter.

    Raises:
        RuntimeError: If the function does what no graph can hold.

    Source:
        https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    def __init__(self, function: Callable[..., R], shown: tuple[Tensor, ...]) -> None:
        self.shown = tuple(x.clone() for x in shown)
        self.graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        # Other threads may launch work meanwhile, but may not record.
        with _ONE_AT_A_TIME, torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
            self.result = function(*self.shown)

    def __call__(self, shown: tuple[Tensor, ...]) -> R:
        """The function of other values."""
        for kept, x in zip(self.shown, shown, strict=True):
            kept.copy_(x)
        self.graph.replay()
        return self.result
