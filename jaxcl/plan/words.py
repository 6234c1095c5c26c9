"""A plan in words: its verdict, its lines, and numbers with their units."""

from __future__ import annotations

from jaxcl.machines import GIB
from jaxcl.plan.costs import bound_in_words
from jaxcl.plan.step import Plan


def needs(one: Plan) -> str:
    """Memory in words, as "4.4 of 16.0 GiB"."""
    total = "?" if one.peak_bytes is None else rounded((one.peak_bytes + one.input_bytes) / GIB)
    return f"{total} of {rounded(one.capacity_bytes / GIB)} GiB" if one.capacity_bytes else f"{total} GiB"


def verdict(one: Plan) -> str:
    """Whether it fits, in a sentence; and what would."""
    if one.fits is None:
        return f"needs {needs(one)} a device; how much there is is not known"
    if one.fits:
        return f"fits: needs {needs(one)} a device"
    return "; ".join([f"does not fit: needs {needs(one)} a device", *one.advice])


def lines(one: Plan) -> list[str]:
    """A plan as lines for people."""
    rows = [("memory", verdict(one))]
    parts = {"temporaries": one.temporary_bytes, "arguments": one.argument_bytes, "waiting": one.input_bytes}
    if one.temporary_bytes is not None:
        rows.append(("", ", ".join(f"{name} {size(n)}B" for name, n in parts.items() if n is not None)))
    accessed = "" if one.bytes_accessed is None else f", {size(one.bytes_accessed)}B accessed"
    rows.append(("work a device", f"{size(one.flops_per_device)}FLOP{accessed}"))
    if one.collectives is not None:
        each = [f"{row['count']} {kind} of {size(row['bytes'])}B" for kind, row in one.collectives.items()]
        rows.append(("between devices", ", ".join(each) or "nothing"))
    if one.step_seconds_floor is None or one.hours is None:
        rows.append(("step", "seconds: not known for this machine"))
    else:
        taken = {"compute": one.compute_seconds, "memory": one.memory_seconds, "links": one.links_seconds}
        each = [f"{name} {duration(seconds)}" for name, seconds in taken.items() if seconds is not None]
        bound = bound_in_words(one.bound_by, one.memory_seconds)
        floor = f"at least {duration(one.step_seconds_floor)}, bound by {bound}"
        rows.append(("step", f"{floor} ({', '.join(each)})"))
        rows.append(("", f"at most {one.images_per_second:,.0f} images/s"))
        run = f"{one.steps:,} steps: at least {duration(3600 * one.hours)}, {rounded(one.chip_hours or 0)} chip-hours"
        rows += [("whole run", run), ("rates", one.rates_from)]
    if one.decoded_images_per_second is not None:
        by = f"by {one.hosts} hosts" if one.hosts > 1 else "by the host"
        needed, there = one.decoding_cores_per_host or 0.0, one.cpus_per_host
        of = (
            ""
            if there is None
            else f" of the {there} vCPUs there"
            if needed <= there
            else f"; it has {there} vCPUs"
        )
        text = (
            f"{one.decoded_images_per_second:,.0f} images/s {by}, {needed:,.0f} cores each{of}, as far as JPEGs have"
            " 500 x 375 pixels and 110 KiB, ImageNet's average (benchmarks/results/augment-cpu.md); measure yours, in a"
            " checkout, with `python benchmarks/augment.py --data textures --kib SIZE --quick --tasks jpeg`"
        )
        rows.append(("decoding", text))
    rows += [("note", note) for note in one.notes]
    plural = "s" if one.devices > 1 else ""
    chips = "" if one.chips == one.devices else f" ({one.chips} chips)"
    hosts = f", {one.hosts} hosts" if one.hosts > 1 else ""
    head = (
        f"{one.config} on {one.machine}: {one.devices} device{plural}{chips}{hosts}; batch {one.batch_size:,},"
        f" {one.batch_size // one.devices:,} a device; {one.placement}; {one.parameters / 1e6:,.3g} M parameters"
    )
    rows.append(("compiled", f"in {one.compile_seconds:.1f} s"))
    return [head, *(f"  {name:16}{text}" for name, text in rows)]


def size(number: float) -> str:
    """A number with a letter for thousands, without its unit.

    >>> size(1.5e12), size(45_100_000), size(12)
    ('1.5 T', '45.1 M', '12 ')
    """
    for letter, unit in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= unit:
            return f"{number / unit:.3g} {letter}"
    return f"{number:.3g} "


def duration(seconds: float) -> str:
    """
    >>> duration(0.0123), duration(2.5), duration(4e-5), duration(600), duration(7200)
    ('12.3 ms', '2.5 s', '40 us', '10 minutes', '2 hours')
    >>> duration(3600 * 1234)
    '1,234 hours'
    """
    if seconds >= 120:
        return f"{seconds / 60:.3g} minutes" if seconds < 7200 else f"{rounded(seconds / 3600)} hours"
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} us"


def rounded(number: float) -> str:
    """A number with three digits, or all before its point.

    >>> rounded(0.01234), rounded(36.64), rounded(366.2), rounded(1234)
    ('0.0123', '36.6', '366', '1,234')
    """
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
