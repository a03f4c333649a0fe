"""Reading health records: layouts of databases, portable expressions (Ibis) over them, and what they hold as cells."""

from remind.errors import RemindError

try:
    import ibis as ibis
except ImportError:  # the message is better than the traceback
    raise RemindError('reading health records needs DuckDB and Ibis: pip install "remind[ehr]".') from None
