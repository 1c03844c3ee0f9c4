"""Machines of a host with libvirt and QEMU, backed up in libvirt's pull mode.

``platform.py`` is the way in. For a snapshot of a running machine it goes through ``sweep``,
``checkpoints``, ``increment`` (what can be an increment), ``begin`` (freeze, job, thaw) to ``snapshot``;
of one that is off, to ``offline``. Restores go through ``target`` and ``definition``.
"""
