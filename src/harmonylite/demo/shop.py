"""A small shop with three sites: the scene without a file.

Invariant: everything follows from one seed, so two runs play the same story.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import apsw

from harmonylite.db.sqlite.connection import mapped, open_file
from harmonylite.demo.scene import Clash, Statement, Transaction, Workload

CUSTOMERS, PRODUCTS, ORDERS, SITES = 400, 240, 900, 3

FIRST = ("Ada", "Bo", "Chidi", "Dana", "Elif", "Femi", "Gita", "Hugo", "Ines", "Jun", "Kofi", "Lena", "Mira", "Nils")
LAST = ("Abe", "Brandt", "Costa", "Diallo", "Eriksen", "Fontaine", "Garcia", "Haddad", "Ito", "Jansen", "Kaya", "Lopez")
CITIES = ("Lisbon", "Oslo", "Accra", "Lyon", "Osaka", "Quito", "Turin", "Graz", "Cork", "Riga")
MATERIAL = ("oak", "steel", "linen", "wool", "glass", "copper", "cork", "clay", "paper", "felt")
THING = ("lamp", "mug", "chair", "rug", "shelf", "vase", "clock", "basket", "tray", "bench", "kettle", "stool")
MOOD = ("for slow mornings", "made by hand", "that lasts", "in three sizes", "from a small workshop", "for the garden")


class Shop:
    """See the module. ``seed``: determines all names, prices and orders."""

    title = "a small shop: customers, products, orders, stock, and a full-text search over the products"
    file_name = "shop.db"
    remark = ""
    touched = ("customers", "products", "stock", "orders", "order_lines")
    # The search index is not replicated: each node's own triggers maintain it.
    question = (
        "full-text search for 'copper kettle'",
        "SELECT rowid, name, description FROM product_search('copper kettle') ORDER BY rowid",
    )

    def __init__(self, seed: int = 2026) -> None:
        self._seed = seed

    def build(self, target: Path) -> None:
        """Create the shop's file with a few thousand rows, in WAL mode."""
        with closing(open_file(target, create=True)) as connection, mapped(f"fill {target}"):
            connection.pragma("journal_mode", "wal")
            connection.execute(files(__package__).joinpath("shop.sql").read_text())
            with connection:
                _fill(connection, random.Random(self._seed))

    def burst(self, site: int, number: int) -> Workload:
        """Site 1 sells, site 2 wins customers and sells, site 3 changes prices and cancels orders."""
        chance = random.Random(f"{self._seed}/{site}/{number}")
        orders = [_order(chance, site, f"site{site}-{number}-{n:03}") for n in range(40)]
        mine = f"SELECT count(*) FROM orders WHERE id LIKE 'site{site}-{number}-%'"
        if site == 1:
            return Workload("40 orders, each with its lines and the stock that they take", orders, (mine, 40))
        if site == 2:
            people = [_customer(1000 * number + n) for n in range(CUSTOMERS, CUSTOMERS + 25)]
            joins: list[Transaction] = [[("INSERT INTO customers VALUES (?,?,?,?,?,?)", who)] for who in people]
            return Workload("25 new customers and 15 orders", joins + orders[:15], (mine, 15))
        raised = "UPDATE products SET price = round(price * 1.05, 2), description = description || ' (new price)'"
        prices: Transaction = [(f"{raised} WHERE id % 8 = ?", (number % 8,))]
        old = f"past-0{number}%"
        cancel: Transaction = [("DELETE FROM orders WHERE site = 3 AND id LIKE ?", (old,))]
        return Workload(
            "a price rise on an eighth of the products, and old orders cancelled",
            [prices, cancel],
            (f"SELECT count(*) FROM orders WHERE site = 3 AND id LIKE '{old}'", 0),
        )

    def two_columns(self) -> Clash:
        """A customer moves and gets a new phone number."""
        return Clash(
            "customers",
            "customer c0007",
            ("UPDATE customers SET city = 'Trieste' WHERE id = 'c0007'", ()),
            ("UPDATE customers SET phone = '+39 040 555 0199' WHERE id = 'c0007'", ()),
            "SELECT city, phone FROM customers WHERE id = 'c0007'",
        )

    def one_column(self) -> Clash:
        """Two sites price one product."""
        return Clash(
            "products",
            "product 42",
            ("UPDATE products SET price = 19.5 WHERE id = 42", ()),
            ("UPDATE products SET price = 24.0 WHERE id = 42", ()),
            "SELECT price FROM products WHERE id = 42",
        )

    def by_hand(self) -> tuple[str, str]:
        """Return a statement that raises the price of the second clash, and a query that shows it."""
        return "UPDATE products SET price = price + 1 WHERE id = 42", self.one_column().show


def _fill(connection: apsw.Connection, chance: random.Random) -> None:
    connection.executemany("INSERT INTO customers VALUES (?,?,?,?,?,?)", map(_customer, range(CUSTOMERS)))
    connection.executemany("INSERT INTO products VALUES (?,?,?,?)", _products(chance))
    stock = [(site, product, 200) for site in range(1, SITES + 1) for product in range(1, PRODUCTS + 1)]
    connection.executemany("INSERT INTO stock VALUES (?,?,?)", stock)
    for number in range(ORDERS):
        for sql, values in _order(chance, 1 + number % SITES, f"past-{number:04}"):
            connection.execute(sql, values)


def _customer(number: int) -> tuple[int | str, ...]:
    first, last = FIRST[number % len(FIRST)], LAST[number // len(FIRST) % len(LAST)]
    email = f"{first}.{last}.{number}@shop.example".lower()
    return f"c{number:04}", f"{first} {last}", email, CITIES[number % len(CITIES)], f"+00 555 {number:04}", number % 50


def _products(chance: random.Random) -> Iterator[tuple[int, str, str, float]]:
    for number in range(1, PRODUCTS + 1):
        name = f"{MATERIAL[number % len(MATERIAL)]} {THING[number // len(MATERIAL) % len(THING)]}"
        yield number, name, f"a {name} {chance.choice(MOOD)}", round(chance.uniform(4, 250), 2)


def _order(chance: random.Random, site: int, name: str) -> Transaction:
    """Return the statements of one order: order, lines, stock."""
    customer = f"c{chance.randrange(CUSTOMERS):04}"
    day = f"2026-{chance.randint(1, 10):02}-{chance.randint(1, 28):02}T{chance.randint(8, 20):02}:00:00Z"
    statements: list[Statement] = [("INSERT INTO orders VALUES (?,?,?,?,'open')", (name, customer, site, day))]
    for line in range(1, chance.randint(2, 4)):
        product, quantity = chance.randint(1, PRODUCTS), chance.randint(1, 3)
        price = round(chance.uniform(4, 250), 2)
        statements += [
            ("INSERT INTO order_lines VALUES (?, ?, ?, ?, ?)", (name, line, product, quantity, price)),
            ("UPDATE stock SET on_hand = on_hand - ? WHERE site = ? AND product_id = ?", (quantity, site, product)),
        ]
    return statements
