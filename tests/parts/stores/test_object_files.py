"""Names of objects and of the files that hold them."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from harmonylite.stores.object_files import abandoned, file_name, object_name, object_names, upload_name

names = st.text(min_size=1)


@given(names)
def test_a_name_survives_and_its_file_is_safe_everywhere(name: str) -> None:
    file = file_name(name)
    assert object_name(file) == name
    assert re.fullmatch(r"[A-Za-z0-9_~=-][A-Za-z0-9_.~=-]*", file)


@given(names, names)
def test_two_names_never_share_a_file(one: str, two: str) -> None:
    assert (file_name(one) == file_name(two)) == (one == two)


@given(names, names)
def test_an_upload_is_nobodys_object_and_belongs_to_one_owner(one: str, two: str) -> None:
    upload = upload_name(one)
    assert object_names([upload, file_name(two)]) == [two]
    assert abandoned(one, [upload, file_name(two)]) == [upload]
    assert one == two or abandoned(two, [upload]) == []


def test_an_owner_whose_name_begins_like_another_ones_is_another() -> None:
    uploads = [upload_name("one"), upload_name("one.2"), upload_name("one.2.3")]
    assert [abandoned(owner, uploads) for owner in ("one", "one.2")] == [uploads[:1], uploads[1:2]]


def test_files_of_others_are_no_objects() -> None:
    assert object_names([".x", "a b", "a%20b", "=2f", "=zz", "ok", ""]) == ["ok"]
