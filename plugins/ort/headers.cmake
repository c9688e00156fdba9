# XLSTM_ORT_HEADERS: the folder of ONNX Runtime's headers.
find_path(XLSTM_ORT_HEADERS onnxruntime_c_api.h PATHS ${XLSTM_ORT_INCLUDE} NO_DEFAULT_PATH NO_CACHE)
if(NOT XLSTM_ORT_HEADERS)
  message(FATAL_ERROR "XLSTM_ORT_INCLUDE is the folder with onnxruntime_c_api.h, not "
                      "'${XLSTM_ORT_INCLUDE}'; plugins/fetch_onnxruntime_headers.sh fetches it")
endif()
