"""Reading health records: layouts of databases, portable expressions (Ibis) over them, and what they hold as cells."""
