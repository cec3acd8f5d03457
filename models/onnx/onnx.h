// SPDX-License-Identifier: Apache-2.0
/**
 * Networks out as ONNX (opset 17), for whatever tool runs them: onnxruntime, OpenVINO, browsers.
 *
 * The writer walks a program as it was built, before planning fuses its nodes. Format: onnx.proto
 * of the ONNX project, written without its library.
 */
#ifndef SH_MODELS_ONNX_H
#define SH_MODELS_ONNX_H

#include "models/program.h"

SH_C_BEGIN

/**
 * Write `program` as an ONNX file, whole or not at all; bytes are a pure function of the arguments.
 *
 * program   built with training = false and dtype SH_F32, not planned; its store is allocated and
 *           holds the weights
 * input     [N,C,H,W]; the number of images is left open in the file
 * outputs   [n_outputs] as sh_program_output gave them: [N, D]
 * metadata  n_metadata key-value pairs for metadata_props
 * An op that has no counterpart is SH_ERR_UNSUPPORTED naming it.
 */
SH_MUST_CHECK sh_status sh_onnx_write(const char *path, const sh_program *program, sh_value input,
                                      int n_outputs, const sh_value *outputs,
                                      const char *const (*metadata)[2], int n_metadata);

SH_C_END

#endif
