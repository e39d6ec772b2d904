"""Memory at an address as a DLPack capsule, for `torch.from_dlpack`: the structures of dlpack.h 0.8 (DLManagedTensor), by ctypes."""

import ctypes as c

CPU, CUDA = 1, 2
FLOAT = 2
NAME = b"dltensor"


class Device(c.Structure):
    _fields_ = (("kind", c.c_int), ("id", c.c_int))


class DataType(c.Structure):
    _fields_ = (("code", c.c_uint8), ("bits", c.c_uint8), ("lanes", c.c_uint16))


class Tensor(c.Structure):
    _fields_ = (
        ("data", c.c_void_p),
        ("device", Device),
        ("ndim", c.c_int),
        ("dtype", DataType),
        ("shape", c.POINTER(c.c_int64)),
        ("strides", c.POINTER(c.c_int64)),
        ("byte_offset", c.c_uint64),
    )


class Managed(c.Structure):
    _fields_ = (("tensor", Tensor), ("context", c.c_void_p), ("deleter", c.c_void_p))


class Producer:
    """float32 numbers at an address. It owns nothing: the memory must stay for as long as the consumer's tensor, and so must this."""

    def __init__(self, address: int, count: int, device: int) -> None:
        self.device, self.shape = device, (c.c_int64 * 1)(count)
        self.managed = Managed(
            Tensor(address, Device(device, 0), 1, DataType(FLOAT, 32, 1), self.shape, None, 0), None, None
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self, **_: object) -> object:
        new = c.pythonapi.PyCapsule_New
        new.restype, new.argtypes = c.py_object, (c.c_void_p, c.c_char_p, c.c_void_p)
        return new(c.addressof(self.managed), NAME, None)
