"""The version of this package; everything that names it takes it from here."""

__version__ = "0.1.0"
