"""Reading health records: layouts of databases, portable expressions (Ibis) over them, and what they hold as cells."""

from remind.errors import RemindError, install

try:
    import ibis as ibis
except ImportError:  # the message is better than the traceback
    raise RemindError(f"reading health records needs DuckDB and Ibis: {install('ehr')}.") from None
