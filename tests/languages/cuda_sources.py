"""CUDA sources that the tests of this room build."""

SCALE = """#include "kel.h"

__global__ void __launch_bounds__(256) scale(const float* __restrict__ x, float* __restrict__ y, long n) {
    const long i = blockIdx.x * 256L + threadIdx.x;
    if (i < n) y[i] = 2.0f * x[i] / static_cast<float>(n);
}

extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream stream) {
    const long n = inputs[0].numel();
    scale<<<(n + 255) / 256, 256, 0, stream.cuda()>>>(inputs[0].ptr<const float>(), outputs[0].ptr<float>(), n);
}
"""

# Every conversion of kel.h in device code, and a template of which two instances are built.
HALVES = """#include "kel.h"

template <class T, int step>
__global__ void widen(const T* x, float* y, long n) {
    __shared__ T kept[128];
    for (long i = threadIdx.x; i < n; i += step) {
        kept[threadIdx.x % 128] = T(y[i]);
        __syncthreads();
        y[i] = x[i] + static_cast<float>(kept[127 - threadIdx.x % 128]);
    }
}

extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream stream) {
    const long n = inputs[0].numel();
    if (inputs[0].dtype == kel::DType::bfloat16)
        widen<kel::bf16, 64><<<1, 64, 0, stream.cuda()>>>(inputs[0].ptr<const kel::bf16>(), outputs[0].ptr<float>(), n);
    else
        widen<kel::f16, 128><<<1, 128, 0, stream.cuda()>>>(inputs[0].ptr<const kel::f16>(), outputs[0].ptr<float>(), n);
}
"""

# More state than 32 registers hold.
SPILLING = """#include "kel.h"

__global__ void __launch_bounds__(1024, 2) spill(const float* __restrict__ x, float* __restrict__ y) {
    __shared__ float shared[1000];
    float v[64];
#pragma unroll
    for (int i = 0; i < 64; ++i) v[i] = x[threadIdx.x + 1024 * i];
    shared[threadIdx.x % 1000] = v[0];
    __syncthreads();
    for (int round = 0; round < 100; ++round)
#pragma unroll
        for (int i = 0; i < 64; ++i) v[i] = v[i] * v[(i + 7) % 64] + shared[(threadIdx.x + round) % 1000];
#pragma unroll
    for (int i = 0; i < 64; ++i) y[threadIdx.x + 1024 * i] = v[i];
}

extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream stream) {
    spill<<<1, 1024, 0, stream.cuda()>>>(inputs[0].ptr<const float>(), outputs[0].ptr<float>());
}
"""
