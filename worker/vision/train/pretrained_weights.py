"""Read the initial weights for a training from another model (transfer learning, Yosinski et al. 2014)."""

from torch import Tensor

from worker.vision.detection import model_registry, network


def read(source: str, labels: list[str]) -> tuple[str, dict[str, Tensor]]:
    """Read those weights of a model that can be used for a detector with the given labels.

    :param source: ``grocery`` for the bundled model, or the path of a checkpoint that ``scripts/train`` wrote.
    :param labels: the labels of the detector.
    :returns: the model's name, version and digest as one text, and the weights. If the model's labels differ from
        ``labels``, the weights of its classification head are left out.
    :raises ModelUnusable: the model cannot be read, or it is another kind of network.
    """
    model, card = model_registry.load(source)
    if not isinstance(getattr(model, "backbone", None), network.Backbone):
        raise model_registry.ModelUnusable(
            f"The model {source} is another kind of network. Start from {model_registry.BUNDLED}, or from a checkpoint that scripts/train wrote."
        )
    weights = model.state_dict()
    if card.labels[1:] != tuple(labels):
        weights = {name: tensor for name, tensor in weights.items() if "classification_head" not in name}
    return f"{card.name} {card.version}, sha256 {card.weights_sha256}", weights
