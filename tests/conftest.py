import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

# Times vary with what else the machine does. Under CI, Hypothesis takes its own profile, which
# has no deadline either and draws the same examples on every run.
settings.register_profile("taskla", deadline=None)
if "CI" not in os.environ:
    settings.load_profile("taskla")


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread_per_test_process() -> Iterator[None]:
    """Test processes side by side would each start a BLAS thread per core and slow each other."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    import scipy.linalg.blas  # noqa: F401  (only a loaded library can be limited)
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A Dask client of two worker processes with a thread each."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
