-- The demo's shop: what many small applications look like, foreign keys, triggers and full-text search included.

CREATE TABLE customers (
    id     TEXT PRIMARY KEY,
    name   TEXT NOT NULL,
    email  TEXT NOT NULL UNIQUE,
    city   TEXT NOT NULL,
    phone  TEXT,
    points INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE products (
    id          INTEGER PRIMARY KEY,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    price       REAL NOT NULL CHECK (price >= 0)
);

-- One row per site and product: each site counts its own shelf, so two sites never count down the same number.
CREATE TABLE stock (
    site       INTEGER NOT NULL,
    product_id INTEGER NOT NULL REFERENCES products (id) ON DELETE CASCADE,
    on_hand    INTEGER NOT NULL,
    PRIMARY KEY (site, product_id)
) WITHOUT ROWID;

CREATE TABLE orders (
    id          TEXT PRIMARY KEY,
    customer_id TEXT NOT NULL REFERENCES customers (id),
    site        INTEGER NOT NULL,
    placed_at   TEXT NOT NULL,
    status      TEXT NOT NULL DEFAULT 'open'
);

CREATE TABLE order_lines (
    order_id   TEXT NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    line       INTEGER NOT NULL,
    product_id INTEGER NOT NULL REFERENCES products (id),
    quantity   INTEGER NOT NULL,
    price      REAL NOT NULL,
    PRIMARY KEY (order_id, line)
) WITHOUT ROWID;

CREATE INDEX orders_by_customer ON orders (customer_id);

-- An index without a copy of the text: it is right only if every change of products passes through these triggers.
CREATE VIRTUAL TABLE product_search USING fts5(name, description, content='products', content_rowid='id');

CREATE TRIGGER product_added AFTER INSERT ON products BEGIN
    INSERT INTO product_search (rowid, name, description) VALUES (new.id, new.name, new.description);
END;

CREATE TRIGGER product_removed AFTER DELETE ON products BEGIN
    INSERT INTO product_search (product_search, rowid, name, description)
    VALUES ('delete', old.id, old.name, old.description);
END;

CREATE TRIGGER product_changed AFTER UPDATE ON products BEGIN
    INSERT INTO product_search (product_search, rowid, name, description)
    VALUES ('delete', old.id, old.name, old.description);
    INSERT INTO product_search (rowid, name, description) VALUES (new.id, new.name, new.description);
END;
