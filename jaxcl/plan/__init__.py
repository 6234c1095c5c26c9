"""What a config costs on a machine, before the first step and without the machine: its training step is compiled for a
described one, and what the compiled program says is read off. Memory, FLOPs, bytes and collectives are facts; seconds
are a floor, as if every rate that the maker publishes were reached."""

from jaxcl.plan.advice import advise
from jaxcl.plan.costs import Costs, bound_in_words, compile_for, link_seconds
from jaxcl.plan.first_step import DoesNotFit, ahead
from jaxcl.plan.inputs import about_of, abstract_batch, check_batch
from jaxcl.plan.step import DECODED_A_CORE, Plan, plan, trace_step
from jaxcl.plan.words import duration, lines, needs, size, verdict

__all__ = [
    "DECODED_A_CORE",
    "Costs",
    "DoesNotFit",
    "Plan",
    "about_of",
    "abstract_batch",
    "advise",
    "ahead",
    "bound_in_words",
    "check_batch",
    "compile_for",
    "duration",
    "lines",
    "link_seconds",
    "needs",
    "plan",
    "size",
    "trace_step",
    "verdict",
]
