"""What filesystems say of an object, in all the forms they say it."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from keepbest.storage.remote_info import is_folder, is_link, modified

WHEN = 1_700_000_000.0
DATE = datetime.fromtimestamp(WHEN, tz=UTC)


@pytest.mark.parametrize(
    "info",
    [
        pytest.param({"mtime": WHEN}, id="number"),
        pytest.param({"mtime": int(WHEN), "created": 5.0}, id="the-last-change-before-the-first"),
        pytest.param({"created": WHEN}, id="created"),
        pytest.param({"mtime": DATE}, id="date"),
        pytest.param({"last_modified": DATE.replace(tzinfo=None)}, id="date-without-zone"),
        pytest.param({"LastModified": "2023-11-14T22:13:20Z"}, id="iso"),
        pytest.param({"Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT"}, id="http"),
        pytest.param({"modify": "20231114221320"}, id="ftp"),
        pytest.param({"modify": "20231114221320.000"}, id="ftp-with-fractions"),
        pytest.param({"modificationTime": 1_700_000_000_000}, id="milliseconds"),
        pytest.param({"last_commit": None, "last_commit_date": SimpleNamespace(date=DATE)}, id="commit"),
        pytest.param({"mtime": None, "created": WHEN}, id="unknown-change"),
    ],
)
def test_the_time_of_the_last_change_is_found(info):
    """However a filesystem says it, the age of an object is known."""
    assert modified(info, now=9e9) == WHEN


@pytest.mark.parametrize("info", [{}, {"mtime": None}, {"modify": "Nov 14 22:13"}, {"mtime": True}])
def test_what_has_no_time_is_young(info):
    """An object of unknown age is never collected as old garbage."""
    assert modified(info, now=9e9) == 9e9


def test_folders_and_links_are_told_apart():
    """A folder is no object, and a link is not followed, whichever way a filesystem says so."""
    assert is_folder({"type": "directory"})
    assert not is_folder({"type": "file"})
    assert is_link({"type": "link"})
    assert is_link({"type": "directory", "islink": True})
    assert not is_link({"type": "file", "islink": False})
