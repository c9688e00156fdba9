#include "memory.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "error.h"

namespace xlstm::session {
namespace {

class HostMemory : public Memory {
 public:
  bool is_host() const override { return true; }

  void* allocate(size_t bytes) override {
    void* found = ::operator new(bytes, std::align_val_t{kAlignment}, std::nothrow);
    if (found == nullptr) {
      fail(XLSTM_OUT_OF_MEMORY, "no memory for states of " + std::to_string(bytes) + " bytes");
    }
    return found;
  }

  void release(void* address) noexcept override {
    ::operator delete(address, std::align_val_t{kAlignment});
  }

  void zero(void* to, size_t bytes) override { std::memset(to, 0, bytes); }
  void copy(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void upload(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }
  void download(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }
};

}  // namespace

std::unique_ptr<Memory> host_memory() { return std::make_unique<HostMemory>(); }

Pool::~Pool() { release_kept(); }

std::shared_ptr<std::byte> Pool::take(size_t bytes) {
  bytes = std::max<size_t>(bytes, 1);
  void* address = nullptr;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = std::find_if(kept_.rbegin(), kept_.rend(),
                                    [bytes](const Block& block) { return block.bytes == bytes; });
    if (found != kept_.rend()) {
      address = found->address;
      kept_.erase(std::next(found).base());
    }
  }
  if (address == nullptr) address = allocate(bytes);
  const Block block{address, bytes};
  // where the count itself finds no memory, the deleter runs
  return {static_cast<std::byte*>(address),
          [pool = shared_from_this(), block](std::byte*) { pool->give_back(block); }};
}

void* Pool::allocate(size_t bytes) {
  try {
    return memory_->allocate(bytes);
  } catch (const Error& error) {
    if (error.status() != XLSTM_OUT_OF_MEMORY) throw;
  }
  release_kept();
  return memory_->allocate(bytes);
}

void Pool::release_kept() noexcept {
  std::vector<Block> idle;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle.swap(kept_);
  }
  for (const Block& block : idle) memory_->release(block.address);
}

void Pool::give_back(Block block) noexcept {
  void* oldest = block.address;
  try {
    const std::lock_guard<std::mutex> lock(mutex_);
    kept_.reserve(kMostKept + 1);
    kept_.push_back(block);
    oldest = nullptr;
    if (kept_.size() > kMostKept) {
      oldest = kept_.front().address;
      kept_.erase(kept_.begin());
    }
  } catch (const std::exception&) {
    // no memory for the list: the block itself is given up
  }
  if (oldest != nullptr) memory_->release(oldest);
}

}  // namespace xlstm::session
