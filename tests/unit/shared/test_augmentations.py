"""The names of augmentations."""

from shared import augmentations, variants


def test_default_augmentations_exist_and_no_name_clashes_with_another_variant() -> None:
    assert set(augmentations.DEFAULT_AUGMENTATIONS) <= set(augmentations.AUGMENTATIONS)
    assert not {variants.THUMB, variants.BOXES, "rendition"} & set(augmentations.AUGMENTATIONS)
