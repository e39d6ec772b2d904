"""Tensors by the memory below them: what is copied is a storage, and tensors that share one go on sharing it.

Tied weights, views of one flat buffer and any dtype or stride follow from that. A tensor that has no storage of its own
(DTensor, sparse, meta, a wrapper subclass) is refused with StateError, which names it and the way out.
"""

from typing import Any

import torch

from resilience.model.errors import StateError

_FSDP = "keep the state with torch.distributed.checkpoint, or train with DistributedDataParallel"


def storage(tensor: Any) -> Any:
    return tensor.untyped_storage()


def address(tensor: Any) -> int:
    """Of the storage below a tensor; 0 when it has no bytes."""
    return int(storage(tensor).data_ptr())


def nbytes(tensor: Any) -> int:
    """Of the storage below a tensor."""
    return int(storage(tensor).nbytes())


def over(below: Any, like: Any) -> Any:
    """A tensor of the geometry of `like` over another storage of the same device."""
    return at(below, like.dtype, like.storage_offset(), like.size(), like.stride())


def at(below: Any, dtype: Any, offset: int, size: Any, stride: Any) -> Any:
    return torch.empty(0, dtype=dtype, device=below.device).set_(below, offset, size, stride)


def check(name: str, tensor: Any) -> None:
    """Raises StateError when a tensor has no storage that could be kept."""
    kinds = {kind.__name__ for kind in type(tensor).__mro__}
    if "DTensor" in kinds:
        raise StateError(name, "is a DTensor (FSDP2, tensor parallelism), which has no storage to keep", hint=_FSDP)
    if torch.nn.parameter.is_lazy(tensor):
        raise StateError(name, "has no shape yet", type(tensor).__name__, hint="run one batch before keep()")
    if tensor.layout is not torch.strided:
        raise StateError(name, "is not strided", tensor.layout, hint="to_dense() it, or leave it out of keep()")
    if tensor.is_meta:
        raise StateError(name, "is on the meta device", hint="materialise it with to_empty() before keep()")
    if tensor.is_quantized or hasattr(type(tensor), "__tensor_flatten__"):
        raise StateError(name, "is a wrapper without a storage of its own", type(tensor).__name__)
    if tensor.grad_fn is not None:
        raise StateError(name, "is part of a gradient's graph", tensor.grad_fn.name(), hint="keep a detach() of it")
