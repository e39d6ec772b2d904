"""A GPU process on strings: does one driver call after another as its parent asks, and answers code, time and value.

    python3 -m tests.gpu.puppet FD [UID]

FD is a SEQPACKET socket to the parent: JSON objects {"do": verb, "order": number, …}, one answer with the same number each; descriptors
travel beside them (SCM_RIGHTS). With UID it becomes that user once everything of this checkout has been read, which that user may not be
able to read.
A puppet that hangs or dies is the experiment's finding, so nothing here catches either. `Stage` is the parent's side.
"""

import ctypes
import hashlib
import json
import os
import socket
import sys
import time
from ctypes import byref, c_double, c_longlong, c_size_t, c_uint, c_ulonglong
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.gpu import features, swap, uvm
from tests.gpu.raw import MPS_ENABLED, READ_WRITE, Answer, Driver

PTX = Path(__file__).parents[2] / "resilience" / "drill" / "faults.ptx"
BLOCK = 256
CHUNK = 64 << 20
"""Bytes that one device-to-host read of a digest takes: bounded host memory, few calls."""
PR_SET_DUMPABLE = 4


class Puppet:
    def __init__(self, fd: int) -> None:
        self.socket = socket.socket(fileno=fd)
        self.driver = Driver()
        self.ptx = PTX.read_bytes() + b"\0"

    def serve(self) -> None:
        while True:
            packet, fds, _, _ = socket.recv_fds(self.socket, 65536, 8)
            if not packet:
                return
            order = json.loads(packet)
            verb, number = order.pop("do"), order.pop("order")
            begin = time.monotonic()
            answer, out_fds = getattr(self, f"do_{verb}")(fds=fds, **order)
            answer |= {"began": begin, "ended": time.monotonic(), "order": number}
            socket.send_fds(self.socket, [json.dumps(answer).encode()], out_fds)
            for fd in out_fds:
                os.close(fd)  # the receiver's copy alone is to keep what it stands for

    @staticmethod
    def told(answer: Answer) -> dict[str, Any]:
        return asdict(answer)

    def do_start(self, fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        """cuInit, context, stream, module; whether this process is an MPS client."""
        answers = self.driver.start()
        if all(answer.code == 0 for answer in answers.values()):
            answers["cuModuleLoadData"] = self.driver.load(self.ptx)
        bad = next((answer.code for answer in answers.values() if answer.code), 0)
        mps = self.driver.attribute(MPS_ENABLED).value if bad == 0 else -1
        return {"code": bad, "mps": mps, "calls": {name: asdict(each) for name, each in answers.items()}}, []

    def do_init(self, fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        """cuInit alone: for a process without a context."""
        return self.told(self.driver.call("cuInit", 0)), []

    def do_create(self, fds: list[int], size: int) -> tuple[dict[str, Any], list[int]]:
        """Exportable memory and its descriptor; `value` is the handle."""
        made = self.driver.create(size)
        if made.code:
            return self.told(made), []
        exported = self.driver.export(made.value)
        return {**self.told(made), "export": asdict(exported)}, [exported.value] if exported.code == 0 else []

    def do_alloc(self, fds: list[int], size: int) -> tuple[dict[str, Any], list[int]]:
        """Plain memory, which no descriptor can stand for; `value` is the address."""
        return self.told(self.driver.alloc(size)), []

    def do_import(self, fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        imported = self.driver.import_fd(fds[0])
        os.close(fds[0])
        return self.told(imported), []

    def do_map(
        self, fds: list[int], handle: int, size: int, hint: int = 0, access: int = READ_WRITE
    ) -> tuple[dict[str, Any], list[int]]:
        answers = self.driver.map(handle, size, hint, access)
        bad = next((answer.code for answer in answers.values() if answer.code), 0)
        return {"code": bad, "value": answers["reserve"].value,
                "calls": {name: asdict(each) for name, each in answers.items()}}, []  # fmt: skip

    def do_stand_in(self, fds: list[int], size: int, hint: int = 0) -> tuple[dict[str, Any], list[int]]:
        """Addresses whose every page is one and the same page, which the next process's memory may replace (`give_way`)."""
        calls: features.Calls = {}
        begin = time.perf_counter()
        address = swap.stand_in(self.driver, size, calls, hint)
        us = (time.perf_counter() - begin) * 1e6
        return {**features.told(calls), "value": address, "us": us}, []

    def do_reserve(self, fds: list[int], size: int, hint: int = 0) -> tuple[dict[str, Any], list[int]]:
        """Addresses with nothing behind them."""
        return self.told(self.driver.reserve(size, hint)), []

    def do_give_way(
        self, fds: list[int], regions: list[tuple[int, bool]], size: int
    ) -> tuple[dict[str, Any], list[int]]:
        """Put the memory of each descriptor at its address, in place of a stand-in or of nothing."""
        calls: features.Calls = {"synchronize": self.driver.call("cuCtxSynchronize")}
        for number, (fd, (address, stands_in)) in enumerate(zip(fds, regions, strict=True)):
            steps: features.Calls = {"unmap": self.driver.unmap(address, size)} if stands_in else {}
            steps["import"] = self.driver.import_fd(fd)
            steps |= self.driver.map_at(address, steps["import"].value, size)
            steps["release"] = self.driver.release(steps["import"].value)
            os.close(fd)
            calls |= {f"{name} {number}": each for name, each in steps.items()}
        return {**features.told(calls), "us": sum(each.us for each in calls.values())}, []

    def do_unmap(self, fds: list[int], address: int, size: int) -> tuple[dict[str, Any], list[int]]:
        return self.told(self.driver.unmap(address, size)), []

    def do_release(self, fds: list[int], handle: int) -> tuple[dict[str, Any], list[int]]:
        return self.told(self.driver.release(handle)), []

    def do_free(self, fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        """Bytes of the GPU's memory that are free."""
        total = c_size_t()
        return self.told(self.driver.out("cuMemGetInfo_v2", c_size_t, byref(total))), []

    def do_fill(self, fds: list[int], address: int, size: int, seed: int) -> tuple[dict[str, Any], list[int]]:
        """Write a pattern that depends on the index and the seed."""
        words = size // 8
        launched = self.driver.launch("fill_pattern", (words + BLOCK - 1) // BLOCK, BLOCK, c_ulonglong(address),
                                      c_longlong(words), c_ulonglong(seed))  # fmt: skip
        done = self.driver.sync()
        return {"code": launched.code or done.code, "us": launched.us + done.us}, []

    def do_digest(self, fds: list[int], address: int, size: int) -> tuple[dict[str, Any], list[int]]:
        """SHA-256 of a range, read to the host piece by piece."""
        digest, us = hashlib.sha256(), 0.0
        for offset in range(0, size, CHUNK):
            answer, data = self.driver.read(address + offset, min(CHUNK, size - offset))
            us += answer.us
            if answer.code:
                return {"code": answer.code, "us": us}, []
            digest.update(data)
        return {"code": 0, "us": us, "sha256": digest.hexdigest()}, []

    def do_peek(self, fds: list[int], address: int, size: int = 64) -> tuple[dict[str, Any], list[int]]:
        answer, data = self.driver.read(address, size)
        return {**self.told(answer), "hex": data.hex()}, []

    def do_copy(self, fds: list[int], target: int, source: int, size: int) -> tuple[dict[str, Any], list[int]]:
        """cuMemcpyDtoD does not wait, and our stream does not wait for it: the whole context does."""
        copied = self.driver.copy(target, source, size)
        done = self.driver.call("cuCtxSynchronize")
        return {"code": copied.code or done.code, "us": copied.us + done.us}, []

    def do_launch(
        self, fds: list[int], kernel: str, blocks: int, threads: int, values: list[tuple[str, float]], sync: bool = True
    ) -> tuple[dict[str, Any], list[int]]:
        """Any kernel of the module; values are [type, number] pairs."""
        kinds: dict[str, Any] = {"p": c_ulonglong, "i": c_uint, "q": c_longlong, "d": c_double}
        launched = self.driver.launch(kernel, blocks, threads, *(kinds[kind](value) for kind, value in values))
        done = self.driver.sync() if sync and launched.code == 0 else Answer(0, 0.0)
        return {"code": launched.code or done.code, "launch": launched.code, "us": launched.us + done.us}, []

    def do_burst(self, fds: list[int], address: int, size: int, seconds: float) -> tuple[dict[str, Any], list[int]]:
        """Fill again and again for that long; how often."""
        rounds, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            answer, _ = self.do_fill([], address, size, rounds)
            if answer["code"]:
                return {**answer, "rounds": rounds}, []
            rounds += 1
        return {"code": 0, "rounds": rounds}, []

    def do_verify(
        self, fds: list[int], address: int, size: int, right: list[str], seconds: float
    ) -> tuple[dict[str, Any], list[int]]:
        """Fill with one seed after the other and compare the digests with those of before, for that long."""
        rounds, slowest, end = 0, 0.0, time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.monotonic()
            seed = rounds % len(right)
            code = self.do_fill([], address, size, seed)[0]["code"]
            digest = {} if code else self.do_digest([], address, size)[0]
            slowest = max(slowest, time.monotonic() - begin)
            if code or digest["code"]:
                return {"code": code or digest["code"], "rounds": rounds, "slowest_s": slowest}, []
            if digest["sha256"] != right[seed]:
                return {"code": 0, "wrong": seed, "rounds": rounds, "slowest_s": slowest}, []
            rounds += 1
        return {"code": 0, "rounds": rounds, "slowest_s": slowest}, []

    def do_queue(self, fds: list[int], address: int, size: int, count: int) -> tuple[dict[str, Any], list[int]]:
        """Launch fills with the seeds 1 to `count` behind one another and do not wait for them."""
        words = size // 8
        blocks = (words + BLOCK - 1) // BLOCK
        codes = [
            self.driver.launch("fill_pattern", blocks, BLOCK, c_ulonglong(address), c_longlong(words), c_ulonglong(seed)).code
            for seed in range(1, count + 1)
        ]  # fmt: skip
        return {"code": max(codes), "launched": codes.count(0)}, []

    def do_load(self, fds: list[int], ptx: str) -> tuple[dict[str, Any], list[int]]:
        """Another module, in place of the first."""
        return self.told(self.driver.load(ptx.encode() + b"\0")), []

    def do_sparse(self, fds: list[int], base: int, size: int) -> tuple[dict[str, Any], list[int]]:
        """A sparse mapping at an address that nobody has, on this process's own descriptor of the UVM driver."""
        return uvm.sparse(base, size, self.driver.uuid()), []

    def do_feature(self, fds: list[int], name: str, address: int, fault: bool) -> tuple[dict[str, Any], list[int]]:
        """Work by way of a graph, a cooperative launch or a green context; with `fault` it traps."""
        return features.WAYS[name](self.driver, self.ptx, address, fault), []

    def do_swap(self, fds: list[int], size: int) -> tuple[dict[str, Any], list[int]]:
        """A graph captured over stand-in pages, run on the memory that the descriptor stands for."""
        return swap.swap(self.driver, fds[0], size), []

    def do_sync(self, fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        return self.told(self.driver.sync()), []

    def do_query(self, fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        """Is there work left in the stream (600), or none (0)?"""
        return self.told(self.driver.call("cuStreamQuery", self.driver.stream)), []

    def do_each_call(self, fds: list[int], address: int, size: int) -> tuple[dict[str, Any], list[int]]:
        """What a client hears from every kind of call, cleaning ones last: the innocent's view after a fault."""
        driver = self.driver
        answers = {
            "cuStreamSynchronize": driver.sync(),
            "cuCtxSynchronize": driver.call("cuCtxSynchronize"),
            "cuStreamQuery": driver.call("cuStreamQuery", driver.stream),
            "cuMemcpyDtoH": driver.read(address, 64)[0],
            "cuMemGetInfo": driver.out("cuMemGetInfo_v2", c_size_t, byref(c_size_t())),
            "cuMemCreate": driver.create(size),
            "launch": driver.launch("fill_pattern", 1, 1, c_ulonglong(address), c_longlong(1), c_ulonglong(1)),
            "cuMemUnmap": driver.unmap(address, size),
            "cuInit": driver.call("cuInit", 0),
        }
        return {"code": 0, "calls": {name: asdict(each) for name, each in answers.items()}}, []

    def do_costs(self, fds: list[int], size: int, count: int) -> tuple[dict[str, Any], list[int]]:
        """Times of each VMM call for `count` handles of `size` bytes: microseconds, one list a call."""
        times: dict[str, list[float]] = {}
        mapped, export = list[tuple[int, int]](), 0
        for _ in range(count):
            made = self.driver.create(size)
            if made.code:
                return {"code": made.code, "times": times}, []
            steps = {"create": made, **self.driver.map(made.value, size)}
            if bad := next((each.code for each in steps.values() if each.code), 0):
                return {"code": bad, "times": times}, []
            mapped.append((steps["reserve"].value, made.value))
            steps["export"] = self.driver.export(made.value)
            if steps["export"].code == 0:
                os.close(steps["export"].value)
            elif not export:
                export = steps["export"].code
            for name, each in steps.items():
                times.setdefault(name, []).append(each.us)
        for address, handle in mapped:
            times.setdefault("unmap", []).append(self.driver.unmap(address, size).us)
            times.setdefault("release", []).append(self.driver.release(handle).us)
        return {"code": 0, "export": export, "times": times}, []


def become(uid: int) -> None:
    """Another user for good, as a program that Slurm starts: no groups, and its own /proc entries readable."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def main(puppet: Puppet, words: list[str]) -> None:
    if words:
        become(int(words[0]))
    puppet.serve()


if __name__ == "__main__":
    main(Puppet(int(sys.argv[1])), sys.argv[2:])
