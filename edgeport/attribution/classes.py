"""The one table from kinds of operators, of both formats, to the classes of Fig. 2 of the ShuffleNetV2 paper.

The paper (arXiv 1807.11164) has conv, elemwise, data, shuffle, other. Whether an operator that only moves data
rearranges channels is not in its kind: see shuffles.
"""

CLASS_NAMES = ("conv", "elemwise", "data", "shuffle", "other")

# Both formats' names, without case and underscores: CONV_2D is conv2d.
CLASSES = {
    "conv": """
        conv convinteger convtranspose conv2d conv3d depthwiseconv2d transposeconv convolution2dtransposebias fusedconv
        nhwcfusedconv qlinearconv gemm fusedgemm qgemm matmul fusedmatmul matmulinteger matmulintegertofloat
        qlinearmatmul dynamicquantizematmul batchmatmul fullyconnected einsum matmulnbits
    """,
    "elemwise": """
        abs add biasgelu bitwiseand bitwisenot bitwiseor bitwisexor batchnormalization ceil celu clip cos div elu equal
        erf exp fastgelu floor floordiv floormod fusedelementwise gelu greater greaterequal greaterorequal hardsigmoid
        hardswish hardtanh leakyrelu less lessequal lessorequal log logicaland logicalnot logicalor logistic logsigmoid
        max maximum min minimum mish mod mul neg not notequal or and pow prelu qlinearadd qlinearleakyrelu qlinearmul
        qlinearsigmoid quickgelu reciprocal relu relu0to1 relu6 relun1to1 round rsqrt scaledtanh select selectv2 selu
        sigmoid sign sin softplus softsign sqrt square squareddifference sub sum swish tan tanh thresholdedrelu where
        xor addn
    """,
    "data": """
        batchtospacend broadcastto cast castlike concat concatenation constantofshape depthtospace dequantize
        dequantizelinear dynamicquantizelinear expand expanddims fill flatten gather gatherelements gathernd identity
        memcpyfromhost memcpytohost mirrorpad onehot pack pad padv2 qlinearconcat quantize quantizelinear range
        reorderinput reorderoutput reshape resizebilinear resizenearestneighbor resize reverse reversev2 scatterelements
        scatternd shape size slice spacetobatchnd spacetodepth split splitv squeeze stridedslice tile transpose unpack
        unsqueeze upsample densify
    """,
}
_CLASS_OF = {kind: name for name, kinds in CLASSES.items() for kind in kinds.split()}


def plain(kind: str) -> str:
    """A kind's name without case and underscores, as the tables here have it."""
    return kind.replace("_", "").lower()


def class_of(kind: str) -> str:
    """By kind alone: "other" for what the table does not have (pooling, means, softmax, custom operators)."""
    return _CLASS_OF.get(plain(kind), "other")


def computes(kind: str) -> bool:
    return class_of(kind) == "conv"
