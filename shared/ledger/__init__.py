"""Every hot read and write of the truth, in plain pymongo. One module a step of an image's life.

==============  =====================================================================
``idempotency``  which request a key belongs to
``commits``      a batch becomes true, in one transaction, or never
``turns``        whose store is served next
``claims``       a worker takes images, keeps them, gives them back, or dies
``results``      a result is stored once; the last one closes the batch
``pages``        lists by page or cursor, one batch, one image
``ranks``        where page N begins, without walking there
``deletion``     a batch goes: first out of sight, then its files, then its documents
``audit``        the ledger balances, or shows that it does not
==============  =====================================================================
"""
