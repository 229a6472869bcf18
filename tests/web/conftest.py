"""One running server for the tests of the web doors."""

import pytest

from tests.serving import Served, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Served:
    with serving(tmp_path_factory.mktemp("server")) as served:
        yield served
