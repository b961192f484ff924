"""Addresses of datasets, and the names under which handlers import the SDK."""

import importlib

import psycopg
import pytest

from worker.errors import DatasetError
from worker.lakehouse import bulk_insert, connect
from worker.store import claims
from worker.store.claims import Claim


@pytest.mark.parametrize(
    "address",
    [
        "dwh/data_prim/",
        "dwh/data_prim",
        "dwh/data_prim/orders",
        "dwh/default_dataset/",
        "dwh/db_shop_data_prim/",
        "dwh/db_my_shop_data_prim/",
    ],
)
def test_every_form_of_an_address_opens_the_dataset(job: Claim, address: str) -> None:
    assert connect(address).dataset == "data_prim"


def test_of_two_datasets_that_fit_the_longer_name_is_meant(job: Claim) -> None:
    job.conn.execute("CREATE SCHEMA prim")
    assert connect("dwh/db_shop_data_prim/").dataset == "data_prim"
    assert connect("dwh/db_shop_prim/").dataset == "prim"


def test_an_unknown_dataset_is_named_with_the_known_ones(job: Claim) -> None:
    job.conn.execute("CREATE SCHEMA data_mart")
    with pytest.raises(
        DatasetError, match=r"no dataset 'nothing'.*: data_mart, data_prim$"
    ) as error:
        connect("dwh/nothing/")
    assert "dpe table build" in error.value.hint


@pytest.mark.parametrize("address", ["dwh/dpe/", "dwh/pg_catalog/", "dwh/information_schema/"])
def test_what_is_not_a_dataset_cannot_be_opened(job: Claim, address: str) -> None:
    with pytest.raises(DatasetError, match="there is no dataset"):
        connect(address)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("", "the address must be"),
        ("data_prim", "the address must be"),
        ("dwh/a/b/c", "the address must be"),
        ("data_store/a/b", "the address must be"),
    ],
)
def test_a_wrong_address_says_how_one_looks(job: Claim, address: str, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        connect(address)


def test_without_a_job_there_is_nothing_to_connect_to(conn: psycopg.Connection) -> None:
    assert claims.running is None
    with pytest.raises(DatasetError, match="no job is running"):
        connect("dwh/data_prim/")


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        ("forepaas.dwh", "connect", connect),
        ("forepaas.dwh", "bulk_insert", bulk_insert),
        ("forepaas.dwh.connect", "connect", connect),
        ("forepaas.dwh.connector", "bulk_insert", bulk_insert),
        ("forepaas.worker.connect", "connect", connect),
        ("forepaas.worker.connector", "bulk_insert", bulk_insert),
    ],
)
def test_the_sdk_is_where_handlers_look_for_it(module: str, name: str, value: object) -> None:
    assert getattr(importlib.import_module(module), name) is value


def test_connect_is_a_function_even_after_its_module_was_imported() -> None:
    code = (
        "from forepaas.dwh.connect import connect as one\n"
        "from forepaas.dwh import connect as two, bulk_insert\n"
        "import forepaas.dwh, forepaas.dwh.connector\n"
        "assert one is two is forepaas.dwh.connect\n"
        "from forepaas.worker.settings import PARAMS, CONFIG\n"
        "import forepaas.core.settings as settings\n"
        "assert settings.PARAMS is PARAMS and settings.CONFIG is CONFIG\n"
    )
    import subprocess
    import sys

    first = "from forepaas.dwh import bulk_insert, connect\nassert callable(connect)\n"
    for text in (code, first + code, "import forepaas.worker.connect\n" + code):
        subprocess.run([sys.executable, "-c", text], check=True)


def test_logical_objects_say_what_to_use_instead() -> None:
    from forepaas.dwh.logical import LogicalObject

    with pytest.raises(DatasetError, match="LogicalObject") as error:
        LogicalObject("anything")
    assert "connect(" in error.value.hint
