"""A network to learn on from: that of a model package, with its batch normalisation unfolded again.

A package holds convolutions into which their batch normalisation has been folded, as inference wants them. To learn on,
each normalisation needs statistics of what reaches it, and a scale and shift by which it changes nothing at first.
"""

from collections.abc import Iterable

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from daemon.recognition.package import ModelPackage
from trainer.network import SiteNetwork
from trainer.recipe import RecipeError

FOLDED_BIAS = "_bias"
"""What the exporter adds to the name of a convolution's weight for the bias that its normalisation left there."""


@torch.no_grad()
def unfold(package: ModelPackage, network: SiteNetwork, images: Iterable[Tensor]) -> None:
    """Give a network a package's weights, and normalisation that starts from the statistics of some batches of input.

    Args:
        package: Of a network of the same shape.
        network: Answers as the package does afterwards, in `eval` mode.
        images: Shape (batch, channels, height, width) each, what it is going to learn from.

    Raises:
        RecipeError: The package's network has another shape.
    """
    folded = {
        initializer.name: torch.from_numpy(numpy_helper.to_array(initializer).copy())
        for initializer in onnx.load_model(package.folder / "model.onnx").graph.initializer
    }
    normalisations = dict(_normalisations(network))
    not_in_packages = {*normalisations.values(), "smear"}
    for name, parameter in network.named_parameters():
        if name.rpartition(".")[0] in not_in_packages:
            continue
        if name not in folded or folded[name].shape != parameter.shape:
            raise RecipeError(
                f"{package.folder} cannot be learned on from: its network has another shape than the recipe's "
                f"(at {name}). Start from a package made by a recipe with the same [network] and [series]."
            )
        parameter.copy_(folded[name])
    modules = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for convolution, name in normalisations.items():
        _let_pass(modules[name], folded[f"{convolution}.weight{FOLDED_BIAS}"])
    _measure(network, list(modules.values()), images)


def _normalisations(network: SiteNetwork) -> Iterable[tuple[str, str]]:
    """Names of each convolution and of the normalisation that follows it."""
    last_convolution = ""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            last_convolution = name
        elif isinstance(module, nn.BatchNorm2d):
            yield last_convolution, name


def _let_pass(normalisation: nn.BatchNorm2d, bias: Tensor) -> None:
    """Have a normalisation add the folded bias and nothing else."""
    assert normalisation.running_mean is not None
    assert normalisation.running_var is not None
    normalisation.running_mean.zero_()
    normalisation.running_var.fill_(1 - normalisation.eps)
    normalisation.weight.fill_(1.0)
    normalisation.bias.copy_(bias)


def _measure(network: SiteNetwork, normalisations: list[nn.BatchNorm2d], images: Iterable[Tensor]) -> None:
    """Set each normalisation's statistics to those of its input, and its scale and shift so that nothing changes."""
    moments = {normalisation: torch.zeros(2, normalisation.num_features) for normalisation in normalisations}
    batches = 0

    def add(normalisation: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(normalisation, nn.BatchNorm2d)
        values = inputs[0].double()
        moments[normalisation] = moments[normalisation] + torch.stack(
            [values.mean(dim=(0, 2, 3)), values.square().mean(dim=(0, 2, 3))]
        )

    hooks = [normalisation.register_forward_pre_hook(add) for normalisation in normalisations]
    network.eval()
    for batch in images:
        network(batch)
        batches += 1
    for hook in hooks:
        hook.remove()
    for normalisation, summed in moments.items():
        mean, square = summed / batches
        variance = square - mean.square()
        normalisation.running_mean = mean.float()
        normalisation.running_var = variance.float()
        normalisation.weight.copy_((variance + normalisation.eps).sqrt())
        normalisation.bias.add_(mean)
