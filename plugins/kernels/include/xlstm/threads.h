// How many threads a caller may ask for, and how it tells libxlstm_ort of them.
#pragma once

namespace xlstm {

inline constexpr int kMostThreads = 1024;

// The entry of a session's configuration. ONNX Runtime does not say how many threads a session has:
// a program that asks for a number of them says it there too, before it registers the library.
inline constexpr char kThreadsKey[] = "ai.xlstm.intra_op_num_threads";

}  // namespace xlstm
