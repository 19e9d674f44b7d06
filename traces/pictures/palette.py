"""The colours of pictures: the same for a kernel in all of them, told apart by all eyes.

The eight of Okabe and Ito, "Color Universal Design" (2008), for the kernels that meet in one
program; for the others those of Paul Tol's muted scheme (SRON/EPS/TN/09-002, 2021).
"""

from __future__ import annotations

from hashlib import blake2b

__all__ = ["HIGHLIGHT", "IDLE", "INK", "QUALITATIVE", "colour_of", "qualitative"]

#: Of time without a task.
IDLE = "#dddddd"

#: Of text, frames and curves.
INK = "#333333"

#: Of what is pointed at: no kernel has it.
HIGHLIGHT = "#000000"

_KERNELS = {
    "potrf": "#d55e00",
    "getrf": "#0072b2",
    "getrf_nopiv": "#0072b2",
    "getrf_tnt_leaf": "#cc79a7",
    "getrf_tnt_merge": "#332288",
    "getrf_tnt_pivots": "#d55e00",
    "trsm": "#56b4e9",
    "syrk": "#cc79a7",
    "herk": "#cc79a7",
    "gemm": "#009e73",
    "symm": "#117733",
    "hemm": "#117733",
    "laswp": "#f0e442",
    "trmm": "#e69f00",
    "trtri": "#332288",
    "lauum": "#882255",
    "lacpy": "#e69f00",
    "laset": "#cc79a7",
    "lascl": "#882255",
    "geadd": "#999933",
}

_TYPES = ("s", "d", "c", "z")

_OTHERS = (
    "#e69f00",
    "#332288",
    "#882255",
    "#999933",
    "#44aa99",
    "#cc6677",
    "#aa4499",
    "#ddcc77",
)

#: For things without an order that are not kernels: ranks, formats, curves.
QUALITATIVE = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#f0e442",
    "#882255",
)


def colour_of(kernel: str) -> str:
    """Return the colour of a kernel, ``#rrggbb``: always the same for one name.

    LAPACK's letter of the type makes no difference: ``dgemm`` is a gemm.
    """
    known = _KERNELS.get(kernel)
    if known is None and kernel[:1] in _TYPES:
        known = _KERNELS.get(kernel[1:])
    if known is not None:
        return known
    # not hash(): that one differs from process to process
    digest = blake2b(kernel.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return _OTHERS[int.from_bytes(digest, "big") % len(_OTHERS)]


def qualitative(count: int) -> list[str]:
    """Return colours for `count` things without an order; after eight they come again, darker."""
    found = []
    for number in range(count):
        colour = QUALITATIVE[number % len(QUALITATIVE)]
        # a fifth of the brightness less each time around, down to a half
        share = max(1 - 0.2 * (number // len(QUALITATIVE)), 0.5)
        parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
        found.append("#" + "".join(f"{round(part * share):02x}" for part in parts))
    return found
