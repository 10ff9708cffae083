"""Initial weights for a training, taken from another model (transfer learning, Yosinski et al. 2014)."""

from torch import Tensor

from worker.vision.detection import model_registry, network


def read(source: str, labels: list[str]) -> tuple[str, dict[str, Tensor]]:
    """Read the weights of a model that fit a detector of ``labels``.

    :param source: the bundled ``grocery``, or the path of a checkpoint that ``scripts/train`` wrote.
    :returns: the model's name, version and digest as one text, and its weights; without those of the classification
        head if its labels differ from ``labels``.
    :raises ModelUnusable: when the model cannot be read, or is another kind of network.
    """
    model, card = model_registry.load(source)
    if not isinstance(getattr(model, "backbone", None), network.Backbone):
        raise model_registry.ModelUnusable(
            f"{source} is another kind of network. Start from {model_registry.BUNDLED}, or from a checkpoint that scripts/train wrote."
        )
    weights = model.state_dict()
    if card.labels[1:] != tuple(labels):
        weights = {name: tensor for name, tensor in weights.items() if "classification_head" not in name}
    return f"{card.name} {card.version}, sha256 {card.weights_sha256}", weights
