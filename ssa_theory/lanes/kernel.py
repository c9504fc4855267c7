"""A compiled training step: loss, gradient and optimiser of every model, many steps a call."""

import ctypes
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import torch
from torch import Tensor

import ssa_theory.lanes.rules  # noqa: F401, which registers them
from ssa_theory.lanes import plan
from ssa_theory.lanes.build import build, identity, lanes
from ssa_theory.lanes.emit import Emitter, update
from ssa_theory.lanes.lower import RULES, Lowering
from ssa_theory.lanes.program import Dtype, Source, Unsupported
from ssa_theory.lanes.record import Loss, Parameters, Record, record

Optimizer = Literal["adam", "sgd"]
_STACK = 4096  # vectors of a buffer; a larger one comes from the heap
_HELD = 256  # functions of a process


class Function:
    """The compiled step of a record and of all that are equal to it but for their tensors.

    constants: what it reads beside parameters and batch, from what is known in a record.
    """

    def __init__(self, made: Record, optimizer: Optimizer) -> None:
        shape, self.dtype = made.parameters[0]
        self.optimizer, self.lanes = optimizer, lanes(self.dtype)
        lower = Lowering(shape[-1], self.dtype)
        outputs = lower.outputs(made)
        self.constants = lower.constants
        self.plan = plan.plan(outputs, lower.program.nodes)
        self._heap: list[str] = []
        self.source = self._written([shape[:-1] for shape, _ in made.parameters])
        self.call = build(self.source, self.dtype).train
        self.call.restype = None

    def _written(self, shapes: Sequence[tuple[int, ...]]) -> str:
        used = [n for n in self.plan.nodes if isinstance(n, Source) and n.role != "parameter"]
        constants = [n for n in used if n.role == "constant"]
        batch = [n for n in used if n.role == "batch"]
        names = "pmv" if self.optimizer == "adam" else "p"
        c = [
            'extern "C" void train(REAL* const* P, REAL* const* M, REAL* const* S, '
            "const void* const* C, const void* const* B, int64_t width, REAL* losses, "
            "uint8_t* diverged, int64_t members, int64_t first, int64_t last, int64_t steps, "
            "const double* rates, const double* roots) {",
            "const unsigned state = denormals_are_zero();",
            *(line for n in used for line in self._room(n)),
            *(
                self._array(f"t{k}", size, type_name)
                for k, (size, type_name) in enumerate(self.plan.slots)
            ),
        ]
        for k, shape in enumerate(shapes):
            c += [self._array(f"{name}{k}", math.prod(shape), "V") for name in names]
        c.append("for (int64_t g = first; g < last; g += LANES) {")
        c.append("const int count = last - g < LANES ? last - g : LANES;")
        for k, shape in enumerate(shapes):
            for name, start in zip(names, "PMS", strict=False):
                size = math.prod(shape)
                c.append(f"fetch({name}{k}, {start}[{k}] + g, {size}, members, count);")
        c += [line for n in constants for line in self._fetched(n, f"C[{n.number}]")]
        c.append("V loss = V{}; I bad = I{};")
        c.append("for (int64_t step = 0; step < steps; step++) {")
        c += [line for n in batch for line in self._fetched(n, f"B[step*width + {n.number}]")]
        emitter = Emitter(self.plan)
        c += emitter.body()
        c.append(f"loss = {emitter.load(self.plan.outputs[0], [])};")
        c.append("bad |= ~(vabs(loss) < bc(INFINITY));")
        c.append("const V rate = bc(rates[step]), root = bc(roots[step]);")
        c += update(self.plan, shapes, self.optimizer)
        c.append("}")
        for k, shape in enumerate(shapes):
            for name, start in zip(names, "PMS", strict=False):
                size = math.prod(shape)
                c.append(f"keep({start}[{k}] + g, {name}{k}, {size}, members, count);")
        c.append("if (steps) keep(losses + g, &loss, 1, members, count);")
        c.append("for (int l = 0; l < count; l++) diverged[g + l] |= bad[l] != 0;")
        c.append("}")
        c += [f"free({n});" for n in self._heap]
        c += ["denormals_are(state);", "}"]
        return "\n".join(c)

    def _array(self, name: str, size: int, type_name: str) -> str:
        if size <= _STACK:
            return f"{type_name} {name}[{max(1, size)}];"
        self._heap.append(name)
        room = f"aligned_alloc(64, sizeof({type_name})*{size})"
        return f"{type_name}* const {name} = ({type_name}*){room};"

    def _room(self, node: Source) -> list[str]:
        size, real = math.prod(node.shape), node.dtype == "real"
        name = f"{node.role[0]}{node.number}"
        if node.varies:
            return [self._array(name, size, "V" if real else "I")]
        type_name = self._stored_as(node.dtype)
        if node.role == "constant":
            return [f"const {type_name}* const {name} = (const {type_name}*)C[{node.number}];"]
        return []

    def _fetched(self, node: Source, start: str) -> list[str]:
        name, type_name = f"{node.role[0]}{node.number}", self._stored_as(node.dtype)
        if node.varies:
            size = math.prod(node.shape)
            lines = [f"fetch({name}, (const {type_name}*){start} + g, {size}, members, count);"]
            if node.dtype == "mask":
                lines.append(f"for (int i = 0; i < {size}; i++) {name}[i] = {name}[i] != 0;")
            return lines
        if node.role == "batch":
            return [f"const {type_name}* const {name} = (const {type_name}*){start};"]
        return []

    def _stored_as(self, dtype: Dtype) -> str:
        """What `in_memory` makes of it."""
        real = "double" if self.dtype == torch.float64 else "float"
        return {"real": real, "int": "int64_t", "mask": "uint8_t"}[dtype]


FUNCTIONS: dict[tuple, Function] = {}
"""Those of this process, by what they depend on; the oldest goes where there are too many."""


def _function(made: Record, optimizer: Optimizer) -> Function:
    key = (made.key, optimizer, plan.ROOM, identity())
    if key not in FUNCTIONS:
        while len(FUNCTIONS) >= _HELD:
            del FUNCTIONS[next(iter(FUNCTIONS))]
        FUNCTIONS[key] = Function(made, optimizer)
    return FUNCTIONS[key]


class Kernel:
    """`loss(parameters, batch)` as a compiled step, for batches shaped like this one.

    Tensors that the loss holds are constants of the kernel; another loss of equal operations is the
    same function. Raises Unsupported where it cannot be one, and why.
    """

    def __init__(
        self, loss: Loss, parameters: Parameters, batch: Any, optimizer: Optimizer
    ) -> None:
        first = next(iter(parameters.values()))
        if first.device.type != "cpu" or first.dtype not in (torch.float32, torch.float64):
            raise Unsupported(f"{first.dtype} on {first.device}")
        self.dtype, self.members = first.dtype, first.shape[-1]
        made = record(loss, parameters, batch, RULES.__contains__)
        self.function = _function(made, optimizer)
        self._constants = [self._in_memory(read(made.known)) for read in self.function.constants]

    def _in_memory(self, tensor: Tensor) -> Tensor:
        """A tensor as the function reads it."""
        if tensor.is_floating_point():
            return tensor.to(self.dtype).contiguous()
        return (tensor if tensor.dtype == torch.bool else tensor.to(torch.int64)).contiguous()

    def run(
        self,
        parameters: Sequence[Tensor],
        moments: Sequence[Sequence[Tensor]],
        batches: Sequence[Sequence[Tensor]],
        rates: Sequence[float],
        roots: Sequence[float],
        losses: Tensor,
        diverged: Tensor,
    ) -> None:
        """One step a batch and rate, in place. parameters: contiguous, (..., member).

        moments: Adam's first and second of each parameter, as these are; none for gradient descent.
        batches: the tensors of each step's batch, `leaves`. rates, roots: of each step, the
        learning rate over 1 - beta1^t, and 1 / sqrt(1 - beta2^t). losses: of the last step.
        """
        held: dict[int, Tensor] = {}
        for own in batches:
            for tensor in own:
                if id(tensor) not in held:
                    held[id(tensor)] = self._in_memory(tensor)
        width = len(batches[0]) if batches else 0
        given = [held[id(t)].data_ptr() for own in batches for t in own]
        mean, square = moments or ((), ())
        steps = len(rates)
        bad = diverged.view(torch.uint8)

        def part(first: int, last: int) -> None:
            self.function.call(
                _pointers(parameters),
                _pointers(mean),
                _pointers(square),
                _pointers(self._constants),
                (ctypes.c_void_p * max(1, len(given)))(*given),
                ctypes.c_int64(width),
                ctypes.c_void_p(losses.data_ptr()),
                ctypes.c_void_p(bad.data_ptr()),
                ctypes.c_int64(self.members),
                ctypes.c_int64(first),
                ctypes.c_int64(last),
                ctypes.c_int64(steps),
                (ctypes.c_double * max(1, steps))(*rates),
                (ctypes.c_double * max(1, steps))(*roots),
            )

        one = self.function.lanes
        chunks = -(-self.members // one)
        threads = min(torch.get_num_threads(), chunks)
        if threads == 1:
            part(0, self.members)
            return
        ends = [min(self.members, one * (chunks * k // threads)) for k in range(threads + 1)]
        ends[-1] = self.members
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, ends[:-1], ends[1:]))


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array:
    return (ctypes.c_void_p * max(1, len(tensors)))(*(t.data_ptr() for t in tensors))
