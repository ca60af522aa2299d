// What this CPU can do at most: bandwidth of each memory level and multiply-add rates, by one thread and by several.
//
// Usage: cpu_ceilings ROUNDS MILLISECONDS TEST...      with TEST = pattern:name:threads:bytes
//   pattern  read | copy | copy-streaming | triad     bandwidth over a working set of `bytes` a thread (all arrays together)
//            fma                                       `name` is the dtype and unit; `bytes` is ignored
// Prints one JSON object a line for each test and round: the best of as many trials as fit into MILLISECONDS. A trial is about a
// millisecond long, so that on a shared machine some trials run undisturbed; rounds go over all tests, so that no test meets only a bad
// moment. Threads should be bound to cores (OMP_PROC_BIND), or two of them may share one. Bytes are counted as STREAM counts them: what the loop reads and writes, without write-allocate traffic.
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <omp.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifndef VECTOR_BYTES
#define VECTOR_BYTES 16
#endif

namespace {

typedef float FloatV __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef double DoubleV __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef std::int64_t IntV __attribute__((vector_size(VECTOR_BYTES), may_alias));
constexpr std::size_t unroll = 8;

inline void forget() { asm volatile("" ::: "memory"); }

volatile std::int64_t sink;

struct Buffer {
    char* data = nullptr;
    std::size_t bytes = 0;
    explicit Buffer(std::size_t n) : bytes(n) {
        data = static_cast<char*>(mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (data == MAP_FAILED) {
            std::fprintf(stderr, "no memory for a working set of %zu bytes\n", n);
            std::exit(3);
        }
        madvise(data, n, MADV_HUGEPAGE);
        std::memset(data, 0, n);  // 0.0 in every format: the arithmetic below never meets a denormal
    }
    ~Buffer() { munmap(data, bytes); }
    Buffer(const Buffer&) = delete;
};

// Each thread's memory, kept from test to test and grown when a test needs more: touching a gigabyte takes longer than measuring with it.
std::vector<std::unique_ptr<Buffer>> arenas;

char* arena(std::size_t bytes) {
    std::unique_ptr<Buffer>& own = arenas[omp_get_thread_num()];
    if (!own || own->bytes < bytes) {
        own.reset();
        own = std::make_unique<Buffer>(bytes);
    }
    return own->data;
}

// Each pattern makes `passes` over `bytes` at `data` and returns the bytes it read and wrote.
double read_pass(char* data, std::size_t bytes, long passes) {
    const std::size_t n = bytes / sizeof(IntV) / unroll * unroll;
    const IntV* x = reinterpret_cast<const IntV*>(data);
    IntV sum[unroll] = {};
    for (long p = 0; p < passes; ++p) {
        for (std::size_t i = 0; i < n; i += unroll)
            for (std::size_t j = 0; j < unroll; ++j) sum[j] ^= x[i + j];
        forget();
    }
    for (std::size_t j = 1; j < unroll; ++j) sum[0] ^= sum[j];
    sink = sum[0][0];
    return static_cast<double>(passes) * n * sizeof(IntV);
}

double copy_pass(char* data, std::size_t bytes, long passes) {
    const std::size_t n = bytes / 2 / sizeof(IntV) / unroll * unroll;
    const IntV* x = reinterpret_cast<const IntV*>(data);
    IntV* y = reinterpret_cast<IntV*>(data) + n;
    for (long p = 0; p < passes; ++p) {
        for (std::size_t i = 0; i < n; i += unroll)
            for (std::size_t j = 0; j < unroll; ++j) y[i + j] = x[i + j];
        forget();
    }
    return static_cast<double>(passes) * 2 * n * sizeof(IntV);
}

inline void stream_store(IntV* to, IntV value) {
#if defined(__AVX512F__) && VECTOR_BYTES == 64
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), reinterpret_cast<__m512i>(value));
#elif defined(__AVX__) && VECTOR_BYTES == 32
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(value));
#elif defined(__SSE2__) && VECTOR_BYTES == 16
    _mm_stream_si128(reinterpret_cast<__m128i*>(to), reinterpret_cast<__m128i>(value));
#else
    *to = value;
#endif
}

double copy_streaming_pass(char* data, std::size_t bytes, long passes) {
    const std::size_t n = bytes / 2 / sizeof(IntV) / unroll * unroll;
    const IntV* x = reinterpret_cast<const IntV*>(data);
    IntV* y = reinterpret_cast<IntV*>(data) + n;
    for (long p = 0; p < passes; ++p) {
        for (std::size_t i = 0; i < n; i += unroll)
            for (std::size_t j = 0; j < unroll; ++j) stream_store(y + i + j, x[i + j]);
        forget();
    }
    return static_cast<double>(passes) * 2 * n * sizeof(IntV);
}

double triad_pass(char* data, std::size_t bytes, long passes) {
    const std::size_t n = bytes / 3 / sizeof(FloatV) / unroll * unroll;
    const FloatV* x = reinterpret_cast<const FloatV*>(data);
    const FloatV* y = x + n;
    FloatV* z = reinterpret_cast<FloatV*>(data) + 2 * n;
    for (long p = 0; p < passes; ++p) {
        for (std::size_t i = 0; i < n; i += unroll)
            for (std::size_t j = 0; j < unroll; ++j) z[i + j] = x[i + j] + 3.0f * y[i + j];
        forget();
    }
    return static_cast<double>(passes) * 3 * n * sizeof(FloatV);
}

// Independent chains of multiply-adds: enough to cover two units of latency four to six. Each returns the operations done.
// They start from different values, so that no compiler may take them for one, and all of them count in what is kept.
constexpr int chains = 12;

template <class T, class V>
std::int64_t sum_of_firsts(const V (&acc)[chains]) {
    T total = 0;
    for (const V& v : acc) {
        T first;
        std::memcpy(&first, &v, sizeof first);
        total += first;
    }
    return static_cast<std::int64_t>(total);
}

template <class V, class T>
double fma_chain(long passes) {
    V acc[chains];
    for (int j = 0; j < chains; ++j) acc[j] = V{} + static_cast<T>(1 + j);
    const V a = V{} + static_cast<T>(0.9999), b = V{} + static_cast<T>(0.0001);
    for (long p = 0; p < passes; ++p) {
#pragma GCC unroll 16
        for (int j = 0; j < chains; ++j) acc[j] = acc[j] * a + b;
    }
    sink = sum_of_firsts<T>(acc);
    return 2.0 * passes * chains * (sizeof(V) / sizeof(T));
}

#if defined(__AVX512BF16__)
double dot_bf16(long passes) {
    __m512 acc[chains];
    for (int j = 0; j < chains; ++j) acc[j] = _mm512_set1_ps(static_cast<float>(j));
    const __m512bh a = (__m512bh)_mm512_set1_epi16(0x3f80);
    for (long p = 0; p < passes; ++p)
#pragma GCC unroll 16
        for (int j = 0; j < chains; ++j) acc[j] = _mm512_dpbf16_ps(acc[j], a, a);
    sink = sum_of_firsts<float>(acc);
    return 2.0 * passes * chains * 32;
}
#endif

#if defined(__AVX512FP16__)
double fma_f16(long passes) {
    __m512h acc[chains];
    const __m512h a = _mm512_set1_ph(static_cast<_Float16>(0.5f));
    for (int j = 0; j < chains; ++j) acc[j] = _mm512_set1_ph(static_cast<_Float16>(static_cast<float>(j)));
    for (long p = 0; p < passes; ++p)
#pragma GCC unroll 16
        for (int j = 0; j < chains; ++j) acc[j] = _mm512_fmadd_ph(acc[j], a, a);
    sink = sum_of_firsts<_Float16>(acc);
    return 2.0 * passes * chains * 32;
}
#endif

#if defined(__AVX512VNNI__)
double dot_int8(long passes) {
    __m512i acc[chains];
    for (int j = 0; j < chains; ++j) acc[j] = _mm512_set1_epi32(j);
    const __m512i a = _mm512_set1_epi8(1);
    for (long p = 0; p < passes; ++p)
#pragma GCC unroll 16
        for (int j = 0; j < chains; ++j) acc[j] = _mm512_dpbusd_epi32(acc[j], a, a);
    sink = sum_of_firsts<std::int32_t>(acc);
    return 2.0 * passes * chains * 64;
}
#endif

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)
#define HAS_AMX 1
struct alignas(64) TileConfig {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t columns[16] = {};
    std::uint8_t rows[16] = {};
};

void load_tiles() {
    TileConfig config;
    for (int t = 0; t < 8; ++t) config.columns[t] = 64, config.rows[t] = 16;
    asm volatile("" : : "r"(&config) : "memory");  // g++ 12 takes the instruction to read eight bytes only and drops the other stores
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
}

// Four accumulators, as a blocked product of two by two tiles has them.
double amx_bf16(long passes) {
    load_tiles();
    for (long p = 0; p < passes; ++p) {
        _tile_dpbf16ps(0, 4, 5);
        _tile_dpbf16ps(1, 4, 5);
        _tile_dpbf16ps(2, 4, 5);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_release();
    return 2.0 * passes * 4 * 16 * 16 * 32;
}

double amx_int8(long passes) {
    load_tiles();
    for (long p = 0; p < passes; ++p) {
        _tile_dpbssd(0, 4, 5);
        _tile_dpbssd(1, 4, 5);
        _tile_dpbssd(2, 4, 5);
        _tile_dpbssd(3, 4, 5);
    }
    _tile_release();
    return 2.0 * passes * 4 * 16 * 16 * 64;
}

bool amx_allowed() {
    constexpr int request_permission = 0x1023, tile_data = 18;  // arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#endif

using Chain = double (*)(long);

Chain chain_named(const std::string& name) {
    if (name == "float32") return fma_chain<FloatV, float>;
    if (name == "float64") return fma_chain<DoubleV, double>;
#if defined(__AVX512BF16__)
    if (name == "bfloat16") return dot_bf16;
#endif
#if defined(__AVX512FP16__)
    if (name == "float16") return fma_f16;
#endif
#if defined(__AVX512VNNI__)
    if (name == "int8") return dot_int8;
#endif
#if defined(HAS_AMX)
    if (name == "bfloat16-amx" && amx_allowed()) return amx_bf16;
    if (name == "int8-amx" && amx_allowed()) return amx_int8;
#endif
    return nullptr;
}

using Pass = double (*)(char*, std::size_t, long);

Pass pass_named(const std::string& pattern) {
    if (pattern == "read") return read_pass;
    if (pattern == "copy") return copy_pass;
    if (pattern == "copy-streaming") return copy_streaming_pass;
    if (pattern == "triad") return triad_pass;
    return nullptr;
}

struct Test {
    std::string pattern, name;
    int threads = 1;
    std::size_t bytes = 0;
};

bool parse(const char* text, Test& test) {
    std::vector<std::string> parts(1);
    for (const char* c = text; *c; ++c)
        if (*c == ':') parts.emplace_back();
        else parts.back() += *c;
    if (parts.size() != 4) return false;
    test = {parts[0], parts[1], std::atoi(parts[2].c_str()), std::strtoull(parts[3].c_str(), nullptr, 10)};
    return test.threads > 0;
}

// Processor time of the calling thread: unlike the clock on the wall it stands still while another process has the core.
double thread_seconds() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Runs `work(passes)` on every thread at once, again and again until the time is over; the best work done per second, all threads.
// A trial takes as long as its slowest thread was busy; what the barriers take is not in it.
template <class Work>
double best_rate(int threads, double budget, const Work& work) {
    double best = 0, total = 0, longest = 0, spent = 0;
    const time_t deadline = time(nullptr) + 1 + static_cast<time_t>(8 * budget);  // a busy machine may stretch a test, but not for ever
    long passes = 1;
#pragma omp parallel num_threads(threads)
    {
        auto own = work();  // allocates and touches this thread's memory
#pragma omp barrier
#pragma omp single
        for (;;) {
            const double start = thread_seconds();
            own(passes);
            const double seconds = thread_seconds() - start;
            if (seconds > 0.8e-3) break;
            passes = std::max(passes + 1, static_cast<long>(passes * std::min(8.0, 1e-3 / seconds)));
        }
        while (spent < budget) {
#pragma omp barrier
#pragma omp single
            total = longest = 0;
            const double start = thread_seconds();
            const double done = own(passes);
            const double seconds = thread_seconds() - start;
#pragma omp critical
            {
                total += done;
                longest = std::max(longest, seconds);
            }
#pragma omp barrier
#pragma omp single
            {
                best = std::max(best, total / longest);
                spent += time(nullptr) > deadline ? budget : longest;
            }
        }
    }
    return best;
}

double run(const Test& test, double budget) {
    if (test.pattern == "fma") {
        const Chain chain = chain_named(test.name);
        return chain == nullptr ? 0 : best_rate(test.threads, budget, [&] { return [=](long passes) { return chain(passes); }; });
    }
    const Pass pass = pass_named(test.pattern);
    if (pass == nullptr || test.bytes < 4096) return 0;
    return best_rate(test.threads, budget, [&] {
        char* data = arena(test.bytes);
        return [=](long passes) { return pass(data, test.bytes, passes); };
    });
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4) {
        std::fprintf(stderr, "usage: cpu_ceilings ROUNDS MILLISECONDS pattern:name:threads:bytes...\n");
        return 2;
    }
    std::vector<Test> tests(argc - 3);
    for (int i = 3; i < argc; ++i)
        if (!parse(argv[i], tests[i - 3])) {
            std::fprintf(stderr, "not a test: %s\n", argv[i]);
            return 2;
        }
    int most_threads = 1;
    for (const Test& test : tests) most_threads = std::max(most_threads, test.threads);
    arenas.resize(most_threads);
    const double budget = std::atof(argv[2]) * 1e-3;
    for (int round = 0; round < std::atoi(argv[1]); ++round)
        for (const Test& test : tests) {
            const double rate = run(test, budget);
            std::printf("{\"round\": %d, \"pattern\": \"%s\", \"name\": \"%s\", \"threads\": %d, \"bytes\": %zu, \"rate\": %.6g}\n", round,
                        test.pattern.c_str(), test.name.c_str(), test.threads, test.bytes, rate);
            std::fflush(stdout);
        }
}
