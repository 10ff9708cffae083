"""Migrations: versioned changes of stored data, each of which runs once per database, before the new code starts.

``scripts/admin migrate`` creates the missing indexes and then runs the pending migrations in ascending order. A lock in
MongoDB ensures that only one process does so. The service can be running meanwhile: during a rolling update, old and
new code use the same database. Therefore, these rules apply:

- A migration only adds: fields, documents, indexes. New code treats a missing field like null, because old code writes
  documents without it until the update is complete, also after the migration has finished.
- What old code omits during the update is added after it, by ``runner.finish_update``.
- What only old code needs (a field, an index, a collection) is dropped by ``runner.finish_update``, when that code no longer runs.
- An index whose declaration changes gets a new name.
- What old code changes after a return to it is corrected by ``runner.finish_update``, too, as far as that is possible.
- There is no way back: a migration cannot be undone. If the database has migrations that the code does not know, the
  code is the old code of a rolling update, or of a return to it, and works as before.
- A migration can be interrupted at any moment and continues where it was. It changes documents in ranges of ids
  (``Run.id_ranges``), and changing a range twice has the same result as changing it once.

To add a migration, create the module ``m<number>_<name>`` with the next number. Its ``SUMMARY`` is shown to operators,
and its function ``apply`` gets a ``Run``.
"""
