"""The frequent reads and writes of batches and images in MongoDB, in plain pymongo. One module per step of an image's life.

==================  ========================================================================
``idempotency``     which request an ``Idempotency-Key`` belongs to
``commits``         accepts a batch in one transaction
``store_rotation``  which store's images are claimed next
``claims``          a worker claims images, renews its leases, and releases images unfinished
``results``         stores a result once, and closes a batch after its last result
``queries``         lists by page or cursor, one batch, one image
``page_index``      finds where page N begins, without walking there
``deletion``        deletes a batch: out of all lists first, then its files, then its documents
``audit``           checks that every accepted image is accounted for
==================  ========================================================================
"""
