#!/usr/bin/env python3
"""Writes the model of a GGUF file once more with its matrices in bfloat16, whatever they were quantised to: what
`llama_cpp_benchmark.py` is given, so that it reads as many bytes a token as `remit` with `--precision bf16`.

    pip install gguf
    python parity/bf16_gguf.py FROM.gguf TO.gguf
"""

import sys

import gguf

SOURCE, TARGET = sys.argv[1:]
BF16 = gguf.GGMLQuantizationType.BF16

reader = gguf.GGUFReader(SOURCE)
writer = gguf.GGUFWriter(TARGET, "llama")
for field in reader.fields.values():
    if field.name.startswith("GGUF.") or field.name == "general.architecture":
        continue
    value = gguf.LlamaFileType.MOSTLY_BF16 if field.name == "general.file_type" else field.contents()
    is_list = field.types[0] == gguf.GGUFValueType.ARRAY
    writer.add_key_value(field.name, value, field.types[0], field.types[-1] if is_list else None)
for tensor in reader.tensors:
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    values = values.reshape(tuple(reversed(tensor.shape.tolist()))).astype("float32")
    if values.ndim == 1:
        writer.add_tensor(tensor.name, values)
    else:
        writer.add_tensor(tensor.name, gguf.quants.quantize(values, BF16), raw_dtype=BF16)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
