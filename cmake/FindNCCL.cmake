# SPDX-License-Identifier: Apache-2.0
# NCCL::headers: in NCCL_ROOT, in CUDA's own folders, or in the wheel nvidia-nccl of python3. The library
# is looked for when the program runs (base/dynlib.h).
if(NOT NCCL_ROOT AND DEFINED ENV{NCCL_ROOT})
  set(NCCL_ROOT $ENV{NCCL_ROOT})
endif()
execute_process(
  COMMAND python3 -c "import nvidia.nccl as m; print(list(m.__path__)[0], end='')"
  OUTPUT_VARIABLE nccl_wheel ERROR_QUIET)
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${NCCL_ROOT}/include ${CUDAToolkit_INCLUDE_DIRS}
  ${nccl_wheel}/include)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(NCCL REQUIRED_VARS NCCL_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "set NCCL_ROOT, or install the wheel nvidia-nccl")
if(NCCL_FOUND AND NOT TARGET NCCL::headers)
  add_library(NCCL::headers INTERFACE IMPORTED)
  # Its header needs CUDA's.
  set_target_properties(NCCL::headers PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${NCCL_INCLUDE_DIR};${CUDAToolkit_INCLUDE_DIRS}")
endif()
