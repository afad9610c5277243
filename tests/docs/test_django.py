"""docs/django.md: its settings and its model work with the Django that is here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "django.md"

AROUND = """
{settings}
import django
from django.conf import settings
settings.configure(DATABASES=DATABASES, USE_TZ=True)
django.setup()
{model}
    class Meta:
        app_label = "shop"

from django.db import connection, transaction
with connection.schema_editor() as editor:
    editor.create_model(Order)
with transaction.atomic():
    made = Order.objects.create(note="new")
    other = __import__("sqlite3").connect({database!r}, timeout=0)
    try:
        other.execute("BEGIN IMMEDIATE")
    except Exception as error:
        print(error)
print(made.id.version, Order.objects.get(id=made.id).note)
with transaction.atomic():
    Order.objects.count()
    try:
        other.execute("BEGIN IMMEDIATE")
    except Exception as error:
        print("a reader holds it, too:", error)
"""


def test_the_settings_and_the_model_of_the_page_work(tmp_path: Path) -> None:
    settings, model = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    database = str(tmp_path / "app.db")
    program = AROUND.format(settings=settings.replace("/data/app.db", database), model=model, database=database)
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert said.stderr == ""
    assert said.stdout.splitlines() == [
        "database is locked",
        "4 new",
        "a reader holds it, too: database is locked",
    ]
