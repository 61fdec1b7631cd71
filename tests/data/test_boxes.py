"""Boxes of lesions: they are where the prepared film shows the lesion, whatever the layout."""

import numpy as np

from mammo_lib.data.boxes import lesion_boxes, to_prepared
from mammo_lib.data.cbis_ddsm.sources import open_source


def test_a_box_is_turned_and_scaled_with_its_film():
    # A film 200 high and 100 wide becomes 50 high: a quarter. Turned, x in [10, 30] becomes [70, 90].
    assert to_prepared((10, 40, 30, 80), (200, 100), (50, 50), is_turned=False) == (2.5, 10, 7.5, 20)
    assert to_prepared((10, 40, 30, 80), (200, 100), (50, 50), is_turned=True) == (17.5, 10, 22.5, 20)


def test_masks_and_boxes_of_the_mirror_give_the_same_place(collection, tiny_profile, phantom_of):
    data = tiny_profile.run.data.model_copy(update={"image_size": (224, 224)})
    cohort = collection.cohort(tiny_profile.run.data, "test")
    by_mask = lesion_boxes(cohort, collection.source, data)
    by_box = lesion_boxes(cohort, open_source(phantom_of("mirror-800", n_breasts=24)), data)
    assert len(by_mask) == 2 * len(cohort)
    assert by_mask.keys() == by_box.keys()
    for key, box in by_mask.items():
        np.testing.assert_allclose(box, by_box[key], atol=2.0)
