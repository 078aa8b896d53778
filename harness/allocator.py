"""Large tensors on huge pages: fewer page faults, the same memory.

glibc maps a tensor of 32 MB or more anew at every step and hands it back when it is freed, and the system provides it in pages of 4 kB, a
fault each. With pages of 2 MB, which PyTorch asks for when told so, there are 30 times fewer faults. The other way is to tell glibc to keep
what is freed (``mallopt``). Measured on 2 cores shared with other work, forward + backward; ranges of the medians of three runs in ms, and
of the peak of resident memory in GB ("LIF": native, 32 x 4096 neurons; "net": two convolutions with batch normalisation, tensors of 67 MB):

===========  ===========  ===========  ==========  ===========
setting      LIF, T = 64  LIF, T=128   net         peak of net
===========  ===========  ===========  ==========  ===========
none         25-26        50-53        687-1454    1.42-1.55
huge pages   16-30        24-48        486-1097    1.39-1.52
mallopt      13-44        14-38        405-422     1.58-2.02
===========  ===========  ===========  ==========  ===========

One of the three runs was disturbed and makes the upper ends. mallopt is the faster, but free stretches of the heap do not always fit what
comes next, so that the peak of resident memory, which a record reports, rises and varies. Huge pages leave it as it was: they are used.
"""

from __future__ import annotations

import os

VARIABLE = "THP_MEM_ALLOC_ENABLE"  # PyTorch looks at it once, when it first allocates 2 MB or more


def use_huge_pages() -> None:
    """Let PyTorch ask for huge pages in this process, unless the user has decided; systems without them ignore it."""
    os.environ.setdefault(VARIABLE, "1")
