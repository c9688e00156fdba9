# The native libraries of xlstm-export, those of them that were built:
#   xlstm::session   bundles and engines in C++ and C: xlstm/session.hpp, xlstm_session.h
#   xlstm::c         the kernels without a framework: xlstm_c.h
#   xlstm::ort       custom operators of ONNX Runtime, for RegisterCustomOpsLibrary
#   xlstm::trt       plugins of TensorRT and TensorRT-RTX, for IPluginRegistry::loadLibrary
# The last two are loaded when a program runs: it wants their $<TARGET_FILE>, and links nothing.
get_filename_component(_xlstm_root "${CMAKE_CURRENT_LIST_DIR}/.." ABSOLUTE)
foreach(_xlstm_name IN ITEMS session c ort trt)
  set(_xlstm_file "${_xlstm_root}/lib/libxlstm_${_xlstm_name}.so")
  set(xlstm_${_xlstm_name}_FOUND FALSE)
  if(EXISTS "${_xlstm_file}")
    set(xlstm_${_xlstm_name}_FOUND TRUE)
    if(NOT TARGET xlstm::${_xlstm_name})
      if(_xlstm_name MATCHES "^(ort|trt)$")
        add_library(xlstm::${_xlstm_name} MODULE IMPORTED)
      else()
        add_library(xlstm::${_xlstm_name} SHARED IMPORTED)
        set_target_properties(xlstm::${_xlstm_name} PROPERTIES
          INTERFACE_INCLUDE_DIRECTORIES "${_xlstm_root}/include")
      endif()
      set_target_properties(xlstm::${_xlstm_name} PROPERTIES IMPORTED_LOCATION "${_xlstm_file}")
    endif()
  endif()
endforeach()
if(TARGET xlstm::session)
  target_compile_features(xlstm::session INTERFACE cxx_std_17)
endif()

foreach(_xlstm_name IN LISTS xlstm_FIND_COMPONENTS)
  if(xlstm_FIND_REQUIRED_${_xlstm_name} AND NOT xlstm_${_xlstm_name}_FOUND)
    set(xlstm_FOUND FALSE)
    set(xlstm_NOT_FOUND_MESSAGE "${_xlstm_root}/lib has no libxlstm_${_xlstm_name}.so: build \
xlstm-export with it (make wheel; xlstm::trt needs nvcc)")
  endif()
endforeach()
unset(_xlstm_root)
unset(_xlstm_name)
unset(_xlstm_file)
