// The process that runs one compiled kernel: it loads the shared library, maps the tensors that the judge sends, and calls.
//
// It knows nothing worth stealing: no expected output, no seed, no statistics. What it reports (nanoseconds) the judge checks by its own
// clock. usage: native_host SOCKET_FD LIBRARY THREADS HEAP_BYTES. One request, one reply, as packets on a SOCK_SEQPACKET socket; the
// layouts are mirrored in native.py.
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kel.h"

namespace {

enum Operation : std::uint32_t { op_ready = 0, op_map = 1, op_unmap = 2, op_define = 3, op_call = 4, op_ping = 5, op_hello = 6, op_fault = 100 };

struct Header {
    std::uint32_t operation;
    std::uint32_t argument;  // requests: region or workload or count; replies: 0 for success
    std::uint64_t nonce;     // a reply repeats the request's
};
struct MapRequest {
    Header header;
    std::uint64_t bytes;
    std::uint32_t writable;
    std::uint32_t reserved;
};
struct TensorRequest {
    std::uint32_t region;
    std::uint32_t reserved;
    std::uint64_t offset;
    kel::Tensor tensor;
};
struct DefineRequest {
    Header header;
    std::uint32_t inputs;
    std::uint32_t outputs;
    TensorRequest tensors[];
};
struct CallRequest {
    std::uint32_t workload;
    std::uint32_t pages;  // how far behind their places the outputs of this call lie
};
struct MapReply {
    Header header;
    std::uint64_t address;
};
struct FaultReply {
    Header header;
    std::uint64_t address;
    std::int32_t signal;
    std::int32_t region;  // -1: in none
};

constexpr std::uint32_t max_regions = 256, max_workloads = 256, max_tensors = 32, max_calls = 4096;
constexpr rlim_t shared_bytes = 16ull << 30;  // address space for the tensors that the judge maps
constexpr std::size_t max_packet = 96 * 1024;
constexpr int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};

struct Region {
    char* start;
    std::uint64_t bytes;
};
struct Workload {
    std::uint32_t inputs, outputs;
    kel::Tensor tensors[max_tensors];
};
using Kernel = void (*)(const kel::Tensor*, kel::Tensor*, kel::Stream);

int channel;
int threads;
Kernel kernel_function;
Region regions[max_regions];
Workload* workloads[max_workloads];
alignas(16) char packet[max_packet];
alignas(16) char handler_stack[64 * 1024];

[[noreturn]] void give_up(const char* why) {
    fprintf(stderr, "native_host: %s\n", why);
    _exit(120);
}

void reply(const void* data, std::size_t bytes) {
    if (send(channel, data, bytes, MSG_NOSIGNAL) != static_cast<ssize_t>(bytes)) give_up("the judge is gone");
}

// Says where it hurt, then lets the default action end the process.
void on_fault(int number, siginfo_t* info, void*) {
    FaultReply fault{{op_fault, 1, 0}, reinterpret_cast<std::uint64_t>(info->si_addr), number, -1};
    for (std::uint32_t i = 0; i < max_regions; ++i) {
        const std::uint64_t start = reinterpret_cast<std::uint64_t>(regions[i].start);
        if (start != 0 && fault.address >= start && fault.address - start < regions[i].bytes) fault.region = static_cast<std::int32_t>(i);
    }
    send(channel, &fault, sizeof fault, MSG_NOSIGNAL);
    signal(number, SIG_DFL);
    raise(number);
}

void watch_faults() {
    stack_t stack{};
    stack.ss_sp = handler_stack;
    stack.ss_size = sizeof handler_stack;
    sigaltstack(&stack, nullptr);
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESETHAND;
    for (const int number : faults) sigaction(number, &action, nullptr);
}

void limit(int what, rlim_t value) {
    rlimit bound{value, value};
    if (setrlimit(static_cast<__rlimit_resource>(what), &bound) != 0) give_up("a limit cannot be set");
}

// Makes the code and the read-only tables of what is loaded so far (this program, the C library, the dynamic linker, the vDSO) what they
// are for good: mseal(2), Linux 6.10 and later. Before that the judge's own clock is the only guard.
int seal_object(dl_phdr_info* object, std::size_t, void*) {
    constexpr long mseal = 462;
    for (int i = 0; i < object->dlpi_phnum; ++i) {
        const ElfW(Phdr)& part = object->dlpi_phdr[i];
        const bool constant = (part.p_type == PT_LOAD && (part.p_flags & PF_W) == 0) || part.p_type == PT_GNU_RELRO;
        if (!constant) continue;
        const std::uintptr_t first = (object->dlpi_addr + part.p_vaddr) & ~std::uintptr_t{4095};
        const std::uintptr_t end = object->dlpi_addr + part.p_vaddr + part.p_memsz;
        // The end of relocated read-only data is rounded down, as the dynamic linker protects it.
        const std::uintptr_t last = part.p_type == PT_LOAD ? (end + 4095) & ~std::uintptr_t{4095} : end & ~std::uintptr_t{4095};
        if (last > first) syscall(mseal, first, last - first, 0ul);
    }
    return 0;
}

// From here on no memory becomes executable: what runs is what was loaded. For all threads, those of the library's constructors too.
void forbid_new_code() {
#if defined(__x86_64__)
    constexpr std::uint32_t architecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
    constexpr std::uint32_t architecture = AUDIT_ARCH_AARCH64;
#else
#error "no system-call filter for this architecture"
#endif
    constexpr std::uint32_t refuse = SECCOMP_RET_ERRNO | EPERM, protection = offsetof(seccomp_data, args[2]);
    sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, architecture, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_execve, 7, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 6, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pkey_mprotect, 5, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, protection),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, refuse),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog program{sizeof steps / sizeof steps[0], steps};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);  // the sandbox has done that already, and forbids to ask
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0) give_up("new code cannot be forbidden");
}

void map(const MapRequest& request, int fd) {
    const std::uint32_t index = request.header.argument;
    if (fd < 0 || index >= max_regions || regions[index].start != nullptr) give_up("a bad map request");
    const int protection = request.writable != 0 ? PROT_READ | PROT_WRITE : PROT_READ;
    void* start = mmap(nullptr, request.bytes, protection, MAP_SHARED | MAP_POPULATE, fd, 0);
    close(fd);
    if (start == MAP_FAILED) give_up("memory cannot be mapped");
    regions[index] = {static_cast<char*>(start), request.bytes};
    const MapReply answer{{op_map, 0, request.header.nonce}, reinterpret_cast<std::uint64_t>(start)};
    reply(&answer, sizeof answer);
}

void define(const DefineRequest& request, std::size_t bytes) {
    const std::uint32_t index = request.header.argument, count = request.inputs + request.outputs;
    if (index >= max_workloads || request.inputs > max_tensors || count > max_tensors) give_up("a bad workload");
    if (bytes != sizeof(DefineRequest) + count * sizeof(TensorRequest)) give_up("a workload of the wrong length");
    if (workloads[index] == nullptr) workloads[index] = static_cast<Workload*>(calloc(1, sizeof(Workload)));
    Workload& workload = *workloads[index];
    workload.inputs = request.inputs;
    workload.outputs = request.outputs;
    for (std::uint32_t i = 0; i < count; ++i) {
        const TensorRequest& tensor = request.tensors[i];
        if (tensor.region >= max_regions || tensor.offset > regions[tensor.region].bytes) give_up("a tensor outside its region");
        workload.tensors[i] = tensor.tensor;
        workload.tensors[i].data = regions[tensor.region].start + tensor.offset;
    }
}

std::uint64_t now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<std::uint64_t>(time.tv_sec) * 1000000000u + static_cast<std::uint64_t>(time.tv_nsec);
}

// Signals reach this thread only while it is in the kernel: a candidate's handler never runs in its stead at other times.
void block_signals(int how) {
    sigset_t all;
    sigfillset(&all);
    for (const int number : faults) sigdelset(&all, number);
    pthread_sigmask(how, &all, nullptr);
}

void call(const Header& request, const CallRequest* calls) {
    struct {
        Header header;
        std::uint64_t nanoseconds[max_calls];
    } static answer;
    answer.header = {op_call, 0, request.nonce};
    const kel::Stream stream{nullptr, threads, 0};
    for (std::uint32_t i = 0; i < request.argument; ++i) {
        if (calls[i].workload >= max_workloads || workloads[calls[i].workload] == nullptr) give_up("an unknown workload");
        Workload copy = *workloads[calls[i].workload];
        for (std::uint32_t j = copy.inputs; j < copy.inputs + copy.outputs; ++j) {
            copy.tensors[j].data = copy.tensors[j].ptr<char>() + std::uint64_t{calls[i].pages} * 4096;
        }
        block_signals(SIG_UNBLOCK);
        const std::uint64_t start = now();
        kernel_function(copy.tensors, copy.tensors + copy.inputs, stream);
        answer.nanoseconds[i] = now() - start;
        block_signals(SIG_SETMASK);
    }
    reply(&answer, sizeof(Header) + request.argument * sizeof(std::uint64_t));
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 5) return 121;
    channel = atoi(argv[1]);
    threads = atoi(argv[3]);
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_FSIZE, 1 << 20);
    limit(RLIMIT_NOFILE, 256);
    const rlim_t heap = strtoull(argv[4], nullptr, 10);
    limit(RLIMIT_DATA, heap);
    limit(RLIMIT_AS, heap + shared_bytes);
    watch_faults();
    dl_iterate_phdr(seal_object, nullptr);
    const Header hello{op_hello, 0, 0};
    reply(&hello, sizeof hello);
    void* library = dlopen(argv[2], RTLD_NOW | RTLD_LOCAL);
    kernel_function = library != nullptr ? reinterpret_cast<Kernel>(dlsym(library, "kernel")) : nullptr;
    if (kernel_function == nullptr) {
        fprintf(stderr, "the library cannot be loaded: %s\n", dlerror());
        return 122;
    }
    forbid_new_code();
    block_signals(SIG_SETMASK);
    const Header ready{op_ready, 0, 0};
    reply(&ready, sizeof ready);
    for (;;) {
        iovec piece{packet, sizeof packet};
        alignas(cmsghdr) char ancillary[CMSG_SPACE(sizeof(int))];
        msghdr message{};
        message.msg_iov = &piece;
        message.msg_iovlen = 1;
        message.msg_control = ancillary;
        message.msg_controllen = sizeof ancillary;
        const ssize_t bytes = recvmsg(channel, &message, MSG_CMSG_CLOEXEC);
        if (bytes == 0) _exit(0);
        if (bytes < static_cast<ssize_t>(sizeof(Header))) give_up("a bad packet");
        int fd = -1;
        const cmsghdr* control = CMSG_FIRSTHDR(&message);
        if (control != nullptr && control->cmsg_level == SOL_SOCKET && control->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(control), sizeof fd);
        const Header header = *reinterpret_cast<const Header*>(packet);
        Header answer{header.operation, 0, header.nonce};
        switch (header.operation) {
            case op_map:
                map(*reinterpret_cast<const MapRequest*>(packet), fd);
                continue;
            case op_unmap:
                if (header.argument >= max_regions || regions[header.argument].start == nullptr) give_up("a bad unmap request");
                munmap(regions[header.argument].start, regions[header.argument].bytes);
                regions[header.argument] = {};
                break;
            case op_define:
                define(*reinterpret_cast<const DefineRequest*>(packet), static_cast<std::size_t>(bytes));
                break;
            case op_call:
                if (header.argument > max_calls || bytes != static_cast<ssize_t>(sizeof header + header.argument * sizeof(CallRequest))) {
                    give_up("a bad call request");
                }
                call(header, reinterpret_cast<const CallRequest*>(packet + sizeof header));
                continue;
            case op_ping:
                break;
            default:
                give_up("an unknown request");
        }
        reply(&answer, sizeof answer);
    }
}
