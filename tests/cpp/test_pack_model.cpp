#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "rewrite_graphs.hpp"
#include "runtime/pack_model.hpp"

namespace {

using namespace rewrite_graphs;

// Packing gives back the memory of constants that it is done with, but not what others look at too.
TEST(PackModel, KeepsMemoryThatAnotherConstantShares) {
    constexpr size_t kBytes = 1 << 20;
    const std::shared_ptr<void> memory(std::aligned_alloc(4096, kBytes), std::free);
    auto* data = static_cast<char*>(memory.get());
    std::memset(data, 0x3C, kBytes);  // 1.06 in f16, 0.01 in f32
    const auto within = [&](const ov::element::Type& type, const ov::Shape& shape, size_t at) {
        return std::make_shared<op::Constant>(type, shape, data + at, memory);
    };
    const auto x = activations({-1, 512});
    const ov::Shape whole{512, 512};
    ov::OutputVector outputs{make<op::Add>(x, within(ov::element::f32, whole, 0))};
    for (const size_t at : {kBytes / 8, kBytes / 2, kBytes / 4 * 3}) {
        const Value weights = f32(within(ov::element::f16, {128, 512}, at));
        outputs.push_back(make<op::MatMul>(x, weights, false, true));
    }
    const auto graph = model(outputs, {x});
    outputs.clear();  // which would hold the replaced layers
    const auto manifest = ovfast::pack_in_memory(graph, {});
    EXPECT_TRUE(manifest.packs());
    size_t lost = 0;
    for (size_t i = 0; i < kBytes; ++i) lost += data[i] != 0x3C;
    EXPECT_EQ(lost, 0U);
}

}  // namespace
