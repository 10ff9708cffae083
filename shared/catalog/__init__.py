"""What people do with images: find them, change them, tag and annotate them.

Each read and write is limited to the stores of its principal.

======================  ===============================================================================================
``image_lists``         lists images by page or by cursor, with filters and in several orders
``image_changes``       changes one image in a transaction; every other module that changes an image uses it
``image_metadata``      corrects the fields that the upload set, and moves an image to another store
``corrections``         records what people change about an image
``image_timelines``     shows what has happened to an image
``image_deletion``      deletes one image: its files, then its document
``tags``                the tags: creates and reads them, and finds the ids that mean a name
``tag_rules``           what a tag can be named, and how names are compared
``tag_changes``         renames, merges, and deletes tags
``retired_tags``        removes the ids of merged and deleted tags from images
``tag_names``           returns the names of the tags of images, for responses
``image_tags``          tags images
``bulk_tags``           tags many images, in the request or in a job
``bulk_undo``           undoes a job that has tagged images
``bulk_parts``          does a part of such a job: plans it, writes the images, and settles what was written
``bulk_edits``          plans how the tags of many images change, and changes them
``bulk_reprocessing``   processes many images again, in a job
``dead_letter_retries`` processes failed images again, by their ids
``chosen_images``       checks the ids of images that a request names
``job_images``          finds the images of the next part of a job
``stored_filters``      the filters of a job, as it stores them
``job_rights``          what a job may still do
``suggestions``         labels that were seen in an image and are not among its tags
``annotations``         what people say is in a picture
``annotation_rules``    what an annotation can be: its label, and the geometry of its box
``near_duplicates``     finds images that look alike
======================  ===============================================================================================
"""
