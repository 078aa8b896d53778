"""Energy of inference, estimated from operation counts: ``E = E_AC * AC + E_MAC * MAC``.

The constants are those that the field uses, of one 45 nm process: a 32-bit floating-point addition 0.9 pJ, a multiplication 3.7 pJ.
They are arithmetic alone: moving data to where they are used, which costs more on most machines, is left out, as are neurons,
normalisation and attention. So the figure compares networks; it is not what any chip would draw. Source: M. Horowitz, "Computing's
energy problem (and what we can do about it)", ISSCC 2014, figure 1.1.9.
"""

from __future__ import annotations

PICOJOULES_45NM = {"ac": 0.9, "mac": 4.6}  # per 32-bit operation: an addition; a multiplication and an addition


def joules(ac: float, mac: float) -> float:
    """Return the energy in joules of ``ac`` accumulations and ``mac`` multiply-accumulations."""
    return (PICOJOULES_45NM["ac"] * ac + PICOJOULES_45NM["mac"] * mac) * 1e-12
