"""C++ sources that the tests of this room build."""

DOUBLE = """#include "kel.h"
extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream stream) {
    const float* __restrict x = inputs[0].ptr<const float>();
    float* __restrict y = outputs[0].ptr<float>();
    const std::int64_t n = inputs[0].numel();
#pragma omp parallel for simd num_threads(stream.threads)
    for (std::int64_t i = 0; i < n; ++i) y[i] = 2.0f * x[i] + 1.0f;
}
"""

# Forty accumulators of the widest vectors do not fit into 16 or 32 registers.
SPILLING = """#include "kel.h"
typedef float V __attribute__((vector_size(64), aligned(4)));
extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream) {
    const float* x = inputs[0].ptr<const float>();
    float* y = outputs[0].ptr<float>();
    V sums[40] = {};
    for (std::int64_t i = 0; i + 16 <= inputs[0].numel(); i += 16) {
        const V v = *(const V*)(x + i);
#pragma GCC unroll 40
        for (int j = 0; j < 40; ++j) sums[j] = sums[j] * v + x[j];
    }
    V sum = sums[0];
    for (int j = 1; j < 40; ++j) sum += sums[j];
    *(V*)y = sum;
}
"""

EXP = """#include "kel.h"
#include <cmath>
extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream) {
    const float* x = inputs[0].ptr<const float>();
    float* y = outputs[0].ptr<float>();
    for (std::int64_t i = 0; i < inputs[0].numel(); ++i) y[i] = std::exp(x[i]);
}
"""

# Each instance of the template makes two more: the compiler never ends by itself in reasonable time.
ENDLESS = """#include "kel.h"
template <int depth, long path> struct Tree {
    static constexpr long value = Tree<depth - 1, 2 * path>::value + Tree<depth - 1, 2 * path + 1>::value;
};
template <long path> struct Tree<0, path> { static constexpr long value = path; };
extern "C" void kernel(const kel::Tensor*, kel::Tensor* outputs, kel::Stream) { outputs[0].ptr<long>()[0] = Tree<40, 1>::value; }
"""
