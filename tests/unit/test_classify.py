"""What a sighting means by itself, and the one fault behind several."""

from dataclasses import replace

import pytest

from resilience.catalog import cuda_errors, xids
from resilience.machine.classify import classify, condemns, merge
from resilience.model.fault import DeviceState, Fault, FaultClass, Reach
from resilience.model.observation import Observation, Source, What


def _seen(what: What, source: Source = Source.KMSG, **fields: object) -> Observation:
    return Observation(source=source, what=what, text="", wall=0, mono=0, boot_id="", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("what", list(What))
def test_every_kind_of_sighting_has_a_meaning(what: What) -> None:
    assert classify(_seen(what, xid=31, cuda=700)).words


def test_known_numbers_are_the_catalogues() -> None:
    assert all(classify(_seen(What.XID, xid=number)) == fault for number, fault in xids().items())
    heard = {code: replace(row.fault, heard=True) for code, row in cuda_errors().items()}
    assert all(classify(_seen(What.CUDA, cuda=code)) == fault for code, fault in heard.items())


def test_an_unknown_number_is_unknown_and_reaches_nobody_else() -> None:
    assert classify(_seen(What.XID, xid=4242)) == Fault(reach=Reach.NOBODY, xid=4242, words="Xid 4242")
    assert classify(_seen(What.CUDA, cuda=4242)).reach is Reach.PROCESS


def test_the_drivers_recovery_action_counts() -> None:
    assert classify(_seen(What.XID, xid=154, recovery=0)).kind is FaultClass.BENIGN
    assert classify(_seen(What.XID, xid=154, recovery=1)).device is DeviceState.RESET
    assert classify(_seen(What.XID, xid=154, recovery=2)).device is DeviceState.LOST
    assert classify(_seen(What.XID, xid=154, recovery=99)).device is DeviceState.FINE


def test_only_the_driver_condemns_a_gpu() -> None:
    lost = classify(_seen(What.XID, xid=79))
    assert condemns(_seen(What.XID, Source.NVML, xid=79), lost)
    assert not condemns(_seen(What.CUDA, Source.CLIENT, cuda=214), lost)


def test_the_heavier_class_wins_and_numbers_are_kept() -> None:
    log, program, kernel = Fault(words="GPU fault"), cuda_errors()[719].fault, xids()[31]
    assert merge(merge(log, program), kernel).numbers() == "illegal address, Xid 31"
    assert merge(kernel, merge(program, log)).numbers() == "illegal address, Xid 31"
    assert merge(xids()[13], cuda_errors()[716].fault).numbers() == "misaligned address, Xid 13"
    assert merge(xids()[31], xids()[45]).xid == 31
    assert merge(xids()[31], xids()[79]).device is DeviceState.LOST
