#include "xlstm/call.h"

#include <cstring>

#include "xlstm/attributes.h"

namespace xlstm {
namespace {

// More than any address space; what a kernel adds for padding and threads stays within int64.
constexpr int64_t kMostBytes = int64_t{1} << 46;

int64_t dim_size(const Dim& dim, const int64_t* sizes) {
  return dim.letter < 0 ? dim.added : sizes[dim.letter] + dim.added;
}

// Elements of an operand, or -1 where bytes would pass kMostBytes. Empty dimensions do not count:
// what is sized by the others alone must fit as well.
int64_t checked_count(const TensorSchema& tensor, const int64_t* sizes, size_t element) {
  const int64_t most = kMostBytes / static_cast<int64_t>(element);
  int64_t count = 1;
  bool too_large = false;
  for (int i = 0; i < tensor.rank && tensor.type != TypeVar::kLengths; ++i) {
    const int64_t size = dim_size(tensor.dims[i], sizes);
    if (size == 0) continue;
    too_large = too_large || size > most / count;
    if (!too_large) count *= size;
  }
  return too_large ? -1 : count;
}

struct Range {
  uintptr_t begin;
  uintptr_t end;
  bool overlaps(const Range& other) const {
    const bool both = begin < end && other.begin < other.end;  // what is empty overlaps nothing
    return both && begin < other.end && other.begin < end;
  }
};

Range range_of(const void* data, const TensorSchema& tensor, const Call& call) {
  const size_t element = element_size(call.problem.dtype, tensor.type);
  const int64_t count = tensor.type == TypeVar::kLengths
                            ? call.lengths_size
                            : element_count(tensor, call.problem.sizes);
  const auto begin = reinterpret_cast<uintptr_t>(data);
  return {begin, begin + static_cast<uintptr_t>(count) * element};
}

Status check_operand(const void* data, const TensorSchema& tensor, const Call& call) {
  const size_t element = element_size(call.problem.dtype, tensor.type);
  if (element_count(tensor, call.problem.sizes) == 0) return Status::kOk;  // W-1 of W = 1
  if (data == nullptr) return Status::kNullPointer;
  if (reinterpret_cast<uintptr_t>(data) % element != 0) return Status::kMisaligned;
  return Status::kOk;
}

Status check_aliases(const Call& call, const OpSchema& schema) {
  for (int o = 0; o < schema.output_count; ++o) {
    const Range output = range_of(call.outputs[o], schema.outputs[o], call);
    for (int i = 0; i < schema.input_count; ++i) {
      bool continues = false;
      for (int s = 0; s < schema.state_count; ++s) {
        const StatePair& pair = schema.states[s];
        continues = continues || (pair.input == i && pair.output == o);
      }
      if (continues && call.inputs[i] == call.outputs[o]) continue;
      if (call.inputs[i] != nullptr &&
          output.overlaps(range_of(call.inputs[i], schema.inputs[i], call))) {
        return Status::kBadAlias;
      }
    }
    for (int other = 0; other < o; ++other) {
      if (output.overlaps(range_of(call.outputs[other], schema.outputs[other], call))) {
        return Status::kBadAlias;
      }
    }
  }
  return Status::kOk;
}

Status check_attributes(const Call& call, const OpSchema& schema) {
  if (call.attributes == nullptr) return Status::kNullPointer;
  for (int a = 0; a < schema.attribute_count; ++a) {
    const AttributeSchema& attribute = schema.attributes[a];
    const char* place = static_cast<const char*>(call.attributes) + attribute.offset;
    float number;
    int32_t integer;
    std::memcpy(&number, place, sizeof number);
    std::memcpy(&integer, place, sizeof integer);
    const bool is_float = attribute.kind == AttributeKind::kFloat;
    // not as a float, which rounds an int32
    const double value = is_float ? number : static_cast<double>(integer);
    if (!in_range(attribute, value)) return Status::kBadAttribute;
  }
  return Status::kOk;
}

}  // namespace

const char* status_message(Status status) {
  switch (status) {
    case Status::kOk: return "done";
    case Status::kBadOp: return "no such operator";
    case Status::kBadDType: return "no such element type";
    case Status::kBadSize: return "a size is out of range: batch is at least 0, all others 1";
    case Status::kTooLarge: return "a tensor of these sizes does not fit in memory";
    case Status::kBadLengths: return "lengths has neither one element nor one per row";
    case Status::kBadAttribute: return "an attribute is out of its range";
    case Status::kNullPointer: return "an operand is missing";
    case Status::kMisaligned:
      return "an operand is not aligned to its element type, or packed memory not to 64 bytes";
    case Status::kBadAlias: return "an output overlaps an operand that it does not continue";
    case Status::kSmallWorkspace: return "the workspace is missing, too small or misaligned";
    case Status::kUnavailable:
      return "the instruction set of XLSTM_CPU_ISA or the kernel of XLSTM_CUDA_... is unknown, "
             "missing here, or does not take this call";
    case Status::kLaunchFailed: return "the device refused the launch";
  }
  return "unknown status";
}

const OpSchema* find_schema(Op op) {
  const auto index = static_cast<int32_t>(op);
  return index >= 0 && index < kOps ? &kSchemas[index] : nullptr;
}

size_t element_size(DType dtype, TypeVar type) {
  if (type == TypeVar::kLengths) return sizeof(int32_t);
  const bool half = dtype == DType::kFloat16 || dtype == DType::kBfloat16;
  if (type == TypeVar::kTX && half) return 2;
  return dtype == DType::kFloat64 ? sizeof(double) : sizeof(float);
}

int64_t element_count(const TensorSchema& tensor, const int64_t* sizes) {
  int64_t count = 1;
  for (int i = 0; i < tensor.rank && tensor.type != TypeVar::kLengths; ++i) {
    count *= dim_size(tensor.dims[i], sizes);
  }
  return count;
}

Status check_problem(const Problem& problem) {
  const OpSchema* schema = find_schema(problem.op);
  if (schema == nullptr) return Status::kBadOp;
  const auto dtype = static_cast<int32_t>(problem.dtype);
  if (dtype < 0 || dtype >= kDTypes) return Status::kBadDType;
  for (int s = 0; s < schema->size_count; ++s) {
    if (problem.sizes[s] < (schema->letters[s] == 'B' ? 0 : 1)) return Status::kBadSize;
  }
  for (int i = 0; i < schema->input_count; ++i) {
    const TensorSchema& input = schema->inputs[i];
    const size_t element = element_size(problem.dtype, input.type);
    if (checked_count(input, problem.sizes, element) < 0) return Status::kTooLarge;
  }
  for (int o = 0; o < schema->output_count; ++o) {
    const TensorSchema& output = schema->outputs[o];
    const size_t element = element_size(problem.dtype, output.type);
    if (checked_count(output, problem.sizes, element) < 0) return Status::kTooLarge;
  }
  return Status::kOk;
}

Status check_call(const Call& call) {
  if (const Status status = check_problem(call.problem); status != Status::kOk) return status;
  const OpSchema& schema = *find_schema(call.problem.op);
  if (const Status status = check_attributes(call, schema); status != Status::kOk) return status;
  const int64_t batch = call.problem.sizes[0];  // B is the first letter of every operator
  if (call.lengths_size != 1 && call.lengths_size != batch) return Status::kBadLengths;
  if (batch == 0) return Status::kOk;
  for (int i = 0; i < schema.input_count; ++i) {
    const bool is_packed = call.packed != nullptr && call.inputs[i] == nullptr;
    if (is_packed) continue;  // pack() knows which operand it took; the kernel asks for the rest
    const Status status = check_operand(call.inputs[i], schema.inputs[i], call);
    if (status != Status::kOk) return status;
  }
  for (int o = 0; o < schema.output_count; ++o) {
    const Status status = check_operand(call.outputs[o], schema.outputs[o], call);
    if (status != Status::kOk) return status;
  }
  return check_aliases(call, schema);
}

}  // namespace xlstm
