# SPDX-License-Identifier: Apache-2.0
# The headers of cuDNN 9, and of the CUDA that they need: in CUDNN_ROOT (the variable or the
# environment's), in the folder of the Python package nvidia-cudnn, or in CUDA's own folder. The library
# is looked for when the program runs (base/dynlib.h).
# Sets CUDNN_FOUND, CUDNN_VERSION, CUDNN_INCLUDE_DIR; makes CUDNN::headers.
set(cudnn_places ${CUDNN_ROOT} $ENV{CUDNN_ROOT})
find_program(CUDNN_PYTHON python3)
if(CUDNN_PYTHON AND NOT cudnn_places)
  execute_process(COMMAND ${CUDNN_PYTHON} -c "import nvidia.cudnn as m; print(list(m.__path__)[0])"
    OUTPUT_VARIABLE cudnn_wheel OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  list(APPEND cudnn_places ${cudnn_wheel})
endif()
if(NOT CUDAToolkit_FOUND)
  find_package(CUDAToolkit QUIET)
endif()
set(cudnn_toolkit ${CUDAToolkit_TARGET_DIR} ${CUDAToolkit_LIBRARY_ROOT} $ENV{CUDA_HOME}
  /usr/local/cuda)
find_path(CUDNN_INCLUDE_DIR cudnn_graph.h HINTS ${cudnn_places} ${cudnn_toolkit}
  PATH_SUFFIXES include)
find_path(CUDNN_CUDA_INCLUDE_DIR cuda_runtime_api.h HINTS ${CUDAToolkit_INCLUDE_DIRS}
  ${cudnn_toolkit} PATH_SUFFIXES include)
if(CUDNN_INCLUDE_DIR)
  file(STRINGS ${CUDNN_INCLUDE_DIR}/cudnn_version.h cudnn_numbers
    REGEX "#define CUDNN_(MAJOR|MINOR|PATCHLEVEL) ")
  string(REGEX REPLACE "[^;0-9]" "" cudnn_numbers "${cudnn_numbers}")
  string(REPLACE ";" "." CUDNN_VERSION "${cudnn_numbers}")
endif()
include(FindPackageHandleStandardArgs)
# 9.8 is the first that plans for a device that is not there
find_package_handle_standard_args(CUDNN REQUIRED_VARS CUDNN_INCLUDE_DIR CUDNN_CUDA_INCLUDE_DIR
  VERSION_VAR CUDNN_VERSION)
mark_as_advanced(CUDNN_INCLUDE_DIR CUDNN_CUDA_INCLUDE_DIR CUDNN_PYTHON)
if(CUDNN_FOUND AND NOT TARGET CUDNN::headers)
  add_library(CUDNN::headers INTERFACE IMPORTED)
  set_target_properties(CUDNN::headers PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${CUDNN_INCLUDE_DIR};${CUDNN_CUDA_INCLUDE_DIR}")
endif()
