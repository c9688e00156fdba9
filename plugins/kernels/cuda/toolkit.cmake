# Finds nvcc for XLSTM_CUDA, or says how to get on without it.
include(CheckLanguage)
set(CMAKE_CUDA_ARCHITECTURES OFF)  # each target names its own
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  message(FATAL_ERROR "XLSTM_CUDA needs nvcc: put it on PATH, or set CUDACXX; "
                      "-DXLSTM_CUDA=OFF builds without the CUDA kernels")
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.4)
  message(FATAL_ERROR "The CUDA kernels need CUDA 12.4 or later, not ${CMAKE_CUDA_COMPILER_VERSION}")
endif()
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
find_package(CUDAToolkit REQUIRED)
