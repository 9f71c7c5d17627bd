"""The path of the PyTorch module, or the layer, that an operator's name carries.

edgeport names operators "/stage2.0.branch1.0/conv2d": a slash, the module's path, a slash, the operator. TorchScript's
ONNX exporter writes "/layer1/layer1.0/conv1/Conv", litert-torch "net.Net/torch.nn.Sequential_layer1/net.Block_0/...;",
TensorFlow's converter "model/block1/conv/Relu;model/block1/conv/Conv2D".
"""

import re

LITERT_TORCH = re.compile(r"^(?:\w+\.)+[A-Za-z0-9]+_(?P<attribute>\w+)$")
LITERT_TORCH_ROOT = re.compile(r"^(?:\w+\.)+[A-Za-z0-9_]+$")


def operator_name(module: str, operator: str) -> str:
    """The name that edgeport gives to an operator of the module at this path ("" for the network itself)."""
    return f"/{module}/{operator}" if module else f"/{operator}"


def module_of(name: str) -> str | None:
    """The path in dotted form, "" for the network itself, None where the name carries none."""
    name = layer_of(name)
    if "/" not in name:
        return None
    scopes = name.split("/")
    if LITERT_TORCH_ROOT.match(scopes[0]):
        return _litert_torch(scopes[1:])
    if scopes[0] == "":
        return _torch_scopes(scopes[1:-1])
    return ".".join(scopes[:-1])


def layer_of(name: str) -> str:
    """The operator's own name; of a fused one, which lists its parts last first, that of its first part."""
    parts = [part for part in name.split(";") if part.strip("0123456789")]
    return parts[-1] if parts else name


def _torch_scopes(scopes: list[str]) -> str:
    """A scope may repeat the one before, or the whole path so far: layer1, layer1.0, conv1 is layer1.0.conv1."""
    path, before = "", ""
    for scope in scopes:
        if path and scope.startswith(f"{path}."):
            path = scope
        elif before and scope.startswith(f"{before}."):
            path = path[: -len(before)] + scope
        else:
            path = f"{path}.{scope}".strip(".")
        before = scope
    return path


def _litert_torch(scopes: list[str]) -> str:
    matches = [LITERT_TORCH.match(scope) for scope in scopes]
    return ".".join(m["attribute"] for m in matches if m)
