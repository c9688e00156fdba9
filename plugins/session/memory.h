// Memory where a session computes: the host's, or a GPU's; and blocks of it that are used again.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace xlstm::session {

// Its operations are ordered: each sees what those before it wrote.
class Memory {
 public:
  static constexpr size_t kAlignment = 256;

  virtual ~Memory() = default;
  // Whether the processor may read and write it by its addresses.
  virtual bool is_host() const = 0;
  // New bytes, aligned to kAlignment. Throws XLSTM_OUT_OF_MEMORY.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* address) noexcept = 0;
  virtual void zero(void* to, size_t bytes) = 0;
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
  // From the host, which may change `from` afterwards; to the host, complete on return.
  virtual void upload(void* to, const void* from, size_t bytes) = 0;
  virtual void download(void* to, const void* from, size_t bytes) = 0;
};

std::unique_ptr<Memory> host_memory();

// Hands out blocks; those given back are kept for requests of the same size, the latest few.
class Pool : public std::enable_shared_from_this<Pool> {
 public:
  explicit Pool(std::unique_ptr<Memory> memory) : memory_(std::move(memory)) {}
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  Memory& memory() { return *memory_; }
  // A block whose content is undefined; it keeps the pool alive. Throws XLSTM_OUT_OF_MEMORY.
  std::shared_ptr<std::byte> take(size_t bytes);

 private:
  static constexpr size_t kMostKept = 4;
  struct Block {
    void* address;
    size_t bytes;
  };
  // New memory; where there is none, that of the kept blocks is given up first.
  void* allocate(size_t bytes);
  void give_back(Block block) noexcept;
  void release_kept() noexcept;

  std::unique_ptr<Memory> memory_;
  std::mutex mutex_;
  std::vector<Block> kept_;
};

}  // namespace xlstm::session
