"""The frequent reads and writes of batches and images in MongoDB. The functions use pymongo directly.

=================== ===============================================================================
``idempotency``     stores which request an ``Idempotency-Key`` belongs to
``commits``         accepts a batch in one transaction
``turns``           determines the account and the store whose images are claimed next
``claim_shares``    how accounts, priorities and stores share a claim
``claims``          claims images for a worker, renews leases, and releases images that are not finished
``results``         stores each result once
``timelines``       records the attempts and the requests of an image
``closing``         closes a batch after its last result
``filters``         the conditions of a list of batches or of images
``queries``         reads lists of batches (by page or by cursor), single batches, and single images
``batch_headers``   reads batches without their images, as a reader of some stores sees them
``batch_images``    reads the images of batches in pieces of limited size
``page_index``      finds the first batch of page N without scanning all earlier pages
``segments``        counts batches in segments for the page index
``open_counts``     counts the images of batches by state, for responses
``shown_results``   which files of an image are shown: those of its last successful attempt
``cancellation``    ends the queued images of a batch
``reprocessing``    queues finished images again
``whole_batches``   the rule for changes of a whole batch
``dead_letters``    lists the images that have failed, and counts them by their error
``receipts``        what the ledger says about a batch, signed
``settlement``      what remains to be done for a closed batch: its spool, and the files of lost claims
``sweep_claims``    how sweep processes share the work on batches and images
``deletion``        deletes a batch: removes it from all lists, then deletes its files, then its documents
``standing_images`` keeps a batch and the ledger true when one image is deleted or moved to another store
``tag_counts``      how many images of each store have a tag
``audit``           checks that every accepted image is accounted for
``sums``            keeps the sums of the ledger, so that nothing is counted when they are shown
``imbalances``      finds the batches that have too few or too many image documents
``original_checks`` chooses the originals to check, and counts those that were damaged
``tag_recounts``    counts the images of a tag again
``waiting_images``  how many images wait for a worker, by store
``waits``           how long the work that waits for workers has not been taken up
=================== ===============================================================================
"""
