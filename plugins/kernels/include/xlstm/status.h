// What a kernel answers. Kernels never throw, print or abort.
#pragma once

#include <cstdint>

namespace xlstm {

enum class Status : int32_t {
  kOk = 0,
  kBadOp,          // no such operator
  kBadDType,       // no such element type
  kBadSize,        // a size is out of its range (batch and width-1 >= 0, all others >= 1)
  kTooLarge,       // a tensor would not fit in the address space
  kBadLengths,     // lengths has neither one element nor one per row
  kBadAttribute,   // an attribute is out of its range
  kNullPointer,    // an operand is missing
  kMisaligned,     // an operand is not aligned to its element, or packed to kWorkspaceAlignment
  kBadAlias,       // an output overlaps an operand other than the state it continues
  kSmallWorkspace, // the workspace is null, too small, or not aligned to kWorkspaceAlignment
  kUnavailable,    // the forced instruction set or variant is not there
  kLaunchFailed,   // the device refused the launch
};

// One line that says what is wrong.
const char* status_message(Status status);

}  // namespace xlstm
