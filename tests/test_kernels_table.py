"""The table of kernels, its errors, and the BLAS libraries below."""

import inspect
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from taskla.errors import NotPositiveDefiniteError, SingularMatrixError
from taskla.kernels import TABLE, bind, blas_info, blas_threads, register
from taskla.kernels.libraries import _Limit
from taskla.operations import OPERATIONS
from taskla.tile import Tile

F8 = np.dtype("f8")
#: a value of every parameter that an operation has
PARAMS = {
    "uplo": "L",
    "side": "L",
    "trans": "N",
    "transa": "N",
    "transb": "N",
    "diag": "N",
    "norm": "M",
    "alpha": 2.0,
    "beta": 2.0,
    "offdiag": 0.0,
    "forward": True,
    "hermitian": True,
    "row": 0,
    "row0": 0,
    "top": 0,
    "n": 4,
    "nb": 4,
    "mine": (0,),
    "theirs": (4,),
    "format": "bf16",
}


def params_of(operation):
    values = dict(PARAMS, diag=1.0) if operation.name == "laset" else PARAMS
    return tuple(values[name] for name in operation.params)


@pytest.mark.parametrize("name", sorted({operation for operation, _, _ in TABLE}))
@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
def test_a_kernel_takes_the_parameters_and_operands_of_its_operation(name, dtype):
    operation = OPERATIONS[name]
    kernel = bind(name, np.dtype(dtype), params_of(operation))
    assert bind(name, np.dtype(dtype), params_of(operation)) is kernel
    inspect.signature(kernel).bind(*operation.modes)


def test_every_operation_has_a_kernel_for_the_four_types():
    missing = {
        (name, fmt)
        for name in OPERATIONS
        for fmt in ("float32", "float64", "complex64", "complex128")
        if (name, "cpu", fmt) not in TABLE
    }
    assert not missing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("frobnicate", F8), "'frobnicate' has no kernel for float64 on 'cpu'; these have: diag"),
        (("gemm", np.dtype("f2")), "for float16 on 'cpu'; there are kernels for: bfloat16 on"),
        (("gemm", np.dtype(">f8")), "no kernel for >f8 on 'cpu'"),
        (("gemm", F8, (), "tpu"), "on 'tpu'; there are kernels for"),
        (("potrf", F8, ("X",)), "potrf: uplo is 'X'; allowed: 'L', 'U'"),
        (("potrf", F8, ("LU",)), "potrf: uplo is 'LU'; allowed: 'L', 'U'"),
        (("gemm", F8, ("N", 1, 1.0, 1.0)), "gemm: transb is 1; allowed: 'N', 'T', 'C'"),
        (("gemm", F8, ("N", "N", 1j, 1.0)), "gemm: alpha is 1j; allowed: real numbers"),
        (("herk", np.dtype("c16"), ("L", "N", 1.0, 1j)), "herk: beta is 1j; allowed: real"),
        (("herk", np.dtype("c16"), ("L", "T", 1.0, 1.0)), "herk: trans is 'T'; allowed: 'N', 'C'"),
        (("syrk", np.dtype("c16"), ("L", "C", 1.0, 1.0)), "syrk: trans is 'C'; allowed: 'N', 'T'"),
        (("trsm", F8, ("X", "L", "N", "N", 1.0)), "trsm: side is 'X'; allowed: 'L', 'R'"),
        (("lange", F8, ("2",)), "lange: norm is '2'; allowed: 'M', '1', 'I', 'F'"),
    ],
)
def test_errors_name_what_is_allowed(arguments, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        bind(*arguments)


def test_a_second_kernel_for_one_place_is_refused():
    with pytest.raises(ValueError, match=r"\('gemm', 'cpu', 'float32'\)"):
        register("gemm")(lambda *params: None)


def tile(rows, cols, dtype="f8"):
    return Tile(np.zeros((rows, cols), dtype, order="F"))


@pytest.mark.parametrize(
    ("operation", "params", "operands"),
    [
        ("gemm", ("N", "N", 1.0, 1.0), (tile(3, 4), tile(5, 2), tile(3, 2))),
        ("gemm", ("T", "N", 1.0, 1.0), (tile(3, 4), tile(4, 2), tile(3, 2))),
        ("gemm", ("N", "T", 1.0, 1.0), (tile(3, 4), tile(4, 2), tile(3, 2))),
        ("trsm", ("L", "L", "N", "N", 1.0), (tile(3, 3), tile(4, 3))),
        ("trsm", ("R", "L", "N", "N", 1.0), (tile(4, 2), tile(4, 3))),
        ("trmm", ("R", "L", "N", "N", 0.0), (tile(3, 3), tile(3, 4))),
        ("syrk", ("L", "N", 1.0, 1.0), (tile(3, 4), tile(4, 4))),
        ("herk", ("L", "T", 1.0, 1.0), (tile(3, 4), tile(4, 3))),
        ("symm", ("L", "L", 1.0, 1.0), (tile(3, 3), tile(4, 3), tile(3, 3))),
        ("symm", ("R", "L", 1.0, 1.0), (tile(3, 3), tile(3, 4), tile(3, 4))),
        ("potrf", ("L",), (tile(3, 4),)),
        ("trtri", ("L", "U"), (tile(3, 4),)),
        ("getrf", (0,), (tile(4, 3), tile(4, 1, "i4"))),
        ("laswp", (0, True), (tile(4, 1, "i4"), tile(3, 3))),
        ("lacpy", ("G", "T"), (tile(4, 3), tile(4, 3))),
        ("geadd", ("N", 1.0, 1.0), (tile(4, 3), tile(3, 4))),
        ("lange", ("1",), (tile(3, 4), tile(3, 1))),
        ("lansy", ("M", "L", True), (tile(3, 4), tile(4, 1))),
        ("getrf_tnt_leaf", (0,), (tile(4, 3), tile(2, 3), tile(2, 1, "i8"))),
        ("getrf_tnt_merge", (), (tile(3, 3), tile(3, 1, "i8"), tile(3, 2), tile(3, 1, "i8"))),
        ("getrf_tnt_pivots", (0, 3), (tile(3, 1, "i8"), tile(4, 1, "i4"))),
    ],
)
def test_shapes_that_do_not_fit_are_refused(operation, params, operands):
    with pytest.raises(ValueError, match=f"{operands[0].rows} x {operands[0].cols}"):
        bind(operation, F8, params)(*operands)


def test_an_index_beyond_32_bits_is_refused():
    a = np.zeros((2, 2), order="F")
    far = Tile.from_parts(a, Tile(a).pointer, 2**31, 2, 2, "F")
    with pytest.raises(ValueError, match="2147483648 does not fit"):
        bind("gemm", F8, ("N", "N", 1.0, 1.0))(far, far, far)


@pytest.mark.parametrize("kind", [NotPositiveDefiniteError, SingularMatrixError])
def test_errors_shift_and_travel(kind):
    error = kind(3).shifted(512)
    copy = pickle.loads(pickle.dumps(error))
    for one in (error, copy):
        assert type(one) is kind
        assert isinstance(one, np.linalg.LinAlgError)
        assert vars(one) == vars(kind(515))
        assert "515" in str(one)


def test_threads_do_not_mix_up_their_errors():
    kernel = bind("potrf", F8, ("L",))

    def work(seed):
        minor = seed % 200
        a = np.eye(200)
        if minor:
            a[minor - 1, minor - 1] = -1
        try:
            kernel(Tile(a))
        except NotPositiveDefiniteError as error:
            return error.minor
        return 0

    with blas_threads(1), ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(800))) == [seed % 200 for seed in range(800)]


# the libraries


def threads_now():
    return [library["threads"] for library in blas_info()]


def test_blas_info_says_which_library_serves():
    libraries = blas_info()
    assert sum(library["serves"] for library in libraries) == 1
    for library in libraries:
        assert set(library) == {
            *("name", "version", "file", "path", "threads", "architecture", "serves")
        }
        assert os.path.basename(library["path"]) == library["file"]
        assert library["threads"] >= 1


def test_blas_threads_limits_and_restores():
    before = threads_now()
    with blas_threads(1):
        assert set(threads_now()) == {1}
        # the first entry holds
        with blas_threads(7):
            assert set(threads_now()) == {1}
        assert set(threads_now()) == {1}
    assert threads_now() == before
    with pytest.raises(KeyError), blas_threads(1):
        raise KeyError
    assert threads_now() == before


def test_blas_threads_holds_until_the_last_thread_leaves():
    before = threads_now()
    entered, leave = threading.Event(), threading.Event()

    def other():
        with blas_threads(1):
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    with blas_threads(1):
        thread.start()
        assert entered.wait(30)
    assert set(threads_now()) == {1}
    leave.set()
    thread.join()
    assert threads_now() == before


class OpenMP:
    """A library whose number of threads is that of the calling thread, as OpenMP has it."""

    internal_api, threading_layer = "openblas", "openmp"

    def __init__(self):
        self.local = threading.local()

    @property
    def num_threads(self):
        return getattr(self.local, "threads", 8)

    def set_num_threads(self, threads):
        self.local.threads = threads


def test_each_thread_limits_an_openmp_library_for_itself():
    library = OpenMP()
    limit = _Limit(lambda: [library])

    def work():
        entry = limit.enter(1)
        inside = library.num_threads
        limit.leave(*entry)
        return inside, library.num_threads

    outer = limit.enter(1)
    assert library.num_threads == 1
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == (1, 8)
    assert work() == (1, 1)
    limit.leave(*outer)
    assert library.num_threads == 8


def test_blas_threads_wants_a_thread():
    with pytest.raises(ValueError, match="n is 0"), blas_threads(0):
        pass


def run(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


FORK = """
import os, threading
from taskla.kernels import blas_info, blas_threads
def now(): return {library["threads"] for library in blas_info()}
entered, leave = threading.Event(), threading.Event()
def other():
    with blas_threads(1):
        entered.set()
        leave.wait()
thread = threading.Thread(target=other)
thread.start()
entered.wait()
with blas_threads(1):
    child = os.fork()
    if not child:
        free = now() == {2}
    else:
        limited = now() == {1}
if not child:
    # leaving what was entered before the fork changes nothing; the limit works anew
    with blas_threads(1):
        again = now() == {1}
    os._exit(0 if free and again and now() == {2} else 1)
leave.set()
thread.join()
assert limited and now() == {2}
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_no_limit():
    result = run(
        FORK, TASKLA_BLAS="", OPENBLAS_NUM_THREADS="2", MKL_NUM_THREADS="2", OMP_NUM_THREADS="2"
    )
    assert result.returncode == 0, result.stderr


def test_an_unknown_library_is_refused():
    result = run("import taskla.kernels as k; k.blas_info()", TASKLA_BLAS="acml")
    assert "ValueError: TASKLA_BLAS is 'acml'; allowed: 'scipy', 'mkl'" in result.stderr


MKL = """
import numpy as np
from taskla.kernels import bind, blas_info
from taskla.tile import Tile
a, b = (np.arange(6.0).reshape(shape) for shape in [(2, 3), (3, 2)])
c = np.ones((2, 2))
bind("gemm", c.dtype, ("N", "N", 2.0, 1.0))(*map(Tile, (a, b, c)))
assert (c == 2 * a @ b + 1).all()
s = 4 * np.eye(600) + 1
f = s.copy()
bind("potrf", f.dtype, ("L",))(Tile(f))
assert np.allclose(np.tril(f) @ np.tril(f).T, s)
print([library["name"] for library in blas_info() if library["serves"]])
"""


def test_mkl_serves_when_asked_for_and_installed():
    result = run(MKL, TASKLA_BLAS="mkl")
    try:
        import importlib.metadata

        importlib.metadata.version("mkl")
    except importlib.metadata.PackageNotFoundError:
        assert "ImportError: TASKLA_BLAS=mkl and TASKLA_BF16=mkl need" in result.stderr
        assert "taskla[mkl]" in result.stderr
    else:
        assert result.stdout.strip() == "['mkl']", result.stderr
