r"""Which devices have production kernels for a format.

One entry a generation of GPUs and a library that computes with the format as it is stored, or unpacks it inside the
kernel. What is not listed was not found documented; emulation does not count.

====================================  ==================================================================================
rule                                  source
====================================  ==================================================================================
bf16: from Ampere on                  Transformer Engine, "Datatype and hardware support matrix"
fp8, one scale per tensor: Ada on     Transformer Engine; Model Optimizer, "Support Matrix" (FP8); vLLM, "FP8 W8A8"
fp8, dynamic per token: Ada on        vLLM, "FP8 W8A8" (Ada, Hopper and Blackwell for W8A8)
fp8 in squares of 128: Hopper on      Transformer Engine (FP8 block scaling; compute capability 9.0 and later)
fp8 weights alone: Turing to Hopper   vLLM, "FP8 W8A8" (Marlin, W8A16 on Turing and Ampere), "Quantization" (Marlin row)
int8 x int8: Turing to Hopper         vLLM, "INT8 W8A8" (not on compute capability 10.0 and later), x86 and Arm CPUs
int8 x int8, static: Ampere on        Model Optimizer (INT8: per-channel weights, per-tensor activations; TensorRT: both
                                      symmetric, it has no zero-points)
int4, int8 weights alone              vLLM, "Quantization" (GPTQ, AWQ: Turing to Hopper, x86 CPU; Marlin: to Hopper)
int4 weights in groups: Ampere on     Model Optimizer (W4A16, block-wise)
int4 weights, fp8 inputs: Ada on      Model Optimizer (W4A8, block-wise weights, per-tensor inputs; TensorRT-LLM)
mx formats: Blackwell                 CUTLASS, "Blackwell SM100 GEMMs" (kind mxf8f6f4, mxf4; 10.x); Transformer Engine
                                      lists MXFP8 for 10.0 and 10.3, not for 12.0
nvfp4: Blackwell                      Model Optimizer (FP4); Transformer Engine (partial on 12.0); CUTLASS
mxfp4, nvfp4 weights alone            vLLM, "Quantization" (Marlin row: FP4; Turing to Hopper)
nf4: Turing on, CPU                   bitsandbytes, "Installation Guide" (compute capability 6.0+; CPUs)
int2, int4, int8 groups on CPU        ONNX Runtime, contrib operator ``MatMulNBits`` (block size a power of two)
int8 x int8, static, on CPU           ONNX Runtime: ``QuantizeLinear``, ``DequantizeLinear`` fused into integer kernels
====================================  ==================================================================================

Pages as of 2026: docs.vllm.ai (features/quantization), nvidia.github.io/TransformerEngine/support_matrix.html,
nvidia.github.io/Model-Optimizer/guides/0_support_matrix.html, docs.nvidia.com/cutlass (blackwell_functionality),
huggingface.co/docs/bitsandbytes (installation).
"""

from __future__ import annotations

from .formats import Format, TensorFormat

#: NVIDIA GPU generations from old to new (compute capability 7.5, 8.0/8.6, 8.9, 9.0, 10.x/12.x), and CPUs.
GENERATIONS = ("turing", "ampere", "ada", "hopper", "blackwell", "cpu")

Kernels = dict[str, tuple[str, ...]]


def generations(target: Format) -> Kernels:
    """The generations that have kernels for a format.

    Args:
        target: the format of a layer.

    Returns:
        generation -> libraries with such kernels, in the order of ``GENERATIONS``; empty for formats that no
        production kernel is documented for, which can still be evaluated and exported as fake quantization.

    >>> from bitfront.formats import Format
    >>> generations(Format.parse("nvfp4"))
    {'blackwell': ('TensorRT-LLM', 'Transformer Engine', 'CUTLASS')}
    """
    rules = _wide(target) if target.is_wide else _weights(target.weight) if target.activation is None else _both(target)
    found: dict[str, list[str]] = {}
    for library, (first, last) in rules:
        for name in GENERATIONS[GENERATIONS.index(first) : GENERATIONS.index(last) + 1]:
            found.setdefault(name, []).append(library)
    return {name: tuple(found[name]) for name in GENERATIONS if name in found}


_Rules = list[tuple[str, tuple[str, str]]]  # library, first and last generation
_CPU = ("cpu", "cpu")


def _wide(target: Format) -> _Rules:
    first = "ampere" if target.name == "bf16" else "turing"
    return [("cuBLAS", (first, "blackwell")), *([("onnxruntime", _CPU)] if target.name == "fp32" else [])]


def _weights(weight: TensorFormat) -> _Rules:
    """Kernels that take activations of 16 bits (on CPUs 32)."""
    if weight.number == "codebook":
        return [("bitsandbytes", ("turing", "cpu"))]
    if weight.number == "float":
        marlin = _is_e4m3(weight) and weight.granularity in ("tensor", "channel", "block")
        return [("vLLM Marlin", ("turing", "hopper"))] if marlin or _is_fp4_block(weight) else []
    rules: _Rules = []
    rows = weight.granularity in ("channel", "group")
    if weight.bits in (4, 8) and rows and (weight.symmetric or (weight.bits == 4 and weight.group == 128)):
        rules += [("vLLM", ("turing", "turing")), ("vLLM Marlin", ("ampere", "hopper")), ("vLLM", _CPU)]
    if weight.bits == 4 and weight.granularity == "group":
        rules.append(("TensorRT", ("ampere", "blackwell")))
    if weight.bits in (2, 4, 8) and weight.granularity == "group":
        rules.append(("onnxruntime MatMulNBits", _CPU))
    return rules


def _both(target: Format) -> _Rules:
    weight, value = target.weight, target.activation
    assert value is not None
    per_token = value.dynamic and value.granularity == "token"
    static = not value.dynamic and value.granularity == "tensor"
    if weight.scale in ("e8m0", "e4m3"):
        return _blocks(weight, value)
    if _is_e4m3(weight) and _is_e4m3(value):
        if weight.granularity == "block" and value.granularity == "group":
            return [("Transformer Engine", ("hopper", "blackwell")), ("vLLM", ("hopper", "hopper"))]
        if weight.granularity in ("tensor", "channel") and (static or per_token):
            rules = [("vLLM", ("ada", "blackwell"))]
            return [*rules, ("TensorRT", ("ada", "blackwell"))] if static else rules
    whole = weight.number == value.number == "int" and weight.bits == value.bits == 8 and weight.symmetric
    if whole and weight.granularity in ("tensor", "channel") and (static or per_token):
        rules = [("vLLM", ("turing", "hopper")), ("vLLM", _CPU)]
        if static and value.symmetric:
            rules.append(("TensorRT", ("ampere", "blackwell")))
        return [*rules, ("onnxruntime", _CPU)] if static else rules
    if weight.number == "int" and weight.bits == 4 and weight.granularity == "group" and _is_e4m3(value) and static:
        return [("TensorRT-LLM", ("ada", "blackwell"))]
    return []


def _blocks(weight: TensorFormat, value: TensorFormat) -> _Rules:
    blackwell = ("blackwell", "blackwell")
    if weight.scale == value.scale == "e4m3":
        return [("TensorRT-LLM", blackwell), ("Transformer Engine", blackwell), ("CUTLASS", blackwell)]
    if weight.scale == value.scale == "e8m0":  # one instruction takes any two of mxfp8, mxfp6 and mxfp4
        both8 = weight.bits == value.bits == 8
        return [*([("Transformer Engine", blackwell)] if both8 else []), ("CUTLASS", blackwell)]
    return []


def _is_e4m3(target: TensorFormat) -> bool:
    return (target.number, target.exponent_bits, target.mantissa_bits) == ("float", 4, 3)


def _is_fp4_block(target: TensorFormat) -> bool:
    return target.number == "float" and target.bits == 4 and target.scale in ("e8m0", "e4m3")
