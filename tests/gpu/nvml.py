"""NVML as far as the run needs it, by ctypes: Xid events, recovery action and driver of the first GPU. Needs the driver alone."""

import ctypes as c
import threading
import time

XID_EVENT = 0x8
WAIT_MS = 100
RECOVERY_ACTION = 230
"""NVML_FI_DEV_GET_GPU_RECOVERY_ACTION; 0: none."""


class EventData(c.Structure):
    """nvmlEventData_t of nvml.h 11 and later."""

    _fields_ = (
        ("device", c.c_void_p),
        ("kind", c.c_ulonglong),
        ("data", c.c_ulonglong),
        ("gpu_instance", c.c_uint),
        ("compute_instance", c.c_uint),
    )


class FieldValue(c.Structure):
    """nvmlFieldValue_t."""

    _fields_ = (
        ("field", c.c_uint),
        ("scope", c.c_uint),
        ("timestamp", c.c_longlong),
        ("latency_us", c.c_longlong),
        ("kind", c.c_int),
        ("code", c.c_int),
        ("value", c.c_ulonglong),
    )


class Nvml:
    """The first GPU; `trouble` says why it is not to be had."""

    def __init__(self) -> None:
        self.trouble, self.device = "", c.c_void_p()
        try:
            self.lib = c.CDLL("libnvidia-ml.so.1")
        except OSError as error:
            self.trouble = str(error)
            return
        self.call("nvmlInit_v2")
        self.call("nvmlDeviceGetHandleByIndex_v2", c.c_uint(0), c.byref(self.device))

    def call(self, name: str, *arguments: object) -> None:
        """Unless one before it went wrong."""
        if self.trouble:
            return
        function = getattr(self.lib, name, None)
        code = function(*arguments) if function else "is not there"
        if code:
            self.trouble = f"{name}: {code}"

    def driver_version(self) -> str:
        text = c.create_string_buffer(80)
        self.call("nvmlSystemGetDriverVersion", text, c.c_uint(len(text)))
        return text.value.decode(errors="replace")

    def recovery_action(self) -> int | str:
        """What field 230 says, or why it says nothing."""
        field = FieldValue(field=RECOVERY_ACTION)
        self.call("nvmlDeviceGetFieldValues", self.device, c.c_int(1), c.byref(field))
        if self.trouble:
            return self.trouble
        return field.value & 0xFFFF_FFFF if field.code == 0 else f"field {RECOVERY_ACTION}: {field.code}"


class Events(threading.Thread):
    """Xid events from now on, each with its time."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen, self.stop = list[tuple[float, int]](), threading.Event()
        self.nvml, self.set = Nvml(), c.c_void_p()
        self.nvml.call("nvmlEventSetCreate", c.byref(self.set))
        self.nvml.call("nvmlDeviceRegisterEvents", self.nvml.device, c.c_ulonglong(XID_EVENT), self.set)

    @property
    def trouble(self) -> str:
        return self.nvml.trouble

    def run(self) -> None:
        data = EventData()
        while not self.trouble and not self.stop.is_set():
            if self.nvml.lib.nvmlEventSetWait_v2(self.set, c.byref(data), c.c_uint(WAIT_MS)) == 0:
                self.seen.append((time.monotonic(), int(data.data)))
