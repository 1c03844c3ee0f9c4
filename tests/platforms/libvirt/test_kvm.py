"""The probe of KVM."""

from hotspare.platforms.libvirt.kvm import boot_problem


def test_the_probe_passes_where_a_machine_works() -> None:
    assert boot_problem("tcg") is None


def test_an_accelerator_that_does_not_work_is_named() -> None:
    assert "no-such" in str(boot_problem("no-such"))
