# SPDX-License-Identifier: Apache-2.0
# NCCL::NCCL: in NCCL_ROOT, in CUDA's own folders, or in the wheel nvidia-nccl of python3, which has the
# library by its full name only.
if(NOT NCCL_ROOT AND DEFINED ENV{NCCL_ROOT})
  set(NCCL_ROOT $ENV{NCCL_ROOT})
endif()
execute_process(
  COMMAND python3 -c "import nvidia.nccl as m; print(list(m.__path__)[0], end='')"
  OUTPUT_VARIABLE nccl_wheel ERROR_QUIET)
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${NCCL_ROOT}/include ${CUDAToolkit_INCLUDE_DIRS}
  ${nccl_wheel}/include)
find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ${NCCL_ROOT}/lib ${NCCL_ROOT}/lib64
  ${CUDAToolkit_LIBRARY_DIR} ${nccl_wheel}/lib)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(NCCL REQUIRED_VARS NCCL_LIBRARY NCCL_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "set NCCL_ROOT, or install the wheel nvidia-nccl")
if(NCCL_FOUND AND NOT TARGET NCCL::NCCL)
  add_library(NCCL::NCCL UNKNOWN IMPORTED)
  # Its header needs CUDA's.
  set_target_properties(NCCL::NCCL PROPERTIES IMPORTED_LOCATION ${NCCL_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES "${NCCL_INCLUDE_DIR};${CUDAToolkit_INCLUDE_DIRS}")
endif()
