// What opusflow needs of libtorch that tch does not give: a CPU allocator that keeps accounts and holds them to a limit, the caches and figures
// of a device's allocator, and the switches of a thread and of the process. Linked against libtorch's CPU half only: a GPU's allocator is
// found through the registry that libtorch_cuda.so enters itself into. Nothing here throws across the border; src/tensor/libtorch.rs calls it.

#include <ATen/Context.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/alignment.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/util/Exception.h>

#include <atomic>
#include <cstdint>
#include <limits>

namespace {

// What one owner holds of libtorch's memory on the CPU. It lives as long as its handle and everything that was allocated on it.
struct Account {
  std::atomic<int64_t> held{0};
  std::atomic<int64_t> peak{0};
  std::atomic<int64_t> limit{std::numeric_limits<int64_t>::max()};
  std::atomic<int64_t> owners{1};

  void release() {
    if (owners.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      delete this;
    }
  }
};

// The account that this thread allocates on.
thread_local Account* current = nullptr;

// What stands in front of a tensor's memory: the account that it is booked on, or none. As long as libtorch's alignment, so that what follows
// has that too. In front and not beside, as parts of libtorch free by the address alone.
struct alignas(c10::gAlignment) Header {
  Account* account;
  int64_t size;
};
static_assert(sizeof(Header) == c10::gAlignment);

void release(void* start) {
  if (start == nullptr) {
    return;
  }
  auto* header = static_cast<Header*>(start) - 1;
  if (header->account != nullptr) {
    header->account->held.fetch_sub(header->size, std::memory_order_relaxed);
    header->account->release();
  }
  c10::free_cpu(header);
}

// Refuses memory over the limit before it is taken.
void book(Account& account, int64_t size) {
  const auto limit = account.limit.load(std::memory_order_relaxed);
  const auto held = account.held.load(std::memory_order_relaxed);
  TORCH_CHECK_WITH(
      OutOfMemoryError,
      size <= limit && held <= limit - size,
      "out of memory: ", held, " bytes are held and ", size, " more asked for, the model's memory limit is ", limit, " bytes");
  const auto now = account.held.fetch_add(size, std::memory_order_relaxed) + size;
  auto peak = account.peak.load(std::memory_order_relaxed);
  while (now > peak && !account.peak.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
  }
  account.owners.fetch_add(1, std::memory_order_relaxed);
}

// In place of libtorch's own: the same memory, with what threads on an account allocate booked there.
class AccountedAllocator final : public c10::Allocator {
 public:
  at::DataPtr allocate(size_t bytes) override {
    const at::Device cpu(at::DeviceType::CPU);
    if (bytes == 0) {
      return {nullptr, nullptr, &release, cpu};
    }
    TORCH_CHECK(bytes <= static_cast<size_t>(std::numeric_limits<int64_t>::max()) - sizeof(Header), "out of memory: ", bytes, " bytes");
    auto* account = current;
    const auto size = static_cast<int64_t>(bytes);
    if (account != nullptr) {
      book(*account, size);
    }
    Header* header = nullptr;
    try {
      header = static_cast<Header*>(c10::alloc_cpu(sizeof(Header) + bytes));
    } catch (...) {
      if (account != nullptr) {
        account->held.fetch_sub(size, std::memory_order_relaxed);
        account->release();
      }
      throw;
    }
    *header = {account, size};
    return {header + 1, header + 1, &release, cpu};
  }

  at::DeleterFnPtr raw_deleter() const override {
    return &release;
  }

  void copy_data(void* to, const void* from, std::size_t count) const override {
    default_copy_data(to, from, count);
  }
};

AccountedAllocator allocator;

// Before `main`, as the registry is not safe to change while another thread allocates. Higher than libtorch's own, which has priority 0.
const bool registered = (c10::SetCPUAllocator(&allocator, 1), true);

c10::DeviceAllocator* cuda() {
  auto* device = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(c10::DeviceType::CUDA));
  return device != nullptr && device->initialized() ? device : nullptr;
}

template <typename Work>
bool attempt(Work work) {
  try {
    return work();
  } catch (...) {
    return false;
  }
}

} // namespace

extern "C" {

void* opusflow_account_new() {
  return registered ? new Account : nullptr;
}

void opusflow_account_drop(void* account) {
  static_cast<Account*>(account)->release();
}

// Books what this thread allocates from now on; null for nowhere. Gives what was booked on before.
void* opusflow_account_enter(void* account) {
  auto* before = current;
  current = static_cast<Account*>(account);
  return before;
}

int64_t opusflow_account_held(const void* account) {
  return static_cast<const Account*>(account)->held.load(std::memory_order_relaxed);
}

int64_t opusflow_account_peak(const void* account) {
  return static_cast<const Account*>(account)->peak.load(std::memory_order_relaxed);
}

void opusflow_account_restart_peak(void* account) {
  auto* it = static_cast<Account*>(account);
  it->peak.store(it->held.load(std::memory_order_relaxed), std::memory_order_relaxed);
}

void opusflow_account_limit(void* account, int64_t bytes) {
  static_cast<Account*>(account)->limit.store(bytes, std::memory_order_relaxed);
}

// Gives the GPUs' cached memory back to their driver; false where no GPU has been used.
bool opusflow_cuda_empty_cache() {
  return attempt([] {
    auto* device = cuda();
    if (device != nullptr) {
      device->emptyCache();
    }
    return device != nullptr;
  });
}

// Bytes on one GPU: in tensors now, in tensors at most since the last restart, and held by the allocator.
bool opusflow_cuda_memory(int8_t index, int64_t* held, int64_t* peak, int64_t* reserved) {
  return attempt([=] {
    auto* device = cuda();
    if (device == nullptr) {
      return false;
    }
    constexpr auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto stats = device->getDeviceStats(index);
    *held = stats.allocated_bytes[all].current;
    *peak = stats.allocated_bytes[all].peak;
    *reserved = stats.reserved_bytes[all].current;
    return true;
  });
}

// Bytes that one GPU has; 0 where it has not been used. It asks the driver.
int64_t opusflow_cuda_total(int8_t index) {
  int64_t total = 0;
  attempt([&] {
    auto* device = cuda();
    total = device == nullptr ? 0 : static_cast<int64_t>(device->getMemoryInfo(index).second);
    return true;
  });
  return total;
}

bool opusflow_cuda_restart_peak(int8_t index) {
  return attempt([=] {
    auto* device = cuda();
    if (device != nullptr) {
      device->resetPeakStats(index);
    }
    return device != nullptr;
  });
}

// Whether products and convolutions of f32 on GPUs may round their inputs to TF32. One switch for the process.
bool opusflow_allow_tf32(bool allowed) {
  return attempt([=] {
    at::globalContext().setAllowTF32CuBLAS(allowed);
    at::globalContext().setAllowTF32CuDNN(allowed);
    return at::globalContext().allowTF32CuBLAS() == allowed;
  });
}

bool opusflow_grad_enabled() {
  return c10::GradMode::is_enabled();
}

// Inference mode on this thread until the guard is given back, on the same thread.
void* opusflow_inference_begin() {
  return new c10::InferenceMode(true);
}

void opusflow_inference_end(void* guard) {
  delete static_cast<c10::InferenceMode*>(guard);
}

} // extern "C"
