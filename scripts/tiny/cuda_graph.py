"""Gradients by a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class GraphedGradients:
    """Computes a loss and its gradients, for inputs whose shapes stay the same.

    On a GPU the computation is captured as a CUDA graph at the first call, and replayed from then on: it consists of
    thousands of small kernels, and launching them one by one takes longer than running them.

    Args:
        function: Returns a loss and other results for some tensors.
        parameters: The parameters that get gradients.
    """

    def __init__(
        self, function: Callable[[Sequence[Tensor]], tuple[Tensor, ...]], parameters: Sequence[nn.Parameter]
    ) -> None:
        self.function, self.parameters = function, parameters
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._outputs: tuple[Tensor, ...] = ()

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Set the gradients of the parameters, and return what the function returns."""
        if not inputs[0].is_cuda:
            self._clear_gradients()
            return self._run(inputs)
        if self._graph is None:
            self._graph = self._capture(inputs)
        for static, value in zip(self._inputs, inputs, strict=True):
            static.copy_(value)
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)

    def _capture(self, inputs: Sequence[Tensor]) -> torch.cuda.CUDAGraph:
        self._inputs = [tensor.clone() for tensor in inputs]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # libraries choose their kernels
                self._clear_gradients()
                self._run(self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._clear_gradients()  # so that the captured run overwrites the gradients instead of adding to them
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._outputs = self._run(self._inputs)
        return graph

    def _run(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        loss, *others = self.function(inputs)
        torch.autograd.backward(loss)
        return (loss.detach(), *others)

    def _clear_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
