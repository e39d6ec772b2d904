"""GPUs and their events through NVML (pynvml, imported on first use so that a node without it costs nothing).

NvmlGpus answers questions; NvmlEvents waits for Xid events on a thread, since NVML's wait blocks, and hands them over
through a descriptor. NVML names no process with an Xid. A missing library or driver is a GpuError with NVML's own
number.
"""

import os
import queue
import threading
from collections.abc import Iterable
from typing import Any

from resilience.model.errors import GpuError
from resilience.model.ids import GpuUuid
from resilience.ports import Gpu

_WAIT_MS = 5000
"""How long one wait for events lasts; also how long the thread takes to end."""
_MIG_ON = 1
"""NVML_DEVICE_MIG_ENABLE."""
_PAUSE = 1.0
"""Seconds before waiting again after NVML reported an error (GPU lost)."""


def _nvml() -> Any:
    """pynvml with NVML initialised. Raises GpuError."""
    try:
        import pynvml  # 4 MiB: only where GPUs are asked for
    except ImportError as error:
        raise GpuError(
            "nvmlInit", 12, "pynvml is not installed", hint="pip's nvidia-ml-py, Debian's python3-pynvml"
        ) from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise GpuError("nvmlInit", int(error.value), str(error), hint="is the NVIDIA driver loaded?") from error
    return pynvml


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class _Questions:
    """Questions to one GPU that not every GPU and driver knows."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle
        self._unknown = (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        self.unanswered: list[str] = []

    def first(self, call: str) -> int | None:
        """The first number of an answer, 0 where GPU or driver has no such thing, None after any other error."""
        try:
            return int(getattr(self._nvml, call)(self._handle)[0])
        except self._nvml.NVMLError as error:
            if error.value in self._unknown:
                return 0
            self.unanswered.append(str(GpuError(call, int(error.value), str(error))))
            return None


def _gpu(nvml: Any, handle: Any, driver: str) -> Gpu:
    asked = _Questions(nvml, handle)
    mig, capability = asked.first("nvmlDeviceGetMigMode"), asked.first("nvmlDeviceGetCudaComputeCapability")
    return Gpu(
        minor=int(nvml.nvmlDeviceGetMinorNumber(handle)),
        uuid=GpuUuid(_text(nvml.nvmlDeviceGetUUID(handle))),
        name=_text(nvml.nvmlDeviceGetName(handle)),
        driver=driver,
        bus_id=_text(nvml.nvmlDeviceGetPciInfo(handle).busId),
        mig=None if mig is None else mig == _MIG_ON,
        capability=capability,
        unanswered=tuple(asked.unanswered),
    )


class NvmlGpus:
    """Gpus port."""

    def all(self) -> tuple[Gpu, ...]:
        nvml = _nvml()
        try:
            driver = _text(nvml.nvmlSystemGetDriverVersion())
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
            return tuple(_gpu(nvml, handle, driver) for handle in handles)
        except nvml.NVMLError as error:
            raise GpuError("NVML", int(error.value), str(error)) from error

    def mps_processes(self, uuid: GpuUuid) -> Iterable[int]:
        return self._processes(uuid, "nvmlDeviceGetMPSComputeRunningProcesses")

    def plain_processes(self, uuid: GpuUuid) -> Iterable[int]:
        return self._processes(uuid, "nvmlDeviceGetComputeRunningProcesses")

    def memory(self, uuid: GpuUuid) -> tuple[int, int]:
        """Bytes of device memory that are in use, and that there are."""
        nvml = _nvml()
        try:
            info = nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByUUID(uuid))
        except nvml.NVMLError as error:
            raise GpuError("nvmlDeviceGetMemoryInfo", int(error.value), str(error)) from error
        return int(info.used), int(info.total)

    def mps_memory(self, uuid: GpuUuid) -> dict[int, int]:
        """Bytes of each MPS client, where NVML knows them."""
        nvml, call = _nvml(), "nvmlDeviceGetMPSComputeRunningProcesses"
        try:
            found = getattr(nvml, call)(nvml.nvmlDeviceGetHandleByUUID(uuid))
        except nvml.NVMLError as error:
            raise GpuError(call, int(error.value), str(error)) from error
        return {int(one.pid): int(one.usedGpuMemory) for one in found if one.usedGpuMemory is not None}

    def _processes(self, uuid: GpuUuid, call: str) -> tuple[int, ...]:
        nvml = _nvml()
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
            return tuple(int(process.pid) for process in getattr(nvml, call)(handle))
        except nvml.NVMLError as error:
            raise GpuError(call, int(error.value), str(error)) from error


class NvmlEvents:
    """GpuEvents port. The constructor raises GpuError when NVML cannot be used; use NoGpuEvents then."""

    def __init__(self) -> None:
        self._nvml = _nvml()
        self._events: queue.SimpleQueue[tuple[GpuUuid, int]] = queue.SimpleQueue()
        nvml = self._nvml
        try:
            self._set = nvml.nvmlEventSetCreate()
            for index in range(nvml.nvmlDeviceGetCount()):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, self._set)
        except nvml.NVMLError as error:
            raise GpuError("nvmlDeviceRegisterEvents", int(error.value), str(error)) from error
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mpsr-nvml", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        nvml = self._nvml
        while not self._stop.is_set():
            try:
                data = nvml.nvmlEventSetWait_v2(self._set, _WAIT_MS)
                uuid = GpuUuid(_text(nvml.nvmlDeviceGetUUID(data.device)))
            except nvml.NVMLError as error:
                if error.value != nvml.NVML_ERROR_TIMEOUT:
                    self._stop.wait(_PAUSE)
                continue
            if data.eventType == nvml.nvmlEventTypeXidCriticalError and not self._stop.is_set():
                self._events.put((uuid, int(data.eventData)))
                os.eventfd_write(self._fd, 1)

    def fileno(self) -> int:
        return self._fd

    def read(self) -> tuple[tuple[GpuUuid, int], ...]:
        return _drain(self._fd, self._events)

    def close(self) -> None:
        """Ask the thread to end; it does so within its wait."""
        self._stop.set()


class NoGpuEvents:
    """GpuEvents port of a node where NVML cannot be used: nothing ever comes."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    def read(self) -> tuple[tuple[GpuUuid, int], ...]:
        return ()

    def close(self) -> None:
        os.close(self._fd)


def _drain(fd: int, events: "queue.SimpleQueue[tuple[GpuUuid, int]]") -> tuple[tuple[GpuUuid, int], ...]:
    try:
        os.eventfd_read(fd)
    except BlockingIOError:
        return ()
    found: list[tuple[GpuUuid, int]] = []
    while not events.empty():
        found.append(events.get())
    return tuple(found)
