"""From a sighting to what it means: catalogue lookup, and the one fault behind several sightings of an event. Pure.

A number that the catalogue does not know is UNKNOWN, reaches nobody by itself and never takes a GPU out of use.
"""

from dataclasses import replace
from typing import assert_never

from resilience import catalog
from resilience.model.fault import WEIGHT, DeviceState, Fault, FaultClass, Reach
from resilience.model.observation import Observation, Source, What

_ORDER = list(DeviceState)
USER_MADE = (FaultClass.MMU, FaultClass.SM, FaultClass.HANG)
"""What a program does."""
_VAGUE = {0, 719, 999}
"""CUDA numbers whose words say less than an Xid's: none, launch failure, unknown."""


def classify(seen: Observation) -> Fault:
    """What one sighting means by itself."""
    match seen.what:
        case What.XID:
            return _xid(seen)
        case What.CUDA:
            row = catalog.cuda_errors().get(seen.cuda)
            if row is not None:
                return replace(row.fault, heard=True)
            return Fault(reach=Reach.PROCESS, cuda=seen.cuda, words=f"CUDA error {seen.cuda}", heard=True)
        case What.CULPRIT | What.HANDLING | What.FAULT_STATE:
            return Fault(words="GPU fault")
        case What.ISOLATED:
            return Fault(kind=FaultClass.MMU, reach=Reach.PROCESS, xid=seen.xid, words="illegal address")
        case What.SERVER_GONE:
            return Fault(kind=FaultClass.SERVER, words="MPS server gone")
        case What.DAEMON_GONE:
            return Fault(kind=FaultClass.CONTROL_DAEMON, reach=Reach.NOBODY, words="MPS control daemon gone")
        case What.RECREATING:
            return Fault(kind=FaultClass.BENIGN, reach=Reach.NOBODY, words="server context made anew")
        case What.UNKNOWN:
            return Fault(reach=Reach.NOBODY, words="a line that nobody understands")
        case What.EXIT:
            return Fault(reach=Reach.PROCESS, words="task failed")
        case _:
            assert_never(seen.what)


def _xid(seen: Observation) -> Fault:
    known = catalog.xids().get(seen.xid)
    if seen.recovery is not None:
        device = catalog.recovery_actions().get(seen.recovery, DeviceState.CONTAINED)
        if device.out_of_use:
            return Fault(kind=FaultClass.DEVICE, device=device, xid=seen.xid, words="the driver asks for a reset")
    return known or Fault(reach=Reach.NOBODY, xid=seen.xid, words=f"Xid {seen.xid}")


def condemns(seen: Observation, fault: Fault) -> bool:
    """True when this sighting alone takes the GPU out of use: the driver or NVML says so, never a program."""
    return fault.device.out_of_use and seen.source in (Source.KMSG, Source.NVML)


def excuses(fault: Fault) -> bool:
    """What is nobody's doing: hardware or a daemon failed."""
    return fault.kind in (FaultClass.SERVER, FaultClass.CONTROL_DAEMON) or (
        fault.kind is FaultClass.DEVICE and fault.device is not DeviceState.FINE
    )


def merge(one: Fault, two: Fault) -> Fault:
    """The fault behind both sightings: the heavier class, the worse device, the number and words that say more.

    A program that says that nobody did it does not outweigh the driver, which says that a program did.
    """
    for heard, known in ((one, two), (two, one)):
        if heard.heard and excuses(heard) and not known.heard and known.kind in USER_MADE:
            return known
    if WEIGHT[two.kind] > WEIGHT[one.kind]:
        one, two = two, one
    words = one.words
    if one.kind is two.kind and two.words and one.cuda in _VAGUE and two.cuda not in _VAGUE:
        words = two.words
    xid = one.xid
    if not xid and two.kind is not FaultClass.BENIGN:
        xid = two.xid
    return replace(
        one,
        device=max(one.device, two.device, key=_ORDER.index),
        xid=xid,
        cuda=one.cuda or two.cuda,
        words=words,
        heard=one.heard and (two.heard or two.kind is not one.kind),
    )
