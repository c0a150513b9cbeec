#include "ops/kv_store.hpp"

#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

namespace ovfast::ops {
namespace {

struct Registry {
    std::mutex mutex;
    std::map<int64_t, const KvStore*> stores;
    int64_t next = 1;
};

Registry& registry() {
    static Registry registry;
    return registry;
}

}  // namespace

KvStore::KvStore(std::vector<kernels::KvLayer> layers, size_t blocks)
    : layers_(std::move(layers)), blocks_(blocks) {
    const std::lock_guard lock(registry().mutex);
    number_ = registry().next++;
    registry().stores[number_] = this;
}

KvStore::~KvStore() {
    const std::lock_guard lock(registry().mutex);
    registry().stores.erase(number_);
}

const KvStore& KvStore::find(int64_t number) {
    const std::lock_guard lock(registry().mutex);
    const auto found = registry().stores.find(number);
    if (found == registry().stores.end()) {
        throw std::invalid_argument("there is no KV cache with the number " +
                                    std::to_string(number));
    }
    return *found->second;
}

}  // namespace ovfast::ops
