"""Jobs: what takes longer than a request, such as tagging many images. They are done in parts.

===============  ===================================================================================================
``records``      creates, reads, lists, and cancels jobs
``claims``       how a worker claims a job, keeps it, releases it, and loses it
``progress``     how a worker records that a part of a job was done, and that the job ended
``changes``      limits for how long what jobs have changed is kept
``undo``         creates the job that undoes another one, and reads what that one has changed
``error_codes``  the errors of jobs
===============  ===================================================================================================

What the parts of each kind of job do is described in ``shared.catalog``. Each part advances the cursor of the job at
its end, most of them in a transaction with what they have changed. If its worker dies before, another worker finds out what the part has done, and does the rest of it.
"""
