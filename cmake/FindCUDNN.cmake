# SPDX-License-Identifier: Apache-2.0
# cuDNN 9: in CUDNN_ROOT (the variable or the environment's), in the folder of the Python package
# nvidia-cudnn, or in CUDA's own folder. Wheels have libraries under their full names only.
# Sets CUDNN_FOUND, CUDNN_VERSION, CUDNN_INCLUDE_DIR, CUDNN_LIBRARY; makes CUDNN::graph, which has no
# opinion about where CUDA's runtime comes from.
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
list(APPEND cudnn_places ${CUDAToolkit_TARGET_DIR} ${CUDAToolkit_LIBRARY_ROOT} $ENV{CUDA_HOME}
  /usr/local/cuda)
find_path(CUDNN_INCLUDE_DIR cudnn_graph.h HINTS ${cudnn_places} PATH_SUFFIXES include)
find_library(CUDNN_LIBRARY NAMES libcudnn_graph.so.9 HINTS ${cudnn_places}
  PATH_SUFFIXES lib lib64)
if(CUDNN_INCLUDE_DIR)
  file(STRINGS ${CUDNN_INCLUDE_DIR}/cudnn_version.h cudnn_numbers
    REGEX "#define CUDNN_(MAJOR|MINOR|PATCHLEVEL) ")
  string(REGEX REPLACE "[^;0-9]" "" cudnn_numbers "${cudnn_numbers}")
  string(REPLACE ";" "." CUDNN_VERSION "${cudnn_numbers}")
endif()
include(FindPackageHandleStandardArgs)
# 9.8 is the first that plans for a device that is not there
find_package_handle_standard_args(CUDNN REQUIRED_VARS CUDNN_LIBRARY CUDNN_INCLUDE_DIR
  VERSION_VAR CUDNN_VERSION)
mark_as_advanced(CUDNN_INCLUDE_DIR CUDNN_LIBRARY CUDNN_PYTHON)
if(CUDNN_FOUND AND NOT TARGET CUDNN::graph)
  add_library(CUDNN::graph SHARED IMPORTED)
  set_target_properties(CUDNN::graph PROPERTIES IMPORTED_LOCATION ${CUDNN_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${CUDNN_INCLUDE_DIR})
endif()
